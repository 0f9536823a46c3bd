r"""Exact answers for discrete distributions with few outcomes: the sum over all of them.

With p(x) differentiable in the parameters, grad E[c] = grad sum_x p(x) c(x); and the variance of any estimate that is a
function of one outcome (the score function with a constant baseline, straight-through) is a sum as well.
Shapes: R replicates, K outcomes, *batch and *event of the distribution, *shape of its parameters.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Binomial, Categorical, Distribution, Independent, OneHotCategorical

from advrl.estimators import Estimator, StraightThrough
from advrl.lab.closed_forms import ScoreMoments
from advrl.lab.problem import Problem

LIMIT = 4096  # outcomes of one distribution


def outcomes(distribution: Distribution) -> int | None:
    """How many outcomes one entry of the batch has, with its event dimensions; ``None`` for what cannot be listed."""
    base, independent = distribution, 0
    while isinstance(base, Independent):
        base, independent = base.base_dist, independent + base.reinterpreted_batch_ndims
    each = _outcomes_each(base)
    if each is None:
        return None
    shape = base.batch_shape
    return int(each ** shape[len(shape) - independent :].numel())


def support(distribution: Distribution) -> Tensor:
    """All outcomes of one entry of the batch, (K, *event).

    Raises:
        ValueError: if they cannot be listed, or are more than 4096.
    """
    number = outcomes(distribution)
    if number is None or number > LIMIT:
        what = "its outcomes cannot be listed" if number is None else f"it has {number:,} outcomes, more than {LIMIT:,}"
        raise ValueError(f"{distribution} cannot be enumerated: {what}")
    base = distribution
    while isinstance(base, Independent):
        base = base.base_dist
    like = next(t for t in (vars(base).get("logits"), base.mean) if t is not None)
    each = _outcomes_each(base)
    assert each is not None
    variables = distribution.event_shape.numel()
    if isinstance(base, OneHotCategorical):
        variables //= base.event_shape[-1]
    digits = torch.arange(number, device=like.device)
    powers = torch.tensor([each**i for i in reversed(range(variables))], device=like.device)
    table = (digits[:, None] // powers) % each  # (K, variables): the digits of 0 ... K - 1 in base ``each``
    if isinstance(base, OneHotCategorical):
        rows = torch.eye(each, dtype=like.dtype, device=like.device)
        return rows[table].reshape(number, *distribution.event_shape)
    if isinstance(base, Categorical):
        return table.reshape(number, *distribution.event_shape)
    return table.to(like.dtype).reshape(number, *distribution.event_shape)


def _outcomes_each(base: Distribution) -> int | None:
    """Outcomes of one variable."""
    if isinstance(base, Bernoulli):
        return 2
    if isinstance(base, Binomial):
        return int(base.total_count.max()) + 1
    if isinstance(base, OneHotCategorical):
        return int(base.event_shape[-1])
    return int(base.probs.shape[-1]) if isinstance(base, Categorical) else None


def expectation(distribution: Distribution, cost: Callable[[Tensor], Tensor]) -> Tensor:
    """E[cost(x)] per entry of the batch, (*batch), differentiable to any order; the cost sees (K, *batch, *event)."""
    x = support(distribution)
    shape = distribution.batch_shape
    x = x.reshape(len(x), *[1] * len(shape), *distribution.event_shape).expand(
        len(x), *shape, *distribution.event_shape
    )
    return (distribution.log_prob(x).exp() * cost(x)).sum(0)


def exact_gradient(problem: Problem) -> Tensor:
    """The gradient at a problem's node, (*shape)."""
    leaf = problem.node.detach()[None].clone().requires_grad_()
    value = expectation(problem.distribution(leaf), problem.cost).mean()
    return torch.autograd.grad(value, leaf)[0][0]


def score_expectations(problem: Problem) -> ScoreMoments:
    """What the score function's exact variance takes, per coordinate of the node, for a problem of batch shape ()."""
    value, prob, score = _outcome_scores(problem)

    def mean(x: Tensor) -> Tensor:
        return prob @ x

    f = value[:, None].expand_as(score)
    return ScoreMoments(
        *(mean(x).double().cpu().numpy() for x in (f, f**2, score**2, f * score, f * score**2, f**2 * score**2))
    )


def exact_variance(problem: Problem) -> Callable[[Estimator], float | None]:
    """Closed forms for batch shape (): Score with a constant baseline or leave-one-out, StraightThrough."""
    moments = score_expectations(problem)

    def variance(estimator: Estimator) -> float | None:
        if type(estimator) is StraightThrough:
            return float(straight_through_moments(problem)[1].sum() / estimator.n)
        return moments.variance(estimator)

    return variance


def straight_through_moments(problem: Problem) -> tuple[Tensor, Tensor]:
    """Mean and variance of one draw of the straight-through gradient, (P,) each, by enumeration."""
    leaf, distribution, x, prob = _per_outcome(problem)
    mean = distribution.mean
    through = (x + mean - mean.detach()).requires_grad_()
    (gradient,) = torch.autograd.grad(problem.cost(through[None]).sum(), leaf)
    flat = gradient.reshape(len(x), -1).double()
    average = prob @ flat
    return average.cpu(), (prob @ (flat - average) ** 2).cpu()


def _per_outcome(problem: Problem) -> tuple[Tensor, Distribution, Tensor, Tensor]:
    """One replicate per outcome: their nodes (K, *shape), distribution of batch (K,), outcomes, and probabilities."""
    node = problem.node.detach()
    x = support(problem.distribution(node[None]))
    leaf = node.expand(len(x), *node.shape).clone().requires_grad_()
    distribution = problem.distribution(leaf)
    prob = distribution.log_prob(x).detach().double().exp()
    return leaf, distribution, x, prob


def _outcome_scores(problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """(K,) costs, (K,) probabilities and (K, P) scores of every outcome, float64."""
    leaf, distribution, x, prob = _per_outcome(problem)
    (score,) = torch.autograd.grad(distribution.log_prob(x).sum(), leaf)
    value = problem.cost(x[None])[0].detach()
    return value.double(), prob, score.reshape(len(x), -1).double()
