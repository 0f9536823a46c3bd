"""Problems with known answers: the textbook's, random ones, and grids drawn as text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from advrl.checks import integer, number
from advrl.tabular.mdp import MDP
from advrl.tabular.transitions import Successors

ARROWS = ("left", "down", "right", "up")
MOVES = np.array([(0, -1), (1, 0), (0, 1), (-1, 0)])


def _mdp(following: np.ndarray, prob: np.ndarray, R: np.ndarray, gamma: float, **fields: object) -> MDP:
    """An MDP of NumPy successor lists (S, A, B), in float64."""
    return MDP(
        Successors(torch.as_tensor(following.astype(np.int32), device="cpu"), torch.as_tensor(prob, device="cpu")),
        torch.as_tensor(R, dtype=torch.float64, device="cpu"), gamma, **fields,  # type: ignore[arg-type]
    )  # fmt: skip


def _flags(states: int, marked: Sequence[int]) -> Tensor:
    flags = torch.zeros(states, dtype=torch.bool, device="cpu")
    flags[list(marked)] = True
    return flags


def _one_hot(states: int, state: int) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(state, device="cpu"), states).double()


def gridworld(
    text: str, gamma: float = 0.99, *, slip: float = 0.0, step_reward: float = 0.0, goal_reward: float = 1.0,
    pit_reward: float = 0.0,
) -> MDP:  # fmt: skip
    """A grid drawn as lines of text: ``S`` start, ``G`` goal, ``H`` pit, ``#`` wall, anything else floor.

    Four actions (left, down, right, up); against a wall or the edge one stays. Goals and pits end the episode.

    Args:
        slip: probability of moving at right angles to what was meant, half of it either way.
        step_reward, goal_reward, pit_reward: of every step, and on entering.

    Raises:
        ValueError: for lines of different lengths, or no floor at all.
    """
    number("slip", slip, 0.0, 1.0)
    lines = [line.strip() for line in text.strip().splitlines()]
    width = len(lines[0]) if lines else 0
    if not width or any(len(line) != width for line in lines):
        raise ValueError(f"a map needs lines of one length, got lengths {[len(line) for line in lines]}")
    cells = np.array([list(line) for line in lines])
    rows = len(lines)
    states = rows * width
    index = np.arange(states).reshape(rows, width)
    target = np.empty((4, states), dtype=int)
    for a, (dr, dc) in enumerate(MOVES):
        r = np.clip(np.arange(rows)[:, None] + dr, 0, rows - 1)
        c = np.clip(np.arange(width)[None] + dc, 0, width - 1)
        there = index[r, c]
        target[a] = np.where(cells[r, c] == "#", index, there).ravel()
    following = np.stack([np.stack([target[a], target[(a + 1) % 4], target[(a - 1) % 4]], -1) for a in range(4)], 1)
    prob = np.broadcast_to([1 - slip, slip / 2, slip / 2], following.shape).copy()
    entry = np.full(states, step_reward)
    flat = cells.ravel()
    entry[flat == "G"] += goal_reward
    entry[flat == "H"] += pit_reward
    starts = (flat == "S").astype(float)
    if not starts.any():
        starts = np.isin(flat, ("G", "H", "#"), invert=True).astype(float)
    if not starts.any():
        raise ValueError("the map has no floor to start from")
    return _mdp(
        following, prob, (prob * entry[following]).sum(-1), gamma,
        terminal=torch.as_tensor(np.isin(flat, ("G", "H", "#")), device="cpu"),
        p0=torch.as_tensor(starts / starts.sum(), device="cpu"),
        action_labels=ARROWS, shape=(rows, width),
    )  # fmt: skip


def special_grid(gamma: float = 0.9) -> MDP:
    """Sutton & Barto (2018), examples 3.5 and 3.8: 5 x 5; from A any action pays 10 and leads to A', from B 5 to B'."""
    following = np.empty((25, 4, 1), dtype=int)
    R = np.zeros((25, 4))
    for s in range(25):
        for a, (dr, dc) in enumerate(MOVES):
            r, c = s // 5 + dr, s % 5 + dc
            inside = 0 <= r < 5 and 0 <= c < 5
            following[s, a, 0] = 5 * r + c if inside else s
            R[s, a] = 0.0 if inside else -1.0
    for state, to, reward in ((1, 21, 10.0), (3, 13, 5.0)):
        following[state], R[state] = to, reward
    return _mdp(following, np.ones((25, 4, 1)), R, gamma, action_labels=ARROWS, shape=(5, 5))


def corner_grid(gamma: float = 1.0) -> MDP:
    """Sutton & Barto (2018), example 4.1: 4 x 4, two opposite corners end, every step costs 1."""
    return gridworld("G...\n....\n....\n...G", gamma, step_reward=-1.0, goal_reward=0.0)


def gambler(p: float = 0.4, goal: int = 100) -> MDP:
    """Sutton & Barto (2018), example 4.3: stake some of the capital on a coin of probability p, until 0 or the goal.

    State s is the capital, action a the stake, feasible up to min(s, goal - s); a stake of 0 is not.
    """
    number("p", p, 0.0, 1.0)
    integer("goal", goal, 2)
    s, a = np.meshgrid(np.arange(goal + 1), np.arange(goal // 2 + 1), indexing="ij")
    feasible = (a >= 1) & (a <= np.minimum(s, goal - s))
    following = np.stack([np.clip(s + a, 0, goal), np.clip(s - a, 0, goal)], -1)
    prob = np.broadcast_to([p, 1 - p], following.shape).copy()
    R = np.where(feasible & (s + a == goal), p, 0.0)
    return _mdp(
        following, prob, R, 1.0, terminal=_flags(goal + 1, (0, goal)), mask=torch.as_tensor(feasible, device="cpu")
    )


def car_rental(gamma: float = 0.9) -> MDP:
    """Sutton & Barto (2018), example 4.2, Jack's car rental: cars at two places (0..20 each), up to 5 moved overnight.

    A rental pays 10, a moved car costs 2; requests are Poisson with means 3 and 4, returns 3 and 2, not truncated.
    State (i, j) is 21 i + j; action k moves k - 5 cars from the first to the second, which holds at most 20.
    """
    most, moves = 20, 5
    tables = []
    for requests, returns in ((3.0, 3.0), (4.0, 2.0)):
        ask, give = (_poisson(mean, 200) for mean in (requests, returns))
        move = np.zeros((most + 1, most + 1))
        income = np.zeros(most + 1)
        for n in range(most + 1):
            rented = np.append(ask[:n], ask[n:].sum())  # of n cars, 0..n are rented
            income[n] = 10.0 * (rented * np.arange(n + 1)).sum()
            for k, chance in enumerate(rented):
                left = n - k
                returned = np.append(give[: most - left], give[most - left :].sum())
                move[n, left:] += chance * returned
        tables.append((move, income))
    (first, earn1), (second, earn2) = tables
    size = most + 1
    P, R = np.zeros((size, size, 2 * moves + 1, size, size)), np.zeros((size, size, 2 * moves + 1))
    feasible = np.zeros(R.shape, dtype=bool)
    for i in range(size):
        for j in range(size):
            for a in range(-moves, moves + 1):
                allowed = -j <= a <= i
                feasible[i, j, a + moves] = allowed
                x, y = (min(i - a, most), min(j + a, most)) if allowed else (i, j)
                P[i, j, a + moves] = np.outer(first[x], second[y])
                R[i, j, a + moves] = earn1[x] + earn2[y] - 2 * abs(a)
    states = size * size
    return MDP(
        torch.as_tensor(P.reshape(states, -1, states), device="cpu"),
        torch.as_tensor(R.reshape(states, -1), device="cpu"), gamma,
        mask=torch.as_tensor(feasible.reshape(states, -1), device="cpu"), shape=(size, size),
        action_labels=[f"{a:+d}" for a in range(-moves, moves + 1)],
    )  # fmt: skip


def _poisson(mean: float, terms: int) -> np.ndarray:
    k = np.arange(terms)
    chances: np.ndarray = np.exp(k * math.log(mean) - mean - np.array([math.lgamma(i + 1) for i in k]))
    return chances


def cliff(gamma: float = 1.0, slippery: bool = False) -> MDP:
    """Sutton & Barto (2018), example 6.6: 4 x 12; a step costs 1, the cliff 100 and leads back to the start.

    Actions as in Gymnasium: up, right, down, left; ``slippery`` moves at right angles with probability 2/3.
    """
    following, R = np.empty((48, 4, 1), dtype=int), np.full((48, 4, 1), -1.0)
    for s in range(48):
        for a, (dr, dc) in enumerate(((-1, 0), (0, 1), (1, 0), (0, -1))):
            r, c = min(max(s // 12 + dr, 0), 3), min(max(s % 12 + dc, 0), 11)
            fell = r == 3 and 0 < c < 11
            following[s, a, 0] = 36 if fell else 12 * r + c
            R[s, a, 0] = -100.0 if fell else -1.0
    if slippery:
        turns = [(np.arange(4) + turn) % 4 for turn in (-1, 0, 1)]
        following = np.concatenate([following[:, turn] for turn in turns], -1)
        R = np.concatenate([R[:, turn] for turn in turns], -1)
    prob = np.full(following.shape, 1 / following.shape[-1])
    return _mdp(following, prob, (prob * R).sum(-1), gamma, terminal=_flags(48, [47]), p0=_one_hot(48, 36),
                action_labels=("up", "right", "down", "left"), shape=(4, 12))  # fmt: skip


def random_walk(states: int = 5, *, left: float = 0.0, right: float = 1.0, gamma: float = 1.0) -> MDP:
    """Sutton & Barto (2018), example 6.2: a walk among ``states``, paid on leaving at either end; one action.

    States 0 and states + 1 are the ends; V(i) = left + (right - left) i / (states + 1) at gamma 1.
    """
    n = integer("states", states) + 2
    s = np.arange(n)
    following = np.stack([np.maximum(s - 1, 0), np.minimum(s + 1, n - 1)], -1)[:, None]
    R = np.zeros((n, 1))
    R[1, 0] += left / 2
    R[n - 2, 0] += right / 2
    return _mdp(following, np.full((n, 1, 2), 0.5), R, gamma, terminal=_flags(n, (0, n - 1)), p0=_one_hot(n, n // 2))


def windy(gamma: float = 1.0, *, kings: bool = False, stay: bool = False, stochastic: bool = False) -> MDP:
    """Sutton & Barto (2018), example 6.5 and exercises 6.9, 6.10: 7 x 10 with an upward wind; a step costs 1.

    Args:
        kings: eight moves instead of four; ``stay``: a ninth, to stay.
        stochastic: the wind, where it blows, varies by one either way, a third of the time each.
    """
    moves = [(0, -1), (1, 0), (0, 1), (-1, 0)]
    labels = list(ARROWS)
    if kings:
        moves += [(1, -1), (1, 1), (-1, 1), (-1, -1)]
        labels += ["down-left", "down-right", "up-right", "up-left"]
    if stay:
        moves.append((0, 0))
        labels.append("stay")
    wind = (0, 0, 0, 1, 1, 1, 2, 2, 1, 0)
    following = np.empty((70, len(moves), 3), dtype=int)
    for s in range(70):
        blow = wind[s % 10]
        for a, (dr, dc) in enumerate(moves):
            for k, gust in enumerate((-1, 0, 1)):
                up = blow + (gust if stochastic and blow else 0)
                r, c = min(max(s // 10 + dr - up, 0), 6), min(max(s % 10 + dc, 0), 9)
                following[s, a, k] = 10 * r + c
    prob = np.full(following.shape, 1 / 3)
    return _mdp(following, prob, np.full((70, len(moves)), -1.0), gamma, terminal=_flags(70, [37]), p0=_one_hot(70, 30),
                action_labels=labels, shape=(7, 10))  # fmt: skip


STUDENT_STATES = ("Class 1", "Class 2", "Class 3", "Pass", "Pub", "Facebook", "Sleep")


def student_process(gamma: float = 1.0) -> MDP:
    """Silver's student Markov reward process (UCL course, lecture 2): one action."""
    P = torch.tensor(
        [
            [0, 0.5, 0, 0, 0, 0.5, 0],
            [0, 0, 0.8, 0, 0, 0, 0.2],
            [0, 0, 0, 0.6, 0.4, 0, 0],
            [0, 0, 0, 0, 0, 0, 1],
            [0.2, 0.4, 0.4, 0, 0, 0, 0],
            [0.1, 0, 0, 0, 0, 0.9, 0],
            [0, 0, 0, 0, 0, 0, 1],
        ],
        dtype=torch.float64, device="cpu",
    )  # fmt: skip
    R = torch.tensor([-2.0, -2, -2, 10, 1, -1, 0], dtype=torch.float64, device="cpu")
    return MDP(P[:, None], R[:, None], gamma, terminal=_flags(7, [6]), state_labels=STUDENT_STATES)


def student(gamma: float = 1.0) -> MDP:
    """Silver's student MDP (UCL course, lecture 2): states Facebook, Class 1..3, Sleep; two actions in each.

    Facebook: stay there (-1) or quit (0); Class 1: Facebook (-1) or study (-2); Class 2: sleep (0) or study (-2);
    Class 3: pub (+1, then Class 1, 2 or 3 with .2, .4, .4) or study (+10, then sleep).
    """
    P = torch.zeros(5, 2, 5, dtype=torch.float64, device="cpu")
    R = torch.tensor([[-1.0, 0], [-1, -2], [0, -2], [1, 10], [0, 0]], dtype=torch.float64, device="cpu")
    for s, a, to in ((0, 0, 0), (0, 1, 1), (1, 0, 0), (1, 1, 2), (2, 0, 4), (2, 1, 3), (3, 1, 4), (4, 0, 4), (4, 1, 4)):
        P[s, a, to] = 1.0
    P[3, 0, 1:4] = torch.tensor([0.2, 0.4, 0.4], dtype=torch.float64, device="cpu")
    return MDP(P, R, gamma, terminal=_flags(5, [4]), p0=_one_hot(5, 1),
               state_labels=("Facebook", "Class 1", "Class 2", "Class 3", "Sleep"))  # fmt: skip


def garnet(states: int = 100, actions: int = 4, branching: int = 3, gamma: float = 0.95, *, seed: int = 0) -> MDP:
    """A random sparse MDP: ``branching`` next states drawn uniformly, probabilities by cutting [0, 1] at random.

    Archibald, McKinnon & Thomas (1995); rewards uniform in [0, 1].
    """
    integer("states", states), integer("actions", actions), integer("branching", branching)
    rng = np.random.default_rng(seed)
    following = rng.integers(0, states, (states, actions, branching))
    cuts = np.sort(rng.random((states, actions, branching - 1)), -1)
    prob = np.diff(cuts, axis=-1, prepend=0.0, append=1.0)
    return _mdp(following, prob, rng.random((states, actions)), gamma)


def random_mdp(states: int = 20, actions: int = 4, gamma: float = 0.95, *, seed: int = 0) -> MDP:
    """A random dense MDP: next states from a flat Dirichlet distribution, rewards standard normal."""
    integer("states", states), integer("actions", actions)
    rng = np.random.default_rng(seed)
    P = rng.dirichlet(np.ones(states), (states, actions))
    R = rng.standard_normal((states, actions))
    return MDP(torch.as_tensor(P, device="cpu"), torch.as_tensor(R, device="cpu"), gamma)


PROBLEMS: dict[str, Callable[[], MDP]] = {
    "special-grid": special_grid,
    "corner-grid": corner_grid,
    "gambler": gambler,
    "car-rental": car_rental,
    "cliff": cliff,
    "random-walk": random_walk,
    "windy": windy,
    "student": student,
    "student-process": student_process,
    "garnet": garnet,
    "random": random_mdp,
}
"""Names on the command line."""
