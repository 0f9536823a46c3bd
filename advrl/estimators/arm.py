r"""Antithetic pairs of coins: ARM, and DisARM, which integrates out what is left of the noise.

One uniform u per coin of log-odds l makes b = 1[u < sigma(l)] and its opposite b~ = 1[1 - u < sigma(l)], and

    ARM     d/dl E[c] = E[(c(b) - c(b~)) (1/2 - u)]                            Yin & Zhou (2019), theorem 1
    DisARM  d/dl E[c] = E[1/2 (c(b) - c(b~)) (b - b~) sigma(|l|)]              Dong, Mnih & Tucker (2020)

the latter being the former's expectation given the pair; Yin et al. (2020) found it as U2G. Second and higher
derivatives are those of the score function over both samples. Shapes: n pairs, *batch, *event.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd import Function
from torch.distributions import Distribution
from torch.nn.functional import softplus

from advrl.estimators.base import Cost, Draw, Estimator, _cost_of, transformed
from advrl.estimators.discrete import Parts, parts_of


@dataclass(frozen=True)
class Pairs(Draw):
    """Samples x (2n, *batch, *event), first all b, then all b~.

    Weight (n, *batch, *event) is what multiplies c(b) - c(b~) in the pair's gradient.
    """

    parts: Parts
    weight: Tensor


@dataclass(frozen=True)
class _Antithetic(Estimator):
    unbiased = True
    needs_gradient = False
    variables = "Bernoulli, Binomial"
    name: ClassVar[str]

    @property
    def evaluations(self) -> int:
        return 2 * self.n

    def check(self, distribution: Distribution) -> None:
        parts_of(self.name, distribution, binary=True)

    @abstractmethod
    def weigh(self, logits: Tensor, u: Tensor, difference: Tensor) -> Tensor:
        """What multiplies c(b) - c(b~), from u and b - b~, all (n, *logits)."""

    def draw(self, distribution: Distribution) -> Pairs:
        parts = parts_of(self.name, distribution, binary=True)
        with torch.no_grad():
            logits = parts.logits
            p = logits.sigmoid()
            u = torch.rand(self.n, *p.shape, dtype=p.dtype, device=p.device)
            pair = torch.cat([u < p, u > 1 - p]).to(p.dtype)
            weight = parts.decode(self.weigh(logits, u, pair[: self.n] - pair[self.n :]))
        return Pairs(parts.decode(pair), distribution, parts, weight)

    def surrogate(self, draw: Draw, cost: Cost) -> Tensor:
        assert isinstance(draw, Pairs)
        parts = draw.parts
        value = _cost_of(draw, cost)
        batch = parts.batch_dim
        node, x, weight = parts.node, draw.x, draw.weight
        if node.dim() != batch + 1:  # a dimension for the coins of one distribution, however many they have
            node, x, weight = (t.reshape(*t.shape[: t.dim() - node.dim() + batch], -1) for t in (node, x, weight))
        if transformed():
            return _paired(node, value, x, weight, parts.trials or 1)
        trials = parts.trials or 1
        surrogate: Tensor = _Paired.apply(node, value, x, weight, trials)  # type: ignore[no-untyped-call]
        return surrogate


def _paired(node: Tensor, cost: Tensor, x: Tensor, weight: Tensor, trials: int) -> Tensor:
    """The boxed mean of costs c (2n, *batch), with the pairs' first derivative in the place of its own.

    Args:
        node: (*batch, D) log-odds.
        cost: (2n, *batch)
        x: (2n, *batch, D) how many of the coins are 1.
        weight: (n, *batch, D) w.
        trials: coins for each number of x.

    Returns:
        (*batch)
    """
    n, step = len(weight), node - node.detach()
    linear, none = (x * step).sum(-1), softplus(node).sum(-1) * trials
    mean = (node.detach().sigmoid() * step).sum(-1) * trials
    box = (linear - (none - none.detach())).exp() - (linear - mean)  # less x - E[x], its derivative
    return (box * cost).mean(0) + ((cost[:n] - cost[n:]) * (weight * step).sum(-1)).sum(0) / n


class _Paired(Function):
    """The same, with its first derivative sum (c(b) - c(b~)) w / n written out, as in :mod:`advrl.estimators.boxed`."""

    @staticmethod
    def forward(ctx: Any, node: Tensor, cost: Tensor, x: Tensor, weight: Tensor, trials: int) -> Tensor:
        ctx.save_for_backward(node, cost, x, weight)
        ctx.trials = trials
        return cost.mean(0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        node, cost, x, weight = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody may differentiate again
            node, cost = node.view_as(node), cost.view_as(cost)  # the cost may have been made of the node
            wanted = [t for t, needed in ((node, ctx.needs_input_grad[0]), (cost, ctx.needs_input_grad[1])) if needed]
            surrogate = _paired(node, cost, x, weight, ctx.trials)
            found = iter(torch.autograd.grad(surrogate, wanted, gradient, create_graph=True))
            return next(found) if ctx.needs_input_grad[0] else None, next(found, None), None, None, None
        n = len(weight)
        of_cost = (gradient / (2 * n)).expand_as(cost) if ctx.needs_input_grad[1] else None
        difference = (cost[:n] - cost[n:]) * (gradient / n)
        return (difference.unsqueeze(-1) * weight).sum(0), of_cost, None, None, None


@dataclass(frozen=True)
class Arm(_Antithetic):
    """Augment, reinforce, merge: unbiased, for costs that need no derivative. Evaluates the cost 2n times.

    Better than two samples of the score function where the cost is far from 0, never better than :class:`DisArm`. A
    Binomial is the sum of its coins, which are drawn one by one. Right to any order.

    Args:
        n: antithetic pairs per distribution; the samples are (2n, *batch, *event).
    """

    name = "arm"

    def weigh(self, logits: Tensor, u: Tensor, difference: Tensor) -> Tensor:
        return 0.5 - u


@dataclass(frozen=True)
class DisArm(_Antithetic):
    """ARM without the noise that the pair does not show: unbiased, for costs that need no derivative.

    Evaluates the cost 2n times. A Binomial is the sum of its coins, which are drawn one by one. Right to any order.

    Args:
        n: antithetic pairs per distribution; the samples are (2n, *batch, *event).
    """

    name = "disarm"

    def weigh(self, logits: Tensor, u: Tensor, difference: Tensor) -> Tensor:
        return difference * (logits.abs().sigmoid() / 2)
