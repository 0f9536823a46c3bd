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

__all__ = [
    "Game",
    "bilinear",
    "dirac_eigenvalues",
    "dirac_gan",
    "flatten",
    "hessian_product",
    "jacobian",
    "jacobian_product",
    "jacobian_transpose_product",
    "quadratic",
    "unflatten",
    "vector_field",
    "zero_sum",
]
