"""Penalties on the discriminator's slope: ``penalty(discriminator, real, fake) -> (B,)``, one value per sample.

Each takes a function from samples (B, *event) to logits (B,), real samples of that shape, and fake ones of that shape
or several to each real, (S, B, *event). The values can be differentiated in the discriminator's parameters.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Discriminator = Callable[[Tensor], Tensor]
Penalty = Callable[[Discriminator, Tensor, Tensor], Tensor]


def r1(discriminator: Discriminator, real: Tensor, fake: Tensor) -> Tensor:
    """|grad a(x)|^2 at real x, (B,), a the logit: Mescheder, Geiger & Nowozin (2018), eq. 9; fakes play no part.

    Their loss is gamma / 2 times its mean, so the weight to give is gamma / 2.
    """
    return _slope(discriminator, real).square().sum(1)


def gradient_penalty(discriminator: Discriminator, real: Tensor, fake: Tensor) -> Tensor:
    """(|grad a(x)| - 1)^2, (B,), at x uniform between a real and a fake: Gulrajani et al. (2017), eq. 3, weight 10.

    Of several fakes to each real, (S, B, *event), the first is taken. A flat discriminator pays 1 and gets no gradient,
    since the norm has none at 0.

    Raises:
        ValueError: if real and fake samples do not pair up.
    """
    if real.shape not in (fake.shape, fake.shape[1:]):
        raise ValueError(
            f"gradient_penalty pairs real and fake samples, got {tuple(real.shape)} and {tuple(fake.shape)}"
        )
    if fake.dim() > real.dim():
        fake = fake[0]
    share = torch.rand(len(real), *[1] * (real.dim() - 1), dtype=real.dtype, device=real.device)
    square = _slope(discriminator, real.lerp(fake, share)).square().sum(1)
    positive = square > 0  # else the root's infinite slope at 0 makes the gradient NaN
    norm = torch.where(positive, torch.where(positive, square, torch.ones_like(square)).sqrt(), square)
    return (norm - 1) ** 2


def _slope(discriminator: Discriminator, x: Tensor) -> Tensor:
    """d logit / d x, (B, everything else), itself differentiable."""
    x = x.detach().requires_grad_(True)
    gradient = torch.autograd.grad(discriminator(x).sum(), x, create_graph=True)[0]
    return gradient.flatten(1)
