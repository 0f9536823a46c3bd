r"""Binomial distribution with few trials, by table.

P(X = k) = C(N, k) p^k (1 - p)^(N - k). With N small and known, sampling is one look-up in the cumulative table of N + 1
outcomes (about twice as fast as ``torch.binomial`` at N = 16 on a CPU) and log C(N, k) is a constant row.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions.utils import broadcast_all
from torch.nn.functional import softplus

from advrl.checks import integer
from advrl.distributions.inverse import inverse_transform


class Binomial(torch.distributions.Binomial):
    """``torch.distributions.Binomial`` for one integer number of trials, exact to rounding and faster.

    Args:
        total_count: number of trials N, a Python int of at least 1; one for the whole batch.
        logits: (*batch,) log-odds of success.
        validate_args: as in ``torch.distributions``.

    Raises:
        TypeError, ValueError: if ``total_count`` is not an integer of at least 1.
    """

    def __init__(self, total_count: int, logits: Tensor, validate_args: bool | None = None) -> None:
        self.trials = integer("total_count", total_count)
        count = torch.full(
            (), self.trials, dtype=logits.dtype, device=logits.device
        )  # torch would copy it from the host
        super().__init__(count, logits=logits, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Binomial:
        return type(self)(self.trials, self.logits.expand(batch_shape), validate_args=False)

    def _log_coefficients(self, like: Tensor) -> Tensor:
        k = torch.arange(self.trials + 1, dtype=like.dtype, device=like.device)
        return math.lgamma(self.trials + 1) - torch.lgamma(k + 1) - torch.lgamma(self.trials - k + 1)

    @torch.no_grad()
    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """Counts as floats, (*sample_shape, *batch)."""
        shape = torch.Size(sample_shape)
        logits = self.logits
        k = torch.arange(self.trials + 1, dtype=logits.dtype, device=logits.device)
        log_pmf = self._log_coefficients(logits) + k * logits[..., None] - self.trials * softplus(logits)[..., None]
        counts = inverse_transform(log_pmf.exp(), math.prod(shape))
        return counts.to(logits.dtype).reshape(self._extended_shape(shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """log C(N, k) + k l - N softplus(l), (*sample_shape, *batch)."""
        if self._validate_args:
            self._validate_sample(value)
        value, logits = broadcast_all(value, self.logits)
        coefficients = self._log_coefficients(logits).index_select(0, value.flatten().int()).view_as(value)
        return coefficients + value * logits - self.trials * softplus(self.logits)
