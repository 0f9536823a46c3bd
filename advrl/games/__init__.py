"""Two-player games: vector fields, exact rates, equilibria and solutions. The rules that train are in advrl.agents."""

from advrl.games.attacks import fgsm, linear_worst_loss, pgd
from advrl.games.classic import bilinear, dirac_eigenvalues, dirac_gan, quadratic
from advrl.games.finite import Picks, density_step, finite_gan, gan_gap, max_min_play, total_variation
from advrl.games.fits import GaussianFit, forward_kl_fit, reverse_kl_fit
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
from advrl.games.privacy import PrivateCode, explained, private_code, reverse_gradient
from advrl.games.rates import alternating_invariant, averaged_radius, eigenvalues, orbit, rate, threshold
from advrl.games.ratio import ratio_value
from advrl.games.spectrum import gan_game, spectrum, stability_limit
from advrl.games.tictactoe import TicTacToe, solve_tic_tac_toe

__all__ = [
    "Game",
    "GaussianFit",
    "Picks",
    "Play",
    "PrivateCode",
    "TicTacToe",
    "alternating_invariant",
    "averaged_radius",
    "bilinear",
    "density_step",
    "dirac_eigenvalues",
    "dirac_gan",
    "duality_gap",
    "eigenvalues",
    "equilibrium",
    "explained",
    "exploitability",
    "fgsm",
    "fictitious_play",
    "finite_gan",
    "flatten",
    "forward_kl_fit",
    "gan_game",
    "gan_gap",
    "hedge",
    "hessian_product",
    "jacobian",
    "jacobian_product",
    "jacobian_transpose_product",
    "linear_worst_loss",
    "matching_pennies",
    "max_min_play",
    "nash_gap",
    "orbit",
    "pgd",
    "private_code",
    "quadratic",
    "random_game",
    "rate",
    "ratio_value",
    "regret_matching",
    "reverse_gradient",
    "reverse_kl_fit",
    "rock_paper_scissors",
    "solve_tic_tac_toe",
    "spectrum",
    "stability_limit",
    "threshold",
    "total_variation",
    "unflatten",
    "vector_field",
    "zero_sum",
]
