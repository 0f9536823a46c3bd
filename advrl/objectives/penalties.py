"""Penalties on the discriminator's slope: ``penalty(discriminator, real, fake) -> (B,)``, one value per sample.

Each takes a function from samples (B, *event) to logits (B,), real samples of that shape, and fake ones of that shape
or several to each real, (S, B, *event). The values can be differentiated in the discriminator's parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

Discriminator = Callable[[Tensor], Tensor]
Penalty = Callable[[Discriminator, Tensor, Tensor], Tensor]


def r1(discriminator: Discriminator, real: Tensor, fake: Tensor) -> Tensor:
    """|grad a(x)|^2 at real x, (B,), a the logit: Mescheder, Geiger & Nowozin (2018), eq. 9; fakes play no part.

    Their loss is gamma / 2 times its mean, so the weight to give is gamma / 2.
    """
    return _slope(discriminator, real).square().sum(1)


def r2(discriminator: Discriminator, real: Tensor, fake: Tensor) -> Tensor:
    """|grad a(x)|^2 at fakes, (B,), of several to each real the first: Mescheder, Geiger & Nowozin (2018), eq. 10.

    The weight to give is gamma / 2. R3GAN (Huang et al., 2024) needs it beside :func:`r1`.
    """
    return _slope(discriminator, _first(real, fake)).square().sum(1)


def gradient_penalty(discriminator: Discriminator, real: Tensor, fake: Tensor) -> Tensor:
    """(|grad a(x)| - 1)^2, (B,), at x uniform between a real and a fake: Gulrajani et al. (2017), eq. 3, weight 10.

    Of several fakes to each real, (S, B, *event), the first is taken. A flat discriminator pays 1 and gets no gradient,
    since the norm has none at 0.

    Raises:
        ValueError: if real and fake samples do not pair up.
    """
    fake = _first(real, fake)
    share = torch.rand(len(real), *[1] * (real.dim() - 1), dtype=real.dtype, device=real.device)
    return (_norm(_slope(discriminator, real.lerp(fake, share))) - 1) ** 2


def dragan(discriminator: Discriminator, real: Tensor, fake: Tensor) -> Tensor:
    """(|grad a(x + d)| - 1)^2, (B,), around real samples: Kodali et al. (2017), weight 10; fakes play no part.

    d is uniform in [0, s], s half the standard deviation of all numbers in the batch, as implementations mostly have
    it; the paper has normal noise.
    """
    noise = 0.5 * real.std() * torch.rand_like(real)
    return (_norm(_slope(discriminator, real + noise)) - 1) ** 2


def consistency(augment: Callable[[Tensor], Tensor]) -> Penalty:
    """(a(T(x)) - a(x))^2 at real x, (B,): CR-GAN, Zhang, Zhang, Odena & Lee (2020).

    Args:
        augment: T, a random change of samples (B, *event) that their being real survives, such as a shift by a pixel.

    Raises:
        ValueError: when used, if T changes the shape.
    """

    def consistency(discriminator: Discriminator, real: Tensor, fake: Tensor) -> Tensor:
        changed = augment(real)
        if changed.shape != real.shape:
            raise ValueError(f"augment must keep the shape {tuple(real.shape)}, got {tuple(changed.shape)}")
        return (discriminator(changed) - discriminator(real)) ** 2

    return consistency


@torch.no_grad()
def clip_weights(parameters: Iterable[Tensor], bound: float) -> None:
    """Every weight into [-bound, bound], after each discriminator step: Arjovsky et al. (2017), algorithm 1, at 0.01.

    A crude bound on the slope; the gradient penalty is the better one.
    """
    torch._foreach_clamp_min_(weights := list(parameters), -bound)
    torch._foreach_clamp_max_(weights, bound)


def _first(real: Tensor, fake: Tensor) -> Tensor:
    """Fakes (B, *event) for the reals, of several to each, (S, B, *event), the first."""
    if real.shape not in (fake.shape, fake.shape[1:]):
        raise ValueError(
            f"the penalty pairs real and fake samples, got shapes {tuple(real.shape)} and {tuple(fake.shape)}"
        )
    return fake[0] if fake.dim() > real.dim() else fake


def _norm(slope: Tensor) -> Tensor:
    """|slope| (B,), with gradient 0 at 0, where the root's infinite slope would make it NaN."""
    square = slope.square().sum(1)
    positive = square > 0
    return torch.where(positive, torch.where(positive, square, torch.ones_like(square)).sqrt(), square)


def _slope(discriminator: Discriminator, x: Tensor) -> Tensor:
    """d logit / d x, (B, everything else), itself differentiable."""
    x = x.detach().requires_grad_(True)
    gradient = torch.autograd.grad(discriminator(x).sum(), x, create_graph=True)[0]
    return gradient.flatten(1)
