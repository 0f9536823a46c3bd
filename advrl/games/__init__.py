"""Two-player games: vector fields, exact rates, equilibria and solutions. The rules that train are in advrl.agents."""

from advrl.games.classic import bilinear, dirac_eigenvalues, dirac_gan, quadratic
from advrl.games.game import (
    Game,
    flatten,
    hessian_product,
    jacobian,
    jacobian_product,
    jacobian_transpose_product,
    unflatten,
    vector_field,
    zero_sum,
)
from advrl.games.learning import Play, fictitious_play, hedge, regret_matching
from advrl.games.matrix import (
    duality_gap,
    equilibrium,
    exploitability,
    matching_pennies,
    nash_gap,
    random_game,
    rock_paper_scissors,
)
from advrl.games.rates import alternating_invariant, averaged_radius, eigenvalues, orbit, rate, threshold

__all__ = [
    "Game",
    "Play",
    "alternating_invariant",
    "averaged_radius",
    "bilinear",
    "dirac_eigenvalues",
    "dirac_gan",
    "duality_gap",
    "eigenvalues",
    "equilibrium",
    "exploitability",
    "fictitious_play",
    "flatten",
    "hedge",
    "hessian_product",
    "jacobian",
    "jacobian_product",
    "jacobian_transpose_product",
    "matching_pennies",
    "nash_gap",
    "orbit",
    "quadratic",
    "random_game",
    "rate",
    "regret_matching",
    "rock_paper_scissors",
    "threshold",
    "unflatten",
    "vector_field",
    "zero_sum",
]
