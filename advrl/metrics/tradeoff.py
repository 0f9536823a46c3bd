r"""Quality against diversity over a sweep of temperatures: models are compared at equal quality, never at one point.

Every generator can buy quality with diversity by lowering its temperature, so one point says little. Caccia et al.
(2020, Language GANs Falling Short) compare whole curves. Both axes here are losses, low is better: NLL_oracle or the
language-model score for quality, NLL_test or the reverse score or self-BLEU for diversity; of a figure that is high
where it is good, as BLEU, take the negative. Between neighbouring temperatures the curve is a straight line; beyond the
swept range it has no value.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from advrl import checks


@dataclass(frozen=True)
class Tradeoff:
    """A temperature sweep of one model.

    Args:
        temperature: (K,) increasing, K at least 2.
        quality: (K,) a loss, low is better.
        diversity: (K,) a loss, low is better.

    Raises:
        ValueError: if shapes differ, there are fewer than two points, a figure is not finite, or the temperatures do
            not increase.
    """

    temperature: Tensor
    quality: Tensor
    diversity: Tensor

    def __post_init__(self) -> None:
        checks.same_shape(temperature=self.temperature, quality=self.quality, diversity=self.diversity)
        if self.temperature.ndim != 1 or len(self.temperature) < 2:
            raise ValueError(f"a sweep needs (K,) points, at least 2, got shape {tuple(self.temperature.shape)}")
        for name in ("temperature", "quality", "diversity"):
            value = checks.finite(name, getattr(self, name).detach().to("cpu").double())
            object.__setattr__(self, name, value)
        if (self.temperature.diff() <= 0).any():
            raise ValueError(f"temperatures must increase, got {self.temperature.tolist()}")


def diversity_at(curve: Tradeoff, quality: Tensor | float) -> Tensor:
    """The least diversity loss that the model has at a quality, nan where its sweep never has that quality.

    Args:
        curve: the model's sweep.
        quality: (...) one or many values.

    Returns:
        (...) float64.
    """
    wanted = torch.as_tensor(quality, dtype=torch.float64, device="cpu").unsqueeze(-1)
    start, end = curve.quality[:-1], curve.quality[1:]
    level = start == end  # a stretch on which quality stays: its better end
    share = (wanted - start) / torch.where(level, 1.0, end - start)
    there = torch.where(level, wanted == start, (share >= 0) & (share <= 1))
    along = curve.diversity[:-1] + share * curve.diversity.diff()
    value = torch.where(level, torch.minimum(curve.diversity[:-1], curve.diversity[1:]), along)
    best = torch.where(there, value, torch.inf).amin(-1)
    return torch.where(best.isinf(), torch.nan, best)


def shared_quality(*curves: Tradeoff) -> tuple[float, float]:
    """The range of quality that all sweeps cover.

    Raises:
        ValueError: if there is none: sweep further, or the models cannot be compared.
    """
    low = max(float(curve.quality.min()) for curve in curves)
    high = min(float(curve.quality.max()) for curve in curves)
    if low >= high:
        raise ValueError(
            f"the sweeps share no range of quality (the best of the worst is {high:.4g}, the worst of the best "
            f"{low:.4g}): sweep over more temperatures"
        )
    return low, high


def mean_diversity(curve: Tradeoff, low: float, high: float) -> float:
    """Mean diversity loss at qualities from ``low`` to ``high``: the area under the curve, divided by its width.

    Exact where quality changes in one direction along the sweep; otherwise the trapezoidal rule on 2,049 qualities.

    Raises:
        ValueError: if the sweep does not cover the range.
    """
    checks.number("high", high, low, exclusive=True)
    inside = curve.quality[(curve.quality > low) & (curve.quality < high)]
    grid = torch.linspace(low, high, 2049, dtype=torch.float64, device="cpu")
    quality = torch.unique(torch.cat([grid, inside]))
    diversity = diversity_at(curve, quality)
    if diversity.isnan().any():
        raise ValueError(
            f"the sweep covers qualities from {curve.quality.min().item():.4g} to {curve.quality.max().item():.4g}, "
            f"not {low:.4g} to {high:.4g}; shared_quality(...) gives the range that sweeps share"
        )
    return float(torch.trapezoid(diversity, quality) / (high - low))


def tradeoff_gap(curve: Tradeoff, baseline: Tradeoff) -> float:
    """Mean diversity loss of a model above that of a baseline, at equal quality: negative where the model is better.

    Over the range of quality that both sweeps cover.

    Raises:
        ValueError: if they share none.
    """
    low, high = shared_quality(curve, baseline)
    return mean_diversity(curve, low, high) - mean_diversity(baseline, low, high)
