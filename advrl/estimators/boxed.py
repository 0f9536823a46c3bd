r"""The mean of score-function surrogates, with its first derivatives written out.

The surrogate of :mod:`advrl.estimators.kernels`, box * (c - b) + b with box = exp(log p - stop(log p)), has the mean
cost as value, and as first derivatives

    in theta:  (box (c - b) / n) d log p / d theta,      in c:  box / n

which here are returned with 1 for the box and with the score of :mod:`advrl.estimators.laws`: autograd has fewer steps
to record and to go back through, which is what a small batch spends its time on, and a large one reads its samples
three times in place of ten. The box and log p come in as soon as somebody differentiates the derivative, so that all
higher ones are those of the surrogate. Shapes: n samples, *batch, *event.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.distributions import Distribution

from advrl.checks import same_shape
from advrl.estimators.base import base_of, transformed
from advrl.estimators.kernels import dice, score_function
from advrl.estimators.laws import Law, law_of, spread


class _Boxed(Function):
    @staticmethod
    def forward(ctx: Any, cost: Tensor, baseline: Tensor | float, law: Law, x: Tensor, *nodes: Tensor) -> Tensor:
        ctx.save_for_backward(cost, x, *nodes)
        ctx.baseline, ctx.law = baseline, law
        return cost.mean(0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        cost, x, *nodes = ctx.saved_tensors
        baseline, law, of_cost = ctx.baseline, ctx.law, ctx.needs_input_grad[0]
        if torch.is_grad_enabled():  # somebody may differentiate again
            cost, *nodes = (t.view_as(t) for t in (cost, *nodes))  # one may have been made of another
            wanted = [t for t in (cost, *nodes) if t.requires_grad]
            surrogate = score_function(law.log_prob(x, *nodes), cost, baseline).mean(0)
            found = iter(torch.autograd.grad(surrogate, wanted, gradient, create_graph=True))
            first, *rest = [next(found) if t.requires_grad else None for t in (cost, *nodes)]
            return first, None, None, None, *rest
        share = gradient / len(cost)
        centred = cost if isinstance(baseline, float) and not baseline else cost - baseline
        each = spread(share, law.event)
        pulled = [None if t is None else t * each for t in law.pull(x, centred, *nodes)]
        return share.expand_as(cost) if of_cost else None, None, None, None, *pulled


def boxed(law: Law, nodes: tuple[Tensor, ...], x: Tensor, cost: Tensor, baseline: Tensor | float = 0.0) -> Tensor:
    """``score_function(log_prob, cost, baseline).mean(0)``, (*batch), sooner, for a baseline without gradient.

    Args:
        law: whose samples they are, with ``nodes`` for parameters.
        nodes: its parameters.
        x: (n, *batch, *event) samples, without gradient.
        cost: (n, *batch)
        baseline: broadcastable to (n, *batch).
    """
    if transformed():
        return score_function(law.log_prob(x, *nodes), cost, baseline).mean(0)
    value: Tensor = _Boxed.apply(cost, baseline, law, x, *nodes)  # type: ignore[no-untyped-call]
    return value


class _Weighted(Function):
    @staticmethod
    def forward(ctx: Any, log_prob: Tensor, cost: Tensor, baseline: Tensor | float, weight: Tensor | float) -> Tensor:
        ctx.save_for_backward(log_prob, cost)
        ctx.baseline, ctx.weight = baseline, weight
        return (cost * weight).sum(0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        log_prob, cost = ctx.saved_tensors
        share = (gradient * ctx.weight).expand_as(cost)
        if torch.is_grad_enabled():
            share = share * _box(log_prob)
        return share * (cost - ctx.baseline), share if ctx.needs_input_grad[1] else None, None, None


def _box(log_prob: Tensor) -> Tensor:
    """Of what may be impossible: log p = -inf, which differs from itself by nan, then has a weight of 0."""
    return dice(log_prob.clamp(min=torch.finfo(log_prob.dtype).min / 4))


def boxed_sum(log_prob: Tensor, cost: Tensor, baseline: Tensor | float, weight: Tensor | float) -> Tensor:
    """``(weight * score_function(log_prob, cost, baseline)).sum(0)``, (*batch), sooner.

    Args:
        log_prob: (n, *batch), -inf where the weight is 0.
        cost: (n, *batch)
        baseline: broadcastable to (n, *batch), without gradient.
        weight: likewise.

    Raises:
        ValueError: if the shapes differ.
    """
    same_shape(log_prob=log_prob, cost=cost)
    if transformed():
        return (weight * (_box(log_prob) * (cost - baseline) + baseline)).sum(0)
    value: Tensor = _Weighted.apply(log_prob, cost, baseline, weight)  # type: ignore[no-untyped-call]
    return value


def boxed_mean(log_prob: Tensor, cost: Tensor, baseline: Tensor | float = 0.0) -> Tensor:
    """``score_function(log_prob, cost, baseline).mean(0)``, (*batch), sooner, for a baseline without gradient."""
    return boxed_sum(log_prob, cost, baseline, 1 / len(cost))


def boxed_score(distribution: Distribution, x: Tensor, cost: Tensor, baseline: Tensor | float = 0.0) -> Tensor:
    """The same of draws x (n, *batch, *event) from a distribution."""
    found = law_of(distribution)
    if found is None:
        return boxed_mean(distribution.log_prob(x), cost, baseline)
    if distribution._validate_args:
        base_of(distribution)._validate_sample(x)
    law, nodes = found
    return boxed(law, nodes, x, cost, baseline)
