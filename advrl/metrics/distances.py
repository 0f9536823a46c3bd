r"""Distances between two sets of samples that need no features, no density and no modes.

    MMD^2  = E k(x, x') + E k(y, y') - 2 E k(x, y)                Gretton et al. (2012), eq. 3: here unbiased
    energy = 2 E|x - y| - E|x - x'| - E|y - y'|                   Székely and Rizzo (2013), eq. 1.3: here unbiased
    SW_p^p = E_u W_p^p(u.x, u.y), u uniform on the sphere         Bonneel et al. (2015)

k is Gaussian, exp(-|x - y|^2 / (2 h^2)), or the mean of several such. The unbiased estimates leave out pairs of a
sample with itself: they are 0 on average for equal distributions, and therefore often below 0. The bandwidth h is part
of a number's definition: an MMD without it says nothing. Shapes: N real and M fake rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from advrl import checks
from advrl.metrics._rows import rows

MEDIAN_OF = 1_000  # rows behind the median distance


def median_bandwidth(real: Tensor) -> float:
    """The median distance between different rows of the first 1,000: the usual bandwidth (Gretton et al., section 8).

    Args:
        real: (N, features), N at least 2. It should not depend on the samples judged, or each is judged by another.

    Raises:
        ValueError: if there are fewer than two rows, or most are equal.
    """
    (x,) = rows(2, real=real)
    median = float(torch.pdist(x[:MEDIAN_OF]).median())
    if median == 0:
        raise ValueError("the median distance is 0: most rows are equal, give a bandwidth")
    return median


def mmd(real: Tensor, fake: Tensor, bandwidth: float | Sequence[float]) -> Tensor:
    """Unbiased estimate of the squared maximum mean discrepancy with a Gaussian kernel.

    Args:
        real: (N, features), N at least 2.
        fake: (M, features), M at least 2.
        bandwidth: h, or several, whose kernels are averaged.

    Returns:
        () float64, 0 on average for samples of one distribution.

    Raises:
        ValueError, TypeError: if a bandwidth is not positive, or sets do not fit.
    """
    widths = [bandwidth] if isinstance(bandwidth, (int, float)) else list(bandwidth)
    if not widths:
        raise ValueError("mmd needs a bandwidth, got none")
    for width in widths:
        checks.number("bandwidth", width, 0.0, exclusive=True)
    x, y = rows(2, real=real, fake=fake)

    def kernel(distance: Tensor) -> Tensor:
        return torch.stack([(-distance.square() / (2 * width**2)).exp() for width in widths]).mean(0)

    return _others(kernel(_distance(x, x))) + _others(kernel(_distance(y, y))) - 2 * kernel(_distance(x, y)).mean()


def energy_distance(real: Tensor, fake: Tensor) -> Tensor:
    """Unbiased estimate of the energy distance (not its root).

    Args:
        real: (N, features), N at least 2.
        fake: (M, features), M at least 2.

    Returns:
        () float64, 0 on average for samples of one distribution; it scales as lengths do.

    Raises:
        ValueError: if sets do not fit.
    """
    x, y = rows(2, real=real, fake=fake)
    return 2 * _distance(x, y).mean() - _others(_distance(x, x)) - _others(_distance(y, y))


def sliced_wasserstein(real: Tensor, fake: Tensor, directions: int = 256, power: int = 2, seed: int = 0) -> Tensor:
    """Sliced Wasserstein distance between equally many samples.

    Along a direction the best coupling of two sets of one size is that of their order. Even two sets of one
    distribution are apart, by O(N^-1/2): hold the figure against that of two real sets.

    Args:
        real, fake: (N, features) each.
        directions: how many; drawn on the CPU from ``seed``, so that they are the same for all that is compared.
        power: p.
        seed: of the directions.

    Returns:
        () float64: the p-th root of the mean over directions.

    Raises:
        ValueError, TypeError: if the sets differ in number, do not fit, or numbers are below 1.
    """
    checks.integer("directions", directions), checks.integer("power", power)
    x, y = rows(real=real, fake=fake)
    if len(x) != len(y):
        raise ValueError(f"real and fake must have equally many rows, got {len(x)} and {len(y)}")
    generator = torch.Generator("cpu").manual_seed(seed)
    lines = torch.randn(x.shape[1], directions, dtype=x.dtype, device="cpu", generator=generator).to(x.device)
    lines = lines / lines.norm(dim=0)
    gaps = (x @ lines).sort(0).values - (y @ lines).sort(0).values
    return gaps.abs().pow(power).mean().pow(1 / power)


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """(len(a), len(b)), each from its own difference, so that copies are at 0."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _others(pairs: Tensor) -> Tensor:
    """The mean over pairs (N, N) of different rows."""
    n = len(pairs)
    return (pairs.sum() - pairs.diagonal().sum()) / (n * (n - 1))
