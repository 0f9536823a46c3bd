"""The law of a deterministic generator's output."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.distributions import Distribution


class Implicit(Distribution):
    """G(z) for a given z: a point mass that can be drawn with a gradient but has no density.

    Over the noise z the law of G(z) is what an ordinary GAN learns. Its gradient can only be the path derivative, so
    ``has_rsample`` is true and ``log_prob`` raises.

    Args:
        value: (*batch, *event) the generator's output.
        event_dim: how many of the last dimensions make one sample.
    """

    has_rsample = True
    arg_constraints: dict[str, Any] = {}

    def __init__(self, value: Tensor, event_dim: int = 1) -> None:
        if not 0 <= event_dim <= value.dim():
            raise ValueError(f"event_dim must be between 0 and {value.dim()} for a value of shape {tuple(value.shape)}")
        self.value = value
        split = value.dim() - event_dim
        super().__init__(value.shape[:split], value.shape[split:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.value

    def expand(self, batch_shape: Any, _instance: Any = None) -> Implicit:
        return Implicit(self.value.expand(torch.Size(batch_shape) + self.event_shape), len(self.event_shape))

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """The value itself, (*sample_shape, *batch, *event); repeated draws are equal."""
        shape = self._extended_shape(torch.Size(sample_shape))
        return self.value.view(shape) if shape.numel() == self.value.numel() else self.value.expand(shape)

    def log_prob(self, value: Tensor) -> NoReturn:
        raise NotImplementedError("an implicit distribution G(z) has no density: use the Path estimator")
