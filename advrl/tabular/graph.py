"""Which states can reach the end, and which policies never do: what decides whether gamma = 1 has an answer."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from advrl.tabular import transitions
from advrl.tabular.mdp import MDP
from advrl.tabular.solution import feasible

ENDS_ABOVE = 1e-9  # less than that is what sums of probabilities round off


class Graph:
    """The transitions of one MDP as SciPy sparse matrices: ``next`` (S * A, S), 1 where the probability is positive."""

    def __init__(self, mdp: MDP) -> None:
        import scipy.sparse as sp

        self.states, self.actions = mdp.num_states, mdp.num_actions
        row, column = (t.cpu().numpy() for t in transitions.edges(mdp.P, self.states, self.actions))
        data = np.ones(len(row), dtype=np.int32)
        self.next = sp.csr_matrix((data, (row, column)), shape=(self.states * self.actions, self.states))
        self.feasible = feasible(mdp).cpu().numpy()
        sums = transitions.row_sums(mdp.P, self.states, self.actions).cpu().numpy()
        self.ends = (1 - sums > ENDS_ABOVE) & self.feasible  # some probability of ending with the step


def can_end(graph: Graph) -> np.ndarray:
    """(S,) bool: from where some policy reaches the end with positive probability, hence can reach it at all."""
    reach = graph.ends.any(1)
    while True:
        leads = (graph.next @ reach.astype(np.int32) > 0).reshape(graph.states, graph.actions) & graph.feasible
        grown = reach | leads.any(1)
        if (grown == reach).all():
            return reach
        reach = grown


def can_avoid(graph: Graph, allowed: np.ndarray | None = None) -> np.ndarray:
    """(S,) bool: from where some policy, taking ``allowed`` (S, A) actions, avoids the end for ever with certainty."""
    allowed = graph.feasible if allowed is None else allowed & graph.feasible
    stay = np.ones(graph.states, dtype=bool)
    while True:
        leaves = (graph.next @ (~stay).astype(np.int32) > 0).reshape(graph.states, graph.actions)
        kept = stay & (allowed & ~graph.ends & ~leaves).any(1)
        if (kept == stay).all():
            return stay
        stay = kept


def never_ends(graph: Graph, policy: np.ndarray) -> np.ndarray:
    """(S,) bool: from where the policy, (S,) actions or (S, A) probabilities, fails to end with probability 1."""
    taken = policy > 0 if policy.ndim == 2 else np.eye(graph.actions, dtype=bool)[policy]
    reach = (graph.ends & taken).any(1)
    while True:
        leads = (graph.next @ reach.astype(np.int32) > 0).reshape(graph.states, graph.actions) & taken
        grown = reach | leads.any(1)
        if (grown == reach).all():
            break
        reach = grown
    lost = ~reach
    while True:  # what may fall into a lost state is not certain to end either
        falls = (graph.next @ lost.astype(np.int32) > 0).reshape(graph.states, graph.actions) & taken
        grown = lost | falls.any(1)
        if (grown == lost).all():
            return lost
        lost = grown


def recurrent_class(graph: Graph, policy: np.ndarray) -> np.ndarray:
    """State numbers of one class of states that the policy never leaves and never ends in."""
    import scipy.sparse as sp
    from scipy.sparse.csgraph import connected_components

    taken = policy > 0 if policy.ndim == 2 else np.eye(graph.actions, dtype=bool)[policy]
    row = np.repeat(np.arange(graph.states), graph.actions)[taken.ravel()]
    step = graph.next[taken.ravel()]
    group = sp.csr_matrix((np.ones(len(row), np.int32), (row, np.arange(len(row)))), shape=(graph.states, len(row)))
    links = (group @ step).tocoo()
    count, label = connected_components(links.tocsr(), connection="strong")
    closed = np.ones(count, dtype=bool)
    closed[label[links.row[label[links.row] != label[links.col]]]] = False
    closed[np.unique(label[(graph.ends & taken).any(1)])] = False
    found: np.ndarray = np.flatnonzero(label == np.flatnonzero(closed)[0])
    return found


def proper_policy(graph: Graph) -> np.ndarray:
    """(S,) actions of a policy that ends from wherever some policy can: each a step nearer to the end."""
    policy = graph.feasible.argmax(1)
    ends = graph.ends.any(1)
    policy[ends] = graph.ends[ends].argmax(1)
    reach = ends
    while True:
        leads = (graph.next @ reach.astype(np.int32) > 0).reshape(graph.states, graph.actions) & graph.feasible
        new = leads.any(1) & ~reach
        if not new.any():
            return policy
        policy[new] = leads[new].argmax(1)
        reach = reach | new


def name_states(mdp: MDP, states: np.ndarray | Tensor, limit: int = 8) -> str:
    """The first few states by name, for a message."""
    listed = [mdp.state(int(s)) for s in states[:limit]]
    return ", ".join(listed) + (f" and {len(states) - limit} more" if len(states) > limit else "")
