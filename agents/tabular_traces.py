r"""Eligibility traces: SARSA(lambda) and Watkins's Q(lambda). Sutton & Barto (2018), chapter 12.

With the error delta = r + gamma T - Q(s, a) every pair moves by alpha delta e, where after each step e decays by gamma
lambda and the pair at hand is marked:

    accumulating  e(s, a) += 1                     replacing  e(s, a) = 1
    dutch         e(s, a) = 1 + (1 - alpha) e(s, a), with the correction that makes it the true online algorithm:
                  Q += alpha (delta + Q(s, a) - q) e, Q(s, a) -= alpha (Q(s, a) - q), where q is what Q(s', a') was one
                  step ago. van Seijen et al. (2016), algorithm 2

Q(lambda) forgets all traces after an action that is not greedy (Watkins, 1989).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from advrl.agents.tabular_control import GreedyTable
from advrl.agents.tabular_loop import Common, Learned, Loop, Rate, Transition
from advrl.checks import choice, number
from advrl.tabular.mdp import MDP
from advrl.tabular.simulate import Simulator

if TYPE_CHECKING:
    from typing_extensions import Unpack

TRACES = ("accumulating", "replacing", "dutch")


class Traces(GreedyTable):
    """N agents with a trace for every pair; ``watkins`` learns the greedy policy's values, else those of behaviour."""

    def __init__(self, loop: Loop, lam: float, trace: str, alpha: Rate, epsilon: Rate, *, watkins: bool) -> None:
        super().__init__(loop, epsilon)
        self.lam, self.watkins = number("lam", lam, 0.0, 1.0), watkins
        self.trace = choice("trace", trace, TRACES)
        if watkins and trace == "dutch":
            raise ValueError("dutch traces are those of an on-policy learner: use accumulating or replacing")
        self.alpha = loop.rate("alpha", alpha)
        self.e = torch.zeros(loop.agents, loop.states * loop.actions, dtype=loop.dtype, device=loop.device)
        self.stored: Tensor | None = None
        self.fresh = torch.ones(loop.agents, dtype=torch.bool, device=loop.device)
        self.before = torch.zeros(loop.agents, dtype=loop.dtype, device=loop.device)

    def act(self, state: Tensor) -> Tensor:
        action = super().act(state)
        return action if self.stored is None else torch.where(self.fresh, action, self.stored)

    def update(self, t: Transition) -> None:
        loop, e = self.loop, self.e
        alpha = self.alpha(loop.finished)
        pair = (t.state * loop.actions + t.action)[:, None]
        Q = self.Q.view(loop.agents, -1)
        here = Q.gather(1, pair).squeeze(1)
        following = self.Q.index_select(0, loop.base + t.next)
        self.stored = self.greedy.pick(following, t.next)
        chosen = following.gather(1, self.stored[:, None]).squeeze(1)
        best = self.greedy.open(following, t.next).amax(-1)
        T = (best if self.watkins else chosen).masked_fill(t.ended, 0.0)
        error = t.reward + loop.gamma * T - here
        old = e.gather(1, pair)
        marked = {"accumulating": old + 1, "replacing": torch.ones_like(old), "dutch": 1 + (1 - alpha[:, None]) * old}
        e.scatter_(1, pair, marked[self.trace])
        size = alpha.masked_fill(~t.moving, 0.0)
        if self.trace == "dutch":
            drift = torch.where(self.fresh, 0.0, here - self.before)
            Q += (size * (error + drift))[:, None] * e
            Q.scatter_add_(1, pair, -(size * drift)[:, None])
            self.before = T
        else:
            Q += (size * error)[:, None] * e
        fade = (loop.gamma * self.lam).masked_fill(t.done, 0.0)
        if self.watkins:
            fade = fade.masked_fill(chosen < best, 0.0)
        e *= fade[:, None]
        self.fresh = t.done


def sarsa_lambda(
    mdp: MDP | Simulator, lam: float = 0.9, *, trace: str = "replacing", alpha: Rate = 0.1, epsilon: Rate = 0.1,
    **common: Unpack[Common],
) -> Learned:  # fmt: skip
    """SARSA(lambda), Rummery & Niranjan (1994): the whole recent path learns from each error.

    Args:
        lam: lambda in [0, 1]; 0 is SARSA.
        trace: "accumulating", "replacing" or "dutch" (true online).
        alpha: step size: a number, one for each agent (N,), or a schedule of episodes done.
        epsilon: as of :func:`q_learning`.
        common: see :class:`Common`.
    """
    loop = Loop(mdp, **common)
    return loop.run(Traces(loop, lam, trace, alpha, epsilon, watkins=False))


def q_lambda(
    mdp: MDP | Simulator, lam: float = 0.9, *, trace: str = "replacing", alpha: Rate = 0.1, epsilon: Rate = 0.1,
    **common: Unpack[Common],
) -> Learned:  # fmt: skip
    """Watkins's Q(lambda): Q-learning whose traces last until an action is not greedy. As :func:`sarsa_lambda`."""
    loop = Loop(mdp, **common)
    return loop.run(Traces(loop, lam, trace, alpha, epsilon, watkins=True))
