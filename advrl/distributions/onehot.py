"""One-hot categorical distribution that samples by inverse transform."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from advrl.distributions.inverse import inverse_transform


class OneHotCategorical(torch.distributions.OneHotCategorical):
    """``torch.distributions.OneHotCategorical`` whose draws are looked up in the cumulative table.

    Many draws from each of many small rows (pixels, tokens of a small alphabet) is where ``torch.multinomial`` is slow.
    """

    @torch.no_grad()
    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """One-hot rows, (*sample_shape, *batch, K)."""
        shape = torch.Size(sample_shape)
        index = inverse_transform(self.probs, math.prod(shape))
        return one_hot(index, self.event_shape[0]).to(self.probs.dtype).reshape(self._extended_shape(shape))
