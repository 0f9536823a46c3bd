r"""Normal variables whose gradients, and variances of gradients, have closed forms.

x ~ N(mu, sigma^2) in every one; the lecture's is N(theta, 1) with the cost x^2, the others are those of Mohamed, Rosca,
Figurnov & Mnih (2020), figures 2 and 3, who integrate numerically. eps = (x - mu) / sigma, so that the scores are
eps / sigma in mu and (eps^2 - 1) / sigma in sigma. Every expectation below is Gaussian: moments of eps to the eighth,
Re E e^(i k x), and products of Gaussian densities.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal

from advrl.estimators import Estimator, Path, Score
from advrl.lab.closed_forms import ScoreMoments, score_moments, stack_moments
from advrl.lab.problem import Known, Problem

Variance = Callable[[Estimator], "float | None"]


def _variance(moments: ScoreMoments, path: float, other: Variance = lambda estimator: None) -> Variance:
    """Closed forms by kind of estimator: the score function's from ``moments``, the path's from one draw's variance."""

    def variance(estimator: Estimator) -> float | None:
        if type(estimator) is Path:
            return path / estimator.n
        found = moments.variance(estimator)
        return other(estimator) if found is None else found

    return variance


def _tensor(values: float | list[float], device: torch.device | str) -> Tensor:
    return torch.tensor(values, device=device, dtype=torch.float32)


def _best(moments: ScoreMoments, n: int) -> dict[str, Estimator]:
    """The score function with baselines that take knowing the answer: the mean cost, and the best constant."""
    rows: dict[str, Estimator] = {"score+mean": Score(n, float(moments.f[0]))}
    if len(moments.f) == 1:
        rows["score+best"] = Score(n, float(moments.optimal[0]))
    return rows


@dataclass(frozen=True)
class NormalSquare(Known):
    """N(theta, 1) with the cost x^2: the lecture's experiment; the gradient is 2 theta.

    One draw of the score function has the variance theta^4 + 14 theta^2 + 15 (87 at theta = 2), of the path derivative
    4."""

    name: ClassVar[str] = "normal-square"
    samples: ClassVar[tuple[int, ...]] = (10, 100, 1_000, 10_000, 100_000)
    replicates: ClassVar[int] = 100
    rows: ClassVar[tuple[str, ...]] = ("score", "path")

    theta: float = 2.0
    """The mean of the normal distribution."""

    @property
    def moments(self) -> ScoreMoments:
        """Of one draw."""
        t = self.theta**2
        return score_moments(
            f=t + 1, f2=t * t + 6 * t + 3, s2=1.0, fs=2 * self.theta, fs2=t + 3, f2s2=t * t + 18 * t + 15
        )

    def estimators(self, n: int) -> Mapping[str, Estimator]:
        return _best(self.moments, n)

    def on(self, device: torch.device | str = "cpu") -> Problem:
        return Problem(
            name=f"N(θ, 1), cost x², θ = {self.theta:g}",
            node=_tensor(self.theta, device),
            distribution=lambda node: Normal(node, torch.ones_like(node), validate_args=False),
            cost=torch.square,
            gradient=_tensor(2 * self.theta, device),
            variance=_variance(self.moments, 4.0, self._others),
        )

    def _others(self, estimator: Estimator) -> float | None:
        t, n = self.theta**2, estimator.n
        kinds = {"Antithetic": 0.0, "AntitheticScore": 8 * t}  # per pair
        if type(estimator).__name__ == "Measure":
            coupled = getattr(estimator, "coupled", None)
            if coupled is None:
                return None
            return (4 * t * (4 / math.pi - 1) if coupled else 4 / math.pi + t * (8 / math.pi - 2)) / n
        value = kinds.get(type(estimator).__name__)
        return None if value is None else value / n


@dataclass(frozen=True)
class Mohamed(Known):
    """What Mohamed's three problems share: mu, sigma and k."""

    samples: ClassVar[tuple[int, ...]] = (1, 10, 100)
    mu: float = 1.0
    """Mean."""
    sigma: float = 1.0
    """Standard deviation, above 0."""
    k: float = 0.5
    """The cost's parameter."""

    def __post_init__(self) -> None:
        if self.sigma <= 0:
            raise ValueError(f"sigma must be above 0, got {self.sigma}")

    def _normal(self, node: Tensor) -> Distribution:
        return Normal(node, torch.full_like(node, self.sigma), validate_args=False)


@dataclass(frozen=True)
class Quadratic(Mohamed):
    """N(mu, sigma^2) with the cost (x - k)^2; gradients in mu and sigma.

    With m = mu - k they are 2 m and 2 sigma.
    """

    name: ClassVar[str] = "quadratic"

    @property
    def moments(self) -> ScoreMoments:
        """Of one draw, for mu and for sigma."""
        m, v = (self.mu - self.k) ** 2, self.sigma**2
        common = {"f": m + v, "f2": m * m + 6 * m * v + 3 * v * v}
        in_mu = score_moments(
            **common, s2=1 / v, fs=2 * (self.mu - self.k), fs2=m / v + 3, f2s2=m * m / v + 18 * m + 15 * v
        )
        in_sigma = score_moments(
            **common, s2=2 / v, fs=2 * self.sigma, fs2=2 * m / v + 10, f2s2=2 * m * m / v + 60 * m + 78 * v
        )
        return stack_moments([in_mu, in_sigma])

    def estimators(self, n: int) -> Mapping[str, Estimator]:
        return _best(self.moments, n)

    def on(self, device: torch.device | str = "cpu") -> Problem:
        m, v = self.mu - self.k, self.sigma**2
        return Problem(
            name=f"N(μ, σ²), cost (x − {self.k:g})², μ = {self.mu:g}, σ = {self.sigma:g}",
            node=_tensor([self.mu, self.sigma], device),
            distribution=lambda node: Normal(node[..., 0], node[..., 1], validate_args=False),
            cost=lambda x: (x - self.k) ** 2,
            gradient=_tensor([2 * m, 2 * self.sigma], device),
            variance=_variance(self.moments, 4 * v + 4 * m * m + 8 * v),
        )


@dataclass(frozen=True)
class Cosine(Mohamed):
    """N(mu, sigma^2) with the cost cos(k x); gradient in mu: the score function can beat the path derivative.

    With q = exp(-k^2 sigma^2) the gradient is -k sin(k mu) sqrt(q). At the defaults one draw of the path derivative has
    nine times the variance of the score function.
    """

    name: ClassVar[str] = "cosine"
    sigma: float = 1.5
    k: float = 2.0

    @property
    def moments(self) -> ScoreMoments:
        """Of one draw."""
        a, v = self.k * self.mu, self.sigma**2
        kv = self.k**2 * v
        q = math.exp(-kv)
        return score_moments(
            f=math.cos(a) * math.sqrt(q),
            f2=(1 + math.cos(2 * a) * q * q) / 2,
            s2=1 / v,
            fs=-self.k * math.sin(a) * math.sqrt(q),
            fs2=math.cos(a) * (1 - kv) * math.sqrt(q) / v,
            f2s2=(1 + math.cos(2 * a) * (1 - 4 * kv) * q * q) / (2 * v),
        )

    def estimators(self, n: int) -> Mapping[str, Estimator]:
        return _best(self.moments, n)

    def on(self, device: torch.device | str = "cpu") -> Problem:
        a, q = self.k * self.mu, math.exp(-(self.k**2) * self.sigma**2)
        path = self.k**2 * ((1 - math.cos(2 * a) * q * q) / 2 - math.sin(a) ** 2 * q)
        return Problem(
            name=f"N(μ, σ²), cost cos({self.k:g} x), μ = {self.mu:g}, σ = {self.sigma:g}",
            node=_tensor(self.mu, device),
            distribution=self._normal,
            cost=lambda x: (self.k * x).cos(),
            gradient=_tensor(float(self.moments.fs[0]), device),
            variance=_variance(self.moments, path),
        )


@dataclass(frozen=True)
class Exponential(Mohamed):
    """N(mu, sigma^2) with the cost exp(-k x^2); gradient in mu: flat in the tails, steep between them.

    With a = 1 + 2 k sigma^2 and Z = a^(-1/2) exp(-k mu^2 / a) the gradient is -2 k mu Z / a.
    """

    name: ClassVar[str] = "exponential"
    sigma: float = 1.5
    k: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k <= 0:
            raise ValueError(f"k must be above 0, got {self.k}: the cost would have no expectation")

    def _tilted(self, k: float) -> tuple[float, float, float]:
        """E exp(-k x^2), and the mean and variance of the normal law that it tilts x to."""
        a = 1 + 2 * k * self.sigma**2
        return math.exp(-k * self.mu**2 / a) / math.sqrt(a), self.mu / a, self.sigma**2 / a

    @property
    def moments(self) -> ScoreMoments:
        """Of one draw."""
        v = self.sigma**2
        z1, m1, v1 = self._tilted(self.k)
        z2, m2, v2 = self._tilted(2 * self.k)
        return score_moments(
            f=z1,
            f2=z2,
            s2=1 / v,
            fs=z1 * (m1 - self.mu) / v,
            fs2=z1 * (v1 + (m1 - self.mu) ** 2) / v**2,
            f2s2=z2 * (v2 + (m2 - self.mu) ** 2) / v**2,
        )

    def estimators(self, n: int) -> Mapping[str, Estimator]:
        return _best(self.moments, n)

    def on(self, device: torch.device | str = "cpu") -> Problem:
        gradient = float(self.moments.fs[0])
        z2, m2, v2 = self._tilted(2 * self.k)
        return Problem(
            name=f"N(μ, σ²), cost exp(−{self.k:g} x²), μ = {self.mu:g}, σ = {self.sigma:g}",
            node=_tensor(self.mu, device),
            distribution=self._normal,
            cost=lambda x: (-self.k * x * x).exp(),
            gradient=_tensor(gradient, device),
            variance=_variance(self.moments, 4 * self.k**2 * z2 * (v2 + m2**2) - gradient**2),
        )
