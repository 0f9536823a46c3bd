"""Objectives with the penalties that belong to them, by their names on the command line."""

from __future__ import annotations

from dataclasses import dataclass

from advrl.objectives import objective as o
from advrl.objectives.penalties import Penalty, gradient_penalty


@dataclass(frozen=True)
class Game:
    """An objective and the (weight, penalty) pairs added to the discriminator's loss."""

    objective: o.Objective
    penalties: tuple[tuple[float, Penalty], ...] = ()


GAMES: dict[str, Game] = {
    "minimax": Game(o.minimax),
    "non-saturating": Game(o.non_saturating),
    "maximum-likelihood": Game(o.maximum_likelihood),
    "reverse-kl": Game(o.reverse_kl),
    "least-squares": Game(o.least_squares),
    "hinge": Game(o.hinge),
    "wasserstein-gp": Game(o.wasserstein, ((10.0, gradient_penalty),)),
}
