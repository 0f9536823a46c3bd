r"""Mixtures of Gaussians of which everything is known: density, modes, and as many fresh samples as one likes.

    p(x) = 1/K sum_k N(x; mu_k, sigma^2 I)

``ring`` and ``grid`` are those of PacGAN (Lin et al., 2018, section 4.1 and its code), which descend from Metz et al.
(2017), whose own ring has radius 2 and standard deviation .02. Shapes: N points of E coordinates, K modes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from advrl import checks


@dataclass(frozen=True, eq=False)
class Mixture:
    """Equally likely Gaussians of one standard deviation, the same in every direction.

    Args:
        name: what to call it in tables and file names.
        centres: (K, E) means of the Gaussians.
        std: their standard deviation.

    Raises:
        ValueError: if centres are no such matrix or not finite, or the standard deviation is not positive.
    """

    name: str
    centres: Tensor
    std: float

    def __post_init__(self) -> None:
        if self.centres.dim() != 2 or 0 in self.centres.shape or not self.centres.is_floating_point():
            raise ValueError(
                f"centres must be floats of shape (modes, coordinates), got {self.centres.dtype} of shape "
                f"{tuple(self.centres.shape)}"
            )
        checks.finite("centres", self.centres)
        checks.number("std", self.std, 0.0, exclusive=True)

    @property
    def shape(self) -> tuple[int]:
        """(E,) of one point."""
        return (self.centres.shape[1],)

    @property
    def modes(self) -> int:
        """K, the number of Gaussians."""
        return len(self.centres)

    @property
    def scale(self) -> float:
        """Root mean square of a coordinate: divided by it, points are of the size that networks like."""
        return math.sqrt(float(self.centres.square().mean()) + self.std**2)

    @property
    def definition(self) -> str:
        """What a figure about this mixture has to say of it."""
        places = ", ".join(f"({', '.join(f'{v:.3g}' for v in row)})" for row in self.centres[:2].tolist())
        return f"{self.modes} Gaussians of standard deviation {self.std:g} around {places}, ..."

    def to(self, device: torch.device | str) -> Mixture:
        """The same mixture with its centres on a device."""
        return type(self)(self.name, self.centres.to(device), self.std)

    def distribution(self) -> MixtureSameFamily:
        """As a ``torch.distributions`` object: batch shape (), event shape (E,)."""
        means = Independent(Normal(self.centres, torch.full_like(self.centres, self.std)), 1)
        return MixtureSameFamily(Categorical(logits=torch.zeros_like(self.centres[:, 0])), means)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x), (*batch), of points (*batch, E)."""
        return self.distribution().log_prob(x)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """(n, E) fresh points on the centres' device, from a generator of its own if one is given."""
        here = self.centres.device
        mode = torch.randint(self.modes, (n,), generator=generator, device=here)
        noise = torch.randn(n, *self.shape, generator=generator, dtype=self.centres.dtype, device=here)
        return self.centres[mode] + self.std * noise


def ring(radius: float = 1.0, std: float = 0.01, modes: int = 8) -> Mixture:
    """Gaussians at equal distances on a circle, the first at angle 0: PacGAN's "2D-ring".

    Raises:
        ValueError, TypeError: if a number is not positive, or neighbours overlap, so that samples have no one mode.
    """
    checks.number("radius", radius, 0.0, exclusive=True)
    angles = 2 * math.pi * torch.arange(checks.integer("modes", modes, 2), device="cpu") / modes
    centres = radius * torch.stack([angles.cos(), angles.sin()], 1)
    return _apart(Mixture("ring", centres, checks.number("std", std, 0.0, exclusive=True)))


def grid(spacing: float = 2.0, std: float = 0.05, side: int = 5) -> Mixture:
    """Gaussians on a square grid around the origin, ``side`` by ``side``: PacGAN's "2D-grid".

    Raises:
        ValueError, TypeError: as :func:`ring`.
    """
    checks.number("spacing", spacing, 0.0, exclusive=True)
    places = spacing * (torch.arange(checks.integer("side", side, 2), device="cpu") - (side - 1) / 2)
    centres = torch.cartesian_prod(places, places)
    return _apart(Mixture("grid", centres, checks.number("std", std, 0.0, exclusive=True)))


def _apart(mixture: Mixture) -> Mixture:
    """The mixture, if discs of three standard deviations around its centres do not meet."""
    nearest = float(torch.pdist(mixture.centres).min())
    if nearest <= 6 * mixture.std:
        raise ValueError(
            f"modes {nearest:.3g} apart overlap at a standard deviation of {mixture.std:g}; it must be below "
            f"{nearest / 6:.3g}, a sixth of the distance"
        )
    return mixture
