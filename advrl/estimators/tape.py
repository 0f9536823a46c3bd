r"""A tape of several random draws: each cost is charged to the draws before it.

For draws x_1 ... x_m and costs c_1 ... c_l, some made between draws,

    loss = sum_j box(sum_{k before j} log p(x_k)) c_j - sum_k (box(log p(x_k)) - 1) b_k

has the costs' sum as its value and derivatives of its expectation to any order: Schulman et al. (2015), theorem 1;
Foerster et al. (2018), eq. 9; the baseline's term: Mao et al. (2019), eq. 9. A draw k that is reparameterised or
relaxed needs no box: its gradient goes through x_k. b_k sees the sum of the costs that come after draw k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

from advrl.estimators.base import Draw, Estimator
from advrl.estimators.baselines import optimal_baseline
from advrl.estimators.kernels import dice
from advrl.estimators.score import Score


@dataclass(frozen=True, eq=False)
class _Node:
    x: Tensor
    draw: Draw
    estimator: Score
    log_prob: Tensor  # (n, *batch), or (*batch) for n = 1


class Tape:
    """Several draws with estimators of their own, and costs between and after them.

    A draw of n > 1 samples has its sample axis first, and what depends on it keeps the axes that it has from there; one
    of n = 1 has none. A cost has one entry per sample and batch row, and row b may depend on row b of the draws
    alone::

        with Tape() as t:
            h = t.sample(Bernoulli(logits=encoder(x)), Score(4, leave_one_out))   # (4, B)
            y = t.sample(Normal(mean(h), 1.0), Path())                            # (4, B)
            t.cost(penalty(h), after=[h])
            t.cost(error(x, y))
        t.loss().backward()
    """

    def __init__(self) -> None:
        self._nodes: list[_Node] = []
        self._drawn: list[Tensor] = []
        self._costs: list[tuple[Tensor, list[_Node]]] = []

    def __enter__(self) -> Tape:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def sample(self, distribution: Distribution, estimator: Estimator) -> Tensor:
        """Draw from a distribution, which may depend on earlier draws.

        Args:
            distribution: any that the estimator treats.
            estimator: ``Score`` with or without a baseline, or one whose gradient goes through the draw (``Path``,
                ``Antithetic``, ``GumbelSoftmax``, ``StraightThrough``).

        Returns:
            (n, *batch, *event), or (*batch, *event) where the estimator makes one sample.

        Raises:
            ValueError: if the estimator cannot treat the distribution.
            TypeError: if its surrogate is more than a box or the draw's own gradient.
        """
        through = type(estimator).surrogate is Estimator.surrogate
        boxed = type(estimator) is Score and estimator.advantage is None and estimator.baseline is not optimal_baseline
        if not (through or boxed):
            raise TypeError(
                "a tape takes Score with a baseline of the costs, or an estimator whose gradient goes through the draw "
                f"(Path, Antithetic, GumbelSoftmax, StraightThrough), not {estimator}"
            )
        draw = estimator.draw(distribution)
        x = draw.x.squeeze(0) if len(draw.x) == 1 else draw.x
        if isinstance(estimator, Score):
            log_prob = distribution.log_prob(x)
            self._nodes.append(_Node(x, draw, estimator, log_prob))
        self._drawn.append(x)
        return x

    def cost(self, value: Tensor, after: Sequence[Tensor] | None = None) -> None:
        """Add a cost, charged to the draws made so far, or to those in ``after`` (what :meth:`sample` returned).

        Args:
            value: one entry for every sample and batch row of the draws that it is charged to, (n, *batch).
            after: the draws that it depends on; all so far if ``None``.

        Raises:
            ValueError: if it has not one entry per draw, or ``after`` holds what was not drawn here.
        """
        charged = list(self._nodes)
        if after is not None:
            for x in after:
                if not any(x is drawn for drawn in self._drawn):
                    raise ValueError(f"after= takes what this tape's sample() returned, got shape {tuple(x.shape)}")
            charged = [node for node in self._nodes if any(node.x is x for x in after)]
        for node in charged:
            if not _covers(value.shape, node.log_prob.shape):
                raise ValueError(
                    f"a cost needs one entry for each draw it is charged to, shape {tuple(node.log_prob.shape)} behind "
                    f"any axes of later samples, got {tuple(value.shape)}: keep it per sample, or name the draws that "
                    "it depends on with after="
                )
        self._costs.append((value, charged))

    def loss(self) -> Tensor:
        """The surrogate, a scalar: the sum of the costs, each averaged over its entries.

        Raises:
            ValueError: if there is no cost.
        """
        if not self._costs:
            raise ValueError("the tape has no cost: call cost(value) after the draws it depends on")
        total = sum((_boxed(value, nodes).mean() for value, nodes in self._costs[1:]), _boxed(*self._costs[0]).mean())
        for node in self._nodes:
            later = [_down_to(value.detach(), node.log_prob.shape) for value, nodes in self._costs if node in nodes]
            if not later or node.estimator.baseline is None:
                continue
            downstream = torch.stack(later).sum(0)
            single = len(node.draw.x) == 1
            baseline = node.estimator.baseline_of(node.draw, downstream.unsqueeze(0) if single else downstream)
            if single and isinstance(baseline, Tensor) and baseline.dim() > downstream.dim():
                baseline = baseline.squeeze(0)
            total = total - ((dice(node.log_prob) - 1) * baseline).mean()
        return total


def _boxed(value: Tensor, nodes: list[_Node]) -> Tensor:
    if not nodes:
        return value
    log_prob = nodes[0].log_prob
    for node in nodes[1:]:
        log_prob = log_prob + node.log_prob
    return dice(log_prob) * value


def _covers(shape: torch.Size, needed: torch.Size) -> bool:
    """Whether ``shape`` ends in ``needed``, entry for entry (1 in ``needed`` stands for any)."""
    ending = shape[len(shape) - len(needed) :]
    return len(shape) >= len(needed) and all(b in (1, a) for a, b in zip(ending, needed, strict=True))


def _down_to(value: Tensor, shape: torch.Size) -> Tensor:
    """``value`` averaged over the axes that ``shape`` lacks or has as 1."""
    value = value.mean(tuple(range(value.dim() - len(shape)))) if value.dim() > len(shape) else value
    for axis, size in enumerate(shape):
        if size == 1 and value.shape[axis] != 1:
            value = value.mean(axis, keepdim=True)
    return value
