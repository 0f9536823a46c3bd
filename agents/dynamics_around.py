r"""Dynamics around another: slow weights that look ahead, averages for evaluation, and a pull towards the past.

On V(x, y) = x y with alternating steps of size eta, k steps of lookahead multiply the distance by lambda with
|lambda|^2 = 1 - 2 alpha (1 - alpha) (1 - cos(k theta)), cos theta = 1 - eta^2 / 2. The mean of an orbit of radius r
shrinks like 2 r / t, in time t = eta times the number of steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from advrl.agents.dynamics_field import Field
from advrl.agents.dynamics_first import Dynamics, Moved, Player
from advrl.agents.dynamics_rules import Params, State
from advrl.checks import integer, number


@dataclass(frozen=True)
class _Around(Dynamics):
    """What surrounds a dynamics."""

    inside: Dynamics

    def __post_init__(self) -> None:
        if not isinstance(self.inside, Dynamics):
            raise TypeError(f"inside must be a Dynamics, got {type(self.inside).__name__}")

    @property
    def curvature(self) -> bool:
        return self.inside.curvature

    def alone(self, player: Player, field: Field, x: Params, y: Params, state: State, rate: float = 1.0) -> Moved:
        x, y, inside = self.inside.alone(player, field, x, y, state["inside"], rate)
        return x, y, {**state, "inside": inside}

    def sizes(self, x: Params, y: Params, state: State, rate: float = 1.0) -> tuple[Params, Params]:
        return self.inside.sizes(x, y, state["inside"], rate)


@dataclass(frozen=True)
class Lookahead(_Around):
    """Every k steps both players go back to a point between where they came from and where they are.

    Chavdarova et al. (2021), "Taming GANs with lookahead-minimax", algorithm 1: slow' = slow + alpha (fast - slow), and
    the fast weights start there. Both players together, or they would not meet the same opponent. Evaluated are the
    slow weights. Momentum goes on.

    Args:
        inside: what takes the steps.
        k: steps of a cycle.
        alpha: how far to go, in (0, 1].
    """

    k: int = 5
    alpha: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        integer("k", self.k)
        number("alpha", self.alpha, 0.0, 1.0, exclusive=True)

    def init(self, x: Params, y: Params) -> State:
        return {"inside": self.inside.init(x, y), "slow_x": x, "slow_y": y, "count": 0}

    def step(self, field: Field, x: Params, y: Params, state: State, rate: float = 1.0) -> Moved:
        x, y, inside = self.inside.step(field, x, y, state["inside"], rate)
        state = {**state, "inside": inside, "count": (state["count"] + 1) % self.k}
        if state["count"] == 0:
            x = tuple(torch._foreach_lerp(state["slow_x"], x, self.alpha))
            y = tuple(torch._foreach_lerp(state["slow_y"], y, self.alpha))
            state = {**state, "slow_x": x, "slow_y": y}
        return x, y, state

    def judged(self, x: Params, y: Params, state: State) -> tuple[Params, Params]:
        return state["slow_x"], state["slow_y"]


@dataclass(frozen=True)
class Averaging(_Around):
    """The same path; evaluated is its mean since the start (Bruck, 1977; Yazici et al., 2019).

    Args:
        inside: what takes the steps.
    """

    def init(self, x: Params, y: Params) -> State:
        return {"inside": self.inside.init(x, y), "mean_x": x, "mean_y": y, "count": 0}

    def step(self, field: Field, x: Params, y: Params, state: State, rate: float = 1.0) -> Moved:
        x, y, inside = self.inside.step(field, x, y, state["inside"], rate)
        count = state["count"] + 1
        mean_x = tuple(torch._foreach_lerp(state["mean_x"], x, 1 / count))
        mean_y = tuple(torch._foreach_lerp(state["mean_y"], y, 1 / count))
        return x, y, {"inside": inside, "mean_x": mean_x, "mean_y": mean_y, "count": count}

    def judged(self, x: Params, y: Params, state: State) -> tuple[Params, Params]:
        return state["mean_x"], state["mean_y"]
