r"""One-step control: SARSA, expected SARSA, Q-learning, double Q-learning. Sutton & Barto (2018), sections 6.4 to 6.7.

    Q(s, a) += alpha (r + gamma T - Q(s, a))

with T = 0 where the episode has ended, else Q(s', a') (SARSA, a' the next action), sum_a pi(a|s') Q(s', a) (expected
SARSA), max_a Q(s', a) (Q-learning), Q_2(s', argmax_a Q_1(s', a)) (double Q-learning, van Hasselt, 2010). Behaviour is
epsilon-greedy with ties broken at random. A bonus c adds c / sqrt(n(s, a)) to the n-th reward of a pair: optimism that
fades with counts (Strehl & Littman, 2008). It needs values that start high, or what was tried would look better than
what was not. Shapes: N agents, S states, A actions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from advrl.agents.tabular_loop import Common, Learned, Loop, Rate, Transition
from advrl.agents.tabular_plain import PLAIN_BELOW, run_plain
from advrl.checks import number
from advrl.tabular.mdp import MDP
from advrl.tabular.simulate import Simulator

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Greedy:
    """Epsilon-greedy behaviour of N agents on tables (N * S, A), ties broken at random."""

    def __init__(self, loop: Loop, epsilon: Rate) -> None:
        self.loop, self.schedule = loop, loop.rate("epsilon", epsilon)
        self.shut = None if loop.all_allowed else torch.zeros_like(loop.simulator.prob[..., 0]).masked_fill(
            ~loop.allowed, -torch.inf
        )  # fmt: skip

    def epsilon(self) -> Tensor:
        """(N,) probability of a random action."""
        return self.schedule(self.loop.finished)

    def open(self, Q: Tensor, state: Tensor) -> Tensor:
        """Rows (N, A) of values with -inf where an action is not feasible."""
        return Q if self.shut is None else Q + self.shut.index_select(0, state)

    def pick(self, Q: Tensor, state: Tensor) -> Tensor:
        """Actions (N,) for rows Q (N, A) of states (N,)."""
        if Q.shape[-1] == 1:
            return torch.zeros_like(state)
        u, v = self.loop.uniform(2)
        Q = self.open(Q, state)
        best = Q.amax(-1, keepdim=True) == Q
        rank = best.cumsum(-1)
        at = (v * rank[:, -1]).long()[:, None]  # one of the best, by its rank among them
        action = (rank <= at).sum(-1)
        random = self.loop.random_action(state, v)
        return torch.where(u < self.epsilon(), random, action)

    def probabilities(self, Q: Tensor, state: Tensor, epsilon: Tensor | None = None) -> Tensor:
        """(n, A) of each action, for rows Q (n, A) of states (n,); one for each agent, unless given epsilon (n,)."""
        Q = self.open(Q, state)
        best = (Q.amax(-1, keepdim=True) == Q).to(Q.dtype)
        epsilon = (self.epsilon() if epsilon is None else epsilon)[:, None]
        spread = self.loop.uniform_policy.index_select(0, state)
        return (1 - epsilon) * best / best.sum(-1, keepdim=True) + epsilon * spread

    def expected(self, Q: Tensor, state: Tensor) -> Tensor:
        """(N,) value of the behaviour in states with values Q (N, A)."""
        return (self.probabilities(Q, state) * Q).sum(-1)


class GreedyTable:
    """What N agents with one table of action values (N * S, A) have in common: they act epsilon-greedily on it."""

    def __init__(self, loop: Loop, epsilon: Rate) -> None:
        self.loop, self.greedy = loop, Greedy(loop, epsilon)
        self.Q = loop.new_table()

    def waiting(self) -> Tensor | None:
        return None

    def table(self) -> Tensor:
        return self.Q

    def act(self, state: Tensor) -> Tensor:
        return self.greedy.pick(self.Q.index_select(0, self.loop.base + state), state)


class OneStep(GreedyTable):
    """The learners of this module, by the name of their target."""

    def __init__(self, loop: Loop, target: str, alpha: Rate, epsilon: Rate, bonus: float = 0.0) -> None:
        super().__init__(loop, epsilon)
        self.target, self.bonus = target, bonus
        self.alpha = loop.rate("alpha", alpha)
        self.other = self.Q.clone() if target == "double" else None
        counted = bonus > 0 or (callable(alpha) and not isinstance(alpha, Tensor))
        self.count = torch.zeros_like(self.Q) if counted else None
        self.stored: Tensor | None = None  # SARSA's next action
        self.fresh = torch.ones(loop.agents, dtype=torch.bool, device=loop.device)

    def table(self) -> Tensor:
        return self.Q if self.other is None else (self.Q + self.other) / 2

    def act(self, state: Tensor) -> Tensor:
        rows = self.loop.base + state
        Q = self.Q.index_select(0, rows)
        if self.other is not None:
            Q = Q + self.other.index_select(0, rows)
        if self.target != "sarsa" or self.stored is None:
            return self.greedy.pick(Q, state)
        return torch.where(self.fresh, self.greedy.pick(Q, state), self.stored)

    def update(self, t: Transition) -> None:
        loop = self.loop
        at = (loop.base + t.state) * loop.actions + t.action
        following = self.Q.index_select(0, loop.base + t.next)
        learns = t.moving
        if self.target == "max":
            T = self.greedy.open(following, t.next).amax(-1)
        elif self.target == "expected":
            T = self.greedy.expected(following, t.next)
        elif self.target == "sarsa":
            self.stored = self.greedy.pick(following, t.next)
            self.fresh = t.done
            T = following.gather(1, self.stored[:, None]).squeeze(1)
        else:
            self._double(t, at)
            return
        reward = t.reward
        count = None
        if self.count is not None:
            flat = self.count.view(-1)
            count = flat.index_select(0, at)
            flat.index_add_(0, at, learns.to(flat.dtype))
            if self.bonus:
                reward = reward + self.bonus * (count + 1).rsqrt()
        alpha = self.alpha(loop.finished if count is None else count)
        Q = self.Q.view(-1)
        error = reward + loop.gamma * T.masked_fill(t.ended, 0.0) - Q.index_select(0, at)
        Q.index_add_(0, at, (alpha * error).masked_fill(~learns, 0.0))  # each agent has its own entries: no clashes

    def _double(self, t: Transition, at: Tensor) -> None:
        """A coin says which table learns, with its own best action as the other one values it."""
        assert self.other is not None
        loop = self.loop
        heads = loop.uniform(1)[0] < 0.5
        rows = loop.base + t.next
        one, two = self.Q.index_select(0, rows), self.other.index_select(0, rows)
        chosen = self.greedy.open(torch.where(heads[:, None], one, two), t.next).argmax(-1, keepdim=True)
        T = torch.where(heads[:, None], two, one).gather(1, chosen).squeeze(1).masked_fill(t.ended, 0.0)
        first, second = self.Q.view(-1), self.other.view(-1)
        if self.count is None:
            alpha = self.alpha(loop.finished)
        else:
            flat = self.count.view(-1)
            alpha = self.alpha(torch.div(flat.index_select(0, at), 2, rounding_mode="floor"))
            flat.index_add_(0, at, t.moving.to(flat.dtype))
        target = t.reward + loop.gamma * T
        for table, learns in ((first, t.moving & heads), (second, t.moving & ~heads)):
            table.index_add_(0, at, (alpha * (target - table.index_select(0, at))).masked_fill(~learns, 0.0))


def one_step(
    problem: MDP | Simulator, target: str, alpha: Rate, epsilon: Rate, bonus: float, common: Common
) -> Learned:
    """Run one of the learners, agent by agent where there are few on a CPU, else all at once."""
    loop = Loop(problem, **common)
    if number("bonus", bonus, 0.0) and "initial" not in common:
        if bool((loop.gamma >= 1).any()):
            raise ValueError("a bonus where gamma is 1 needs initial, values at least as great as the best")
        best = (loop.simulator.reward.max() + bonus) / (1 - loop.gamma)
        loop.initial = best[:, None, None].expand(loop.agents, loop.states, loop.actions)
    if loop.agents < PLAIN_BELOW and loop.device.type == "cpu":
        return run_plain(loop, target, alpha, epsilon, bonus)
    return loop.run(OneStep(loop, target, alpha, epsilon, bonus))


def q_learning(
    mdp: MDP | Simulator, *, alpha: Rate = 0.1, epsilon: Rate = 0.1, bonus: float = 0.0, **common: Unpack[Common]
) -> Learned:
    """Q-learning, Watkins (1989): learns the best policy's values, whatever it does meanwhile.

    Args:
        alpha: step size: a number, one for each agent (N,), or a schedule of how often a pair has been updated.
        epsilon: probability of a random action: a number, one for each agent, or a schedule of episodes done.
        bonus: c of c / sqrt(n), added to rewards; values then start at the most that there can be, unless given.
        common: see :class:`Common`.
    """
    return one_step(mdp, "max", alpha, epsilon, bonus, common)


def sarsa(mdp: MDP | Simulator, *, alpha: Rate = 0.1, epsilon: Rate = 0.1, **common: Unpack[Common]) -> Learned:
    """SARSA, Rummery & Niranjan (1994): learns the values of what it does. Arguments as of :func:`q_learning`."""
    return one_step(mdp, "sarsa", alpha, epsilon, 0.0, common)


def expected_sarsa(
    mdp: MDP | Simulator, *, alpha: Rate = 0.1, epsilon: Rate = 0.1, **common: Unpack[Common]
) -> Learned:
    """Expected SARSA, van Seijen et al. (2009): SARSA without the next action's noise."""
    return one_step(mdp, "expected", alpha, epsilon, 0.0, common)


def double_q_learning(
    mdp: MDP | Simulator, *, alpha: Rate = 0.1, epsilon: Rate = 0.1, **common: Unpack[Common]
) -> Learned:
    """Double Q-learning, van Hasselt (2010): two tables, so that a maximum over noise is not taken for a value."""
    return one_step(mdp, "double", alpha, epsilon, 0.0, common)
