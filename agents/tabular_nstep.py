r"""n-step SARSA and tree backup. Sutton & Barto (2018), chapter 7.

    SARSA        G_t = r_t + gamma r_{t+1} + .. + gamma^(n-1) r_{t+n-1} + gamma^n Q(s_{t+n}, a_{t+n})
    tree backup  G_t = r_t + gamma sum_{a != a_{t+1}} pi(a|s_{t+1}) Q(s_{t+1}, a) + gamma pi(a_{t+1}|s_{t+1}) G_{t+1}

(Precup, Sutton & Singh, 2000), pi greedy. Pairs learn n - 1 steps later, so at the end of an episode an agent waits
while its last n - 1 pairs learn. What is pending is a window of n columns, in which column tick mod n is the newest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from advrl.agents.tabular_control import GreedyTable
from advrl.agents.tabular_loop import Common, Learned, Loop, Rate, Transition
from advrl.checks import integer
from advrl.tabular.mdp import MDP
from advrl.tabular.simulate import Simulator

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Window(GreedyTable):
    """What both learners share: the pending pairs (N, n), who still waits, and the update of the oldest."""

    def __init__(self, loop: Loop, n: int, alpha: Rate, epsilon: Rate) -> None:
        super().__init__(loop, epsilon)
        self.alpha, self.n = loop.rate("alpha", alpha), integer("n", n)
        shape, where = (loop.agents, n), loop.device
        self.pair = torch.zeros(shape, dtype=torch.int64, device=where)
        self.pending = torch.zeros(shape, dtype=torch.bool, device=where)
        self.flush = torch.zeros(loop.agents, dtype=torch.int64, device=where)  # ticks still to wait
        self.tick = 0

    def waiting(self) -> Tensor | None:
        return self.flush > 0

    def push(self, t: Transition) -> tuple[int, int]:
        """Enter the pair at hand; the newest column and the oldest, which learns now."""
        newest, oldest = self.tick % self.n, (self.tick + 1) % self.n
        self.pair[:, newest] = (self.loop.base + t.state) * self.loop.actions + t.action
        self.pending[:, newest] = t.moving
        self.flush = torch.where(t.done, self.n - 1, (self.flush - 1).clamp(min=0))
        self.tick += 1
        return newest, oldest

    def learn(self, column: int, target: Tensor) -> None:
        """Move the pairs of a column towards their targets (N,)."""
        Q, at = self.Q.view(-1), self.pair[:, column]
        error = self.alpha(self.loop.finished) * (target - Q.index_select(0, at))
        Q.index_add_(0, at, error.masked_fill(~self.pending[:, column], 0.0))
        self.pending[:, column].fill_(False)


class NStepSarsa(Window):
    """Rewards are added up as they come, (N, n); a time limit's values are added when it strikes."""

    def __init__(self, loop: Loop, n: int, alpha: Rate, epsilon: Rate) -> None:
        super().__init__(loop, n, alpha, epsilon)
        self.G = torch.zeros_like(self.pair, dtype=loop.dtype)
        self.powers = loop.gamma[:, None] ** torch.arange(n, dtype=loop.dtype, device=loop.device)
        self.stored: Tensor | None = None
        self.fresh = torch.ones(loop.agents, dtype=torch.bool, device=loop.device)

    def act(self, state: Tensor) -> Tensor:
        action = super().act(state)
        return action if self.stored is None else torch.where(self.fresh, action, self.stored)

    def update(self, t: Transition) -> None:
        newest, oldest = self.push(t)
        following = self.Q.index_select(0, self.loop.base + t.next)
        self.stored = self.greedy.pick(following, t.next)
        self.fresh = torch.where(t.moving, t.done, self.fresh)
        T = self.loop.gamma * following.gather(1, self.stored[:, None]).squeeze(1)
        self.G[:, newest].zero_()
        gain = t.reward.masked_fill(~t.moving, 0.0) + T.masked_fill(~t.done | t.ended, 0.0)
        since = self.powers.flip(1).roll(newest + 1, 1)  # the newest column is undiscounted, each older one once more
        self.G += gain[:, None] * since
        bootstrap = T.masked_fill(~t.moving | t.done, 0.0) * self.powers[:, -1]
        self.learn(oldest, self.G[:, oldest] + bootstrap)


class TreeBackup(Window):
    """Targets are worked out from the newest pair back to the oldest, with the values of the moment."""

    def __init__(self, loop: Loop, n: int, alpha: Rate, epsilon: Rate) -> None:
        super().__init__(loop, n, alpha, epsilon)
        self.reward = torch.zeros_like(self.pair, dtype=loop.dtype)
        self.next = torch.zeros_like(self.pair)
        self.ended, self.done = torch.zeros_like(self.pending), torch.zeros_like(self.pending)

    def update(self, t: Transition) -> None:
        newest, oldest = self.push(t)
        loop = self.loop
        self.reward[:, newest], self.next[:, newest] = t.reward, t.next
        self.ended[:, newest], self.done[:, newest] = t.ended, t.done | ~t.moving
        rows = self.Q.index_select(0, (loop.base[:, None] + self.next).flatten())
        best = self.greedy.open(rows, self.next.flatten()).amax(-1).view_as(self.reward)
        base = self.reward + loop.gamma[:, None] * best.masked_fill(self.ended, 0.0)
        here = self.Q.view(-1).index_select(0, self.pair.flatten()).view_as(base)
        G = base[:, newest]
        for back in range(1, self.n):
            column, after = (newest - back) % self.n, (newest - back + 1) % self.n
            # pi(a'|s') is 1 for an action as good as the best, which moves from its value to its return
            follows = ~self.done[:, column] & (here[:, after] >= best[:, column])
            G = base[:, column] + loop.gamma * torch.where(follows, G - here[:, after], 0.0)
        self.learn(oldest, G)


def n_step_sarsa(
    mdp: MDP | Simulator, n: int = 4, *, alpha: Rate = 0.1, epsilon: Rate = 0.1, **common: Unpack[Common]
) -> Learned:
    """n-step SARSA: n rewards, then the value of the next pair.

    Args:
        n: steps; 1 is SARSA, more than an episode has is Monte Carlo.
        alpha: step size: a number, one for each agent (N,), or a schedule of episodes done.
        epsilon: as of :func:`q_learning`.
        common: see :class:`Common`.
    """
    loop = Loop(mdp, **common)
    return loop.run(NStepSarsa(loop, n, alpha, epsilon))


def tree_backup(
    mdp: MDP | Simulator, n: int = 4, *, alpha: Rate = 0.1, epsilon: Rate = 0.1, **common: Unpack[Common]
) -> Learned:
    """n-step tree backup for the greedy policy: off-policy without importance weights. As :func:`n_step_sarsa`."""
    loop = Loop(mdp, **common)
    return loop.run(TreeBackup(loop, n, alpha, epsilon))
