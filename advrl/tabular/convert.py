"""Ways into an MDP: Gymnasium's tables, a function, matrices, and data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from advrl.checks import integer, number
from advrl.tabular.mdp import MDP
from advrl.tabular.transitions import Successors, sparse_csr

Table = Mapping[int, Mapping[int, Sequence[tuple[float, int, float, bool]]]]


def from_gymnasium(
    env: Any, gamma: float = 1.0, *, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
) -> MDP:
    """The MDP behind a toy-text environment, wrapped or not, or behind its table ``P[s][a] = [(p, s', r, done), ...]``.

    What is ``done`` ends the episode there and then, so its successor is worth nothing and there is no extra state. A
    time limit is no part of the MDP.

    Raises:
        ValueError: for an environment without a table, such as Blackjack.
    """
    inner = getattr(env, "unwrapped", env)
    table: Table | None = env if isinstance(env, Mapping) else getattr(inner, "P", None)
    if table is None:
        raise ValueError(
            f"{type(inner).__name__} has no table P[s][a] of transitions, so it cannot be solved by planning: learn by "
            "sampling it instead, or estimate a model with advrl.tabular.from_trajectories"
        )
    S, A = len(table), max(len(actions) for actions in table.values())
    merged: list[list[dict[int, float]]] = [[{} for _ in range(A)] for _ in range(S)]
    R, stop, mask = np.zeros((S, A)), np.zeros((S, A)), np.zeros((S, A), dtype=bool)
    for s, actions in table.items():
        for a, outcomes in actions.items():
            mask[s, a] = True
            for p, to, r, done in outcomes:
                R[s, a] += p * r
                if done:
                    stop[s, a] += p
                else:
                    merged[s][a][int(to)] = merged[s][a].get(int(to), 0.0) + p
    B = max(1, max(len(row) for rows in merged for row in rows))
    following, prob = np.zeros((S, A, B), dtype=np.int32), np.zeros((S, A, B))
    for s in range(S):
        for a in range(A):
            for b, (to, p) in enumerate(merged[s][a].items()):
                following[s, a, b], prob[s, a, b] = to, p
    start = getattr(inner, "initial_state_distrib", None)
    as_tensor: dict[str, Any] = {"dtype": dtype, "device": device}
    return MDP(
        Successors(torch.as_tensor(following, device=device), torch.as_tensor(prob, **as_tensor)),
        torch.as_tensor(R, **as_tensor),
        gamma,
        stop=torch.as_tensor(stop, **as_tensor),
        p0=None if start is None else torch.as_tensor(np.asarray(start), **as_tensor),
        mask=None if mask.all() else torch.as_tensor(mask, device=device),
        state_labels=_state_labels(inner, S),
        action_labels=_action_labels(inner, A),
        shape=_grid(inner, S),
    )


def _grid(env: Any, states: int) -> tuple[int, int] | None:
    shape = getattr(env, "shape", None)
    if shape is None and hasattr(env, "nrow"):
        shape = (env.nrow, env.ncol)
    return tuple(shape) if shape is not None and math.prod(shape) == states else None


def _state_labels(env: Any, states: int) -> tuple[str, ...] | None:
    own = getattr(env, "state_labels", None)
    if own is not None and len(own) == states:
        return tuple(own)
    if type(env).__name__ != "TaxiEnv" or not hasattr(env, "decode"):
        return None
    stands = ("R", "G", "Y", "B", "taxi")
    parts = [tuple(env.decode(s)) for s in range(states)]
    return tuple(f"taxi at {row},{column}, {stands[here]} to {stands[to]}" for row, column, here, to in parts)


def _action_labels(env: Any, actions: int) -> tuple[str, ...] | None:
    own = getattr(env, "action_labels", None)
    if own is not None and len(own) == actions:
        return tuple(own)
    name = type(env).__name__
    known = {
        "FrozenLakeEnv": ("left", "down", "right", "up"),
        "CliffWalkingEnv": ("up", "right", "down", "left"),
        "TaxiEnv": ("south", "north", "east", "west", "pick up", "drop off"),
    }
    return known[name] if name in known and len(known[name]) == actions else None


def from_dense(
    P: Any,
    R: Any,
    gamma: float | Tensor = 1.0,
    *,
    normalise: bool = False,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
    **fields: Any,
) -> MDP:
    """The MDP of arrays or nested lists, P (*b, S, A, S) and R (*b, S, A) or (*b, S, A, S).

    Args:
        normalise: divide the rows of P by what they sum to, where that is not zero.
        fields: others of the MDP, such as ``terminal``.
    """
    prob, reward = (torch.as_tensor(x, dtype=dtype, device=device) for x in (P, R))
    if normalise:
        total = prob.sum(-1, keepdim=True)
        prob = torch.where(total > 0, prob / total, prob)
    return MDP(prob, reward, gamma, **fields)


def from_function(
    step: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]],
    num_states: int,
    num_actions: int,
    gamma: float | Tensor = 1.0,
    **fields: Any,
) -> MDP:
    """The MDP of a batched function, called once for all states and actions.

    Args:
        step: maps states (S * A,) and actions (S * A,) to next states (S * A, B), their probabilities (S * A, B), and
            rewards (S * A,) or (S * A, B).
        fields: others of the MDP, such as ``terminal``.
    """
    S, A = integer("num_states", num_states), integer("num_actions", num_actions)
    device = fields.pop("device", "cpu")
    states = torch.arange(S, device=device).repeat_interleave(A)
    following, prob, reward = step(states, torch.arange(A, device=device).repeat(S))
    if following.dim() != 2 or following.shape != prob.shape or following.shape[0] != S * A:
        raise ValueError(
            f"step must return next states and probabilities of shape ({S * A}, B), got {tuple(following.shape)} and "
            f"{tuple(prob.shape)}"
        )
    R = reward.view(S, A) if reward.dim() == 1 else reward.view(S, A, -1)
    return MDP(Successors(following.view(S, A, -1), prob.view(S, A, -1)), R, gamma, **fields)


def from_sparse(P: Any, R: Tensor, gamma: float | Tensor = 1.0, **fields: Any) -> MDP:
    """The MDP of a SciPy sparse matrix (S * A, S) with rows s * A + a, or of A matrices (S, S), one per action."""
    import scipy.sparse as sp

    if isinstance(P, (list, tuple)):
        S, A = P[0].shape[0], len(P)
        order = np.arange(S * A).reshape(A, S).T.ravel()  # stacked rows are a * S + s
        P = sp.vstack([sp.csr_matrix(p) for p in P]).tocsr()[order]
    matrix = sp.csr_matrix(P)
    matrix.sum_duplicates()
    crow, col = (torch.as_tensor(i.astype(np.int32), device=R.device) for i in (matrix.indptr, matrix.indices))
    value = torch.as_tensor(matrix.data, dtype=R.dtype, device=R.device)
    return MDP(sparse_csr(crow, col, value, matrix.shape), R, gamma, **fields)


def from_trajectories(
    states: Tensor,
    actions: Tensor,
    rewards: Tensor,
    next_states: Tensor,
    num_states: int,
    num_actions: int,
    gamma: float | Tensor = 1.0,
    *,
    done: Tensor | None = None,
    prior: float = 0.0,
    dtype: torch.dtype = torch.float64,
    **fields: Any,
) -> tuple[MDP, Tensor]:
    """The maximum-likelihood model of data (certainty equivalence), and how often each pair was tried.

    P(s' | s, a) = (n(s, a, s') + prior) / (n(s, a) + prior S); pairs that were never tried and have no prior stay where
    they are, at reward 0. What ``done`` marks ends the episode.

    Args:
        states, actions, next_states: (N,) int; rewards: (N,).
        done: (N,) bool.
        prior: pseudo-count of every next state, at least 0.

    Returns:
        The MDP, and (S, A) counts: see :func:`model_intervals` for what they are worth.
    """
    S, A = integer("num_states", num_states), integer("num_actions", num_actions)
    number("prior", prior, 0.0)
    for name, value, limit in (("states", states, S), ("actions", actions, A), ("next_states", next_states, S)):
        if value.dim() != 1 or len(value) != len(states):
            raise ValueError(f"{name} must have shape ({len(states)},), got {tuple(value.shape)}")
        if len(value) and (int(value.min()) < 0 or int(value.max()) >= limit):
            raise ValueError(f"{name} must be in 0..{limit - 1}, they are in {int(value.min())}..{int(value.max())}")
    like: dict[str, Any] = {"dtype": dtype, "device": states.device}
    pair = states.long() * A + actions.long()
    count = torch.zeros(S * A, **like).index_add_(0, pair, torch.ones(len(pair), **like))
    total = torch.zeros(S * A, **like).index_add_(0, pair, rewards.to(dtype))
    ends = torch.zeros(len(pair), **like) if done is None else done.to(dtype)
    following = torch.zeros(S * A * S, **like).index_add_(0, pair * S + next_states.long(), 1 - ends).view(S * A, S)
    stopped = torch.zeros(S * A, **like).index_add_(0, pair, ends)
    weight = count + prior * S
    tried = weight > 0
    P = torch.where(tried[:, None], (following + prior) / weight.clamp(min=1e-300)[:, None], 0.0)
    P[~tried, torch.arange(S * A, device=states.device)[~tried] // A] = 1.0
    R = torch.where(count > 0, total / count.clamp(min=1), 0.0)
    stop = torch.where(tried, stopped / weight.clamp(min=1e-300), 0.0)
    return MDP(P.view(S, A, S), R.view(S, A), gamma, stop=stop.view(S, A), **fields), count.view(S, A)


def model_intervals(count: Tensor, confidence: float = 0.95) -> Tensor:
    """(S, A) half-width that holds a transition probability's error with the given confidence, by Hoeffding (1963).

    sqrt(log(2 / (1 - confidence)) / (2 n)) for n tries, at most 1; for every entry by itself.
    """
    number("confidence", confidence, 0.0, 1.0)
    return (math.log(2 / (1 - confidence)) / (2 * count.clamp(min=1e-12))).sqrt().clamp(max=1.0)


def to_table(mdp: MDP) -> dict[int, dict[int, list[tuple[float, int, float, bool]]]]:
    """Gymnasium's table ``P[s][a] = [(p, s', r, done), ...]`` of one MDP.

    What ends the episode without a next state is listed as staying, with ``done``; rewards are the expected ones.
    """
    if mdp.batch_shape:
        raise ValueError(f"a table holds one MDP, this is a batch of shape {mdp.batch_shape}")
    P = mdp.dense().P
    assert isinstance(P, Tensor)
    ended = torch.zeros(mdp.num_states, dtype=torch.bool) if mdp.terminal is None else mdp.terminal.cpu()
    table: dict[int, dict[int, list[tuple[float, int, float, bool]]]] = {}
    probs, R = P.cpu().numpy(), mdp.R.cpu().numpy()
    stop = np.zeros_like(R) if mdp.stop is None else mdp.stop.cpu().numpy()
    for s in range(mdp.num_states):
        table[s] = {}
        for a in range(mdp.num_actions):
            if mdp.mask is not None and not mdp.mask[s, a] and not ended[s]:
                continue
            r = float(R[s, a])
            rows = [(float(probs[s, a, t]), int(t), r, bool(ended[t])) for t in np.flatnonzero(probs[s, a])]
            table[s][a] = rows + ([(float(stop[s, a]), s, r, True)] if stop[s, a] > 0 else [])
    return table
