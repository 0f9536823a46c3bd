"""Objectives with the penalties that belong to them, by their names on the command line."""

from __future__ import annotations

from dataclasses import dataclass

from advrl.checks import number
from advrl.objectives import objective as o
from advrl.objectives.penalties import Penalty, gradient_penalty


@dataclass(frozen=True)
class Game:
    """An objective and the (weight, penalty) pairs added to the discriminator's loss: d_loss + sum of weight * penalty.

    Raises:
        ValueError, TypeError: for a weight that is negative or not finite, or no number.
    """

    objective: o.Objective
    penalties: tuple[tuple[float, Penalty], ...] = ()

    def __post_init__(self) -> None:
        for weight, _ in self.penalties:
            number("penalty weight", weight, 0.0)


GAMES: dict[str, Game] = {
    "minimax": Game(o.minimax),
    "non-saturating": Game(o.non_saturating),
    "maximum-likelihood": Game(o.maximum_likelihood),
    "reverse-kl": Game(o.reverse_kl),
    "least-squares": Game(o.least_squares),
    "hinge": Game(o.hinge),
    "wasserstein-gp": Game(o.wasserstein, ((10.0, gradient_penalty),)),
}
