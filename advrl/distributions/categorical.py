r"""Exact draws from large categorical distributions by a two-level inverse transform.

The K outcomes are cut into about sqrt(K) blocks. One uniform number finds the block in the cumulative sums of the
blocks, and what remains of it the outcome in the cumulative sums of that block alone: Devroye (1986), chapter III.2.
One uniform and two short searches per row, where ``torch.multinomial`` draws K exponentials.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad


@torch.no_grad()
def sample_categorical(logits: Tensor) -> Tensor:
    """One outcome per row of unnormalised log-probabilities, drawn from the global generator of their device.

    An outcome of logit -inf is never returned. Half precision is summed in single.

    Args:
        logits: (*batch, K), each row with at least one finite entry.

    Returns:
        (*batch,) int64 in [0, K); K - 1 for a row that holds a NaN, which is for the caller's loss to show.

    Raises:
        ValueError: without a dimension of outcomes, or with none in it.
        TypeError: if the logits are not floating point.
    """
    if logits.dim() == 0 or logits.shape[-1] == 0:
        raise ValueError(f"logits must be (*batch, K) with K >= 1, got shape {tuple(logits.shape)}")
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floating point, got {logits.dtype}")
    outcomes = logits.shape[-1]
    rows = logits.reshape(math.prod(logits.shape[:-1]), outcomes)
    weight = rows.softmax(-1, dtype=torch.float64 if rows.dtype == torch.float64 else torch.float32)
    root = math.ceil(math.sqrt(outcomes))
    size = next((d for d in range(root, 2 * root) if outcomes % d == 0), root)  # a divisor spares the copy of padding
    weight = pad(weight, (0, -outcomes % size)) if outcomes % size else weight
    blocks = weight.unflatten(-1, (-1, size))  # (N, blocks, size)
    outer = blocks.sum(-1).cumsum(-1)
    total = outer[:, -1:]
    u = torch.rand_like(total) * total  # the softmax may sum to a little less or more than 1
    block = torch.searchsorted(outer, _below(u, total), right=True).clamp_(max=outer.shape[-1] - 1)
    before = torch.where(block > 0, outer.gather(-1, (block - 1).clamp(min=0)), torch.zeros_like(u))
    inner = blocks.gather(1, block.unsqueeze(-1).expand(-1, -1, size)).squeeze(1).cumsum(-1)
    rest = _below((u - before).clamp_(min=0.0), inner[:, -1:])  # the sums of the two levels round differently
    place = block * size + torch.searchsorted(inner, rest, right=True)
    return place.clamp_(max=outcomes - 1).reshape(logits.shape[:-1])


def _below(u: Tensor, total: Tensor) -> Tensor:
    """u, or the number before ``total`` if it is not below that."""
    return torch.minimum(u, torch.nextafter(total, torch.zeros_like(total)))
