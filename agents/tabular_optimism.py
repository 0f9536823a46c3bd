r"""UCBVI: plan for the best that the counts do not rule out. Azar, Osband & Munos (2017).

With H steps an episode, each begins with backward induction in the model of maximum likelihood,

    Q_h(s, a) = min(Q_h(s, a) of the last episode,  R + c range H sqrt(L / n(s, a)) + gamma E[V_{h+1}],  cap_h),

where L = log(5 S A T / delta) for T steps in all, range is that of a step's reward, and cap_h the most that H - h steps
can pay, taken for what was never tried. The bonus is Hoeffding's: with probability 1 - delta no value is below the
truth, for c large enough (the theorem's is 7 with L outside of the root; far less does in practice). Shapes: N agents,
E episodes, S states, A actions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from advrl.agents.tabular_loop import Common, Learned, Loop, Transition, progress_bar
from advrl.agents.tabular_model import Counting
from advrl.checks import number
from advrl.tabular.horizon import backward_induction
from advrl.tabular.mdp import MDP
from advrl.tabular.transitions import densify

if TYPE_CHECKING:
    from typing_extensions import Unpack


@dataclass(frozen=True, eq=False)
class LearnedPlan(Learned):
    """What optimists have learned; Q, V and ``policy`` are those of an episode's first step.

    Attributes:
        plan: (N, H, S) actions of the last episode, by step.
        promised: (N, E) optimistic value of the first state, before each episode.
        achieved: (N,) exact value of the last plan, within H steps.
        best: the most that can be had in H steps.
    """

    plan: Tensor | None = None
    promised: Tensor | None = None
    achieved: Tensor | None = None
    best: float = math.nan


def ucb_vi(mdp: MDP, *, bonus: float = 0.1, confidence: float = 0.95, **common: Unpack[Common]) -> LearnedPlan:
    """Upper-confidence value iteration in episodes of H = ``max_steps`` steps, 100 if left out; no epsilon is needed.

    Args:
        bonus: c of the module's formula.
        confidence: 1 - delta.
        common: see :class:`Common`; ``initial`` and ``keep`` have no meaning here.

    Raises:
        ValueError: for a bonus below 0, or a confidence outside [0, 1).
    """
    number("bonus", bonus, 0.0)
    if number("confidence", confidence, 0.0, 1.0) == 1:
        raise ValueError("confidence must be below 1: certainty takes a bonus without end")
    common.setdefault("max_steps", 100)
    loop = Loop(mdp, **common)
    N, H, S, A = loop.agents, loop.max_steps, loop.states, loop.actions
    log = math.log(5 * S * A * H * loop.episodes / (1 - confidence))
    model, sim = Counting(loop, 0.0, 0.0, 1, 1), loop.simulator
    span = sim.reward.max().clamp(min=0) - sim.reward.min().clamp(max=0)
    cap = (loop.gamma[:, None] ** torch.arange(H, dtype=loop.dtype, device=loop.device)).cumsum(1).flip(1)
    cap = cap * sim.reward.max().clamp(min=0)
    Q = cap[:, :, None, None].expand(N, H, S, A).clone()
    returns = torch.zeros(N, loop.episodes, dtype=loop.dtype, device=loop.device)
    lengths, promised = torch.zeros_like(returns, dtype=torch.int64), torch.zeros_like(returns)
    bar = progress_bar(loop.episodes) if loop.progress else None
    for episode in range(loop.episodes):
        P, R = model.estimates()
        tries = model.count.view(N, S, A)
        hope = R + bonus * span * H * (log / tries.clamp(min=1)).sqrt()
        flat, V = P.flatten(1, 2), torch.zeros(N, S, dtype=loop.dtype, device=loop.device)
        for h in range(H - 1, -1, -1):
            bound = hope + loop.gamma[:, None, None] * (flat @ V[..., None]).view(N, S, A)
            Q[:, h] = torch.where(tries > 0, torch.minimum(Q[:, h], bound), Q[:, h])
            V = loop.values(Q[:, h].reshape(-1, A))
        promised[:, episode] = V @ sim.start
        state, moving = sim.first(loop.uniform(1)[0]), torch.ones_like(loop.finished, dtype=torch.bool)
        for h in range(H):
            action = model.greedy.pick(Q[:, h].reshape(-1, A).index_select(0, loop.base + state), state)
            following, reward, ended = sim.step(state, action, loop.uniform(1)[0])
            ended = ended & moving
            model.count_step(Transition(state, action, reward, following, ended, ended, moving))
            returns[:, episode] += sim.gamma**h * reward.masked_fill(~moving, 0.0)
            lengths[:, episode] += moving
            moving = moving & ~ended
            state = torch.where(moving, following, state)
        loop.finished += 1
        if bar is not None:
            bar.update(1)
    if bar is not None:
        bar.close()
    plan = torch.stack([loop.learned(Q[:, h].reshape(-1, A), returns, lengths).policy for h in range(H)], 1)
    first = loop.learned(Q[:, 0].reshape(-1, A), returns, lengths)
    best = float((backward_induction(mdp, H).V[0] * sim.start).sum())
    return LearnedPlan(first.Q, first.V, plan[:, 0], returns, lengths, first.steps, plan=plan, promised=promised,
                       achieved=_worth(mdp, plan) @ sim.start, best=best)  # fmt: skip


def _worth(mdp: MDP, plan: Tensor) -> Tensor:
    """(N, S) exact value of N plans (N, H, S)."""
    P, gamma = densify(mdp.P, mdp.num_states, mdp.num_actions), mdp.discount
    V = torch.zeros_like(plan[:, 0], dtype=mdp.dtype)
    for h in range(plan.shape[1] - 1, -1, -1):
        Q = mdp.R + gamma * (V @ P.flatten(0, 1).T).view(-1, *mdp.R.shape)
        V = Q.gather(-1, plan[:, h, :, None]).squeeze(-1)
    return V
