r"""Credit assignment in its smallest form: T coins with one shared log-odds, the cost their sum.

The total pays every step for all of them; the reward to go pays step t for what comes after it, and subtracting the
value V_t = E[what is still to come before step t is drawn] leaves the step's own surprise. Variances per rollout, with
q = 1 - p: total 3 T (T-1) p^2 q^2 + T p q (1 - 3 p q) + 2 T^2 p^2 q (q - p) + T^3 p^3 q - T^2 p^2 q^2; minus its mean,
the same without the terms in T^2 (q - p) and T^3, and the last; to go p q sum_k (q - p + p k)^2 + T (T-1) p^2 q^2 / 2;
to go minus V: T (q - p)^2 p q + T (T-1) p^2 q^2 / 2. Ten fair coins: 73.75, 11.25, 26.875, 2.8125.
Shapes: n samples, *batch, T steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Independent

from advrl.checks import integer
from advrl.estimators import Draw, Estimator, Score
from advrl.estimators.base import Cost, base_of
from advrl.lab.closed_forms import ScoreMoments
from advrl.lab.problem import Known, Problem


@dataclass(frozen=True)
class RewardToGo(Estimator):
    """The score of each step times the costs from that step on: Williams (1992); Sutton et al. (2000).

    For sequences of independent steps, each of which costs what it shows: the cost must be the sum of the steps.
    Unbiased. Evaluates the cost n times.

    Args:
        n: rollouts per distribution.
        value: whether the expected costs from each step on are subtracted.
    """

    unbiased = True
    needs_gradient = False
    variables = "Independent(Bernoulli)"

    value: bool = False

    def check(self, distribution: Distribution) -> None:
        if not isinstance(base_of(distribution), Bernoulli) or len(distribution.event_shape) != 1:
            raise ValueError("reward-to-go treats sequences of Bernoulli steps, Independent(Bernoulli, 1)")

    def draw(self, distribution: Distribution) -> Draw:
        self.check(distribution)
        return Draw(distribution.sample((self.n,)), distribution)

    def surrogate(self, draw: Draw, cost: Cost) -> Tensor:
        base = base_of(draw.distribution)
        to_go = _still_to_come(draw.x)
        baseline = _still_to_come(base.mean.detach()) if self.value else 0.0
        log_prob = base.log_prob(draw.x)
        box = (log_prob - log_prob.detach()).exp()
        return (cost(draw.x) + ((box - 1) * (to_go - baseline)).sum(-1)).mean(0)


def _still_to_come(x: Tensor) -> Tensor:
    return x.flip(-1).cumsum(-1).flip(-1)


@dataclass(frozen=True)
class Sequence(Known):
    """T Bernoulli steps with one shared log-odds, the cost their sum; the gradient is T p (1-p)."""

    name: ClassVar[str] = "sequence"
    samples: ClassVar[tuple[int, ...]] = (1, 2)
    rows: ClassVar[tuple[str, ...]] = ("score", "score+mean", "reward-to-go", "to-go-minus-value", "loo")
    steps: int = 10
    """Length T of the sequence."""
    logit: float = 0.0
    """Log-odds of each step."""

    def __post_init__(self) -> None:
        integer("steps", self.steps)

    @property
    def p(self) -> float:
        """Probability of each step."""
        return 1 / (1 + math.exp(-self.logit))

    def estimators(self, n: int) -> Mapping[str, Estimator]:
        return {
            "score+mean": Score(n, self.steps * self.p),
            "reward-to-go": RewardToGo(n),
            "to-go-minus-value": RewardToGo(n, True),
        }

    @property
    def moments(self) -> ScoreMoments:
        """Of one rollout: the total k is Binomial(T, p), and its score in the log-odds is k - T p."""
        k = torch.arange(self.steps + 1, dtype=torch.float64, device="cpu")
        choose = math.lgamma(self.steps + 1) - torch.lgamma(k + 1) - torch.lgamma(self.steps - k + 1)
        weight = (choose + k * math.log(self.p) + (self.steps - k) * math.log1p(-self.p)).exp()
        score = k - self.steps * self.p
        return ScoreMoments(
            *((weight @ v)[None].numpy() for v in (k, k**2, score**2, k * score, k * score**2, k**2 * score**2))
        )

    def on(self, device: torch.device | str = "cpu") -> Problem:
        return Problem(
            name=f"{self.steps} coins with one log-odds, cost their sum",
            node=torch.tensor(self.logit, dtype=torch.float64, device=device),
            distribution=self._coins,
            cost=lambda x: x.sum(-1),
            gradient=torch.tensor(self.steps * self.p * (1 - self.p), dtype=torch.float64, device=device),
            variance=self._variance,
        )

    def _coins(self, node: Tensor) -> Distribution:
        logits = node[..., None].expand(*node.shape, self.steps)
        return Independent(Bernoulli(logits=logits, validate_args=False), 1, validate_args=False)

    def _variance(self, estimator: Estimator) -> float | None:
        if type(estimator) is not RewardToGo:
            return self.moments.variance(estimator)
        p, q, steps = self.p, 1 - self.p, self.steps
        pairs = steps * (steps - 1) * (p * q) ** 2 / 2  # the steps after t, which its score is multiplied with
        if estimator.value:
            return (steps * (q - p) ** 2 * p * q + pairs) / estimator.n
        return (p * q * sum((q - p + p * k) ** 2 for k in range(1, steps + 1)) + pairs) / estimator.n
