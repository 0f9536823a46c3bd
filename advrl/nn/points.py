r"""Policies over points, and a discriminator that sees fine detail in them.

Shapes: B batch, E coordinates of a point, F octaves.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from advrl.checks import choice, integer, number
from advrl.distributions import Implicit
from advrl.nn.families import Family

LOG_STD = (-7.0, 0.0)  # a coordinate's log standard deviation given z, where the data's is about 1


def _implicit(raw: Tensor) -> Distribution:
    return Implicit(raw, 1)


def _gaussian(parameters: Tensor) -> Distribution:
    mean, raw = parameters.chunk(2, 1)
    low, high = LOG_STD
    return Independent(Normal(mean, (low + (high - low) * raw.sigmoid()).exp(), validate_args=False), 1)


_KINDS: dict[str, tuple[int, Callable[[Tensor], Distribution], str]] = {
    "implicit": (1, _implicit, "the deterministic G(z)"),
    "gaussian": (2, _gaussian, "a Gaussian per coordinate given z"),
}
POINT_FAMILIES = tuple(_KINDS)
"""Names of the policies that can draw points."""


def point_family(name: str, scale: float = 1.0) -> Family:
    """What a network's numbers mean for points: (B, numbers * E) parameters to a distribution over (E,).

    Args:
        name: ``implicit`` or ``gaussian``.
        scale: size of the data; values of the distribution times ``scale`` are points.

    Raises:
        ValueError: for another policy, or a scale that is not positive.
    """
    numbers, distribution, summary = _KINDS[choice("policy", name, _KINDS)]
    number("scale", scale, 0.0, exclusive=True)
    return Family(name, numbers, distribution, lambda x: x * scale, lambda x: x, summary)


class FourierFeatures(nn.Module):
    r"""Points (B, E) to (B, E (1 + 2 F)): x / s, and sine and cosine of 2^k pi x / s for k = 0 ... F - 1.

    A perceptron learns smooth functions first and narrow peaks hardly at all; on these features it is quick at both.
    Tancik et al. (2020), eq. 4 (the positional encoding).

    Args:
        size: E, coordinates of a point.
        octaves: F; 0 leaves x / s alone.
        scale: s, the size of the data.

    Raises:
        ValueError, TypeError: for sizes below 1, octaves below 0, or a scale that is not positive.
    """

    def __init__(self, size: int, octaves: int = 3, scale: float = 1.0) -> None:
        super().__init__()
        integer("size", size), integer("octaves", octaves, minimum=0), number("scale", scale, 0.0, exclusive=True)
        self.out_features = size * (1 + 2 * octaves)
        self.scale = scale
        frequencies = math.pi * 2.0 ** torch.arange(octaves, dtype=torch.get_default_dtype(), device="cpu")
        self.frequencies: Tensor
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, E) to (B, E (1 + 2 F))."""
        x = x / self.scale
        waves = (x[:, :, None] * self.frequencies).flatten(1)
        return torch.cat([x, waves.sin(), waves.cos()], 1)
