r"""Planning loops compiled by numba, for one discounted MDP on the CPU: ``pip install 'advrl[fast]'``.

A backup by tensors writes and reads an (S, A) table several times; here it is one pass over the transitions. Two
loops that end when MacQueen's bounds prove the error (see :mod:`advrl.tabular.solution`):

- modified policy iteration, Puterman & Shin (1978), whose sweeps under a policy run in float32 on the change alone,
  d = TV - V: V + sum_i (gamma P_pi)^i d. What float32 rounds off there is a share of d, not of V;
- Gauss-Seidel sweeps there and back, when the bounds close no faster than gamma: values that have to travel, as in a
  grid with a goal, travel far in one sweep that goes their way;

Shapes: S states, A actions, B successors of each pair; rewards are -inf where an action is not feasible.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor

from advrl.tabular import transitions
from advrl.tabular.mdp import MDP
from advrl.tabular.solution import feasible, rounding

INSTALLED = importlib.util.find_spec("numba") is not None
SWEEPS = (2, 3, 5, 10)  # under the first policies, which do not last, and under all that follow
ROUGH = 0.03  # least change, of what values differ by, for single precision: what it rounds off is left to the end
LARGE = 200_000  # states whose values in float64 are far from the core
PADDING = 2  # most entries, of which one is a successor


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a loop when it is first called, or leave it as it is, without numba: right, and slow."""
    if not INSTALLED:
        return function

    @wraps(function)
    def call(*args: Any) -> Any:
        return _machine_code(function)(*args)

    return call


@cache
def _machine_code(function: Callable[..., Any]) -> Any:
    from numba import njit

    return njit(cache=True, fastmath={"reassoc", "contract", "nsz"})(function)


def usable(mdp: MDP) -> bool:
    """Whether these loops may take the place of tensors: numba is there, one sparse MDP, on the CPU, gamma p < 1."""
    if not INSTALLED or mdp.device.type != "cpu" or mdp.batch_shape or not mdp.contracts:
        return False
    if transitions.is_csr(mdp.P):
        return mdp.successors_per_row * mdp.R.numel() <= PADDING * mdp.P.values().numel()
    return isinstance(mdp.P, transitions.Successors)


@compiled
def backup(
    succ: np.ndarray, prob: np.ndarray, R: np.ndarray, gamma: float, V: np.ndarray, TV: np.ndarray, policy: np.ndarray,
    Q: np.ndarray | None,
) -> None:  # fmt: skip
    """TV = max_a R + gamma P V, its first maximiser, and what is maximised, if there is a table for it."""
    S, A, B = succ.shape
    for s in range(S):
        best, first = -np.inf, 0
        for a in range(A):
            total = V[0] * 0
            for b in range(B):
                total += prob[s, a, b] * V[succ[s, a, b]]
            q = R[s, a] + gamma * total
            if Q is not None:
                Q[s, a] = q
            if q > best:
                best, first = q, a
        TV[s], policy[s] = best, first


@compiled
def take_rows(
    succ: np.ndarray, prob: np.ndarray, gamma: float, policy: np.ndarray, taken: np.ndarray, own_succ: np.ndarray,
    own_prob: np.ndarray,
) -> None:  # fmt: skip
    """Copy the rows of gamma P of a policy, where they are not those already taken."""
    for s in range(len(policy)):
        if policy[s] != taken[s]:
            taken[s] = policy[s]
            for b in range(succ.shape[2]):
                own_succ[s, b], own_prob[s, b] = succ[s, policy[s], b], gamma * prob[s, policy[s], b]


@compiled
def follow(succ: np.ndarray, prob: np.ndarray, change: np.ndarray, after: np.ndarray, total: np.ndarray) -> None:
    """One sweep of the change under a policy, added up."""
    S, B = succ.shape
    for s in range(S):
        moved = change[0] * 0
        for b in range(B):
            moved += prob[s, b] * change[succ[s, b]]
        after[s] = moved
        total[s] += moved


@compiled
def sweep_in_place(
    succ: np.ndarray, prob: np.ndarray, R: np.ndarray, gamma: float, V: np.ndarray, policy: np.ndarray
) -> float:
    """One Gauss-Seidel sweep of V <- max_a R + gamma P V from the last state on; the greatest change."""
    S, A, B = succ.shape
    greatest = 0.0
    for s in range(S - 1, -1, -1):
        best, first = -np.inf, 0
        for a in range(A):
            total = 0.0
            for b in range(B):
                total += prob[s, a, b] * V[succ[s, a, b]]
            q = R[s, a] + gamma * total
            if q > best:
                best, first = q, a
        greatest = max(greatest, abs(best - V[s]))
        V[s], policy[s] = best, first
    return greatest


@compiled
def follow_in_place(
    succ: np.ndarray, prob: np.ndarray, R: np.ndarray, policy: np.ndarray, V: np.ndarray, sweeps: int
) -> None:
    """Gauss-Seidel sweeps of V <- r_pi + gamma P_pi V, there and back."""
    S, B = succ.shape
    for sweep in range(sweeps):
        for k in range(S):
            s = k if sweep % 2 == 0 else S - 1 - k
            total = R[s, policy[s]]
            for b in range(B):
                total += prob[s, b] * V[succ[s, b]]
            V[s] = total


class Problem:
    """The arrays of an MDP, and the rows of the policy that is followed."""

    def __init__(self, mdp: MDP) -> None:
        P = mdp.P if isinstance(mdp.P, transitions.Successors) else transitions.to_lists(mdp.P)
        self.succ, self.prob = P.next.numpy(), P.prob.double().numpy()
        R = mdp.R if mdp.mask is None else mdp.R.masked_fill(~feasible(mdp), -torch.inf)
        self.R, self.gamma = R.double().numpy(), float(mdp.exact_discount)
        self.even = mdp.even
        self.rates = [self.gamma * float(p) for p in mdp.continuing]
        self.rate = self.rates[1]
        states, _, width = self.succ.shape
        self.Q = self.R.copy()
        self.policy, self.taken = np.zeros(states, dtype=np.int32), np.full(states, -1, dtype=np.int32)
        self.single: tuple[np.ndarray, np.ndarray] | None = None
        self.own_succ = np.empty((states, width), dtype=self.succ.dtype)
        self.own_prob: np.ndarray = np.empty((states, width), dtype=np.float32)

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """succ, prob, R, gamma."""
        return self.succ, self.prob, self.R, self.gamma

    def backup(self, V: np.ndarray, TV: np.ndarray, *, rough: bool) -> bool:
        """TV and its policy; roughly, from single precision about the middle of V, whose memory is half as far away.

        Returns:
            Whether it was rough: only where all rows go on alike can the middle be told apart.
        """
        if not (rough and self.even):
            backup(*self.arrays, V, TV, self.policy, self.Q)
            return False
        if self.single is None:
            self.single = self.prob.astype(np.float32), self.R.astype(np.float32)
        middle = (V.min() + V.max()) / 2
        near, swept = (V - middle).astype(np.float32), np.empty(len(V), dtype=np.float32)
        backup(self.succ, *self.single, np.float32(self.gamma), near, swept, self.policy, None)
        np.add(swept, self.rate * middle, out=TV)
        return True

    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Successors and gamma P of the policy."""
        take_rows(self.succ, self.prob, self.gamma, self.policy, self.taken, self.own_succ, self.own_prob)
        return self.own_succ, self.own_prob

    def gap(self, low: float, high: float) -> float:
        """How far values may be from the truth after changes in [low, high]; in the middle of the bounds, if even."""
        factors = [rate / (1 - rate) for rate in self.rates]
        lower, upper = min(low * f for f in factors), max(high * f for f in factors)
        return (upper - lower) / 2 if self.even else max(upper, -lower)


def iterate(mdp: MDP, tol: float, max_iterations: int) -> tuple[Tensor, Tensor | None, list[float], bool]:
    """Values of a discounted MDP to ``tol``: modified policy iteration, then Gauss-Seidel where that is slow.

    Returns:
        V (S,), its action values (S, A) if known, the greatest change of each backup, and whether it was given up.
    """
    problem = Problem(mdp)
    V, TV = np.zeros(len(problem.R)), problem.R.max(1)
    problem.policy[:] = problem.R.argmax(1)
    after = np.empty(len(V), dtype=np.float32)
    residuals: list[float] = []
    before, slow, rough, low, high = np.inf, 0, False, 0.0, 0.0
    for i in range(max_iterations):
        if i > 0:
            rough = problem.backup(V, TV, rough=len(V) >= LARGE and high - low > ROUGH * float(np.ptp(V)))
        change = TV - V
        low, high = float(change.min()), float(change.max())
        V, TV = TV, V
        residuals.append(max(high, -low))
        gap = problem.gap(low, high)
        if not rough and _enough(mdp, problem, V, gap, tol):
            return _tensor(mdp, TV), _tensor(mdp, problem.Q), residuals, False
        sweeps = SWEEPS[min(i, len(SWEEPS) - 1)]
        if i >= len(SWEEPS) and len(V) >= LARGE:  # there a backup costs as much as twenty sweeps
            sweeps *= 2
        if i >= len(SWEEPS):
            slow = slow + 1 if gap > 0.5 * problem.rate ** (sweeps + 1) * before else 0
        before = gap
        if slow == 3:
            return _in_place(mdp, problem, V, tol, residuals, max_iterations)
        middle = (low + high) / 2 if problem.even else 0.0
        moving = (change - middle).astype(np.float32)
        total = np.zeros_like(moving)
        rows = problem.rows()
        for _ in range(sweeps):
            follow(*rows, moving, after, total)
            moving, after = after, moving
        V += total
        V += middle * sum(problem.rate**k for k in range(1, sweeps + 1))  # apart: together they would be float32
    return _tensor(mdp, V), None, residuals, True


def _tensor(mdp: MDP, V: np.ndarray) -> Tensor:
    return torch.as_tensor(V, dtype=mdp.dtype, device="cpu")


def _in_place(
    mdp: MDP, problem: Problem, V: np.ndarray, tol: float, residuals: list[float], max_iterations: int
) -> tuple[Tensor, None, list[float], bool]:
    """Go on by Gauss-Seidel: a sweep over all actions, then sweeps under the policy that it found."""
    problem.own_prob, problem.taken = problem.own_prob.astype(np.float64), np.full_like(problem.taken, -1)
    exhausted = True
    while exhausted and len(residuals) < max_iterations:
        change = sweep_in_place(*problem.arrays, V, problem.policy)
        residuals.append(change)
        if _enough(mdp, problem, V, problem.gap(-change, change), tol):
            exhausted = False
        else:
            follow_in_place(*problem.rows(), problem.R, problem.policy, V, SWEEPS[-1])
    return _tensor(mdp, V), None, residuals, exhausted


def _enough(mdp: MDP, problem: Problem, V: np.ndarray, gap: float, tol: float) -> bool:
    """Whether what is left is below half of ``tol``, or is what the dtype rounds off."""
    if gap <= tol / 2:
        return True
    noise = float(rounding(mdp, torch.as_tensor(V, device="cpu")))
    return gap <= problem.gap(-noise, noise)
