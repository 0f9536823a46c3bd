"""What the two players pay: costs of the discriminator's logit, and penalties on its slope."""

from advrl.objectives.games import GAMES, Game
from advrl.objectives.objective import (
    Objective,
    from_cost,
    hinge,
    least_squares,
    maximum_likelihood,
    minimax,
    non_saturating,
    reverse_kl,
    safe_exp,
    wasserstein,
)
from advrl.objectives.penalties import Penalty, gradient_penalty, r1

__all__ = [
    "GAMES",
    "Game",
    "Objective",
    "Penalty",
    "from_cost",
    "gradient_penalty",
    "hinge",
    "least_squares",
    "maximum_likelihood",
    "minimax",
    "non_saturating",
    "r1",
    "reverse_kl",
    "safe_exp",
    "wasserstein",
]
