r"""What several seeds say together: mean, interquartile mean, bootstrap intervals, and the same of paired differences.

The interquartile mean is the mean of the middle half of the values, less moved by one failed seed than the mean and
less wasteful than the median; Agarwal et al. (2021) advise it with bootstrap intervals for few runs. The bootstrap
(Efron, 1979) draws S of S seeds with replacement, again and again; the interval is between quantiles of the statistic.
With S seeds no resample goes beyond the values seen, so at S = 5 a percentile interval for the mean that is to cover in
95 of 100 cases covers in about 84: Student's, given beside it, does so where values are normal.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from advrl import checks
from advrl.metrics.likelihood import Estimate, mean_estimate


class SeedSummary(NamedTuple):
    """Mean with Student's interval; bootstrap intervals (low, high) of mean and interquartile mean."""

    mean: Estimate
    mean_bootstrap: tuple[float, float]
    iqm: float
    iqm_bootstrap: tuple[float, float]


def interquartile_mean(values: Tensor) -> Tensor:
    """Mean along the last dimension without the floor(S/4) least and greatest values; (..., S) to (...).

    Raises:
        ValueError: if there is no value.
    """
    if values.ndim == 0 or values.shape[-1] == 0:
        raise ValueError(f"an interquartile mean needs at least one value, got shape {tuple(values.shape)}")
    cut = values.shape[-1] // 4
    return values.sort(-1).values[..., cut : values.shape[-1] - cut].mean(-1)


def seed_summary(values: Tensor, level: float = 0.95, resamples: int = 10_000, seed: int = 0) -> SeedSummary:
    """Mean and interquartile mean of one figure over seeds, with intervals.

    Args:
        values: (S,) the figure of each seed, S at least 2 (5 or more to say anything).
        level: of the intervals, in (0, 1).
        resamples: bootstrap draws.
        seed: of the draws, which touch no global generator.

    Raises:
        ValueError: if there are fewer than two values or one is not finite.
    """
    checks.integer("resamples", resamples)
    mean = mean_estimate(values, level)
    values = checks.finite("values", values.detach().to("cpu").double())
    generator = torch.Generator(device="cpu").manual_seed(seed)
    draws = torch.randint(len(values), (resamples, len(values)), generator=generator, device="cpu")
    drawn = values[draws]
    return SeedSummary(
        mean,
        _quantiles(drawn.mean(-1), level),
        float(interquartile_mean(values)),
        _quantiles(interquartile_mean(drawn), level),
    )


def paired_summary(
    values: Tensor, baseline: Tensor, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> SeedSummary:
    """Summary of the differences ``values - baseline``, seed by seed.

    Two methods that share seeds share data, initialisation and luck, which differences take out: an interval away from
    0 is a difference between the methods.

    Args:
        values: (S,) of one method.
        baseline: (S,) of another, with the same seeds in the same order.
        level: of the intervals, in (0, 1).
        resamples: bootstrap draws.
        seed: of the draws.

    Raises:
        ValueError: if the numbers of seeds differ.
    """
    checks.same_shape(values=values, baseline=baseline)
    return seed_summary(values - baseline, level, resamples, seed)


def _quantiles(values: Tensor, level: float) -> tuple[float, float]:
    tail = (1 - level) / 2
    low, high = torch.quantile(values, values.new_tensor([tail, 1 - tail])).tolist()
    return low, high
