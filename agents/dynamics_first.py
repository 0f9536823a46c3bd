r"""Dynamics that need nothing but gradients. F is the game's vector field, w = (x, y), eta the step size.

On V(x, y) = x y, where x minimises and y maximises, a step multiplies the distance from the solution by |lambda|:

    simultaneous      |lambda|^2 = 1 + eta^2                      spirals outwards
    alternating       1 for eta < 2                               x^2 + y^2 - eta x y stays as it is
    extragradient     1 - eta^2 + eta^4
    optimistic        (1 + sqrt(1 - 4 eta^2)) / 2, eta <= 1/2     converges for eta < 1/sqrt(3)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from advrl.agents.dynamics_field import Field, detached, leaves
from advrl.agents.dynamics_rules import OptimisticRule, Params, Rule, State, added, check_rule
from advrl.checks import choice, number

Moved = tuple[Params, Params, State]
Player = Literal["x", "y"]


class Dynamics(ABC):
    """How two players move in a game. Frozen; what changes is in the state."""

    @property
    def curvature(self) -> bool:
        """Whether it uses derivatives of the players' gradients."""
        return False

    @abstractmethod
    def init(self, x: Params, y: Params) -> State:
        """The state before the first step: tuples of tensors, numbers and dictionaries of them."""

    @abstractmethod
    def step(self, field: Field, x: Params, y: Params, state: State, rate: float = 1.0) -> Moved:
        """Both players' next parameters, and the next state; ``rate`` multiplies both learning rates."""

    @abstractmethod
    def alone(self, player: Player, field: Field, x: Params, y: Params, state: State, rate: float = 1.0) -> Moved:
        """A step of one player against the other as it is."""

    @abstractmethod
    def sizes(self, x: Params, y: Params, state: State, rate: float = 1.0) -> tuple[Params, Params]:
        """The step size of every parameter as it is now, momentum left out."""

    def judged(self, x: Params, y: Params, state: State) -> tuple[Params, Params]:
        """The parameters to evaluate: where the players are, unless the dynamics averages."""
        return x, y


@dataclass(frozen=True)
class Ruled(Dynamics):
    """A dynamics in which each player has a rule of its own.

    Args:
        rule_x: of the player that minimises the first loss (a generator).
        rule_y: of the player that minimises the second (a discriminator).

    Raises:
        TypeError: for an optimiser of torch in a rule's place.
    """

    rule_x: Rule
    rule_y: Rule

    def __post_init__(self) -> None:
        check_rule("rule_x", self.rule_x)
        check_rule("rule_y", self.rule_y)

    def init(self, x: Params, y: Params) -> State:
        return {"x": self.rule_x.init(x), "y": self.rule_y.init(y)}

    def alone(self, player: Player, field: Field, x: Params, y: Params, state: State, rate: float = 1.0) -> Moved:
        x, y = leaves(x), leaves(y)
        change, own = self.rule(player).change(field.of(player, x, y), state[player], rate)
        x, y = detached(x), detached(y)
        x, y = (added(x, change), y) if player == "x" else (x, added(y, change))
        return x, y, {**state, player: own}

    def sizes(self, x: Params, y: Params, state: State, rate: float = 1.0) -> tuple[Params, Params]:
        return self.rule("x").sizes(x, state["x"], rate), self.rule("y").sizes(y, state["y"], rate)

    def rule(self, player: Player) -> Rule:
        """The player's rule."""
        return self.rule_x if player == "x" else self.rule_y

    def _along(self, towards: tuple[Params, Params], x: Params, y: Params, state: State, rate: float) -> Moved:
        """Each player's rule on its gradient, from where the players are."""
        change_x, own_x = self.rule("x").change(towards[0], state["x"], rate)
        change_y, own_y = self.rule("y").change(towards[1], state["y"], rate)
        return added(detached(x), change_x), added(detached(y), change_y), {**state, "x": own_x, "y": own_y}


@dataclass(frozen=True)
class Simultaneous(Ruled):
    """Both move along their gradients at once: w' = w - eta F(w).

    Args:
        ratio: of the learning rate of y to what its rule says (two time scales, Heusel et al., 2017).
    """

    ratio: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        number("ratio", self.ratio, 0.0, exclusive=True)

    def rule(self, player: Player) -> Rule:
        return self.rule_x if player == "x" else self.rule_y.times(self.ratio)

    def step(self, field: Field, x: Params, y: Params, state: State, rate: float = 1.0) -> Moved:
        x, y = leaves(x), leaves(y)
        return self._along(field.both(x, y), x, y, state, rate)


@dataclass(frozen=True)
class Alternating(Simultaneous):
    """One moves, then the other against its new parameters.

    Args:
        ratio: as above.
        first: who moves first; Goodfellow's algorithm 1 begins with the discriminator, ``y``.
    """

    first: Player = "x"

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("first", self.first, ("x", "y"))

    def step(self, field: Field, x: Params, y: Params, state: State, rate: float = 1.0) -> Moved:
        x, y, state = leaves(x), leaves(y), dict(state)
        for player in self.first, "y" if self.first == "x" else "x":
            change, state[player] = self.rule(player).change(field.of(player, x, y), state[player], rate)
            if player == "x":
                x = leaves(added(detached(x), change))
            else:
                y = leaves(added(detached(y), change))
        return detached(x), detached(y), state


def negative_momentum(rule_x: Rule, rule_y: Rule, momentum: float = -0.5, first: Player = "x") -> Alternating:
    """Alternating steps with negative momentum, Gidel et al. (2019); of Adam, a negative first beta."""
    return Alternating(rule_x.with_momentum(momentum), rule_y.with_momentum(momentum), first=first)


def optimistic(rule_x: Rule, rule_y: Rule) -> Simultaneous:
    """Simultaneous steps of :class:`OptimisticRule`, Daskalakis et al. (2018): one gradient a step, one stored."""
    return Simultaneous(OptimisticRule(rule_x), OptimisticRule(rule_y))


@dataclass(frozen=True)
class Extragradient(Ruled):
    """A look ahead, and the step along the gradient found there: w' = w - eta F(w - eta F(w)). Two gradients a step.

    Korpelevich (1976); with ``AdamRule`` Gidel et al. (2019), "A variational inequality perspective", algorithm 4,
    whose moments take in both gradients.
    """

    def step(self, field: Field, x: Params, y: Params, state: State, rate: float = 1.0) -> Moved:
        here = leaves(x), leaves(y)
        ahead_x, ahead_y, state = self._along(field.both(*here), *here, state, rate)
        return self._along(field.both(leaves(ahead_x), leaves(ahead_y)), *here, state, rate)


@dataclass(frozen=True)
class PastExtragradient(Ruled):
    """Extragradient that looks ahead along the gradient it found last: one gradient a step.

    Popov (1980); Gidel et al. (2019), algorithm 3. The points where it takes gradients move as those of
    :func:`optimistic` do.
    """

    def init(self, x: Params, y: Params) -> State:
        return {**super().init(x, y), "past": None}

    def step(self, field: Field, x: Params, y: Params, state: State, rate: float = 1.0) -> Moved:
        past = state["past"]
        ahead = (x, y) if past is None else (added(x, past[0]), added(y, past[1]))
        towards_x, towards_y = field.both(leaves(ahead[0]), leaves(ahead[1]))
        change_x, own_x = self.rule_x.change(towards_x, state["x"], rate)
        change_y, own_y = self.rule_y.change(towards_y, state["y"], rate)
        return added(x, change_x), added(y, change_y), {"x": own_x, "y": own_y, "past": (change_x, change_y)}
