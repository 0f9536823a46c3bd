r"""Von Mises distribution that can be drawn with a gradient.

An angle x = loc + z with density exp(k cos z) / (2 pi I_0(k)) on [-pi, pi]. Its distribution function is

    F(z; k) = 1/2 + z / 2 pi + (1 / pi) sum_j (I_j(k) / I_0(k)) sin(j z) / j             Hill (1977), Algorithm 518

summed by backward recurrence of I_j / I_{j-1}; from concentration 50 on, Hill's normal approximation. A draw is
reparameterised implicitly, dz/dk = -(dF/dk) / p(z): Figurnov, Mohamed & Mnih (2018), section 4.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

LARGE = 50.0  # up to here the series, above it the approximation, which is within 1e-11 of F and of dF/dk
TERMS = 60  # to double precision below LARGE
NEWTON_STEPS = 2  # leave the draw as it is; derivatives right to third order


class VonMises(torch.distributions.VonMises):
    """``torch.distributions.VonMises`` with ``rsample`` and ``cdf``.

    Args:
        loc: (*batch) angle in radians.
        concentration: (*batch) k > 0.
        validate_args: as in ``torch.distributions``.
    """

    has_rsample = True

    def cdf(self, value: Tensor) -> Tensor:
        """P(z <= value - loc) with z in [-pi, pi]: the share of the circle's mass from loc - pi up to value."""
        z = value - self.loc
        turns = torch.round(z / (2 * math.pi)).detach()
        return turns + _cdf(z - 2 * math.pi * turns, self.concentration)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """Angles (*sample_shape, *batch), differentiable in ``loc`` and ``concentration``.

        A cost of angles should have period 2 pi: the draw is wrapped to [-pi, pi).
        """
        x: Tensor = self.sample(torch.Size(sample_shape))  # type: ignore[no-untyped-call]
        offset = (x - self.loc).detach()
        start = offset - 2 * math.pi * torch.round(offset / (2 * math.pi))
        k = self.concentration
        level = _cdf(start, k).detach()
        z = start
        for _ in range(NEWTON_STEPS):
            log_density = k * (z.cos() - 1) - (2 * math.pi * torch.special.i0e(k)).log()
            z = z - (_cdf(z, k) - level) / log_density.exp().clamp(min=torch.finfo(z.dtype).tiny)
        return x + (z - start) + (self.loc - self.loc.detach())


def _cdf(z: Tensor, k: Tensor) -> Tensor:
    """F(z; k) for z in [-pi, pi], differentiable in both."""
    large = k > LARGE
    series = _series(z, torch.where(large, torch.full_like(k, LARGE), k))
    return torch.where(large, _normal(z, torch.where(large, k, torch.full_like(k, 2 * LARGE))), series)


def _series(z: Tensor, k: Tensor) -> Tensor:
    ratio = torch.zeros_like(k)  # I_j / I_{j-1}, from the far end
    total = torch.zeros_like(z)
    for j in range(TERMS, 0, -1):
        ratio = k / (2 * j + k * ratio)
        total = ratio * ((j * z).sin() / j + total)
    return 0.5 + z / (2 * math.pi) + total / math.pi


def _normal(z: Tensor, k: Tensor) -> Tensor:
    c = 24 * k
    v = c - 56
    r = ((54 / (347 / v + 26 - c) - 6 + c) / 12).sqrt()
    y = (z / 2).sin() * r
    s = 2 * y * y
    v = v - s + 3
    w = (c - s - s - 16) / 3
    w = ((s + 1.75) * s + 83.5) / v - w
    return 0.5 * (1 + torch.erf(y - s / (w * w) * y))
