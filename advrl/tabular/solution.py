r"""What a planner returns, and the bounds that make it a proof.

For one sweep TV of values V with d = TV - V, and rows of P that go on with probability in [l, u],

    TV + lower(min d) <= V* <= TV + upper(max d),      upper(x) = max, lower(x) = min  of  x gamma p / (1 - gamma p)

over p = l and p = u: MacQueen (1966) for l = u = 1; Porteus (1971) for rows that end. The policy that is greedy with
respect to V loses at most upper(max d) - lower(min d). At gamma = 1, where every policy ends, 1 / (1 - gamma u) gives
way to w, the greatest expected number of steps to the end: V + w min(d, 0) <= V* <= V + w max(d, 0), Bertsekas &
Tsitsiklis (1991).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from advrl.tabular.mdp import MDP


class Bounds(NamedTuple):
    """(*b, S) lower and upper values, or ``None`` with the reason."""

    lower: Tensor | None
    upper: Tensor | None
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Solution:
    """Values, policy and what is certain about them. Shapes: *b batch of MDPs, S states, A actions.

    Attributes:
        V: (*b, S) values; the greatest Q of each state.
        Q: (*b, S, A) action values, -inf where an action is not feasible.
        policy: (*b, S) the first of the best actions; or (*b, S, A) probabilities for soft solutions.
        optimal_set: (*b, S, A) bool: actions that the bounds cannot rule out, so it holds all optimal ones.
        lower, upper: (*b, S) certified bounds of the optimal values, rounding included; ``None`` without a proof.
        error_bound: (*b) greatest distance of V from the optimal values; ``None`` without a proof.
        policy_regret_bound: (*b) greatest loss of the policy; ``None`` without a proof.
        residuals: greatest change of each sweep or improvement step, over states and batch.
        iterations: sweeps or improvement steps.
        status: "converged", "rounding" (the dtype allows no smaller error) or "max_iterations".
        reason: why there are no bounds.
        history: (*b, S) values after each sweep, if asked for.
        seconds: of wall time.
    """

    V: Tensor
    Q: Tensor
    policy: Tensor
    optimal_set: Tensor
    lower: Tensor | None
    upper: Tensor | None
    error_bound: Tensor | None
    policy_regret_bound: Tensor | None
    residuals: list[float]
    iterations: int
    status: str
    reason: str = ""
    history: list[Tensor] = field(default_factory=list, repr=False)
    seconds: float = 0.0


def q_from_v(mdp: MDP, V: Tensor) -> Tensor:
    """Q(s, a) = R(s, a) + gamma E[V(s')], (*b, S, A); -inf where an action is not feasible."""
    Q = mdp.R + mdp.discount[..., None] * mdp.expectation(V)
    return Q if mdp.mask is None else Q.masked_fill(~_feasible(mdp), -torch.inf)


def q_from_zero(mdp: MDP) -> Tensor:
    """Q where all values are 0: the rewards."""
    return mdp.R if mdp.mask is None else mdp.R.masked_fill(~_feasible(mdp), -torch.inf)


def _feasible(mdp: MDP) -> Tensor:
    """The mask, with every action open in terminal states, where all are worth 0."""
    assert mdp.mask is not None
    return mdp.mask if mdp.terminal is None else mdp.mask | mdp.terminal[..., None]


def feasible(mdp: MDP) -> Tensor:
    """(*b, S, A) bool: which actions may be taken."""
    return torch.ones_like(mdp.R, dtype=torch.bool) if mdp.mask is None else _feasible(mdp)


def greedy(Q: Tensor, tolerance: float | Tensor = 0.0) -> tuple[Tensor, Tensor]:
    """The first best action (*b, S), and the set (*b, S, A) of those within ``tolerance`` of the best."""
    best = Q.amax(-1, keepdim=True)
    margin = tolerance[..., None, None] if isinstance(tolerance, Tensor) and tolerance.dim() else tolerance
    least = best - margin
    return Q.argmax(-1), least <= Q


def rounding(mdp: MDP, V: Tensor) -> Tensor:
    """(*b) how far one computed backup may be from the exact one: terms added, times what they amount to, times eps."""
    size = mdp.R.abs().amax((-2, -1)) + V.abs().amax(-1)
    return (mdp.successors_per_row + 3) * torch.finfo(mdp.dtype).eps * size


def shift(mdp: MDP, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """((*b), (*b)) lower(low) and upper(high) of the module's formula, for gamma u < 1."""
    gamma = mdp.exact_discount  # where that of mdp.dtype is rounded, the slack of the sweep covers it
    factors = [gamma * going_on / (1 - gamma * going_on) for going_on in mdp.continuing]
    lows, highs = ([change.double() * f for f in factors] for change in (low, high))
    return torch.minimum(*lows), torch.maximum(*highs)


def bounds_after(mdp: MDP, V: Tensor, TV: Tensor, steps: Tensor | None = None) -> Bounds:
    """Bounds of the fixed point of T from one sweep of it.

    Args:
        V, TV: (*b, S) values before and after.
        steps: (*b, S) greatest expected steps to the end, where gamma u is 1.
    """
    slack = rounding(mdp, V).double()
    d = (TV - V).double()
    low, high = d.amin(-1) - slack, d.amax(-1) + slack
    if mdp.contracts:
        near = TV.double()
        below, above = shift(mdp, low, high)
        lower = near + (below - slack)[..., None]
        upper = near + (above + slack)[..., None]
    elif steps is not None:
        near = V.double()
        lower = near + steps * low.clamp(max=0)[..., None]
        upper = near + steps * high.clamp(min=0)[..., None]
    else:
        return Bounds(None, None, "gamma is 1 and some policy never ends, or all but never")
    # widen by what storing the bounds in the MDP's dtype rounds off
    eps = torch.finfo(mdp.dtype).eps
    lower, upper = lower - eps * lower.abs(), upper + eps * upper.abs()
    return Bounds(lower.to(mdp.dtype), upper.to(mdp.dtype))


def finish(
    mdp: MDP,
    V: Tensor,
    *,
    tol: float,
    residuals: Sequence[float],
    iterations: int,
    started: float,
    exhausted: bool = False,
    steps: Tensor | None = None,
    history: Sequence[Tensor] = (),
    swept: Tensor | None = None,
) -> Solution:
    """The solution that values V of a planner amount to, with its bounds from one more sweep.

    Where all rows go on with one probability, one number is wrong with all values, and V and Q are moved to the middle
    of their bounds; elsewhere they stay. Either way V is the greatest Q, and the policy is greedy with respect to Q. A
    planner that has swept V already gives the action values as ``swept``; they are swept again only if their bounds
    are not yet within ``tol``.
    """
    centred = mdp.contracts and mdp.even
    for last in (False, True):
        Q = q_from_v(mdp, V) if swept is None else swept
        best = Q.amax(-1)
        lower, upper, reason = bounds_after(mdp, V, best, steps)
        if lower is None or upper is None:
            error = regret = None
            margin = 4 * rounding(mdp, best) + max(tol, 0.0)
            break
        if centred:
            Q = Q + ((lower + upper) / 2 - best)[..., None]
            best = Q.amax(-1)
        error = torch.maximum((upper - best).amax(-1), (best - lower).amax(-1))
        regret = (upper - lower).amax(-1)
        margin = 2 * error + 2 * rounding(mdp, best)  # gamma P (V* - V) is within the bounds that hold for V* - TV
        if last or bool((error <= tol).all()):
            break
        V, swept = best, None
    policy, optimal = greedy(Q, margin)
    if error is not None and bool((error <= tol).all()):
        status = "converged"
    elif exhausted:
        status = "max_iterations"
    else:
        status = "converged" if error is None else "rounding"
    return Solution(
        best, Q, policy, optimal, lower, upper, error, regret, list(residuals), iterations, status, reason,
        list(history), time.perf_counter() - started,
    )  # fmt: skip
