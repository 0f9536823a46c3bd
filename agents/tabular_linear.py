r"""Linear values: semi-gradient TD(0) and SARSA, and tile coding. Sutton & Barto (2018), chapters 9 and 10.

    Q(s, a) = w_a . x(s),      w_a += alpha (r + gamma Q(s', a') - Q(s, a)) x(s)

On-policy TD(0) converges to the fixed point w = A^-1 b with A = E[x (x - gamma x')], b = E[r x] (Tsitsiklis & Van Roy,
1997). Features are numbers (S, F), or the indices of those that are 1, (S, K). Shapes: N agents, S states, A actions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from advrl.agents.tabular_control import Greedy
from advrl.agents.tabular_loop import Common, Learned, Loop, Rate, Transition
from advrl.agents.tabular_prediction import following
from advrl.checks import finite, integer
from advrl.tabular.mdp import MDP
from advrl.tabular.simulate import Simulator

if TYPE_CHECKING:
    from typing_extensions import Unpack


@dataclass(frozen=True)
class TileCoding:
    """Overlapping grids over a box: a point lights up one tile of each.

    Tiling i is displaced by i (1, 3, 5, ..) / tilings of a tile, the asymmetric offsets of Miller & Glanz (1996).

    Args:
        low, high: the box's corners, one number per dimension.
        bins: tiles along each dimension that span the box.
        tilings: number of grids.
    """

    low: Sequence[float]
    high: Sequence[float]
    bins: int = 8
    tilings: int = 8

    def __post_init__(self) -> None:
        integer("bins", self.bins), integer("tilings", self.tilings)
        if not self.low or len(self.low) != len(self.high):
            raise ValueError(f"low and high must name the same dimensions, got {self.low} and {self.high}")
        if any(not a < b for a, b in zip(self.low, self.high, strict=True)):
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")

    @property
    def size(self) -> int:
        """F, the number of tiles."""
        return int(self.tilings * (self.bins + 1) ** len(self.low))

    def __call__(self, points: Tensor) -> Tensor:
        """(*, tilings) indices of the tiles that hold points (*, d); points outside are moved to the edge."""
        if points.shape[-1] != len(self.low):
            raise ValueError(f"points must have {len(self.low)} coordinates, got shape {tuple(points.shape)}")
        like: dict[str, Any] = {"dtype": points.dtype, "device": points.device}
        low, high = torch.tensor(self.low, **like), torch.tensor(self.high, **like)
        scaled = ((points - low) / (high - low)).clamp(0, 1) * self.bins
        grid = torch.arange(self.tilings, **like)[:, None]
        shift = grid * (2 * torch.arange(len(self.low), **like) + 1) / self.tilings % 1
        cell = (scaled[..., None, :] + shift).floor().long().clamp(max=self.bins)
        index = torch.arange(self.tilings, device=points.device)
        for k in range(len(self.low)):
            index = index * (self.bins + 1) + cell[..., k]
        return index


@dataclass(frozen=True, eq=False)
class LearnedLinear(Learned):
    """As :class:`Learned`, with the weights (N, A, F) behind the values."""

    weights: Tensor | None = None


class Linear:
    """SARSA with weights (N, A * F); features of a state are values (S, K) at indices (S, K)."""

    def __init__(self, loop: Loop, features: Tensor, size: int | None, alpha: Rate, epsilon: Rate) -> None:
        self.loop, self.alpha, self.greedy = loop, loop.rate("alpha", alpha, math.inf), Greedy(loop, epsilon)
        if features.dim() != 2 or features.shape[0] != loop.states:
            raise ValueError(f"features must have shape ({loop.states}, F or K), got {tuple(features.shape)}")
        if features.is_floating_point():
            self.x = finite("features", features).to(device=loop.device, dtype=loop.dtype)
            self.size = features.shape[1]
            self.at = torch.arange(self.size, device=loop.device).expand_as(self.x).contiguous()
        else:
            self.at = features.to(device=loop.device, dtype=torch.int64)
            self.x = torch.ones_like(self.at, dtype=loop.dtype)
            self.size = int(self.at.max()) + 1 if size is None else integer("size", size)
            if int(self.at.min()) < 0 or int(self.at.max()) >= self.size:
                raise ValueError(f"indices of features must be in 0..{self.size - 1}")
        self.w = torch.zeros(loop.agents, loop.actions * self.size, dtype=loop.dtype, device=loop.device)
        self.stored: Tensor | None = None
        self.fresh = torch.ones(loop.agents, dtype=torch.bool, device=loop.device)
        self.offset = torch.arange(loop.actions, device=loop.device) * self.size

    def waiting(self) -> Tensor | None:
        return None

    def table(self) -> Tensor:
        dense = torch.zeros(self.loop.states, self.size, dtype=self.x.dtype, device=self.x.device)
        dense.scatter_add_(1, self.at, self.x)
        weights = self.w.view(self.loop.agents, self.loop.actions, self.size)
        return torch.einsum("naf,sf->nsa", weights, dense).reshape(-1, self.loop.actions)

    def values(self, state: Tensor) -> Tensor:
        """(N, A) action values in states (N,)."""
        at = self.at.index_select(0, state)[:, None, :] + self.offset[:, None]
        picked = self.w.gather(1, at.flatten(1)).view(at.shape)
        return (picked * self.x.index_select(0, state)[:, None]).sum(-1)

    def act(self, state: Tensor) -> Tensor:
        action = self.greedy.pick(self.values(state), state)
        return action if self.stored is None else torch.where(self.fresh, action, self.stored)

    def update(self, t: Transition) -> None:
        loop = self.loop
        here = self.values(t.state).gather(1, t.action[:, None]).squeeze(1)
        then = self.values(t.next)
        self.stored = self.greedy.pick(then, t.next)
        T = then.gather(1, self.stored[:, None]).squeeze(1).masked_fill(t.ended, 0.0)
        error = self.alpha(loop.finished) * (t.reward + loop.gamma * T - here)
        at = self.at.index_select(0, t.state) + self.offset.index_select(0, t.action)[:, None]
        change = error.masked_fill(~t.moving, 0.0)[:, None] * self.x.index_select(0, t.state)
        self.w.scatter_add_(1, at, change)
        self.fresh = t.done


def linear_sarsa(
    mdp: MDP | Simulator, features: Tensor, *, size: int | None = None, alpha: Rate = 0.1, epsilon: Rate = 0.1,
    **common: Unpack[Common],
) -> LearnedLinear:  # fmt: skip
    """Semi-gradient SARSA with linear action values; those of terminal states, which are never used, mean nothing.

    Args:
        features: (S, F) numbers, or (S, K) integers: indices of the features that are 1, as :class:`TileCoding` gives.
        size: F for indices; one more than the greatest if ``None``.
        alpha: step size, shared out by the caller: with K active tiles, alpha / K moves a value by alpha.
        epsilon: as of :func:`q_learning`.
        common: see :class:`Common`, without ``initial``: weights start at 0.
    """
    if "initial" in common:
        raise ValueError("weights start at 0: leave out initial")
    loop = Loop(mdp, **common)
    learner = Linear(loop, features, size, alpha, epsilon)
    run = loop.run(learner)
    return LearnedLinear(
        **{field.name: getattr(run, field.name) for field in fields(Learned)},
        weights=learner.w.view(loop.agents, loop.actions, learner.size),
    )


def linear_td(
    mdp: MDP, policy: Tensor, features: Tensor, *, size: int | None = None, alpha: Rate = 0.1, **common: Unpack[Common]
) -> LearnedLinear:
    """Semi-gradient TD(0) of a policy's state values. Arguments of :func:`linear_sarsa` and :func:`td_prediction`."""
    process = following(mdp, policy, common.pop("rewards", None))
    return linear_sarsa(process, features, size=size, alpha=alpha, epsilon=0.0, **common)
