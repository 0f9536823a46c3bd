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
from advrl.games.rates import alternating_invariant, averaged_radius, eigenvalues, orbit, rate, threshold

__all__ = [
    "Game",
    "alternating_invariant",
    "averaged_radius",
    "bilinear",
    "dirac_eigenvalues",
    "dirac_gan",
    "eigenvalues",
    "flatten",
    "hessian_product",
    "jacobian",
    "jacobian_product",
    "jacobian_transpose_product",
    "orbit",
    "quadratic",
    "rate",
    "threshold",
    "unflatten",
    "vector_field",
    "zero_sum",
]
