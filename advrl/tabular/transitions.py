"""The three forms of transition probabilities, and the one operation that planning needs of them.

Dense P (*b, S, A, S'); successor lists (*b, S, A, B) of at most B next states each; CSR with rows s * A + a. Rows may
sum to less than one: the rest ends the episode. Shapes: *b batch of MDPs, S states, A actions, B successors.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Successors:
    """Successor lists: next states (*b, S, A, B), int32 or int64, with their probabilities (*b, S, A, B); 0 pads."""

    next: Tensor
    prob: Tensor


Transitions = Tensor | Successors


def sparse_csr(crow: Tensor, col: Tensor, value: Tensor, size: tuple[int, ...]) -> Tensor:
    """A CSR matrix, without the remark that torch makes about its first one."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
        return torch.sparse_csr_tensor(crow, col, value, size, device=value.device, check_invariants=False)


def is_csr(P: Transitions) -> TypeGuard[Tensor]:
    """Whether ``P`` is a CSR matrix."""
    return isinstance(P, Tensor) and P.layout == torch.sparse_csr


def values(P: Transitions) -> Tensor:
    """The stored probabilities, whatever the form."""
    return P.prob if isinstance(P, Successors) else P.values() if is_csr(P) else P


def with_values(P: Transitions, new: Tensor) -> Transitions:
    """The same form and places with other probabilities."""
    if isinstance(P, Successors):
        return Successors(P.next, new)
    return sparse_csr(P.crow_indices(), P.col_indices(), new, tuple(P.shape)) if is_csr(P) else new


def to(P: Transitions, device: torch.device | None, dtype: torch.dtype | None) -> Transitions:
    """Another device, and another dtype of the probabilities."""
    if isinstance(P, Successors):
        return Successors(P.next.to(device), P.prob.to(device=device, dtype=dtype))
    return P.to(device=device, dtype=dtype)


def flat_csr(P: Successors) -> Tensor:
    """The block-diagonal CSR matrix (b * S * A, b * S) of a batch of successor lists; int32, values not copied."""
    *batch, states, actions, width = P.prob.shape
    count = math.prod(batch)
    entries = P.prob.numel()
    if max(entries, count * states) >= 2**31:
        raise ValueError(f"{entries:,} successors are more than 32-bit indices hold: split the batch")
    like: dict[str, Any] = {"dtype": torch.int32, "device": P.prob.device}
    offsets = (torch.arange(count, **like) * states).view(*batch, 1, 1, 1)
    col = (P.next.to(torch.int32) + offsets).flatten() if count > 1 else P.next.to(torch.int32).flatten()
    crow = torch.arange(0, entries + 1, width, **like)
    return sparse_csr(crow, col, P.prob.flatten(), (count * states * actions, count * states))


def to_lists(P: Tensor) -> Successors:
    """Successor lists (S, A, B) of a CSR matrix (S * A, S), as wide as its longest row."""
    start = P.crow_indices().long()
    length = start.diff()
    slot = torch.arange(int(length.max()), device=P.device)
    here = slot < length[:, None]
    entry = torch.where(here, start[:-1, None] + slot, 0)
    shape = (P.shape[1], -1, len(slot))
    prob = torch.where(here, P.values()[entry], 0.0).view(shape)
    return Successors(torch.where(here, P.col_indices()[entry], 0).view(shape), prob)


def row_sums(P: Transitions, states: int, actions: int) -> Tensor:
    """(*b, S, A) total probability of going on, in float64."""
    if is_csr(P):
        zeros = torch.zeros(states * actions, dtype=torch.float64, device=P.device)
        return zeros.index_add_(0, rows_of(P), P.values().double()).view(states, actions)
    return values(P).double().sum(-1)


def rows_of(P: Tensor) -> Tensor:
    """(nnz,) the row of each entry of a CSR matrix."""
    crow = P.crow_indices().long()
    return torch.repeat_interleave(torch.arange(len(crow) - 1, device=crow.device), crow.diff())


def edges(P: Transitions, states: int, actions: int) -> tuple[Tensor, Tensor]:
    """(s * A + a, s') of every transition of positive probability, for one MDP."""
    if is_csr(P):
        keep = P.values() > 0
        return rows_of(P)[keep], P.col_indices().long()[keep]
    if isinstance(P, Successors):
        row, slot = (P.prob.reshape(states * actions, -1) > 0).nonzero(as_tuple=True)
        return row, P.next.reshape(states * actions, -1)[row, slot].long()
    row, column = (P.reshape(states * actions, states) > 0).nonzero(as_tuple=True)
    return row, column


def densify(P: Transitions, states: int, actions: int) -> Tensor:
    """(*b, S, A, S') probabilities."""
    if isinstance(P, Successors):
        zeros = P.prob.new_zeros(*P.prob.shape[:-1], states)
        return zeros.scatter_add_(-1, P.next.long(), P.prob)
    return P.to_dense().view(states, actions, states) if is_csr(P) else P


def of_policy(P: Transitions, policy: Tensor, states: int, actions: int) -> Transitions:
    """Transitions under a policy, in the form of ``P`` with one action.

    Args:
        policy: (*b, S) actions, or (*b, S, A) probabilities (then dense, or CSR for CSR and successor lists).
    """
    if not policy.is_floating_point():
        index = policy.long()
        if isinstance(P, Successors):
            pick = index[..., None, None].expand(*P.prob.shape[:-2], 1, P.prob.shape[-1])
            return Successors(P.next.gather(-2, pick), P.prob.gather(-2, pick))
        if is_csr(P):
            return _select_rows(P, torch.arange(states, device=index.device) * actions + index)
        return P.gather(-2, index[..., None, None].expand(*P.shape[:-2], 1, states))
    if isinstance(P, Successors):
        prob = (P.prob * policy[..., None]).flatten(-2).unsqueeze(-2)
        return Successors(P.next.flatten(-2).unsqueeze(-2), prob)
    if is_csr(P):
        weighted = P.values() * policy.flatten()[rows_of(P)]
        return sparse_csr(P.crow_indices()[::actions].contiguous(), P.col_indices(), weighted, (states, states))
    return (policy[..., None, :] @ P).to(P.dtype)


def _select_rows(P: Tensor, rows: Tensor) -> Tensor:
    crow = P.crow_indices().long()
    start, length = crow[rows], crow[rows + 1] - crow[rows]
    ends = length.cumsum(0)
    entry = torch.arange(int(ends[-1]), device=rows.device)
    row = torch.repeat_interleave(torch.arange(len(rows), device=rows.device), length)
    take = entry - (ends - length)[row] + start[row]
    new_crow = torch.cat([ends.new_zeros(1), ends]).to(P.crow_indices().dtype)
    return sparse_csr(new_crow, P.col_indices()[take], P.values()[take], (len(rows), P.shape[1]))


class Expectation:
    """The operator V (*b, S) -> E[V(s')] (*b, S, A), with its matrix laid out once."""

    def __init__(self, P: Transitions, batch: tuple[int, ...], states: int, actions: int) -> None:
        self.shape = (*batch, states, actions)
        self.matrix = flat_csr(P) if isinstance(P, Successors) else P
        self.sparse = is_csr(self.matrix)

    def __call__(self, V: Tensor) -> Tensor:
        if self.sparse:
            product: Tensor = self.matrix @ V.flatten()
            return product.view(self.shape)
        flat = self.matrix.flatten(-3, -2)  # (*b, S * A, S)
        return (flat @ V[..., None]).squeeze(-1).view(self.shape)
