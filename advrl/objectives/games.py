"""Objectives with what belongs to them (penalties, clipping, a controller, weights), by their names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from advrl.checks import choice, number
from advrl.objectives import imitation
from advrl.objectives import logits as o
from advrl.objectives.boundary import boundary_weights
from advrl.objectives.coupled import CoupledGame, relativistic_average
from advrl.objectives.divergences import DIVERGENCES, f_gan
from advrl.objectives.energy import BEGAN, ebgan
from advrl.objectives.objective import Objective
from advrl.objectives.penalties import Penalty, gradient_penalty, r1, r2


@dataclass(frozen=True)
class Game:
    """An objective and what the trainer adds to it; the vector field of two players is :class:`advrl.games.Game`.

    Args:
        objective: both players' losses.
        penalties: (weight, penalty) pairs added to the discriminator's loss: d_loss + sum of weight * penalty.
        clip: bound of the discriminator's weights, which are cut to it after each of its steps; ``None`` for none.
        controller: BEGAN's state, updated after each of the discriminator's steps; ``objective`` is its own.
        advantage: of (costs, samples) to what multiplies grad log p in place of the cost: the score function only.

    Raises:
        ValueError, TypeError: for a weight or a bound that is negative or not finite, or no number.
    """

    objective: Objective
    penalties: tuple[tuple[float, Penalty], ...] = ()
    clip: float | None = None
    controller: BEGAN | None = None
    advantage: Callable[[Tensor, Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.objective, CoupledGame):
            raise TypeError(f"{self.objective.name} has no cost per sample: advrl.agents.CoupledTrainer plays it")
        for weight, _ in self.penalties:
            number("penalty weight", weight, 0.0)
        if self.clip is not None:
            number("clip", self.clip, 0.0, exclusive=True)


GAMES: dict[str, Game] = {
    "minimax": Game(o.minimax),
    "non-saturating": Game(o.non_saturating),
    "maximum-likelihood": Game(o.maximum_likelihood),
    "reverse-kl": Game(o.reverse_kl),
    "jeffreys": Game(o.jeffreys),
    "pearson": Game(o.pearson),
    "neyman": Game(o.neyman),
    "hellinger": Game(o.hellinger),
    "total-variation": Game(o.total_variation),
    "least-squares": Game(o.least_squares),
    "least-squares-pearson": Game(o.least_squares_pearson),
    "hinge": Game(o.hinge),
    "wasserstein-clip": Game(o.wasserstein, clip=0.01),
    "wasserstein-gp": Game(o.wasserstein, ((10.0, gradient_penalty),)),
    "relativistic": Game(o.relativistic),
    "r3gan": Game(o.relativistic, ((0.5, r1), (0.5, r2))),
    "boundary-seeking": Game(o.boundary_seeking),
    "gail": Game(imitation.gail),
    "gail-log-d": Game(imitation.gail_log_d),
    "airl": Game(imitation.airl),
    "fairl": Game(imitation.fairl),
    **{f"f-gan-{name}": Game(f_gan(d)) for name, d in DIVERGENCES.items() if d.variational and name != "gan"},
    "ebgan": Game(ebgan()),
}
"""What a sample is paid for by itself, without a state: by name."""

SPECIAL = {
    "began": "energies, with a controller of its own",
    "bs-gan": "weights over the samples of one z",
    "relativistic-average": "couples the batch",
}
"""Names beyond :data:`GAMES` that :func:`make_game` knows, and what is special about each."""

NAMES = (*GAMES, *SPECIAL)
"""All names of ``--objective``."""


def make_game(name: str, *, hint: str = "") -> Game | CoupledGame:
    """The game called ``name``; one with a state (``began``) is new each time.

    Args:
        name: one of :data:`NAMES`.
        hint: what else could be given, for the message.

    Raises:
        ValueError: for an unknown name (the close match is given), or one that needs more than a name.
    """
    if name in ("catgan", "k+1"):
        raise ValueError(
            f"{name} needs a discriminator with an output per class, and {'labels' if name == 'k+1' else 'no score'}: "
            f"build it in Python with advrl.objectives.{'class_logit' if name == 'k+1' else 'catgan'}"
        )
    choice("objective", name, NAMES, hint=hint)
    if name == "began":
        controller = BEGAN()
        return Game(controller.objective, controller=controller)
    if name == "bs-gan":
        return Game(o.reverse_kl, advantage=boundary_weights)
    return relativistic_average if name == "relativistic-average" else GAMES[name]
