r"""Two-player dynamics by their names, and the optimiser that plays any differentiable game with one of them.

    game = lambda x, y: (x @ y, -(x @ y))
    players = GameOptimizer(make_dynamics("extragradient", SGDRule(0.1), SGDRule(0.1)), x, y)
    for _ in range(100):
        players.step(game)

A player is a tensor, or a dictionary or tuple of tensors, as in ``advrl.games``, whose games it plays. The training of
networks is ``DynamicsTrainer``'s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from advrl.agents.dynamics_around import Averaging, Lookahead
from advrl.agents.dynamics_field import Field
from advrl.agents.dynamics_first import (
    Alternating,
    Dynamics,
    Extragradient,
    PastExtragradient,
    Player,
    Simultaneous,
    negative_momentum,
    optimistic,
)
from advrl.agents.dynamics_rules import Params, Rule, State
from advrl.agents.dynamics_second import Competitive, Consensus, Symplectic
from advrl.agents.dynamics_unrolled import Unrolled
from advrl.checks import choice
from advrl.games.game import leaves, like


@dataclass(frozen=True)
class Numbers:
    """What some dynamics need to be told.

    Args:
        unroll_steps: k of both unrolled ones.
        lookahead_steps: k of lookahead.
        adjustment: gamma of consensus, lambda of symplectic gradient adjustment.
        first: who begins where the players take turns.
    """

    unroll_steps: int = 5
    lookahead_steps: int = 5
    adjustment: float = 1.0
    first: Player = "x"


@dataclass(frozen=True)
class Entry:
    """A dynamics by name: a line about it, its gradients a step (k: of y alone), and how it is made."""

    summary: str
    gradients: str
    make: Callable[[Rule, Rule, Numbers], Dynamics]


DYNAMICS: dict[str, Entry] = {
    "alternating": Entry(
        "one player, then the other against the new weights", "1", lambda x, y, n: Alternating(x, y, first=n.first)
    ),
    "simultaneous": Entry("both at once", "1", lambda x, y, n: Simultaneous(x, y)),
    "ttur": Entry("alternating, y with 4 times its rate", "1", lambda x, y, n: Alternating(x, y, 4.0, n.first)),
    "extragradient": Entry("a look ahead, then the step found there", "2", lambda x, y, n: Extragradient(x, y)),
    "past-extragradient": Entry("the same along the last gradient", "1", lambda x, y, n: PastExtragradient(x, y)),
    "optimistic": Entry("twice this step minus the last", "1", lambda x, y, n: optimistic(x, y)),
    "unrolled": Entry(
        "x against the y of k steps later, derivatives through them", "1 + k, twice differentiated",
        lambda x, y, n: Unrolled(x, y, n.unroll_steps),
    ),
    "unrolled-first-order": Entry(
        "the same with the later y as given", "1 + k", lambda x, y, n: Unrolled(x, y, n.unroll_steps, first_order=True)
    ),
    "consensus": Entry(
        "both also descend the size of the field", "1, and 1 product", lambda x, y, n: Consensus(x, y, n.adjustment)
    ),
    "symplectic": Entry(
        "adjusted against what turns in the field", "1, and 2 products", lambda x, y, n: Symplectic(x, y, n.adjustment)
    ),
    "competitive": Entry(
        "the equilibrium of the local bilinear game", "2, and 40 products", lambda x, y, n: Competitive(x, y)
    ),
    "lookahead": Entry(
        "alternating; every k steps halfway back", "1",
        lambda x, y, n: Lookahead(Alternating(x, y, first=n.first), n.lookahead_steps),
    ),
    "negative-momentum": Entry(
        "alternating with momentum -1/2", "1", lambda x, y, n: negative_momentum(x, y, first=n.first)
    ),
    "averaging": Entry(
        "alternating; evaluated is the path's mean", "1", lambda x, y, n: Averaging(Alternating(x, y, first=n.first))
    ),
}  # fmt: skip
"""Dynamics by their names on the command line."""


def make_dynamics(
    name: str,
    rule_x: Rule,
    rule_y: Rule,
    *,
    unroll_steps: int = 5,
    lookahead_steps: int = 5,
    adjustment: float = 1.0,
    first: Player = "x",
) -> Dynamics:
    """The dynamics of a name.

    Args:
        name: a key of ``DYNAMICS``.
        rule_x, rule_y: of the players.
        unroll_steps: k of both unrolled ones.
        lookahead_steps: k of lookahead.
        adjustment: gamma of consensus, lambda of symplectic gradient adjustment.
        first: who begins where the players take turns.

    Raises:
        ValueError, TypeError: for an unknown name (the close match is given), or numbers out of range.
    """
    entry = DYNAMICS[choice("dynamics", name, DYNAMICS)]
    return entry.make(rule_x, rule_y, Numbers(unroll_steps, lookahead_steps, adjustment, first))


class GameOptimizer:
    """Two players and the dynamics that moves them.

    Args:
        dynamics: how.
        x: parameters of the player that minimises the first loss: a tensor, or a dictionary or tuple of them.
        y: of the player that minimises the second.

    Raises:
        TypeError: for anything else than a dynamics and floating-point parameters.
    """

    def __init__(self, dynamics: Dynamics, x: Any, y: Any) -> None:
        if not isinstance(dynamics, Dynamics):
            raise TypeError(f"dynamics must be a Dynamics, as make_dynamics returns, got {type(dynamics).__name__}")
        self.dynamics = dynamics
        self._like = x, y
        self._x, self._y = _copies("x", x), _copies("y", y)
        self._state: State = dynamics.init(self._x, self._y)
        self.steps = 0

    @property
    def x(self) -> Any:
        """The first player's parameters, in the form that they were given in."""
        return like(self._like[0], list(self._x))

    @property
    def y(self) -> Any:
        """The second player's."""
        return like(self._like[1], list(self._y))

    @property
    def judged(self) -> tuple[Any, Any]:
        """The parameters to evaluate: slow weights, or means, of a dynamics that has them."""
        x, y = self.dynamics.judged(self._x, self._y, self._state)
        return like(self._like[0], list(x)), like(self._like[1], list(y))

    def step(self, losses: Callable[[Any, Any], tuple[Tensor, Tensor]], rate: float = 1.0) -> None:
        """One step of the game ``losses(x, y) -> (loss_x, loss_y)``, two scalars.

        Args:
            losses: a function of both players' parameters, in the form that they were given in. It is called as often
                as the dynamics needs, and must be the same function each time: draw a batch outside.
            rate: factor of both learning rates.

        Raises:
            ValueError: for losses that are no scalars, or cannot be differentiated as often as the dynamics needs.
        """
        x, y = self._like
        field = Field(lambda at, to: losses(like(x, list(at)), like(y, list(to))))
        self._x, self._y, self._state = self.dynamics.step(field, self._x, self._y, self._state, rate)
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        """Both players, the state of the dynamics and the step count, to resume from bit for bit."""
        return {"x": self._x, "y": self._y, "state": self._state, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state_dict` returned.

        Raises:
            ValueError: if it is of other players or another dynamics.
        """
        for side, own in (("x", self._x), ("y", self._y)):
            found, expected = [tuple(p.shape) for p in state[side]], [tuple(p.shape) for p in own]
            if found != expected:
                raise ValueError(f"the state's {side} has shapes {found}, this player's {expected}")
        check_state(state["state"], self._state)
        self._x, self._y, self._state = tuple(state["x"]), tuple(state["y"]), state["state"]
        self.steps = int(state["steps"])


def check_state(state: Any, own: Any, where: str = "state") -> None:
    """Raise a ``ValueError`` if a dynamics' state is of another dynamics than this one's."""
    if isinstance(own, dict):
        found = sorted(state) if isinstance(state, dict) else type(state).__name__
        if found != sorted(own):
            raise ValueError(f"the {where} is of another dynamics: it has {found}, this one {sorted(own)}")
        for name, value in own.items():
            check_state(state[name], value, f"{where}.{name}")


def _copies(side: str, weights: Any) -> Params:
    tensors = leaves(weights)
    for tensor in tensors:
        if not tensor.is_floating_point():
            raise TypeError(f"{side} must be floating-point tensors, got {tensor.dtype}")
    return tuple(tensor.detach().clone() for tensor in tensors)
