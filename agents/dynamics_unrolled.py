r"""Unrolling: x moves against the y of k steps later, Metz et al. (2017), "Unrolled generative adversarial networks".

With y_0 = y and y_i = y_(i-1) + change of y's rule against x, player x descends f(x, y_k), and y moves to y_1. Fully
unrolled, the gradient of x runs through all k steps, since they depend on x; to first order y_k is taken as given. On
V(x, y) = x y with step size eta, as long as the eigenvalues are complex,

    full          |lambda|^2 = 1 - (2 k - 1) eta^2,    1 - 2 k eta^2 if y answers the new x
    first order   1 - (k - 1) eta^2
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from advrl.agents.dynamics_field import Field, derivative, detached, leaves
from advrl.agents.dynamics_first import Moved, Ruled
from advrl.agents.dynamics_rules import Params, State, added
from advrl.checks import integer


@dataclass(frozen=True)
class Unrolled(Ruled):
    """The player x looks k steps of y ahead.

    Args:
        k: steps that y is unrolled for, by its own rule and from its own state.
        first_order: take y_k as given; no derivative of a gradient.
        answer: y moves against the new x (one gradient more) rather than to y_1.

    Raises:
        ValueError: in the first step, where y's step does not depend on x in a way that can be differentiated.
    """

    k: int = 5
    first_order: bool = False
    answer: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        integer("k", self.k)

    def init(self, x: Params, y: Params) -> State:
        return {**super().init(x, y), "checked": False}

    @property
    def curvature(self) -> bool:
        return not self.first_order

    def step(self, field: Field, x: Params, y: Params, state: State, rate: float = 1.0) -> Moved:
        x, y = leaves(x), leaves(y)
        ahead, own, second = y, state["y"], not self.first_order
        moved: tuple[Params, State] | None = None
        for _ in range(self.k):
            towards = field.of("y", x, ahead, again=second, retain=True)
            if second and not state["checked"]:
                _check(towards, x)
                state = {**state, "checked": True}
            change, own = self.rule_y.change(towards, own, rate)
            ahead = added(ahead, change) if second else leaves(added(detached(ahead), change))
            moved = moved or (detached(ahead), _without_graph(own))
        assert moved is not None
        change_x, own_x = self.rule_x.change(field.of("x", x, ahead), state["x"], rate)
        new_x = added(detached(x), change_x)
        new_y, own_y = moved
        if self.answer:
            back = leaves(y)
            change_y, own_y = self.rule_y.change(field.of("y", leaves(new_x), back), state["y"], rate)
            new_y = added(detached(back), change_y)
        return new_x, new_y, {**state, "x": own_x, "y": own_y}


def _check(towards: Params, x: Params) -> None:
    if derivative(towards, x, detached(towards)) is None:
        raise ValueError(
            "unrolling differentiates y's steps in x, and they do not depend on x in a way that can be differentiated "
            "(a detached sample?): use unrolled-first-order, or one of optimistic, lookahead and extragradient"
        )


def _without_graph(state: Any) -> Any:
    """A rule's state without the graph of the steps that led to it."""
    if isinstance(state, dict):
        return {name: _without_graph(value) for name, value in state.items()}
    return detached(state) if isinstance(state, tuple) else state
