"""Solutions as text that a person reads and a program parses, and a judgement of policies that ties cannot fool."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from advrl.checks import number
from advrl.columns import columns
from advrl.tabular.evaluation import check_policy, policy_evaluation
from advrl.tabular.mdp import MDP
from advrl.tabular.planning import solve
from advrl.tabular.solution import Solution, bounds_after, q_from_v

ARROWS = {
    "left": "←", "down": "↓", "right": "→", "up": "↑", "west": "←", "south": "↓", "east": "→", "north": "↑",
    "down-left": "↙", "down-right": "↘", "up-right": "↗", "up-left": "↖", "stay": "o",
}  # fmt: skip
ENDED = "·"


def ended_states(mdp: MDP) -> Tensor:
    """(*b, S) bool: where nothing follows and nothing is paid, by ``terminal`` or because every action stops."""
    over = torch.zeros_like(mdp.R[..., 0], dtype=torch.bool) if mdp.terminal is None else mdp.terminal
    if mdp.stop is None:
        return over
    return over | ((mdp.stop == 1) & (mdp.R == 0)).all(-1)


def render_values(mdp: MDP, V: Tensor, digits: int = 3) -> str:
    """Values (S,) as lines of numbers: a line per row of a grid, else a line ``state  value`` for every state."""
    numbers = [f"{v:.{digits}f}" for v in V.tolist()]
    if mdp.shape is None:
        return "\n".join(columns([[mdp.state(s), n] for s, n in enumerate(numbers)], figures=False))
    return _grid(numbers, mdp.shape, right=True)


def render_policy(mdp: MDP, policy: Tensor) -> str:
    """A policy as text: on a grid a cell per state with the arrows of all its actions, else a line per state.

    Cells are parted by spaces and hold no space: ``←↑`` is a tie of left and up, ``·`` a state where nothing follows.
    Actions without an arrow are shown by their label or number, ties of them joined by ``|``.

    Args:
        policy: (S,) actions; or (S, A) probabilities or bool, whose positive entries are all shown.
    """
    taken = policy > 0 if policy.dim() == 2 else torch.nn.functional.one_hot(policy.long(), mdp.num_actions).bool()
    labels = [str(a) for a in range(mdp.num_actions)] if mdp.action_labels is None else list(mdp.action_labels)
    signs = [ARROWS.get(label, label.replace(" ", "-")) for label in labels]
    joint = "" if all(label in ARROWS for label in labels) else "|"
    over = ended_states(mdp).tolist()
    cells = [
        ENDED if over[s] else joint.join(sign for sign, shown in zip(signs, row, strict=True) if shown)
        for s, row in enumerate(taken.tolist())
    ]
    if mdp.shape is None:
        return "\n".join(columns([[mdp.state(s), cell] for s, cell in enumerate(cells)], figures=False))
    return _grid(cells, mdp.shape)


def render_solution(mdp: MDP, found: Solution) -> str:
    """Values, every optimal action and what is certain about them, as text."""
    error = found.error_bound
    sure = f"within {float(error):.1e}" if error is not None else f"no certified bound: {found.reason}"
    spent = f"{found.seconds:.3g} s" if found.seconds >= 1 else f"{1000 * found.seconds:.3g} ms"
    facts = f"({found.status}, {sure}, {found.iterations} iterations, {spent})"
    if mdp.shape is None:
        cells = [line.split()[-1] for line in render_policy(mdp, found.optimal_set).splitlines()]
        rows = [
            [mdp.state(s), f"{v:.3f}", cell] for s, (v, cell) in enumerate(zip(found.V.tolist(), cells, strict=True))
        ]
        return "\n".join([f"State, value, and all optimal actions {facts}", *columns(rows, figures=False)])
    return (
        f"Values {facts}\n{render_values(mdp, found.V)}\n\n"
        f"Optimal actions (all of them)\n{render_policy(mdp, found.optimal_set)}"
    )


def bounds_by_sweep(mdp: MDP, history: list[Tensor]) -> tuple[Tensor, Tensor]:
    """((K, S), (K, S)) certified bounds after each of K sweeps of value iteration, as kept in ``Solution.history``.

    Raises:
        ValueError: where there are no bounds, since gamma is 1 and some policy never ends.
    """
    lower, upper = [], []
    V = torch.zeros_like(mdp.R[..., 0])
    for new in history:
        low, high, reason = bounds_after(mdp, V, new)
        if low is None or high is None:
            raise ValueError(f"no bounds to show: {reason}")
        lower.append(low)
        upper.append(high)
        V = new
    if not lower:
        raise ValueError("no sweeps to show: solve with history=True")
    return torch.stack(lower), torch.stack(upper)


def assert_policy_optimal(mdp: MDP, policy: Tensor | np.ndarray, tolerance: float = 1e-6) -> None:
    """Pass for *any* optimal policy, whatever its tie-break; for graders.

    The policy is evaluated exactly, and its value must be the optimal one in every state to within ``tolerance``. So a
    policy that only ever takes optimal actions, but at gamma = 1 never gets to the end, does not pass.

    Args:
        policy: (S,) actions or (S, A) probabilities.

    Raises:
        AssertionError: naming the state where it loses most, what it does there and what would be best.
        ValueError: if it is no policy for this MDP.
    """
    number("tolerance", tolerance, 0.0)
    if mdp.batch_shape:
        raise ValueError(f"one MDP at a time can be graded, this is a batch of shape {mdp.batch_shape}")
    policy = check_policy(mdp, policy)
    best = solve(mdp)
    try:
        V = policy_evaluation(mdp, policy).V
    except ValueError as error:  # a policy, but at gamma = 1 one that never ends
        raise AssertionError(f"the policy is not optimal: {error}") from error
    loss = best.V - V
    if bool((loss <= tolerance).all()):
        return
    slack = q_from_v(mdp, best.V).amax(-1) - _own(q_from_v(mdp, best.V), policy)
    s = int(slack.argmax()) if bool((slack > tolerance).any()) else int(loss.argmax())
    names = (
        [mdp.action(a) for a in found.tolist()] if (found := best.optimal_set[s].nonzero().flatten()).numel() else []
    )
    done = mdp.action(int(policy[s])) if not policy.is_floating_point() else f"probabilities {policy[s].tolist()}"
    raise AssertionError(
        f"the policy is not optimal: it loses {float(loss.max()):.6g}, first of all in state {mdp.state(s)}, where it "
        f"takes {done} and {' or '.join(names)} would be best: value {float(V[s]):.6g}, not {float(best.V[s]):.6g}"
    )


def _own(Q: Tensor, policy: Tensor) -> Tensor:
    """(S,) value of what the policy does."""
    if policy.is_floating_point():
        return (Q.where(policy > 0, 0.0) * policy).sum(-1)
    return Q.gather(-1, policy[..., None]).squeeze(-1)


def _grid(cells: list[str], shape: tuple[int, int], right: bool = False) -> str:
    width = max(map(len, cells))
    padded = [cell.rjust(width) if right else cell.ljust(width) for cell in cells]
    across = shape[1]
    return "\n".join(" ".join(padded[i : i + across]).rstrip() for i in range(0, len(padded), across))
