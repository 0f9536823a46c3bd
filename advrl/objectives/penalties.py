"""Penalties on the discriminator's slope: ``penalty(discriminator, real, fake) -> (B,)``, one value per sample.

Each takes a function from samples (B, *event) to logits (B,), and real and fake samples of that shape.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Discriminator = Callable[[Tensor], Tensor]
Penalty = Callable[[Discriminator, Tensor, Tensor], Tensor]


def r1(discriminator: Discriminator, real: Tensor, fake: Tensor) -> Tensor:
    """Squared norm of the logit's gradient at real samples: Mescheder, Geiger & Nowozin (2018), eq. 9.

    Their loss is gamma / 2 times its mean, so the weight to give is gamma / 2.
    """
    return _slope(discriminator, real).square().sum(1)


def gradient_penalty(discriminator: Discriminator, real: Tensor, fake: Tensor) -> Tensor:
    """(|gradient| - 1)^2 at random points between real and fake samples: Gulrajani et al. (2017), eq. 3, weight 10."""
    if real.shape != fake.shape:
        raise ValueError(
            f"gradient_penalty pairs real and fake samples, got {tuple(real.shape)} and {tuple(fake.shape)}"
        )
    share = torch.rand(len(real), *[1] * (real.dim() - 1), dtype=real.dtype, device=real.device)
    square = _slope(discriminator, real.lerp(fake, share)).square().sum(1)
    positive = square > 0  # the square root has no derivative at 0: a flat discriminator is penalised without a gradient
    norm = torch.where(positive, torch.where(positive, square, torch.ones_like(square)).sqrt(), square)
    return (norm - 1) ** 2


def _slope(discriminator: Discriminator, x: Tensor) -> Tensor:
    """d logit / d x, (B, everything else), itself differentiable."""
    x = x.detach().requires_grad_(True)
    gradient = torch.autograd.grad(discriminator(x).sum(), x, create_graph=True)[0]
    return gradient.flatten(1)
