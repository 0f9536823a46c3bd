r"""How much a path turns: 1 if it goes round in one sense, 0 if it goes to and fro, small if it wanders.

With c_t the middle of two neighbouring points less the path's mean, d_t the step between them, and a ^ b the
antisymmetric matrix a b^T - b a^T, of Frobenius norm sqrt(2) |a| |b| sin(angle),

    index = |sum_t c_t ^ d_t| / (sqrt(2) sum_t |c_t| |d_t|).

The sum is twice the area that the path sweeps, plane by plane (the Levy area). Shapes: T points of K numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from advrl.checks import finite


def rotation_index(path: Tensor) -> Tensor:
    """The share of a path's motion that goes round its mean in one sense, () in [0, 1]; 0 of a path that stands still.

    Args:
        path: (T, K) points in the order of time, at least three.

    Raises:
        ValueError: for fewer points, or numbers that are not finite.
    """
    if path.dim() != 2 or len(path) < 3:
        raise ValueError(f"path must be (time, numbers) with at least three points, got {tuple(path.shape)}")
    finite("path", path)
    path = path.double()
    middles, steps = (path[1:] + path[:-1]) / 2 - path.mean(0), path.diff(dim=0)
    swept = middles.T @ steps
    whole = (middles.norm(dim=1) * steps.norm(dim=1)).sum()
    index = (swept - swept.T).norm() / (2**0.5 * whole.clamp_min(torch.finfo(path.dtype).tiny))
    return index.clamp(max=1.0)
