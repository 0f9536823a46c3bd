"""The tensors that parameterise a distribution: where a gradient estimate enters the graph above it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, OneHotCategorical

from advrl.estimators.base import base_of, name_of


def parameters_of(distribution: Distribution) -> list[Tensor]:
    """The tensors inside a distribution that require a gradient, those of nested distributions included."""
    found: dict[int, Tensor] = {}
    for value in vars(distribution).values():
        if isinstance(value, Distribution):
            found |= {id(t): t for t in parameters_of(value)}
        elif isinstance(value, Tensor) and value.requires_grad:
            found[id(value)] = value
    return list(found.values())


def sample_scores(distribution: Distribution, x: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The score of every sample by itself: pairs (parameter, d log p(x) / d parameter), both (n, *batch, *rest).

    The parameter is copied along n, so that a gradient can be put on every copy. For categories the parameter is their
    logits and the score one_hot(x) - p, whose expectation is 0 entry by entry.

    Raises:
        ValueError: if the distribution keeps its parameters where they are not found.
    """
    copies = distribution.expand(x.shape[: x.dim() - len(distribution.event_shape)])
    base = base_of(copies)
    if isinstance(base, (Categorical, OneHotCategorical)):
        if not base.logits.requires_grad:
            return []
        one_hot = x if isinstance(base, OneHotCategorical) else _one_hot(x, base.logits)
        return [(base.logits, (one_hot - base.probs).detach())]
    names = [*base.arg_constraints, "_unbroadcasted_scale_tril"]
    nodes = [t for name in names if isinstance(t := vars(base).get(name), Tensor) and t.requires_grad]
    if not nodes and any(t.requires_grad for t in parameters_of(distribution)):
        raise ValueError(
            f"the parameters of {name_of(distribution)} are not at hand sample by sample: use leave_one_out"
        )
    log_prob = copies.log_prob(x)
    scores = torch.autograd.grad(log_prob.sum(), nodes, retain_graph=True, allow_unused=True) if nodes else ()
    return [(node, score) for node, score in zip(nodes, scores, strict=True) if score is not None]


def _one_hot(x: Tensor, like: Tensor) -> Tensor:
    return torch.zeros_like(like).scatter_(-1, x.long().unsqueeze(-1), 1.0)
