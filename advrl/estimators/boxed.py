r"""The mean of score-function surrogates, with its first derivatives written out.

The surrogate of :mod:`advrl.estimators.kernels`, box * (c - b) + b with box = exp(log p - stop(log p)), has the mean
cost as value, and as first derivatives

    in log p:  box (c - b) / n,      in c:  box / n

which here are returned as (c - b) / n and 1 / n: autograd has fewer steps to record and to go back through, which is
what a small batch spends its time on. The box is in them as soon as somebody differentiates the derivative, so that all
higher ones are those of the surrogate. Shapes: n samples, *batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from advrl.checks import same_shape
from advrl.estimators.base import transformed
from advrl.estimators.kernels import dice, score_function


class _Boxed(Function):
    @staticmethod
    def forward(ctx: Any, log_prob: Tensor, cost: Tensor, baseline: Tensor | float) -> Tensor:
        ctx.save_for_backward(log_prob, cost)
        ctx.baseline = baseline
        return cost.mean(0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None]:
        log_prob, cost = ctx.saved_tensors
        share = gradient / len(cost)
        if torch.is_grad_enabled():
            share = share * dice(log_prob)
        centred = cost if isinstance(ctx.baseline, float) and not ctx.baseline else cost - ctx.baseline
        return share * centred, share.expand_as(cost) if ctx.needs_input_grad[1] else None, None


def boxed_mean(log_prob: Tensor, cost: Tensor, baseline: Tensor | float = 0.0) -> Tensor:
    """``score_function(log_prob, cost, baseline).mean(0)``, (*batch), sooner, for a baseline without gradient.

    Raises:
        ValueError: if the shapes differ.
    """
    same_shape(log_prob=log_prob, cost=cost)
    if transformed():
        return score_function(log_prob, cost, baseline).mean(0)
    value: Tensor = _Boxed.apply(log_prob, cost, baseline)  # type: ignore[no-untyped-call]
    return value
