r"""Metrics from nearest neighbours: fidelity, diversity, and whether samples were copied.

With NND_k(x) the distance from x to its k-th nearest other member of its own set, B(x) the closed ball of that radius,
N real x_i and M fake y_j:

    precision  share of y_j that lie in some B(x_i)           Kynkäänniemi et al. (2019), eq. 1 and 2
    recall     share of x_i that lie in some B(y_j)
    density    1 / (k M) sum_j #{i: y_j in B(x_i)}            Naeem et al. (2020), eq. 3
    coverage   share of x_i with some y_j in B(x_i)           Naeem et al. (2020), eq. 4

If both sets come from one continuous distribution, density is 1 on average and coverage, for N = M, near 1 - 2^{-k}
(Naeem et al., section 4.2), whatever the distribution; precision and recall have no such known value.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from advrl import checks
from advrl.metrics._rows import rows

BLOCK = 2**22  # distances in memory at a time: 32 MiB


def precision_recall(real: Tensor, fake: Tensor, k: int = 5) -> dict[str, Tensor]:
    """Precision, recall, density and coverage, all from the same distances.

    Args:
        real: (N, features), N above k.
        fake: (M, features), M above k.
        k: which neighbour sets the radii.

    Returns:
        ``precision``, ``recall``, ``density`` and ``coverage``, each () float64. All but density are in [0, 1].

    Raises:
        ValueError: if a set has at most k rows, another width, or an entry that is not finite.
    """
    checks.integer("k", k)
    if min(len(real), len(fake)) <= k:
        raise ValueError(f"k must be below both numbers of rows, got k={k} for {len(real)} real and {len(fake)} fake")
    real, fake = rows(k + 1, real=real, fake=fake)
    real_radius, fake_radius = _radius(real, k), _radius(fake, k)
    precise = torch.zeros(len(fake), dtype=torch.bool, device=fake.device)
    recalled, counts = [], []
    for block in _blocks(len(real), len(fake)):
        distance = _distances(real[block], fake)
        in_real = distance <= real_radius[block, None]
        precise |= in_real.any(0)
        counts.append(in_real.sum(1))
        recalled.append((distance <= fake_radius).any(1))
    count = torch.cat(counts).double()
    return {
        "precision": precise.double().mean(),
        "recall": torch.cat(recalled).double().mean(),
        "density": count.sum() / (k * len(fake)),
        "coverage": (count > 0).double().mean(),
    }


def memorisation_ratio(fake: Tensor, train: Tensor, held_out: Tensor) -> Tensor:
    """Mean distance to the nearest training row over mean distance to the nearest held-out row.

    Fresh samples are as near to one as to the other: 1 on average, since training and held-out rows could be swapped.
    Copies of training rows give 0. In the manner of Meehan et al. (2020), who test the two distances by ranks.

    Args:
        fake: (M, *event).
        train: (N, *event) that the generator learned from.
        held_out: (N, *event), as many: a larger set has nearer neighbours.

    Returns:
        () float64; 1 where both distances are 0, infinite where only the held-out one is.

    Raises:
        ValueError: if ``train`` and ``held_out`` differ in number, shapes differ, or an entry is not finite.
    """
    if len(train) != len(held_out):
        raise ValueError(
            f"train and held_out must have equally many rows, got {len(train)} and {len(held_out)}: "
            "the nearest of more is nearer"
        )
    fake, train, held_out = rows(fake=fake, train=train, held_out=held_out)
    near, far = _nearest(fake, train).mean(), _nearest(fake, held_out).mean()
    return torch.where((near == 0) & (far == 0), 1.0, near / far)


def _nearest(points: Tensor, others: Tensor) -> Tensor:
    """(points,) distance of each point to the nearest of the others.

    The matrix product that finds it is fast but inexact; the distance is then taken directly, so that a copy is at 0.
    """
    middle = others.mean(0)  # less cancellation
    centred, squares = others - middle, (others - middle).square().sum(1)
    index = torch.cat(
        [
            torch.addmm(squares, points[block] - middle, centred.mT, alpha=-2).argmin(1)
            for block in _blocks(len(points), len(others))
        ]
    )
    return (points - others[index]).norm(dim=1)


def _radius(points: Tensor, k: int) -> Tensor:
    """(points,) distance of each point to its k-th nearest neighbour: the (k + 1)-th, counting itself."""
    radii = [
        _distances(points[block], points).topk(k + 1, largest=False).values[:, -1]
        for block in _blocks(len(points), len(points))
    ]
    return torch.cat(radii)


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """(len(a), len(b)), each from its own difference: the faster product form would give copies a distance above 0."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _blocks(length: int, width: int) -> Iterator[slice]:
    """Slices of ``length`` rows whose distances to ``width`` others fit in ``BLOCK``."""
    size = max(1, BLOCK // width)
    return (slice(start, start + size) for start in range(0, length, size))
