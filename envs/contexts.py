"""What a generator is given before it starts: noise, or a row of a table, such as classes. Shapes: C numbers."""

from __future__ import annotations

from collections.abc import Callable

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from advrl.checks import finite, integer

BOUND = 5.0
"""Noise is drawn from a standard normal and cut here: a draw beyond has a chance of 6e-7."""


class Contexts:
    """Draws contexts (n, C).

    Args:
        given: C, for standard normal noise cut at +-5; or a table (K, C) of floats whose rows are equally likely.
        device: where they are drawn.

    Raises:
        TypeError: for anything else.
        ValueError: for a table of another shape, empty, or not finite.
    """

    def __init__(self, given: int | Tensor, device: torch.device) -> None:
        self.device = device
        self.table: Tensor | None = None
        low, high = -BOUND, BOUND
        if isinstance(given, Tensor):
            if given.dim() != 2 or 0 in given.shape or not given.is_floating_point():
                raise ValueError(
                    "a table of contexts must be floats of shape (number, size), one context per row, got "
                    f"{given.dtype} of shape {tuple(given.shape)}"
                )
            self.table = finite("context", given).detach().to(device=device, dtype=torch.float32)
            self.size = given.shape[1]
            low, high = self.table.min().item(), self.table.max().item()
            high = max(high, low + 1)  # Gymnasium warns of spaces of one point
        else:
            self.size = integer("context", given)
        self.space = gym.spaces.Box(low, high, (self.size,), np.float32)

    def draw(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """(n, C) contexts."""
        if self.table is not None:
            row = torch.randint(len(self.table), (n,), device=self.device, generator=generator)
            return self.table[row]
        noise = torch.randn(n, self.size, device=self.device, dtype=torch.float32, generator=generator)
        return noise.clamp(-BOUND, BOUND)

    def check(self, given: object, n: int) -> Tensor:
        """(n, C) the user's contexts as a tensor.

        Raises:
            ValueError: for another shape, another device, or values outside of the space.
        """
        value = to_device("context", given, self.device).to(torch.float32)
        if tuple(value.shape) != (n, self.size):
            raise ValueError(f"context must have shape ({n}, {self.size}), got {tuple(value.shape)}")
        low, high = float(self.space.low[0]), float(self.space.high[0])
        outside = ~((value >= low) & (value <= high))
        if bool(outside.any()):
            i, j = outside.nonzero()[0].tolist()
            raise ValueError(f"context {i} has {float(value[i, j])} in place {j}, outside of [{low:g}, {high:g}]")
        return value


def to_device(name: str, given: object, device: torch.device) -> Tensor:
    """A user's numbers as a tensor on ``device``: arrays are moved there, a tensor must be there already."""
    if isinstance(given, Tensor):
        if given.device != device:
            raise ValueError(f"{name} is on {given.device}, but the environment is on {device}: move it there first")
        return given.detach()
    array = np.asarray(given)
    if array.dtype == object or array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must be numbers, got an array of {array.dtype}")
    return torch.as_tensor(array, device=device)


Reward = Callable[..., Tensor]
"""Finished samples (n, *event) to rewards (n,); with a context, (samples, contexts (n, C))."""
