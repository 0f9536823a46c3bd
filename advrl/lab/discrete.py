"""Discrete variables: every answer is a sum over all outcomes, in float64 and exact.

Tucker et al. (2017) and Grathwohl et al. (2018) for the one-bit problem; Mohamed et al. (2020), section 5, for the role
of the cost. With one bit there is a constant baseline of no variance at all, which flatters: look at several bits too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Independent

from advrl.checks import choice, integer
from advrl.distributions import OneHotCategorical
from advrl.estimators import Estimator, Score
from advrl.lab.enumeration import exact_gradient, exact_variance
from advrl.lab.problem import Known, Problem
from advrl.seeding import isolated

COSTS = ("linear", "quadratic", "cubic", "mlp")
Cost = Callable[[Tensor], Tensor]


def enumerated(problem: Problem) -> Problem:
    """The problem with its exact gradient and closed forms, for few outcomes and batch shape ()."""
    return replace(problem, gradient=exact_gradient(problem), variance=exact_variance(problem))


@dataclass(frozen=True)
class Tucker(Known):
    """One bit b with log-odds l and the cost (b - t)^2; the gradient is p (1 - p) (1 - 2 t).

    Tucker et al. (2017), section 5.1 (t = 0.45); Grathwohl et al. (2018), section 5.1 (t = 0.499).
    """

    name: ClassVar[str] = "tucker"
    samples: ClassVar[tuple[int, ...]] = (2,)
    t: float = 0.45
    """The target; near 1/2 the two outcomes cost almost the same."""
    logit: float = 0.0
    """Log-odds of the bit."""

    def estimators(self, n: int) -> Mapping[str, Estimator]:
        p = 1 / (1 + float(torch.tensor(-self.logit, dtype=torch.float64, device="cpu").exp()))
        best = (1 - p) * (1 - self.t) ** 2 + p * self.t**2
        return {"score+best": Score(n, best)}

    def on(self, device: torch.device | str = "cpu") -> Problem:
        problem = Problem(
            name=f"Bernoulli, cost (b − {self.t:g})²",
            node=torch.tensor(self.logit, dtype=torch.float64, device=device),
            distribution=lambda node: Bernoulli(logits=node, validate_args=False),
            cost=lambda x: (x - self.t) ** 2,
        )
        problem = enumerated(problem)
        exact = problem.variance

        def variance(estimator: Estimator) -> float | None:
            found = exact(estimator)
            return self._paired(estimator) if found is None else found

        return replace(problem, variance=variance)

    def _paired(self, estimator: Estimator) -> float | None:
        """DisARM and ARM: Dong, Mnih & Tucker (2020); Yin & Zhou (2019)."""
        p = float(torch.tensor(self.logit, dtype=torch.float64, device="cpu").sigmoid())
        high, low = max(p, 1 - p), min(p, 1 - p)
        square = ((1 - self.t) ** 2 - self.t**2) ** 2
        if type(estimator).__name__ == "DisArm":
            return square * (p * (1 - p)) * (high / 2 - p * (1 - p)) / estimator.n
        if type(estimator).__name__ == "Arm":
            return square * ((1 - (1 - 2 * low) ** 3) / 12 - low**2 * (1 - low) ** 2) / estimator.n
        return None


def _cost(kind: str, inputs: int, seed: int, device: torch.device | str) -> Cost:
    """A cost of (…, inputs) numbers: linear, quadratic or cubic in w.x, or a small random perceptron."""
    with isolated(seed):
        weights = torch.randn(inputs, dtype=torch.float64, device="cpu")
        hidden = torch.randn(inputs, 8, dtype=torch.float64, device="cpu")
        out = torch.randn(8, dtype=torch.float64, device="cpu")
    weights, hidden, out = weights.to(device), hidden.to(device), out.to(device)
    if kind == "mlp":
        return lambda x: (x @ hidden).tanh() @ out
    power = {"linear": 1, "quadratic": 2, "cubic": 3}[kind]
    return lambda x: (x @ weights - 0.45) ** power


@dataclass(frozen=True)
class Enumerable(Known):
    """What the enumerable problems share: which cost, and the seed of its weights and of the log-odds."""

    cost: str = "mlp"
    """linear, quadratic, cubic (in w·x), or mlp: a random perceptron."""
    problem_seed: int = 0
    """Of the problem's own weights."""

    def __post_init__(self) -> None:
        choice("cost", self.cost, COSTS)
        integer("problem_seed", self.problem_seed, 0)

    def _logits(self, count: int, device: torch.device | str) -> Tensor:
        with isolated(self.problem_seed + 1):
            return torch.randn(count, dtype=torch.float64, device="cpu").to(device)


@dataclass(frozen=True)
class Bits(Enumerable):
    """Several bits with log-odds of their own, and a cost of all of them; exact by enumeration (at most 12 bits)."""

    name: ClassVar[str] = "bernoulli"
    bits: int = 6
    """Number of bits."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.bits <= 12:
            raise ValueError(f"bits must be from 1 to 12, got {self.bits}: all 2^bits outcomes are listed")

    def on(self, device: torch.device | str = "cpu") -> Problem:
        problem = Problem(
            name=f"{self.bits} Bernoullis, {self.cost} cost",
            node=self._logits(self.bits, device),
            distribution=lambda node: Independent(Bernoulli(logits=node, validate_args=False), 1, validate_args=False),
            cost=_cost(self.cost, self.bits, self.problem_seed, device),
            width=2 if self.cost == "mlp" else 1,
        )
        return enumerated(problem)


@dataclass(frozen=True)
class Choice(Enumerable):
    """One choice among K categories, as a one-hot vector, and a cost of it; exact by enumeration."""

    name: ClassVar[str] = "categorical"
    categories: int = 10
    """Number of categories, K."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.categories <= 4096:
            raise ValueError(f"categories must be from 2 to 4096, got {self.categories}")

    def on(self, device: torch.device | str = "cpu") -> Problem:
        problem = Problem(
            name=f"{self.categories} categories, {self.cost} cost",
            node=self._logits(self.categories, device),
            distribution=lambda node: OneHotCategorical(logits=node, validate_args=False),
            cost=_cost(self.cost, self.categories, self.problem_seed, device),
            width=2 if self.cost == "mlp" else 1,
        )
        return enumerated(problem)
