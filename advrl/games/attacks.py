r"""Adversarial examples: an opponent who moves each input by at most epsilon in every coordinate, to raise the loss.

For a linear model with logit a(x) = w.x + b and labels s = +-1, every loss that falls in the margin s a is largest at
x - epsilon s sign(w), where the margin is less by exactly epsilon |w|_1: Goodfellow, Shlens & Szegedy (2015), section
5. One step along the gradient's sign (FGSM) finds it, and training on the worst loss is a two-player game. For other
models projected steps (PGD) climb: Madry et al. (2018), section 2. Shapes: B batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import softplus

from advrl.checks import integer, number, same_shape

BatchLoss = Callable[[Tensor], Tensor]  # inputs (B, *event) to losses (B,)


def fgsm(loss: BatchLoss, x: Tensor, epsilon: float, bounds: tuple[float, float] | None = None) -> Tensor:
    """(B, *event) the inputs moved by epsilon along the sign of the loss's gradient.

    Args:
        loss: inputs to losses (B,), of which each must depend on its own input alone.
        x: (B, *event) inputs.
        epsilon: how far each coordinate may move.
        bounds: of the inputs' range, to which the result is clamped.
    """
    number("epsilon", epsilon, 0)
    return _inside(x + epsilon * _slope(loss, x).sign(), bounds)


def pgd(
    loss: BatchLoss,
    x: Tensor,
    epsilon: float,
    steps: int = 10,
    step: float | None = None,
    bounds: tuple[float, float] | None = None,
    random_start: bool = True,
) -> Tensor:
    """(B, *event) inputs within epsilon of x, of higher loss: steps along the gradient's sign, each projected back.

    Args:
        loss: inputs to losses (B,), of which each must depend on its own input alone.
        x: (B, *event) inputs.
        epsilon: how far each coordinate may move.
        steps: how many.
        step: the size of each; 2.5 epsilon / steps if ``None``, enough to come from any start to any place.
        bounds: of the inputs' range.
        random_start: from a uniform place within epsilon, drawn from the global generator, not from x.
    """
    number("epsilon", epsilon, 0)
    size = 2.5 * epsilon / integer("steps", steps) if step is None else number("step", step, 0, exclusive=True)
    at = x + epsilon * (2 * torch.rand_like(x) - 1) if random_start else x
    for _ in range(steps):
        at = at + size * _slope(loss, at).sign()
        at = _inside(torch.minimum(torch.maximum(at, x - epsilon), x + epsilon), bounds)
    return _inside(at, bounds).detach()


def linear_worst_loss(x: Tensor, labels: Tensor, weight: Tensor, bias: Tensor | float, epsilon: float) -> Tensor:
    """(B,) the largest logistic loss within epsilon: softplus(epsilon |w|_1 - s (w.x + b)). Differentiable in w and b.

    Args:
        x: (B, n) inputs.
        labels: (B,) s, of 1 and -1.
        weight: (n,) w.
        bias: () b.
        epsilon: how far each coordinate may move.
    """
    number("epsilon", epsilon, 0)
    logit = x @ weight + bias
    same_shape(labels=labels, logit=logit)
    return softplus(epsilon * weight.abs().sum() - labels * logit)


def _slope(loss: BatchLoss, x: Tensor) -> Tensor:
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        values = loss(x)
        if values.shape != x.shape[:1]:
            raise ValueError(f"loss must be (B,), one for each of {len(x)} inputs, got {tuple(values.shape)}")
        return torch.autograd.grad(values.sum(), x)[0]


def _inside(x: Tensor, bounds: tuple[float, float] | None) -> Tensor:
    return x if bounds is None else x.clamp(*bounds)
