r"""Finite horizon, soft values and lookahead: backups that need no fixed point, or another operator in place of max."""

from __future__ import annotations

import time
from typing import NamedTuple

import torch
from torch import Tensor

from advrl.checks import integer, number
from advrl.tabular.mdp import MDP
from advrl.tabular.planning import prepare_undiscounted
from advrl.tabular.solution import Solution, feasible, q_from_v, rounding


class Plan(NamedTuple):
    """A plan for a number of steps: entry t of each is for t steps done, horizon - t to go.

    ``V`` (horizon + 1, *b, S), the last of them the value at the end; ``Q`` (horizon, *b, S, A); ``policy``
    (horizon, *b, S).
    """

    V: Tensor
    Q: Tensor
    policy: Tensor


def backward_induction(mdp: MDP, horizon: int, final: Tensor | None = None, *, policy: Tensor | None = None) -> Plan:
    """The best that can be done in ``horizon`` steps, and how: V_t = max_a R + gamma P V_{t+1}. Bellman (1957).

    Args:
        horizon: number of steps.
        final: (*b, S) value of where the last step leads; 0 if ``None``.
        policy: (*b, S) actions or (*b, S, A) probabilities to follow in place of the best.
    """
    integer("horizon", horizon)
    V = torch.zeros_like(mdp.R[..., 0]) if final is None else final.to(mdp.R).expand_as(mdp.R[..., 0])
    if policy is not None:
        from advrl.tabular.evaluation import check_policy

        policy = check_policy(mdp, policy)
    values, qs, policies = [V], [], []
    for _ in range(horizon):
        Q = q_from_v(mdp, V)
        if policy is None:
            V, action = Q.max(-1)
        elif policy.is_floating_point():
            V, action = (Q.where(policy > 0, 0.0) * policy).sum(-1), policy.argmax(-1)
        else:
            V, action = Q.gather(-1, policy[..., None]).squeeze(-1), policy
        values.append(V)
        qs.append(Q)
        policies.append(action)
    return Plan(torch.stack(values[::-1]), torch.stack(qs[::-1]), torch.stack(policies[::-1]))


def lookahead(mdp: MDP, V: Tensor, depth: int = 1) -> Tensor:
    """(*b, S, A) action values that planning ``depth`` steps ahead with the model gives, and beyond them V (*b, S).

    The error of V shrinks by gamma with every step: |Q - Q*| <= gamma^depth |V - V*|.
    """
    integer("depth", depth)
    for _ in range(depth - 1):
        V = q_from_v(mdp, V).amax(-1)
    return q_from_v(mdp, V)


def soft_value_iteration(
    mdp: MDP, temperature: float = 1.0, *, tol: float = 1e-8, max_sweeps: int = 1_000_000
) -> Solution:
    """Maximum-entropy values V = t log sum_a exp(Q / t), and the policy exp((Q - V) / t): Ziebart (2010), chapter 6.

    Every step pays t times the policy's entropy beside its reward. As t goes to 0 this is value iteration.

    Args:
        temperature: t > 0.

    Returns:
        A solution whose policy is (*b, S, A) probabilities, and whose optimal set holds what has a probability.

    Raises:
        ValueError: where gamma is 1 and no policy ends from some state, or the entropy of never ending has no bound.
    """
    started = time.perf_counter()
    number("temperature", temperature, 0.0, exclusive=True)
    number("tol", tol, 0.0)
    integer("max_sweeps", max_sweeps)
    prepare_undiscounted(mdp)
    allowed = feasible(mdp)
    ended = mdp.terminal

    def soft(Q: Tensor) -> Tensor:
        V: Tensor = temperature * (Q / temperature).logsumexp(-1)
        return V if ended is None else V.masked_fill(ended, 0.0)

    V = torch.zeros_like(mdp.R[..., 0])
    residuals: list[float] = []
    status = "max_iterations"
    factor = 1.0
    if mdp.contracts:
        high = mdp.discount.squeeze(-1).double() * mdp.continuing[1]
        factor = float((high / (1 - high)).max())
    for _ in range(max_sweeps):
        new = soft(q_from_v(mdp, V))
        residuals.append(float((new - V).abs().max()))
        V = new
        if residuals[-1] > 1e100:
            raise ValueError("the values grow without bound: the entropy of never ending has none; use gamma < 1")
        if factor * residuals[-1] <= max(tol, factor * float(rounding(mdp, V).max())):
            status = "converged" if factor * residuals[-1] <= tol else "rounding"
            break
    Q = q_from_v(mdp, V)
    V = soft(Q)
    policy = ((Q - V[..., None]) / temperature).softmax(-1)
    lower = upper = error = None
    reason = "gamma is 1"
    if mdp.contracts:
        error = (factor * residuals[-1] + (1 + factor) * rounding(mdp, V) * 2).to(mdp.dtype)
        lower, upper, reason = V - error[..., None], V + error[..., None], ""
    return Solution(V, Q, policy, allowed, lower, upper, error, None, residuals, len(residuals), status, reason,
                    seconds=time.perf_counter() - started)  # fmt: skip
