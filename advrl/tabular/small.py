r"""Policy iteration, Howard (1960), compiled for small problems, alone or many at once: ``pip install 'advrl[fast]'``.

A small problem costs less to solve than the calls of tensors that describe it. Here improvement, evaluation and
the certificate of :mod:`advrl.tabular.solution` are loops over arrays, called once for the whole batch.

Shapes: N problems, S states, A actions, B successors of each pair; rewards are -inf where an action is not feasible.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from advrl.tabular import fused, transitions
from advrl.tabular.mdp import MDP
from advrl.tabular.solution import Solution, feasible

WARM = 20  # most sweeps before the first policy is evaluated
STATES = 500  # with more, LAPACK evaluates a policy faster than a plain elimination
LIMIT = 10_000_000  # probabilities of all problems together, if they were dense
EPS = float(np.finfo(np.float64).eps)


def usable(mdp: MDP) -> bool:
    """Whether :func:`howard` may take the place of tensors."""
    plain = mdp.dtype == torch.float64 and mdp.device.type == "cpu" and len(mdp.batch_shape) <= 1
    small = mdp.num_states <= STATES and mdp.R.numel() * mdp.num_states <= LIMIT
    return fused.INSTALLED and plain and small and mdp.contracts


def howard(mdp: MDP, tol: float, max_iterations: int) -> Solution:
    """The solution by policy iteration. The policy takes the first of the actions that are best to rounding."""
    started = time.perf_counter()
    P = transitions.to_lists(mdp.P) if transitions.is_csr(mdp.P) else mdp.P
    R = mdp.R if mdp.mask is None else mdp.R.masked_fill(~feasible(mdp), -torch.inf)
    whole = (*mdp.batch_shape, mdp.num_states, mdp.num_actions)
    shape = whole if mdp.batch_shape else (1, *whole)
    prob = np.ascontiguousarray(transitions.values(P)).reshape(*shape, -1)
    succ = None
    if isinstance(P, transitions.Successors):
        succ = np.ascontiguousarray(P.next, dtype=np.int32).reshape(prob.shape)
    N, S = shape[:2]
    reward = np.ascontiguousarray(R).reshape(shape)
    gamma, least, greatest = (t.numpy().reshape(N) for t in (mdp.exact_discount, *mdp.continuing))
    noise = (prob.shape[-1] + 3) * EPS
    V, lower, upper = np.zeros((N, S)), np.empty((N, S)), np.empty((N, S))
    Q, best = np.empty(shape), np.empty(shape, dtype=np.bool_)
    policy, error, regret = np.zeros((N, S), dtype=np.int64), np.empty(N), np.empty(N)
    gains = np.zeros(max_iterations)
    used = improve(prob, succ, reward, gamma, noise, WARM, V, policy, gains)
    certify(
        prob, succ, reward, gamma, least, greatest, noise, mdp.even, V, Q, lower, upper, policy, best, error, regret
    )
    names = "V", "Q", "policy", "optimal_set", "lower", "upper", "error_bound", "policy_regret_bound"
    parts = V, Q, policy, best, lower, upper, error, regret
    found: dict[str, Any] = {
        name: torch.as_tensor(x if mdp.batch_shape else x[0], device="cpu")
        for name, x in zip(names, parts, strict=True)
    }
    exhausted = used == max_iterations
    status = "converged" if error.max() <= tol else "max_iterations" if exhausted else "rounding"
    return Solution(
        **found, residuals=gains[:used].tolist(), iterations=used, status=status, seconds=time.perf_counter() - started
    )


@fused.compiled
def improve(
    P: np.ndarray, succ: np.ndarray | None, R: np.ndarray, gamma: np.ndarray, noise: float, warm: int, V: np.ndarray,
    policy: np.ndarray, gains: np.ndarray,
) -> int:  # fmt: skip
    """Policy iteration for each problem, from a policy that a few sweeps found; how many improvements it took."""
    N, S, A = R.shape
    B = P.shape[3]
    used = 0
    Q, system, reward = np.empty((S, A)), np.empty((S, S)), np.empty(S)
    for n in range(N):
        v: np.ndarray = V[n]
        size = 0.0
        for s in range(S):
            for a in range(A):
                if R[n, s, a] > -np.inf:
                    size = max(size, abs(R[n, s, a]))
        left, same = warm, 0
        i = 0
        while i < len(gains):
            for s in range(S):
                for a in range(A):
                    total = 0.0
                    for b in range(B):
                        if succ is None:
                            total += P[n, s, a, b] * v[b]
                        else:
                            total += P[n, s, a, b] * v[succ[n, s, a, b]]
                    Q[s, a] = R[n, s, a] + gamma[n] * total
            if left > 0:  # sweep on, until the greedy policy has stayed the same for a while
                left, same = left - 1, same + 1
                for s in range(S):
                    first = 0
                    for a in range(1, A):
                        if Q[s, a] > Q[s, first]:
                            first = a
                    v[s] = Q[s, first]
                    if first != policy[n, s]:
                        policy[n, s], same = first, 0
                left = 0 if same == 3 else left
                if left > 0:
                    continue
            else:
                span = 0.0
                for s in range(S):
                    span = max(span, abs(v[s]))
                margin = 4 * noise * (size + span)
                greatest, better = 0.0, 0
                for s in range(S):
                    first = 0
                    for a in range(1, A):
                        if Q[s, a] > Q[s, first]:
                            first = a
                    gain = Q[s, first] - Q[s, policy[n, s]]
                    greatest = max(greatest, gain)
                    if gain > margin:
                        better += 1
                        policy[n, s] = first
                gains[i] = max(gains[i], greatest)
                i += 1
                used = max(used, i)
                if better == 0:
                    break
            system[:] = 0.0
            for s in range(S):
                a = policy[n, s]
                reward[s] = R[n, s, a]
                for b in range(B):
                    t = b if succ is None else succ[n, s, a, b]
                    system[s, t] -= gamma[n] * P[n, s, a, b]
                system[s, s] += 1.0
            for k in range(S):  # rows of I - gamma P are dominated by their diagonal: no pivots are needed
                for s in range(k + 1, S):
                    if system[s, k] != 0.0:
                        share = system[s, k] / system[k, k]
                        reward[s] -= share * reward[k]
                        for t in range(k + 1, S):
                            system[s, t] -= share * system[k, t]
            for s in range(S - 1, -1, -1):
                total = reward[s]
                for t in range(s + 1, S):
                    total -= system[s, t] * v[t]
                v[s] = total / system[s, s]
    return used


@fused.compiled
def certify(
    P: np.ndarray, succ: np.ndarray | None, R: np.ndarray, gamma: np.ndarray, least: np.ndarray, greatest: np.ndarray,
    noise: float, even: bool, V: np.ndarray, Q: np.ndarray, lower: np.ndarray, upper: np.ndarray, policy: np.ndarray,
    optimal: np.ndarray, error: np.ndarray, regret: np.ndarray,
) -> None:  # fmt: skip
    """One more sweep of V with the bounds that it proves, as :func:`advrl.tabular.solution.finish` works them out.

    Args:
        least, greatest: (N,) probability of going on.
        noise: share of values and rewards that a computed backup may be off.
        even: whether all rows go on alike, so that values may move to the middle of their bounds.
        V: (N, S) swept in place; all that follow are written.
    """
    N, S, A = R.shape
    B = P.shape[3]
    for n in range(N):
        size, span, low, high = 0.0, 0.0, np.inf, -np.inf
        for s in range(S):
            span = max(span, abs(V[n, s]))
            top = -np.inf
            for a in range(A):
                total = 0.0
                for b in range(B):
                    if succ is None:
                        total += P[n, s, a, b] * V[n, b]
                    else:
                        total += P[n, s, a, b] * V[n, succ[n, s, a, b]]
                Q[n, s, a] = R[n, s, a] + gamma[n] * total
                top = max(top, Q[n, s, a])
                if R[n, s, a] > -np.inf:
                    size = max(size, abs(R[n, s, a]))
            low, high = min(low, top - V[n, s]), max(high, top - V[n, s])
            upper[n, s] = top
        slack = noise * (size + span)
        rates = gamma[n] * least[n], gamma[n] * greatest[n]
        one, two = rates[0] / (1 - rates[0]), rates[1] / (1 - rates[1])
        low, high = low - slack, high + slack
        below, above = min(low * one, low * two) - slack, max(high * one, high * two) + slack
        move = (below + above) / 2 if even else 0.0
        error[n], regret[n], span = 0.0, 0.0, 0.0
        for s in range(S):
            top = upper[n, s]
            lower[n, s], upper[n, s] = top + below, top + above
            lower[n, s] -= 2 * EPS * abs(lower[n, s])
            upper[n, s] += 2 * EPS * abs(upper[n, s])
            V[n, s] = top + move
            span = max(span, abs(V[n, s]))
            error[n] = max(error[n], upper[n, s] - V[n, s], V[n, s] - lower[n, s])
            regret[n] = max(regret[n], upper[n, s] - lower[n, s])
        tie = 4 * noise * (size + span)
        margin = 2 * error[n] + 2 * noise * (size + span)
        regret[n] += tie + max(tie * one, tie * two)  # the policy takes the first of the best to rounding
        for s in range(S):
            found = False
            for a in range(A):
                Q[n, s, a] += move
                optimal[n, s, a] = Q[n, s, a] >= V[n, s] - margin
                if not found and Q[n, s, a] >= V[n, s] - tie:
                    policy[n, s], found = a, True
