r"""Modes and KL of samples that a classifier has sorted into K classes, of which each should be as frequent.

With h_k the share of class k among N samples and u = 1/K,

    reverse KL = KL(h || u) = log K - entropy(h)       as the tables of stacked MNIST print it (PacGAN, section 4.2)
    KL         = KL(u || h)                            infinite if a class is missed

A class counts from one sample on. Even perfect samples have a reverse KL of about (K - 1) / (2 N), since frequencies
scatter: .019 for 26,000 samples and 1,000 classes, and miss about K exp(-N / K) classes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from advrl.metrics.classes import class_shares


class ClassCoverage(NamedTuple):
    """What samples reach of K equally likely classes; scalars () in float64."""

    modes: Tensor
    kl: Tensor
    reverse_kl: Tensor


def class_coverage(labels: Tensor, classes: int) -> ClassCoverage:
    """How many classes there are among labels, and how evenly; the module's docstring has the definitions.

    Args:
        labels: (N,) integers in [0, classes).
        classes: K.

    Raises:
        ValueError: as :func:`advrl.metrics.class_shares`.
    """
    shares = class_shares(labels, classes)
    equal = torch.full_like(shares, 1 / classes)
    return ClassCoverage(
        modes=(shares > 0).sum().to(shares),
        kl=(torch.xlogy(equal, equal) - torch.xlogy(equal, shares)).sum(),
        reverse_kl=(torch.xlogy(shares, shares) - torch.xlogy(shares, equal)).sum().clamp_min(0),
    )
