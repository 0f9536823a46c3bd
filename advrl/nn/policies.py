"""Generators as policies: noise z in, a distribution over images out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from advrl.checks import integer
from advrl.nn.families import Family


class Policy(nn.Module):
    """pi(x | z): a network whose output parameterises one distribution per noise vector.

    Args:
        net: maps z (B, latent) to (B, family.numbers * C, H, W).
        family: what those numbers mean.
        latent: dimension of z ~ N(0, 1).
    """

    def __init__(self, net: nn.Module, family: Family, latent: int) -> None:
        super().__init__()
        self.net, self.family, self.latent = net, family, integer("latent", latent)

    def noise(self, n: int) -> Tensor:
        """z ~ N(0, 1), (n, latent), on the network's device."""
        like = next(self.parameters())
        return torch.randn(n, self.latent, dtype=like.dtype, device=like.device)

    def distribution(self, z: Tensor) -> Distribution:
        """The policy given z (B, latent): batch shape (B,), event shape the family's."""
        return self.family.distribution(self.net(z))

    def decode(self, x: Tensor) -> Tensor:
        """Values of the distribution (*, *event) as images (*, C, H, W) in [-1, 1]; differentiable."""
        return self.family.decode(x)

    @torch.no_grad()
    def sample(self, n: int, z: Tensor | None = None) -> Tensor:
        """``n`` images (n, C, H, W) from fresh noise, or from ``z`` (n, latent)."""
        z = self.noise(n) if z is None else z
        return self.decode(self.distribution(z).sample())

    @torch.no_grad()
    def mean(self, z: Tensor) -> Tensor:
        """The mean image given z, (B, C, H, W)."""
        return self.decode(self.distribution(z).mean)
