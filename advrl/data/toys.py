"""Points in the plane with no standard of modes: swiss roll, two moons, pinwheel, checkerboard.

Each is an exact sampler: fresh points as many as one likes, on any device, for MMD, energy and sliced Wasserstein
distance. There are no published numbers to stand beside. Shapes: N points.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from advrl import checks

Generator = torch.Generator | None
Device = torch.device | str | None


def swiss_roll(n: int, noise: float = 0.05, generator: Generator = None, device: Device = None) -> Tensor:
    """(n, 2) points on the spiral t (cos t, sin t) / (1.5 pi), t uniform in [1.5 pi, 4.5 pi], with Gaussian noise."""
    t = math.pi * (1.5 + 3 * _uniform(n, generator, device))
    return torch.stack([t * t.cos(), t * t.sin()], 1) / (1.5 * math.pi) + _noise(n, noise, generator, t)


def two_moons(n: int, noise: float = 0.05, generator: Generator = None, device: Device = None) -> Tensor:
    """(n, 2) points on two half circles of radius 1, the second upside down around (1, .5), with Gaussian noise."""
    t = math.pi * _uniform(n, generator, device)
    upper = (_uniform(n, generator, device) < 0.5).unsqueeze(1)
    first = torch.stack([t.cos(), t.sin()], 1)
    second = torch.stack([1 - t.cos(), 0.5 - t.sin()], 1)
    return torch.where(upper, first, second) + _noise(n, noise, generator, t)


def pinwheel(
    n: int, arms: int = 5, radial: float = 0.3, tangential: float = 0.1, rate: float = 0.25,
    generator: Generator = None, device: Device = None,
) -> Tensor:  # fmt: skip
    """(n, 2) points of Gaussians (1 + radial u, tangential v), each turned by its arm's angle + rate exp(its radius).

    Johnson et al. (2016), "Composing graphical models with neural networks".
    """
    checks.integer("arms", arms)
    checks.number("radial", radial, 0.0), checks.number("tangential", tangential, 0.0), checks.number("rate", rate)
    uv = _normal(n, generator, device)
    arm = (arms * _uniform(n, generator, device)).floor().clamp_max(arms - 1)
    x, y = 1 + radial * uv[:, 0], tangential * uv[:, 1]
    angle = 2 * math.pi * arm / arms + rate * x.exp()
    return torch.stack([angle.cos() * x - angle.sin() * y, angle.sin() * x + angle.cos() * y], 1)


def checkerboard(n: int, side: int = 4, generator: Generator = None, device: Device = None) -> Tensor:
    """(n, 2) points uniform on the black squares, of side 1, of a board around the origin; ``side`` is even."""
    if checks.integer("side", side, 2) % 2:
        raise ValueError(f"side must be even, so that every row has as many black squares, got {side}")
    row = (side * _uniform(n, generator, device)).floor().clamp_max(side - 1)
    column = 2 * (side // 2 * _uniform(n, generator, device)).floor().clamp_max(side // 2 - 1) + row % 2
    inside = torch.stack([_uniform(n, generator, device), _uniform(n, generator, device)], 1)
    return torch.stack([column, row], 1) + inside - side / 2


TOYS: dict[str, Callable[..., Tensor]] = {
    "swiss-roll": swiss_roll,
    "two-moons": two_moons,
    "pinwheel": pinwheel,
    "checkerboard": checkerboard,
}
"""By name: ``TOYS[name](n, generator=...)``."""


def _uniform(n: int, generator: Generator, device: Device) -> Tensor:
    return torch.rand(checks.integer("n", n), generator=generator, device=_place(generator, device))


def _normal(n: int, generator: Generator, device: Device) -> Tensor:
    return torch.randn(n, 2, generator=generator, device=_place(generator, device))


def _noise(n: int, std: float, generator: Generator, like: Tensor) -> Tensor:
    return checks.number("noise", std, 0.0) * _normal(n, generator, like.device)


def _place(generator: Generator, device: Device) -> torch.device | str:
    """The device that is named, else the generator's, else the CPU."""
    return device if device is not None else "cpu" if generator is None else generator.device
