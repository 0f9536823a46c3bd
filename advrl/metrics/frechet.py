r"""Fréchet distance between two sets of features, each taken for Gaussian.

    d^2 = |m_1 - m_2|^2 + tr(S_1 + S_2 - 2 (S_1^{1/2} S_2 S_1^{1/2})^{1/2})       Dowson and Landau (1982), eq. 4

Heusel et al. (2017) use it for images, as FID: d^2, not its root. Their (S_1 S_2)^{1/2} has the same trace, but S_1 S_2
is not symmetric; the form above needs nothing but symmetric eigenvalues and stays real where a covariance is singular.
Its estimate from n samples is biased upwards by O(1/n), so compare only at equal n.
"""

from __future__ import annotations

import torch
from torch import Tensor

from advrl.metrics._rows import rows


def frechet_distance(real: Tensor, fake: Tensor) -> Tensor:
    """Squared Fréchet distance between Gaussians with the sets' means and (unbiased) covariances.

    Args:
        real: (N, features), N at least 2.
        fake: (M, features), M at least 2.

    Returns:
        () float64, not negative; symmetric in its arguments and unchanged by a rotation or shift of both.

    Raises:
        ValueError: if a set has fewer than two rows, another width, or an entry that is not finite.
    """
    real, fake = rows(2, real=real, fake=fake)
    covariance, other = _covariance(real), _covariance(fake)
    values, vectors = torch.linalg.eigh(covariance)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.mT
    product = root @ other @ root
    overlap = torch.linalg.eigvalsh((product + product.mT) / 2).clamp_min(0).sqrt().sum()
    means = (real.mean(0) - fake.mean(0)).square().sum()
    return (means + covariance.trace() + other.trace() - 2 * overlap).clamp_min(0)


def _covariance(features: Tensor) -> Tensor:
    """(features, features), unbiased."""
    centred = features - features.mean(0)
    return centred.mT @ centred / (len(features) - 1)
