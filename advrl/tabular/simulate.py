"""Sampling an MDP in batches: what learners are given in place of P and R.

Every (state, action) has a table of at most K outcomes: a next state with its reward, or the end of the episode. One
uniform number per step picks the outcome, so a step of n environments is a handful of tensor operations on any device.
Shapes: S states, A actions, K outcomes, n environments, T steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from advrl.checks import integer
from advrl.tabular import transitions
from advrl.tabular.evaluation import check_policy
from advrl.tabular.mdp import MDP
from advrl.tabular.solution import feasible
from advrl.tabular.transitions import Successors

_WIDE = 16  # outcomes from which a binary search is quicker than comparing with all of them


class Step(NamedTuple):
    """What a step leads to, (n,) each: the next state, the reward, whether the episode has ended (no time limit)."""

    next: Tensor
    reward: Tensor
    ended: Tensor


class Trajectories(NamedTuple):
    """(n, T) each; ``mask`` says which steps took place, ``ended`` which of them ended the episode."""

    state: Tensor
    action: Tensor
    reward: Tensor
    next: Tensor
    ended: Tensor
    mask: Tensor

    def returns(self, gamma: float | Tensor) -> Tensor:
        """(n, T) reward from each step on, discounted by gamma, a number or one for each trajectory (n,).

        What a cut-off episode would still have earned counts 0.
        """
        G = torch.zeros_like(self.reward)
        following = torch.zeros_like(self.reward[:, 0])
        for t in range(self.reward.shape[1] - 1, -1, -1):
            following = self.reward[:, t] + gamma * following
            G[:, t] = following
        return G


@dataclass(frozen=True, eq=False)
class Simulator:
    """An MDP laid out for sampling. Make it with :meth:`of`, once, for many steps.

    Attributes:
        prob, next, reward, ended: (S, A, K) probability of each outcome, where it leads, what it pays, whether it ends
            the episode.
        start: (S,) probabilities of the first state.
        allowed: (S, A) bool: which actions may be taken.
        gamma: the discount.
    """

    prob: Tensor
    next: Tensor
    reward: Tensor
    ended: Tensor
    start: Tensor
    allowed: Tensor
    gamma: float

    def __post_init__(self) -> None:
        S, A, K = self.prob.shape
        cdf = self.prob.double().cumsum(-1)
        cdf = cdf / cdf[..., -1:].clamp(min=1e-300)
        if K > _WIDE:  # one sorted line of all rows, row i in [i, i + 1]
            rows = torch.arange(S * A, dtype=torch.float64, device=cdf.device)
            lookup = (cdf.view(S * A, K) + rows[:, None]).flatten()
        else:  # of the first K - 1 outcomes: rounding can then never pick one beyond the last
            lookup = cdf.view(S * A, K)[:, :-1].to(self.reward.dtype).contiguous()
        starts = self.start.double().cumsum(0)
        last = (self.prob > 0).view(S * A, K).int().mul(torch.arange(1, K + 1, device=cdf.device)).amax(-1) - 1
        put = object.__setattr__
        put(self, "_lookup", lookup)
        put(self, "_last", last.clamp(min=0))  # the last outcome of positive probability
        put(self, "_starts", starts / starts[-1])
        put(self, "_first", int(self.start.argmax()) if int((self.start > 0).sum()) == 1 else None)

    @staticmethod
    def of(mdp: MDP, rewards: Tensor | None = None) -> Simulator:
        """The simulator of one MDP.

        Args:
            rewards: one per transition, in the shape of P (dense or successor lists). An MDP keeps expected rewards
                alone, so without this every outcome of (s, a) pays R(s, a): the same values, with less noise. An
                outcome that ends the episode through ``stop`` pays what then remains of R(s, a).

        Raises:
            ValueError: for a batch of MDPs, or rewards of another shape.
        """
        if mdp.batch_shape:
            raise ValueError(f"a simulator holds one MDP, this is a batch of shape {mdp.batch_shape}: take one of them")
        S, A = mdp.num_states, mdp.num_actions
        prob, following = _lists(mdp)
        if rewards is None:
            reward = mdp.R[..., None].expand_as(prob).clone()
        else:
            shape = tuple(transitions.values(mdp.P).shape)
            if transitions.is_csr(mdp.P) or tuple(rewards.shape) != shape:
                raise ValueError(f"rewards must have the shape of P, {shape}, got {tuple(rewards.shape)}")
            reward = rewards.to(mdp.R)
            if not isinstance(mdp.P, Successors):
                reward = reward.gather(-1, following)
        ended = torch.zeros_like(prob, dtype=torch.bool)
        if mdp.terminal is not None:
            ended = mdp.terminal[following]
        stop = mdp.stop
        if stop is not None and bool((stop > 0).any()):
            left = mdp.R - (prob * reward).sum(-1)
            paid = mdp.R if rewards is None else torch.where(stop > 0, left / stop.clamp(min=1e-300), mdp.R)
            here = torch.arange(S, device=mdp.device)[:, None, None].expand(S, A, 1)
            prob = torch.cat([prob, stop[..., None].to(prob)], -1)
            following = torch.cat([following, here], -1)
            reward = torch.cat([reward, paid[..., None]], -1)
            ended = torch.cat([ended, torch.ones_like(ended[..., :1])], -1)
        return Simulator(
            prob, following, reward, ended, _start(mdp), feasible(mdp), float(mdp.discount)
        )  # fmt: skip

    @property
    def num_states(self) -> int:
        """S."""
        return self.prob.shape[0]

    @property
    def num_actions(self) -> int:
        """A."""
        return self.prob.shape[1]

    def under(self, policy: Tensor) -> Simulator:
        """The process of one action that a policy makes of it; rewards still vary with the action behind them.

        Args:
            policy: (S, A) probabilities.
        """
        prob = (self.prob * policy.to(self.prob)[..., None]).flatten(1)[:, None]
        following, reward, ended = (t.flatten(1)[:, None] for t in (self.next, self.reward, self.ended))
        return Simulator(prob, following, reward, ended, self.start, self.allowed.any(-1, keepdim=True), self.gamma)

    def first(self, uniform: Tensor) -> Tensor:
        """(n,) first states for uniform numbers (n,) in [0, 1)."""
        only: int | None = self._first  # type: ignore[attr-defined]
        if only is not None:
            return torch.full_like(uniform, only, dtype=torch.int64)
        starts: Tensor = self._starts  # type: ignore[attr-defined]
        return torch.searchsorted(starts, uniform.double(), right=True).clamp(max=self.num_states - 1)

    def step(self, state: Tensor, action: Tensor, uniform: Tensor) -> Step:
        """One step of n environments, for uniform numbers (n,) in [0, 1)."""
        _, A, K = self.prob.shape
        row = state * A + action
        lookup: Tensor = self._lookup  # type: ignore[attr-defined]
        if K > _WIDE:
            pick = torch.searchsorted(lookup, uniform.double() + row, right=True) - row * K
            pick = torch.minimum(pick.clamp(min=0), self._last.index_select(0, row))  # type: ignore[attr-defined]
        elif K > 1:
            pick = (uniform[:, None] >= lookup.index_select(0, row)).sum(-1)
        else:
            pick = torch.zeros_like(row)
        at = row * K + pick
        return Step(*(t.flatten().index_select(0, at) for t in (self.next, self.reward, self.ended)))


def sample_step(mdp: MDP | Simulator, state: Tensor, action: Tensor, generator: torch.Generator | None = None) -> Step:
    """One step of n environments: where each goes, what it is paid (R(s, a) for an MDP), whether it has ended.

    Args:
        mdp: or its :class:`Simulator`, which many steps should share.
        state, action: (n,).
    """
    simulator = mdp if isinstance(mdp, Simulator) else Simulator.of(mdp)
    return simulator.step(state, action, _uniform(state.shape[0], simulator, generator))


def sample_trajectories(
    mdp: MDP | Simulator, policy: Tensor, n: int, horizon: int, generator: torch.Generator | None = None
) -> Trajectories:
    """n episodes of a policy from the MDP's first states, each until it ends or for ``horizon`` steps.

    Args:
        policy: (S,) actions, or (S, A) probabilities; or (n, S) or (n, S, A), another for each episode.

    Raises:
        ValueError: for a policy that is none, or takes actions that are not feasible (given an MDP).
    """
    integer("n", n), integer("horizon", horizon)
    simulator = mdp if isinstance(mdp, Simulator) else Simulator.of(mdp)
    if isinstance(mdp, MDP) and policy.dim() == 1 + policy.is_floating_point():
        policy = check_policy(mdp, policy)
    who = torch.arange(n, device=simulator.reward.device)
    cdf = policy.double().cumsum(-1) if policy.is_floating_point() else None
    state = simulator.first(_uniform(n, simulator, generator))
    going = torch.ones_like(state, dtype=torch.bool)
    steps: list[tuple[Tensor, ...]] = []
    for _ in range(horizon):
        if cdf is None:
            action = policy[state] if policy.dim() == 1 else policy[who, state]
        else:
            row = cdf[state] if cdf.dim() == 2 else cdf[who, state]
            u = _uniform(n, simulator, generator).double() * row[:, -1]
            action = (u[:, None] >= row[:, :-1]).sum(-1)
        following, reward, ended = simulator.step(state, action, _uniform(n, simulator, generator))
        steps.append((state, action, reward.where(going, 0.0), following, ended & going, going))
        going = going & ~ended
        state = following
        if len(steps) % 32 == 0 and not bool(going.any()):
            break
    return Trajectories(*(torch.stack(column, 1) for column in zip(*steps, strict=True)))


def _uniform(n: int, simulator: Simulator, generator: torch.Generator | None) -> Tensor:
    like = simulator.reward
    return torch.rand(n, generator=generator, dtype=like.dtype, device=like.device)


def _lists(mdp: MDP) -> tuple[Tensor, Tensor]:
    """(S, A, K) probabilities and next states, whatever the form of P; dense rows stay whole."""
    S, A, P = mdp.num_states, mdp.num_actions, mdp.P
    if isinstance(P, Successors):
        return P.prob, P.next.long()
    if not transitions.is_csr(P):
        return _packed(P)
    row = transitions.rows_of(P)
    slot = torch.arange(len(row), device=row.device) - P.crow_indices().long()[row]
    K = max(1, mdp.successors_per_row)
    prob = P.values().new_zeros(S * A, K).index_put_((row, slot), P.values())
    following = row.new_zeros(S * A, K).index_put_((row, slot), P.col_indices().long())
    return prob.view(S, A, K), following.view(S, A, K)


def _packed(P: Tensor) -> tuple[Tensor, Tensor]:
    """The positive entries of dense rows, side by side."""
    width = max(1, int((P > 0).sum(-1).max()))
    following = (P > 0).int().argsort(dim=-1, descending=True, stable=True)[..., :width]
    return P.gather(-1, following), following


def _start(mdp: MDP) -> Tensor:
    """The MDP's first states; without any, all that are not terminal, alike."""
    if mdp.p0 is not None:
        return mdp.p0
    open_ = torch.ones_like(mdp.R[:, 0]) if mdp.terminal is None else (~mdp.terminal).to(mdp.dtype)
    return open_ / open_.sum()
