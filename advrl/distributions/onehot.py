"""One-hot categorical distribution that samples by inverse transform."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution

from advrl.distributions.inverse import one_hot_transform


class OneHotCategorical(torch.distributions.OneHotCategorical):
    """``torch.distributions.OneHotCategorical`` whose draws are looked up in the cumulative table.

    Many draws from each of many small rows (pixels, tokens of a small alphabet) is where ``torch.multinomial`` is slow.
    """

    def __init__(
        self, probs: Tensor | None = None, logits: Tensor | None = None, validate_args: bool | None = None
    ) -> None:
        # torch's own validates its inner Categorical even when told not to, which waits for the device
        if probs is None and logits is not None and logits.dim() and logits.is_floating_point():
            inner = _normalised(logits, validate_args)
        else:
            inner = Categorical(probs, logits, validate_args)
        self._categorical = inner
        Distribution.__init__(self, inner.batch_shape, inner.param_shape[-1:], validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> OneHotCategorical:
        new: OneHotCategorical = self._get_checked_instance(OneHotCategorical, _instance)  # type: ignore[no-untyped-call]
        new._categorical = self._categorical.expand(batch_shape)
        Distribution.__init__(new, torch.Size(batch_shape), self.event_shape, validate_args=False)
        return new

    @torch.no_grad()
    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """One-hot rows, (*sample_shape, *batch, K)."""
        shape = torch.Size(sample_shape)
        inner = self._categorical
        weights = inner.logits.exp() if "logits" in vars(inner) else inner.probs
        return one_hot_transform(weights, math.prod(shape)).reshape(self._extended_shape(shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """(*sample_shape, *batch) of one-hot rows: that of the largest entry, looked up."""
        if self._validate_args:
            self._validate_sample(value)
        value, logits = torch.broadcast_tensors(value, self.logits)
        return logits.gather(-1, value.argmax(-1, keepdim=True)).squeeze(-1)


def _normalised(logits: Tensor, validate_args: bool | None) -> Categorical:
    """``Categorical(logits=logits)``, by one log-softmax, whose derivative is a third of the work."""
    inner = Categorical.__new__(Categorical)
    inner.logits = inner._param = logits.log_softmax(-1)
    inner._num_events = logits.shape[-1]
    Distribution.__init__(inner, logits.shape[:-1], validate_args=validate_args)
    return inner
