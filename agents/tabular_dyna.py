r"""Learning with a model of what happened last. Sutton & Barto (2018), chapter 8.

After each step an agent learns from k remembered ones as if they happened again. Dyna-Q (Sutton, 1990) draws them at
random: a state seen before, an action tried there. Dyna-Q+ adds kappa sqrt(tau) to the reward of a pair not tried for
tau steps, and imagines that actions never tried lead nowhere. Prioritised sweeping (Moore & Atkeson, 1993; Peng &
Williams, 1993) takes the pair that would change most, then those that lead to it. The model holds the last
outcome of a pair, which is right for deterministic problems; for others see :func:`advrl.agents.model_learning`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from advrl.agents.tabular_control import GreedyTable
from advrl.agents.tabular_loop import Common, Learned, Loop, Rate, Transition
from advrl.checks import integer, number
from advrl.tabular.mdp import MDP
from advrl.tabular.simulate import Simulator

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Memory(GreedyTable):
    """Q-learning of N agents that remember the last outcome of each pair, (N, S * A) tables."""

    def __init__(self, loop: Loop, alpha: Rate, epsilon: Rate, planning: int) -> None:
        super().__init__(loop, epsilon)
        self.alpha, self.planning = loop.rate("alpha", alpha), integer("planning", planning, 0)
        shape = (loop.agents, loop.states * loop.actions)
        whole: dict[str, Any] = {"dtype": torch.int64, "device": loop.device}
        self.next = torch.arange(loop.states, **whole).repeat_interleave(loop.actions).repeat(loop.agents, 1)
        self.reward = torch.zeros(shape, dtype=loop.dtype, device=loop.device)
        self.ended = torch.zeros(shape, dtype=torch.bool, device=loop.device)
        self.tried = torch.zeros_like(self.ended)

    def remember(self, t: Transition) -> Tensor:
        """Enter a step; returns its pairs (N, 1)."""
        pair = (t.state * self.loop.actions + t.action)[:, None]
        moving = t.moving[:, None]
        for memory, seen in ((self.next, t.next), (self.reward, t.reward), (self.ended, t.ended)):
            memory.scatter_(1, pair, torch.where(moving, seen[:, None], memory.gather(1, pair)))
        self.tried.scatter_(1, pair, moving | self.tried.gather(1, pair))
        return pair

    def error(self, pair: Tensor, bonus: Tensor | float = 0.0) -> Tensor:
        """(N,) temporal-difference error of remembered pairs (N, 1)."""
        loop = self.loop
        following = self.next.gather(1, pair).squeeze(1)
        best = self.greedy.open(self.Q.index_select(0, loop.base + following), following).amax(-1)
        T = best.masked_fill(self.ended.gather(1, pair).squeeze(1), 0.0)
        here = self.Q.view(loop.agents, -1).gather(1, pair).squeeze(1)
        return self.reward.gather(1, pair).squeeze(1) + bonus + loop.gamma * T - here

    def learn(self, pair: Tensor, error: Tensor, who: Tensor) -> None:
        """Move the pairs (N, 1) of the agents marked in ``who`` (N,)."""
        change = (self.alpha(self.loop.finished) * error).masked_fill(~who, 0.0)
        self.Q.view(self.loop.agents, -1).scatter_add_(1, pair, change[:, None])


class Dyna(Memory):
    """Remembered steps at random; ``kappa`` > 0 makes it Dyna-Q+."""

    def __init__(self, loop: Loop, alpha: Rate, epsilon: Rate, planning: int, kappa: float) -> None:
        super().__init__(loop, alpha, epsilon, planning)
        self.kappa = number("kappa", kappa, 0.0)
        self.seen = torch.zeros(loop.agents, loop.states, dtype=torch.int64, device=loop.device)  # states as they came
        self.count = torch.zeros(loop.agents, 1, dtype=torch.int64, device=loop.device)
        self.known = torch.zeros(loop.agents, loop.states, dtype=torch.bool, device=loop.device)
        self.when = torch.zeros_like(self.reward)
        self.clock = torch.zeros_like(self.reward[:, :1])

    def update(self, t: Transition) -> None:
        pair = self.remember(t)
        self.learn(pair, self.error(pair), t.moving)
        state, moving = t.state[:, None], t.moving[:, None]
        new = moving & ~self.known.gather(1, state)
        place = self.count.clamp(max=self.loop.states - 1)
        self.seen.scatter_(1, place, torch.where(new, state, self.seen.gather(1, place)))
        self.count += new
        self.known.scatter_(1, state, new | self.known.gather(1, state))
        self.clock += moving
        self.when.scatter_(1, pair, torch.where(moving, self.clock, self.when.gather(1, pair)))
        for _ in range(self.planning):
            self.imagine(t.moving)

    def imagine(self, who: Tensor) -> None:
        """Learn from one remembered step."""
        loop = self.loop
        u, v = loop.uniform(2)
        state = self.seen.gather(1, (u[:, None] * self.count).long()).squeeze(1)
        if self.kappa:
            action = loop.random_action(state, v)
        else:
            tried = self.tried.view(-1, loop.actions).index_select(0, loop.base + state)
            rank = tried.cumsum(-1)
            action = (rank <= (v * rank[:, -1]).long()[:, None]).sum(-1).clamp(max=loop.actions - 1)
        pair = (state * loop.actions + action)[:, None]
        idle = (self.clock - self.when.gather(1, pair)).squeeze(1)
        self.learn(pair, self.error(pair, self.kappa * idle.sqrt()), who)


class Sweeping(Memory):
    """The pair of greatest error first, then its predecessors'."""

    def __init__(self, loop: Loop, alpha: Rate, epsilon: Rate, planning: int, threshold: float) -> None:
        super().__init__(loop, alpha, epsilon, planning)
        self.threshold = number("threshold", threshold, 0.0)
        self.priority = torch.zeros_like(self.reward)

    def update(self, t: Transition) -> None:
        loop = self.loop
        pair = self.remember(t)
        urgent = self.error(pair).abs()[:, None]
        old = self.priority.gather(1, pair)
        urgent = torch.where(t.moving[:, None] & (urgent > self.threshold), torch.maximum(urgent, old), old)
        self.priority.scatter_(1, pair, urgent)
        Q = self.Q.view(loop.agents, -1)
        for _ in range(self.planning):
            top, pair = self.priority.max(1, keepdim=True)
            who = (top.squeeze(1) > 0) & t.moving
            self.learn(pair, self.error(pair), who)
            self.priority.scatter_(1, pair, torch.where(who[:, None], 0.0, top))
            state = torch.div(pair, loop.actions, rounding_mode="floor")
            best = self.greedy.open(self.Q.index_select(0, loop.base + state.squeeze(1)), state.squeeze(1)).amax(-1)
            leads = (self.next == state) & self.tried & ~self.ended & who[:, None]
            change = (self.reward + (loop.gamma * best)[:, None] - Q).abs()
            self.priority = torch.where(
                leads & (change > self.threshold), torch.maximum(self.priority, change), self.priority
            )


def dyna_q(
    mdp: MDP | Simulator, *, planning: int = 10, kappa: float = 0.0, alpha: Rate = 0.1, epsilon: Rate = 0.1,
    **common: Unpack[Common],
) -> Learned:  # fmt: skip
    """Dyna-Q; Dyna-Q+ with a positive ``kappa``.

    Args:
        planning: remembered steps for each real one; 0 is Q-learning.
        kappa: bonus for what has not been tried for long.
        alpha: step size: a number, one for each agent (N,), or a schedule of episodes done.
        epsilon: as of :func:`q_learning`.
        common: see :class:`Common`.
    """
    loop = Loop(mdp, **common)
    return loop.run(Dyna(loop, alpha, epsilon, planning, kappa))


def prioritized_sweeping(
    mdp: MDP | Simulator, *, planning: int = 10, threshold: float = 1e-4, alpha: Rate = 0.5, epsilon: Rate = 0.1,
    **common: Unpack[Common],
) -> Learned:  # fmt: skip
    """Prioritised sweeping.

    Args:
        planning: most pairs that learn after a step.
        threshold: errors up to this one are left alone.
        alpha, epsilon, common: as of :func:`dyna_q`.
    """
    loop = Loop(mdp, **common)
    return loop.run(Sweeping(loop, alpha, epsilon, planning, threshold))
