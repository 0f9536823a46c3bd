"""Ranks of a distributed run, and the explicit all-reduce that stands in for DDP's hooks.

Gradients are averaged by hand before each optimiser step, because a GAN step has double backward, sampling and unequal
numbers of backward passes per network, which hooks do not follow. With one rank everything here does nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor


def rank() -> int:
    """This process's rank, 0 outside a distributed run."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """The number of ranks, 1 outside a distributed run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def all_reduce_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace each gradient by its mean over the ranks; nothing with one rank."""
    if world_size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= world_size()
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))
