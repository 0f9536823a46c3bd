"""A distribution over pairs: what is drawn, and beside it what is known already."""

from __future__ import annotations

import torch
from torch import Size, Tensor
from torch.distributions import Distribution


class Beside(Distribution):
    """The law of (x, y) for a given y: x from a distribution, y a point. Batch shape (B,), event shape (numel + K,).

    The density is x's alone, so that every estimator that works on samples and densities works on pairs.

    Args:
        base: of x, batch shape (B,).
        side: (B, K) y.

    Raises:
        ValueError: for another batch shape or side.
    """

    def __init__(self, base: Distribution, side: Tensor) -> None:
        if side.dim() != 2 or base.batch_shape != side.shape[:1]:
            raise ValueError(f"side must be ({tuple(base.batch_shape)}, K), got {tuple(side.shape)}")
        self.base, self.side = base, side
        self.has_rsample = base.has_rsample
        super().__init__(base.batch_shape, Size([base.event_shape.numel() + side.shape[1]]), validate_args=False)

    def _pair(self, x: Tensor) -> Tensor:
        x = x.flatten(x.dim() - len(self.base.event_shape)) if self.base.event_shape else x[..., None]
        return torch.cat([x, self.side.expand(*x.shape[:-1], -1)], -1)

    @property
    def mean(self) -> Tensor:
        """(B, numel + K)."""
        return self._pair(self.base.mean)

    def rsample(self, sample_shape: Size | list[int] | tuple[int, ...] = Size()) -> Tensor:
        """(*sample_shape, B, numel + K), differentiable in what x depends on."""
        return self._pair(self.base.rsample(Size(sample_shape)))

    def sample(self, sample_shape: Size | list[int] | tuple[int, ...] = Size()) -> Tensor:
        """(*sample_shape, B, numel + K)."""
        with torch.no_grad():
            return self._pair(self.base.sample(Size(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """(*, B) of the x in pairs (*, B, numel + K)."""
        x = value[..., : value.shape[-1] - self.side.shape[1]]
        return self.base.log_prob(x.unflatten(-1, self.base.event_shape))
