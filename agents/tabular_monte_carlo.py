r"""Monte-Carlo prediction and control: values as averages of returns. Sutton & Barto (2018), chapter 5.

A return G of behaviour b counts for a policy pi with the weight rho = prod pi(a|s) / b(a|s) over its steps: ordinary
importance sampling divides sum rho G by the number of visits (unbiased), weighted by sum rho (less variance).
What a time limit cuts off is replaced by the value so far of the state reached. Shapes: N agents, T steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from advrl.agents.tabular_control import Greedy
from advrl.agents.tabular_loop import Common, Learned, Loop, Rate, progress_bar
from advrl.agents.tabular_prediction import probabilities
from advrl.checks import choice
from advrl.tabular.mdp import MDP
from advrl.tabular.simulate import Simulator, Trajectories, sample_trajectories

if TYPE_CHECKING:
    from typing_extensions import Unpack

VISITS = ("first", "every")
WEIGHTINGS = ("ordinary", "weighted")


class Record:
    """Returns and lengths of all episodes (N, E), and the values after each, as :class:`Loop` keeps them."""

    def __init__(self, loop: Loop) -> None:
        shape = (loop.agents, loop.episodes)
        self.loop = loop
        self.returns = torch.zeros(shape, dtype=loop.dtype, device=loop.device)
        self.lengths = torch.zeros(shape, dtype=torch.int64, device=loop.device)
        self.history = torch.zeros(*shape, loop.states, dtype=loop.dtype, device=loop.device) if loop.keep else None
        self.bar = progress_bar(loop.episodes) if loop.progress else None

    def episode(self, episode: int, t: Trajectories) -> None:
        """Take an episode of each agent in."""
        self.returns[:, episode] = t.returns(self.loop.simulator.gamma)[:, 0]
        self.lengths[:, episode] = t.mask.sum(1)
        self.loop.finished += 1
        if self.bar is not None:
            self.bar.update(1)

    def values(self, episode: int, V: Tensor) -> None:
        """Keep the values (N, S) after an episode, if asked for; close the bar after the last."""
        if self.history is not None:
            self.history[:, episode] = V
        if self.bar is not None and episode == self.loop.episodes - 1:
            self.bar.close()


def mc_prediction(
    mdp: MDP,
    policy: Tensor,
    *,
    visits: str = "first",
    behaviour: Tensor | None = None,
    weighting: str = "weighted",
    alpha: Rate | None = None,
    **common: Unpack[Common],
) -> Learned:
    """State values of a policy as averages of returns, of its own episodes or of another policy's.

    Args:
        policy: (S,) actions or (S, A) probabilities.
        visits: "first" counts a state once in an episode (unbiased), "every" each time.
        behaviour: the policy that acts; ``policy`` itself if ``None``. It must take every action that ``policy`` does.
        weighting: "ordinary" or "weighted" importance sampling, with ``behaviour``.
        alpha: a step size in place of averages, after each episode: Sutton & Barto, eq. 6.1; on-policy alone.
        common: see :class:`Common`; ``initial`` are the values of states never visited.

    Raises:
        ValueError: where behaviour never takes an action that the policy takes.
    """
    choice("visits", visits, VISITS), choice("weighting", weighting, WEIGHTINGS)
    target = probabilities(mdp, policy)
    acting = target if behaviour is None else probabilities(mdp, behaviour)
    uncovered = (target > 0) & ~(acting > 0)
    if mdp.terminal is not None:
        uncovered &= ~mdp.terminal[:, None]
    if bool(uncovered.any()):
        s, a = uncovered.nonzero()[0].tolist()
        raise ValueError(
            f"behaviour never takes action {mdp.action(a)} in state {mdp.state(s)}, which the policy takes: its "
            "returns say nothing about that"
        )
    if alpha is not None and behaviour is not None:
        raise ValueError("a step size serves on-policy prediction: leave out alpha, or behaviour")
    simulator = Simulator.of(mdp, common.pop("rewards", None))
    loop = Loop(simulator, **common)
    record = Record(loop)
    V = _initial_values(loop)
    total, weight = torch.zeros_like(V), torch.zeros_like(V)
    rate = None if alpha is None else loop.rate("alpha", alpha)
    for episode in range(loop.episodes):
        t = sample_trajectories(simulator, acting, loop.agents, loop.max_steps, loop.generator)
        G = _returns(t, loop.gamma, V)
        counts = t.mask & _first_visits(t.state, t.mask, loop.states) if visits == "first" else t.mask
        if rate is not None:
            size = rate(loop.finished)
            for k in range(G.shape[1]):
                at = t.state[:, k : k + 1]
                change = size[:, None] * (G[:, k : k + 1] - V.gather(1, at))
                V.scatter_add_(1, at, change.masked_fill(~counts[:, k : k + 1], 0.0))
        else:
            rho = torch.ones_like(G)
            if behaviour is not None:
                ratio = (target[t.state, t.action] / acting[t.state, t.action]).where(t.mask, 1.0)
                rho = ratio.flip(1).cumprod(1).flip(1)
            total.scatter_add_(1, t.state, torch.where(counts, rho * G, 0.0))
            share = rho if weighting == "weighted" else torch.ones_like(rho)
            weight.scatter_add_(1, t.state, share.masked_fill(~counts, 0.0))
            V = torch.where(weight > 0, total / weight.clamp(min=1e-300), V)
        record.episode(episode, t)
        record.values(episode, V)
    zeros = torch.zeros(loop.agents, loop.states, dtype=torch.int64, device=loop.device)
    return Learned(V[..., None], V, zeros, record.returns, record.lengths, int(record.lengths.sum()), record.history)


def mc_control(
    mdp: MDP | Simulator,
    *,
    visits: str = "first",
    off_policy: bool = False,
    alpha: Rate | None = None,
    epsilon: Rate = 0.1,
    **common: Unpack[Common],
) -> Learned:
    """Monte-Carlo control with epsilon-soft behaviour, Sutton & Barto (2018), sections 5.4 and 5.7.

    Args:
        visits: "first" or "every", on-policy.
        off_policy: learn the greedy policy's values by weighted importance sampling, from the ends of episodes that it
            could have made.
        alpha: a step size in place of averages, on-policy alone.
        epsilon: as of :func:`q_learning`.
        common: see :class:`Common`.
    """
    choice("visits", visits, VISITS)
    if alpha is not None and off_policy:
        raise ValueError("a step size serves on-policy control: leave out alpha, or off_policy")
    loop = Loop(mdp, **common)
    record, greedy = Record(loop), Greedy(loop, epsilon)
    N, S, A = loop.agents, loop.states, loop.actions
    Q = loop.new_table().view(N, S * A)
    weight = torch.zeros_like(Q)
    rate = None if alpha is None else loop.rate("alpha", alpha)
    everywhere = torch.arange(S, device=loop.device).repeat(N)
    for episode in range(loop.episodes):
        soft = greedy.probabilities(Q.view(N * S, A), everywhere, greedy.epsilon().repeat_interleave(S)).view(N, S, A)
        t = sample_trajectories(loop.simulator, soft, N, loop.max_steps, loop.generator)
        pair = t.state * A + t.action
        if off_policy:
            _backwards(loop, greedy, Q, weight, t, soft.view(N, S * A))
        else:
            values = (soft * Q.view(N, S, A)).sum(-1)
            G = _returns(t, loop.gamma, values)
            counts = t.mask & _first_visits(pair, t.mask, S * A) if visits == "first" else t.mask
            for k in range(G.shape[1]):
                at, now = pair[:, k : k + 1], counts[:, k : k + 1]
                weight.scatter_add_(1, at, now.to(Q.dtype))
                size = 1 / weight.gather(1, at).clamp(min=1) if rate is None else rate(loop.finished)[:, None]
                Q.scatter_add_(1, at, (size * (G[:, k : k + 1] - Q.gather(1, at))).masked_fill(~now, 0.0))
        record.episode(episode, t)
        if loop.keep:
            record.values(episode, loop.values(Q))
    return loop.learned(Q.view(N * S, A), record.returns, record.lengths, record.history)


def _backwards(loop: Loop, greedy: Greedy, Q: Tensor, weight: Tensor, t: Trajectories, soft: Tensor) -> None:
    """Off-policy control of one episode, from its end while its actions are greedy; in place."""
    N, A = loop.agents, loop.actions
    who = torch.arange(N, device=loop.device)
    G = _cut_off(t, loop.values(Q))
    rho, alive = torch.ones_like(G), torch.ones_like(who, dtype=torch.bool)
    for k in range(t.state.shape[1] - 1, -1, -1):
        on = t.mask[:, k] & alive
        state, at = t.state[:, k], (t.state[:, k] * A + t.action[:, k])[:, None]
        G = torch.where(on, t.reward[:, k] + loop.gamma * G, G)
        weight.scatter_add_(1, at, rho.masked_fill(~on, 0.0)[:, None])
        size = (rho / weight.gather(1, at).squeeze(1).clamp(min=1e-300)).masked_fill(~on, 0.0)
        Q.scatter_add_(1, at, (size * (G - Q.gather(1, at).squeeze(1)))[:, None])
        rows = greedy.open(Q.view(N, -1, A)[who, state], state)
        agrees = rows.argmax(-1) == t.action[:, k]
        rho = torch.where(on, rho / soft.gather(1, at).squeeze(1), rho)
        alive = alive & (agrees | ~on)


def _returns(t: Trajectories, gamma: Tensor, values: Tensor) -> Tensor:
    """(N, T) returns, with values (N, S) in place of what the time limit cut off."""
    following = _cut_off(t, values)
    G = torch.zeros_like(t.reward)
    for k in range(t.reward.shape[1] - 1, -1, -1):
        following = torch.where(t.mask[:, k], t.reward[:, k] + gamma * following, following)
        G[:, k] = following
    return G


def _cut_off(t: Trajectories, values: Tensor) -> Tensor:
    """(N,) value of the last state, where the episode has not ended."""
    left = values.gather(1, t.next[:, -1:]).squeeze(1)
    return left.masked_fill(t.ended.any(1), 0.0)


def _first_visits(what: Tensor, mask: Tensor, count: int) -> Tensor:
    """(N, T) whether a state (or pair) is seen for the first time in its episode."""
    N, T = what.shape
    time = torch.arange(T, device=what.device).expand(N, T)
    late = torch.full((N, count), T, dtype=torch.int64, device=what.device)
    first = late.scatter_reduce(1, what, time.masked_fill(~mask, T), "amin")
    return first.gather(1, what) == time


def _initial_values(loop: Loop) -> Tensor:
    """(N, S) values to start from: a number, (S,) or (N, S)."""
    shape, value = (loop.agents, loop.states), loop.initial
    if not isinstance(value, Tensor):
        return torch.full(shape, float(value), dtype=loop.dtype, device=loop.device)
    if value.shape not in (shape, shape[1:]):
        raise ValueError(f"initial must be a number or have shape {shape[1:]} or {shape}, got {tuple(value.shape)}")
    return value.to(device=loop.device, dtype=loop.dtype).expand(shape).clone()
