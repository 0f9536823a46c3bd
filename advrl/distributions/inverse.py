r"""Inverse-transform sampling from a table of probabilities.

Draw u ~ U[0, 1) and return the first outcome k whose cumulative probability exceeds u. Exact up to the rounding of the
cumulative sum, and an outcome of probability zero is never returned. Devroye (1986), chapter III.2.
"""

from __future__ import annotations

import torch
from torch import Tensor

FEW = 16  # outcomes, up to which it is sooner to compare with all of them than to search: no branch to guess


def inverse_transform(probs: Tensor, n: int) -> Tensor:
    """Draw ``n`` outcomes for each row of a table.

    Args:
        probs: (*batch, K) non-negative weights; rows need not be normalised.
        n: number of draws per row.

    Returns:
        (n, *batch) int64 outcomes in [0, K), drawn from the global generator of the table's device; K - 1 for a row
        that holds a NaN, which is for the caller's loss to show.
    """
    cdf = probs.cumsum(-1)
    if probs.shape[-1] <= FEW:
        u, bounds = _uniform(cdf, n), cdf.movedim(-1, 0)
        above = (u < bounds[:-1].unsqueeze(1)).sum(0)
        return (probs.shape[-1] - 1) - above
    total = cdf[..., -1:]
    u = torch.rand(*probs.shape[:-1], n, dtype=probs.dtype, device=probs.device) * total
    u = torch.minimum(u, torch.nextafter(total, torch.zeros_like(total)))  # u * total may round up to the total
    outcomes = torch.searchsorted(cdf, u, right=True)
    return outcomes.clamp_(max=probs.shape[-1] - 1).movedim(-1, 0)  # a NaN finds no place, and would index past the end


def one_hot_transform(probs: Tensor, n: int) -> Tensor:
    """The same draws as :func:`inverse_transform`, as rows of zeros and a one: (n, *batch, K), of the table's dtype."""
    if probs.shape[-1] > FEW or probs.device.type != "cpu":  # a parallel sum need not grow with every term
        outcomes = inverse_transform(probs, n).unsqueeze(-1)
        zeros = torch.zeros(n, *probs.shape, dtype=probs.dtype, device=probs.device)
        return zeros.scatter_(-1, outcomes, 1.0)
    cdf = probs.cumsum(-1)
    below = (_uniform(cdf, n).unsqueeze(-1) < cdf).to(probs.dtype)  # 0 ... 0 1 ... 1, of which the first 1 is to stay
    below[..., -1].fill_(1.0)
    below[..., 1:].sub_(below[..., :-1].clone())
    return below


def _uniform(cdf: Tensor, n: int) -> Tensor:
    """(n, *batch) draws between 0 and the rows' totals."""
    return torch.rand(n, *cdf.shape[:-1], dtype=cdf.dtype, device=cdf.device) * cdf[..., -1]
