r"""Antithetic pairs: every draw comes with its mirror image about the centre of a symmetric distribution.

x = loc + scale * eps and x' = loc - scale * eps = 2 loc - x have one law, so the mean over both is unbiased; whatever
is odd in eps cancels. Hammersley & Morton (1956); Ren, Zhao & Ermon (2019). Of the path derivative of a quadratic cost
in a normal's mean no variance is left at all; a derivative that is even about the centre gains nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import (
    Cauchy,
    Distribution,
    Laplace,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    StudentT,
    Uniform,
    VonMises,
)

from advrl.estimators.base import Cost, Draw, Estimator, _cost_of, base_of, name_of
from advrl.estimators.kernels import score_function
from advrl.estimators.quick import sample_of

SYMMETRIC = (Normal, Laplace, Cauchy, StudentT, MultivariateNormal, LowRankMultivariateNormal, Uniform, VonMises)


def reflect(distribution: Distribution, x: Tensor) -> Tensor:
    """The mirror image 2 centre - x of draws x (n, *batch, *event), differentiable in both.

    Raises:
        ValueError: if the distribution is not a symmetric one.
    """
    base: Any = base_of(distribution)
    _check_symmetric("the mirror image", distribution)
    return 2 * (base.mean if isinstance(base, Uniform) else base.loc) - x


def _check_symmetric(estimator: str, distribution: Distribution) -> None:
    if not isinstance(base_of(distribution), SYMMETRIC):
        better = "path" if distribution.has_rsample else "loo"
        raise ValueError(
            f"{estimator} needs a distribution that is symmetric about its centre (Normal, Laplace, StudentT, Cauchy, "
            f"Uniform, MultivariateNormal, VonMises), not {name_of(distribution)}: use {better}"
        )


@dataclass(frozen=True)
class Antithetic(Estimator):
    """The path derivative over n pairs of mirrored draws; evaluates the cost and its gradient 2n times.

    Unbiased.

    Args:
        n: pairs per distribution; the samples are (2n, *batch, *event), first the draws, then their images.
    """

    unbiased = True
    needs_gradient = True
    variables = "symmetric location-scale with rsample"

    @property
    def evaluations(self) -> int:
        return 2 * self.n

    def check(self, distribution: Distribution) -> None:
        _check_symmetric("antithetic", distribution)
        if not distribution.has_rsample:
            raise ValueError(f"antithetic takes the path derivative, and {name_of(distribution)} has none: use loo")

    def draw(self, distribution: Distribution) -> Draw:
        self.check(distribution)
        x = distribution.rsample((self.n,))
        return Draw(torch.cat([x, reflect(distribution, x)]), distribution)


@dataclass(frozen=True)
class AntitheticScore(Estimator):
    """The score function over n pairs of mirrored draws; evaluates the cost 2n times and needs no gradient of it.

    Unbiased. The mean of a symmetric location's score is odd, so that a cost's even part cancels within each pair, and
    with it every constant baseline.

    Args:
        n: pairs per distribution; the samples are (2n, *batch, *event), first the draws, then their images.
    """

    unbiased = True
    needs_gradient = False
    variables = "symmetric location-scale"

    @property
    def evaluations(self) -> int:
        return 2 * self.n

    def check(self, distribution: Distribution) -> None:
        _check_symmetric("antithetic", distribution)

    def draw(self, distribution: Distribution) -> Draw:
        self.check(distribution)
        x = sample_of(distribution, self.n)
        return Draw(torch.cat([x, reflect(distribution, x).detach()]), distribution)

    def surrogate(self, draw: Draw, cost: Cost) -> Tensor:
        value = _cost_of(draw, cost)
        return score_function(draw.distribution.log_prob(draw.x), value).mean(0)
