r"""Average reward per step, for problems that go on for ever: relative value iteration, White (1963).

With d = TV - V, T at gamma = 1, every state's greatest average reward g* is in [min d, max d] for *any* V (Odoni,
1969), since T^n V >= V + n min d. Where one gain holds for all states the two meet. Each sweep goes four fifths of the
way, so that chains with a period converge too (Schweitzer, 1971): that changes neither gains nor the best policies.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from advrl.checks import integer, number
from advrl.tabular import transitions
from advrl.tabular.mdp import MDP, ROW_TOLERANCE
from advrl.tabular.solution import feasible, greedy

_PART = 0.8


@dataclass(frozen=True, eq=False)
class AverageReward:
    """The greatest average reward and what is certain about it. Shapes: *b batch of MDPs, S states, A actions.

    Attributes:
        gain: (*b) reward per step, the middle of its bounds.
        bias: (*b, S) relative values h, 0 in the first state: gain + h(s) = max_a R(s, a) + E[h(s')].
        Q: (*b, S, A) R + E[h(s')] - gain; -inf where an action is not feasible.
        policy: (*b, S) the first of the best actions.
        optimal_set: (*b, S, A) bool: actions within ``tol``, or what is rounded off, of the best.
        lower, upper: (*b) certified bounds of the gain of every state.
        iterations: sweeps.
        status: "converged", or "max_iterations": then the gain may depend on the state where one starts.
        seconds: of wall time.
    """

    gain: Tensor
    bias: Tensor
    Q: Tensor
    policy: Tensor
    optimal_set: Tensor
    lower: Tensor
    upper: Tensor
    iterations: int
    status: str
    seconds: float = 0.0


def relative_value_iteration(mdp: MDP, *, tol: float = 1e-8, max_sweeps: int = 100_000) -> AverageReward:
    """The greatest average reward per step of an MDP that never ends; its gamma plays no part.

    Args:
        tol: distance between the bounds to reach.
        max_sweeps: give up after so many, as where states that cannot reach each other have gains of their own.

    Raises:
        ValueError: where an episode can end: then the average is that of the steps after it, nothing.
    """
    started = time.perf_counter()
    number("tol", tol, 0.0)
    integer("max_sweeps", max_sweeps)
    sums = transitions.row_sums(mdp.P, mdp.num_states, mdp.num_actions)
    ends = ((1 - sums) > ROW_TOLERANCE) & feasible(mdp)
    if bool(ends.any()):
        *_, s, a = ends.nonzero()[0].tolist()
        raise ValueError(
            f"an average over endless time needs an MDP that never ends: state {mdp.state(s)}, action {mdp.action(a)} "
            f"ends with probability {1 - float(sums[ends][0]):.6g}; use solve"
        )
    h, closed = torch.zeros_like(mdp.R[..., 0]), None if mdp.mask is None else ~feasible(mdp)
    status, sweeps = "max_iterations", 0
    for _ in range(max_sweeps):
        sweeps += 1
        Q = mdp.R + mdp.expectation(h)
        Q = Q if closed is None else Q.masked_fill(closed, -torch.inf)
        change = Q.amax(-1) - h
        low, high = change.amin(-1), change.amax(-1)
        size = mdp.R.abs().amax((-2, -1)) + h.abs().amax(-1)
        slack = (mdp.successors_per_row + 3) * torch.finfo(mdp.dtype).eps * size
        if bool((high - low <= torch.maximum(torch.full_like(slack, tol), 2 * slack)).all()):
            status = "converged"
            break
        h = h + _PART * change
        h = h - h[..., :1]
    gain = (low + high) / 2
    policy, optimal = greedy(Q, torch.maximum(torch.full_like(slack, tol), 2 * slack))
    return AverageReward(gain, h, Q - gain[..., None, None], policy, optimal, low - slack, high + slack, sweeps, status,
                         time.perf_counter() - started)  # fmt: skip
