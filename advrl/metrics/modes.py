r"""Which modes of a known mixture samples reach, how many samples lie in one, and how evenly they are spread.

Definitions of PacGAN (Lin et al., 2018, section 4.1, and its code): a sample is of *high quality* if it lies within
three standard deviations of the nearest centre, a mode is *captured* if it holds at least one such sample, and the
shares h_k of the modes are those among high-quality samples. With u = 1/K,

    reverse KL = KL(h || u) = log K - entropy(h)      0 if all modes are equally frequent, log K if there is one
    KL         = KL(u || h)                           infinite if a mode is missed

The names are those of model and data: reverse is model first. PacGAN's tables print the reverse one. In two dimensions
a perfect sampler has 1 - exp(-9/2) = 98.9 % of high quality. Shapes: N samples of E coordinates, K modes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Chi2

from advrl import checks
from advrl.metrics._rows import rows

RADIUS = 3.0  # standard deviations around a centre within which a sample is of high quality


@dataclass(frozen=True)
class ModeCoverage:
    """What samples reach of a mixture's K modes; scalars () in float64.

    Args:
        modes: how many are captured.
        high_quality: share of samples within three standard deviations of a centre.
        kl: KL(u || h), from equal shares to those of the modes; infinite if a mode is missed.
        reverse_kl: KL(h || u); infinite if no sample is of high quality, so that there are no shares.
        divergence: KL of the shares of the K discs and of what lies outside them, from the perfect sampler's: one
            finite number for quality and evenness together, and by the data processing inequality a lower bound of
            KL(samples || mixture).
        spread: root mean square offset of a coordinate from the nearest centre, of samples of high quality, in standard
            deviations: how wide modes are. In the plane a perfect sampler has .974; NaN if there are none.
        shares: (K,) share of each mode among high-quality samples; 0 if there are none.
    """

    modes: Tensor
    high_quality: Tensor
    kl: Tensor
    reverse_kl: Tensor
    divergence: Tensor
    spread: Tensor
    shares: Tensor


def mode_coverage(samples: Tensor, centres: Tensor, std: float) -> ModeCoverage:
    """Count samples by mode; the module's docstring has the definitions.

    Args:
        samples: (N, E) points.
        centres: (K, E) means of the mixture's equally likely Gaussians.
        std: their standard deviation.

    Raises:
        ValueError: if a matrix is none, empty or not finite, or they differ in E.
    """
    checks.number("std", std, 0.0, exclusive=True)
    x, means = rows(samples=samples, centres=centres)
    distance, mode = torch.cdist(x, means, compute_mode="donot_use_mm_for_euclid_dist").min(1)
    good = distance < RADIUS * std
    counts = ((mode[:, None] == torch.arange(len(means), device=mode.device)) & good[:, None]).sum(0).to(x.dtype)
    shares = counts / counts.sum().clamp_min(1)
    equal = torch.full_like(shares, 1 / len(means))

    inside = Chi2(torch.full_like(equal[:1], means.shape[1])).cdf(torch.full_like(equal[:1], RADIUS**2))
    cells = torch.cat([counts / len(x), 1 - good.to(x.dtype).mean(0, keepdim=True)])
    perfect = torch.cat([inside * equal, 1 - inside])
    none = ~good.any()
    return ModeCoverage(
        modes=(counts > 0).sum().to(x.dtype),
        high_quality=good.to(x.dtype).mean(),
        kl=_kl(equal, shares),
        reverse_kl=_kl(shares, equal).masked_fill(none, torch.inf),
        divergence=_kl(cells, perfect),
        spread=distance[good].square().mean().div(means.shape[1]).sqrt() / std,
        shares=shares,
    )


def _kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) of two (K,) vectors of shares, 0 log 0 being 0."""
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum()
