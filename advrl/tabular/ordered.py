"""Value iteration state by state: Gauss-Seidel, prioritised and topological order. One MDP, on the CPU, in float64.

The loops are plain Python over NumPy arrays, and compiled where numba is installed (``pip install 'advrl[fast]'``).
"""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np
import torch
from torch import Tensor

from advrl.tabular.fused import compiled
from advrl.tabular.mdp import MDP
from advrl.tabular.solution import feasible


def sweep(
    mdp: MDP, order: str, tol: float, max_sweeps: int, history: bool
) -> tuple[Tensor, list[float], list[Tensor], bool]:
    """Values, greatest change of each sweep, values after each sweep if asked for, and whether it was given up."""
    csr = arrays(mdp)
    gamma = float(mdp.discount)
    V = np.zeros(mdp.num_states)
    high = gamma * float(mdp.continuing[1])
    enough = max(tol * (1 - high) / high if 0 < high < 1 else tol * 1e-3, 1e-15)
    residuals: list[float] = []
    kept: list[np.ndarray] = []
    exhausted = True
    if order == "topological":
        for states in _components(_graph(csr, mdp)):
            for i in range(max_sweeps):
                change = gauss_seidel(V, states, *csr, gamma)
                if len(residuals) <= i:
                    residuals.append(0.0)
                residuals[i] = max(residuals[i], change)
                if change <= enough or (i == 0 and len(states) == 1 and not _loops(csr, int(states[0]))):
                    break
        exhausted = len(residuals) >= max_sweeps
        kept.append(V.copy())
    elif order == "prioritised":
        before = _predecessors(_graph(csr, mdp))
        exhausted = prioritised(V, csr, gamma, before, enough, max_sweeps, residuals)
        kept.append(V.copy())
    else:
        everyone = np.arange(mdp.num_states)
        for i in range(max_sweeps):
            residuals.append(gauss_seidel(V, everyone if i % 2 == 0 else everyone[::-1].copy(), *csr, gamma))
            if history:
                kept.append(V.copy())
            if residuals[-1] <= enough:
                exhausted = False
                break
            if residuals[-1] > 1e100:
                raise ValueError("the values grow without bound: some policy collects reward for ever; use gamma < 1")
    like: dict[str, Any] = {"dtype": mdp.dtype, "device": mdp.device}
    return torch.as_tensor(V, **like), residuals, [torch.as_tensor(v, **like) for v in kept if history], exhausted


@compiled
def gauss_seidel(
    V: np.ndarray, states: np.ndarray, start: np.ndarray, column: np.ndarray, prob: np.ndarray, reward: np.ndarray,
    allowed: np.ndarray, gamma: float,
) -> float:  # fmt: skip
    """One sweep over ``states`` in their order, in place; returns the greatest change."""
    actions = reward.shape[1]
    greatest = 0.0
    for s in states:
        best = -np.inf
        for a in range(actions):
            if allowed[s, a]:
                total = 0.0
                for i in range(start[s * actions + a], start[s * actions + a + 1]):
                    total += prob[i] * V[column[i]]
                best = max(best, reward[s, a] + gamma * total)
        greatest = max(greatest, abs(best - V[s]))
        V[s] = best
    return greatest


def prioritised(
    V: np.ndarray, csr: Any, gamma: float, before: list[np.ndarray], enough: float, max_sweeps: int,
    residuals: list[float],
) -> bool:  # fmt: skip
    """Prioritised sweeping with a known model, Moore & Atkeson (1993): back up the state that will change most."""
    states = len(V)
    urgent = np.zeros(states)
    for s in range(states):
        urgent[s] = _change(V, s, csr, gamma)
    heap: list[tuple[float, int]] = [(-u, s) for s, u in enumerate(urgent) if u > enough]
    heapq.heapify(heap)
    count = 0
    while heap:
        u, s = heapq.heappop(heap)
        if -u != urgent[s]:
            continue  # an older entry
        change = gauss_seidel(V, np.array([s]), *csr, gamma)
        urgent[s] = 0.0
        if count % states == 0:
            residuals.append(0.0)
        residuals[-1] = max(residuals[-1], change)
        count += 1
        if count >= max_sweeps * states:
            return True
        for p in before[s]:
            new = _change(V, p, csr, gamma)
            if new > enough and new > urgent[p]:
                urgent[p] = new
                heapq.heappush(heap, (-new, int(p)))
    return False


def _change(V: np.ndarray, s: int, csr: Any, gamma: float) -> float:
    old = V[s]
    change: float = gauss_seidel(V, np.array([s]), *csr, gamma)
    V[s] = old
    return change


def arrays(mdp: MDP) -> tuple[np.ndarray, ...]:
    """start, column, prob, reward, allowed: the MDP in CSR form as NumPy arrays."""
    P = mdp.sparse().P
    assert isinstance(P, Tensor)
    parts = (P.crow_indices(), P.col_indices(), P.values().double(), mdp.R.double(), feasible(mdp))
    return tuple(t.cpu().numpy() for t in parts)


def _loops(csr: Any, s: int) -> bool:
    start, column, prob, reward, _ = csr
    actions = reward.shape[1]
    span = slice(start[s * actions], start[(s + 1) * actions])
    return bool(((column[span] == s) & (prob[span] > 0)).any())


def _graph(csr: Any, mdp: MDP) -> Any:
    """(S, S) sparse: which states lead where, under any action."""
    import scipy.sparse as sp

    start, column, prob, _, _ = csr
    graph = sp.csr_matrix((prob, column, start[:: mdp.num_actions]), shape=(mdp.num_states,) * 2, copy=True)
    graph.sum_duplicates()
    graph.eliminate_zeros()
    return graph


def _components(graph: Any) -> list[np.ndarray]:
    """Strongly connected components, each after those that it leads to."""
    import scipy.sparse as sp
    from scipy.sparse.csgraph import connected_components

    count, label = connected_components(graph, connection="strong")
    members = np.split(np.argsort(label, kind="stable"), np.cumsum(np.bincount(label, minlength=count))[:-1])
    links = graph.tocoo()
    across = label[links.row] != label[links.col]
    ends = (label[links.row[across]], label[links.col[across]])
    forward = sp.csr_matrix((np.ones(across.sum()), ends), (count, count))
    forward.sum_duplicates()
    backward = forward.T.tocsr()
    waiting = np.diff(forward.indptr)
    ready = list(np.flatnonzero(waiting == 0))
    ordered = []
    while ready:
        c = ready.pop()
        ordered.append(members[c])
        for p in backward.indices[backward.indptr[c] : backward.indptr[c + 1]]:
            waiting[p] -= 1
            if waiting[p] == 0:
                ready.append(p)
    return ordered


def _predecessors(graph: Any) -> list[np.ndarray]:
    backward = graph.T.tocsr()
    return np.split(backward.indices, backward.indptr[1:-1])
