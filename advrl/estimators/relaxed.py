"""Biased gradients for discrete distributions: relax the draw, or pretend that it was its mean."""

from __future__ import annotations

from dataclasses import dataclass

from torch.distributions import Bernoulli, Binomial, Distribution, OneHotCategorical

from advrl.checks import number
from advrl.distributions import Sequence, relaxed_rsample
from advrl.estimators.base import Draw, Estimator, base_of, name_of
from advrl.estimators.quick import sample_of


def _check_discrete(estimator: str, distribution: Distribution, *others: type[Distribution]) -> None:
    if not isinstance(base_of(distribution), (Bernoulli, Binomial, OneHotCategorical, *others)):
        better = "path" if distribution.has_rsample else "loo"
        raise ValueError(
            f"{estimator} treats Bernoulli, Binomial and OneHotCategorical variables, not {name_of(distribution)}: "
            f"use {better}"
        )


@dataclass(frozen=True)
class GumbelSoftmax(Estimator):
    """The gradient at a relaxed sample: Jang, Gu & Poole (2017); Maddison, Mnih & Teh (2017).

    The cost sees relaxed samples (the binary Concrete for Bernoullis; a binomial is the sum of its N Bernoullis), so
    the bias vanishes only as the temperature does, while the variance grows like its inverse. Evaluates the cost and
    its gradient n times. Of a :class:`advrl.distributions.Sequence` the cost sees rows (n, *batch, T, K).

    Args:
        n: samples per distribution.
        temperature: t > 0.
        hard: the cost sees the exact discrete draw, the gradient is that of the relaxation (ST Gumbel-softmax).
    """

    unbiased = False
    needs_gradient = True
    variables = "Bernoulli, Binomial, OneHotCategorical"

    temperature: float = 1.0
    hard: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        number("temperature", self.temperature, 0.0, exclusive=True)

    def check(self, distribution: Distribution) -> None:
        _check_discrete("gumbel", distribution, Sequence)

    def draw(self, distribution: Distribution) -> Draw:
        self.check(distribution)
        return Draw(relaxed_rsample(distribution, self.n, self.temperature, self.hard), distribution)


@dataclass(frozen=True)
class StraightThrough(Estimator):
    """The cost's gradient at the discrete draw, passed on to the mean: Bengio, Léonard & Courville (2013).

    x = sample + (mean - stop(mean)). Biased, but exact for a cost that is linear in x. Evaluates the cost and its
    gradient n times.
    """

    unbiased = False
    needs_gradient = True
    variables = "Bernoulli, Binomial, OneHotCategorical"

    def check(self, distribution: Distribution) -> None:
        _check_discrete("st", distribution)

    def draw(self, distribution: Distribution) -> Draw:
        self.check(distribution)
        mean = distribution.mean
        return Draw(sample_of(distribution, self.n) + (mean - mean.detach()), distribution)
