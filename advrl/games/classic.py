r"""Games whose dynamics are known in closed form: bilinear, quadratic, and the Dirac-GAN.

The bilinear game V(x, y) = x y, x minimising, is the smallest on which gradient descent fails: the flow runs round the
circle, and steps spiral outwards. Goodfellow (2016), exercise 2. The Dirac-GAN has data at 0, a generator at x, and a
discriminator with logit a(s) = y s: Mescheder, Geiger & Nowozin (2018), section 2.
"""

from __future__ import annotations

import cmath
import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

from advrl.checks import number
from advrl.games.game import Game, zero_sum


def bilinear(matrix: Tensor | None = None) -> Game:
    """V(x, y) = x^T A y with A (n, m); without a matrix, the sum of x y over entries of equal shape.

    Raises:
        ValueError: if the matrix is no matrix.
    """
    if matrix is None:
        return zero_sum(lambda x, y: (x * y).sum(), "bilinear")
    if matrix.dim() != 2:
        raise ValueError(f"matrix must be (n, m), got {tuple(matrix.shape)}")
    return zero_sum(lambda x, y: x @ matrix @ y, "bilinear")


def quadratic(own_x: Tensor, mixed: Tensor, own_y: Tensor) -> Game:
    """V(x, y) = x^T A x / 2 + x^T B y - y^T C y / 2: convex-concave where A and C are positive semi-definite.

    Args:
        own_x: (n, n) A, symmetric.
        mixed: (n, m) B.
        own_y: (m, m) C, symmetric.

    Raises:
        ValueError: if the shapes do not fit, or A or C is not symmetric, whose other part would drop out.
    """
    n, m = len(own_x), len(own_y)
    if own_x.shape != (n, n) or own_y.shape != (m, m) or mixed.shape != (n, m):
        raise ValueError(
            "need own_x (n, n), mixed (n, m) and own_y (m, m), got "
            f"{tuple(own_x.shape)}, {tuple(mixed.shape)} and {tuple(own_y.shape)}"
        )
    for name, part in (("own_x", own_x), ("own_y", own_y)):
        if not torch.allclose(part, part.mT):
            raise ValueError(f"{name} must be symmetric: take (A + A^T) / 2, which has the same quadratic form")
    return zero_sum(lambda x, y: x @ own_x @ x / 2 + x @ mixed @ y - y @ own_y @ y / 2, "quadratic")


def dirac_gan(gamma: float = 0.0) -> Game:
    r"""Data at 0, generator at x (), logit a(s) = y s; the discriminator's R1 penalty is gamma / 2 y^2.

    l_x = -softplus(x y), the minimax cost, and l_y = log 2 + softplus(x y) + gamma / 2 y^2. The penalty is on the
    slope at the data, which is y.
    """
    number("gamma", gamma, 0)

    def losses(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        fake = softplus(x * y)
        return -fake, math.log(2) + fake + gamma / 2 * y**2

    return Game("dirac-gan", losses)


def dirac_eigenvalues(gamma: float = 0.0) -> tuple[complex, complex]:
    r"""Eigenvalues of J of the Dirac-GAN at its equilibrium 0: gamma / 2 +- sqrt(gamma^2 / 4 - 1 / 4).

    Mescheder et al. (2018), theorem 4.1 and appendix D.5, with f'(0) = 1 / 2; theirs are of the flow -F, so minus
    these. Without a penalty +-i / 2: no attraction. At gamma = 1 both are 1 / 2, critical damping; above it, one is
    slower.
    """
    number("gamma", gamma, 0)
    root = cmath.sqrt(gamma**2 / 4 - 1 / 4)
    return gamma / 2 + root, gamma / 2 - root
