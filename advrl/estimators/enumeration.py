r"""The sum over all outcomes, or over the likeliest with the score function for the rest.

    E[c] = sum_x p(x) c(x) = sum_{x in C} p(x) c(x) + (1 - P(C)) E[c(x) | x not in C]

with C the k likeliest outcomes: Liu, Regier, Tripuraneni, Jordan & McAuliffe (2019). Its score function with a baseline
b weighs an outcome of C by w = p(x), a draw of the rest by w = (1 - P(C)) / n,

    sum_i w_i (c(x_i) - b) grad log p(x_i)

where b may stand before both, since the weights are those of an unbiased sum and sum_x grad p(x) = 0. Several
independent variables count as one whose outcomes are all their combinations. Shapes: M outcomes, n samples, *batch,
*event.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

from advrl.checks import integer
from advrl.distributions import inverse_transform
from advrl.estimators.base import Cost, Draw, Estimator, _cost_of
from advrl.estimators.boxed import boxed_sum
from advrl.estimators.discrete import Support, support_of, support_size
from advrl.estimators.quick import sample_of


@dataclass(frozen=True)
class All(Draw):
    """A draw with all that could have been drawn."""

    support: Support


@dataclass(frozen=True)
class Enumerate(Estimator):
    """The exact expectation and all its derivatives, without variance: the cost of every outcome.

    Evaluates the cost once per outcome: 2^d times for d Bernoullis, K^d for categoricals, (N + 1)^d for binomials.

    Args:
        n: samples to draw for who learns from them (a discriminator); the estimate does not depend on them.
        limit: refuse distributions of more outcomes.
    """

    unbiased = True
    needs_gradient = False
    variables = "Bernoulli, Binomial, Categorical, OneHotCategorical of few outcomes"

    limit: int = 4096

    def __post_init__(self) -> None:
        super().__post_init__()
        integer("limit", self.limit)

    def evaluations_of(self, distribution: Distribution) -> int:
        """M, the number of outcomes."""
        return support_size("enumerate", distribution, self.limit)

    def check(self, distribution: Distribution) -> None:
        support_size("enumerate", distribution, self.limit)

    def draw(self, distribution: Distribution) -> Draw:
        self.check(distribution)
        return All(sample_of(distribution, self.n), distribution, support_of("enumerate", distribution, self.limit))

    def _take(self, distribution: Distribution) -> Draw:
        support = support_of("enumerate", distribution, self.limit)
        return All(support.outcomes, distribution, support)

    def surrogate(self, draw: Draw, cost: Cost) -> Tensor:
        assert isinstance(draw, All)
        distribution, support = draw.distribution, draw.support
        size, batch = len(support.outcomes), distribution.batch_shape
        x = support.outcomes.reshape(size, *[1] * len(batch), *distribution.event_shape)
        x = x.expand(size, *batch, *distribution.event_shape)
        return (support.log_prob.exp() * _cost_of(Draw(x, distribution), cost)).sum(0)


@dataclass(frozen=True)
class Chosen(Draw):
    """A draw with the outcomes that the cost will see in its place: the k likeliest, and n of the rest.

    ``seen`` are (m, *batch, *event), ``log_prob`` their log-probabilities (m, *batch), ``weight`` what each counts in
    the sum: its probability, or the n-th part of that of the rest.
    """

    seen: Tensor
    log_prob: Tensor
    weight: Tensor


@dataclass(frozen=True)
class RaoBlackwell(Estimator):
    """The likeliest outcomes summed, the rest by the score function, against the mean of those summed.

    Unbiased, to any order; without variance where k outcomes are all there are. Evaluates the cost k + n times; the
    probabilities of all outcomes are listed, their costs are not.

    Args:
        n: samples of the rest.
        k: outcomes summed; all of them if there are no more.
        limit: refuse distributions of more outcomes.
    """

    unbiased = True
    needs_gradient = False
    variables = "Bernoulli, Binomial, Categorical, OneHotCategorical of few outcomes"

    k: int = 4
    limit: int = 4096

    def __post_init__(self) -> None:
        super().__post_init__()
        integer("k", self.k)
        integer("limit", self.limit)

    @property
    def evaluations(self) -> int:
        return self.k + self.n

    def evaluations_of(self, distribution: Distribution) -> int:
        """k + n, or the number of outcomes if that is at most k."""
        size = support_size("rao-blackwell", distribution, self.limit)
        return size if size <= self.k else self.evaluations

    def check(self, distribution: Distribution) -> None:
        support_size("rao-blackwell", distribution, self.limit)

    def draw(self, distribution: Distribution) -> Chosen:
        return self._choose(distribution, sample_of(distribution, self.n))

    def _take(self, distribution: Distribution) -> Chosen:
        return self._choose(distribution, None)

    def _choose(self, distribution: Distribution, x: Tensor | None) -> Chosen:
        support = support_of("rao-blackwell", distribution, self.limit)
        probs = support.log_prob.detach().exp()
        weight, index = probs.topk(min(self.k, len(probs)), 0)
        if len(index) < len(probs):
            rest = probs.scatter(0, index, 0.0)
            each = rest.sum(0).div_(self.n).expand(self.n, *rest.shape[1:])
            index = torch.cat([index, inverse_transform(rest.movedim(0, -1), self.n)])
            weight = torch.cat([weight, each])
        seen = support[index]
        return Chosen(seen if x is None else x, distribution, seen, support.log_prob.gather(0, index), weight)

    def surrogate(self, draw: Draw, cost: Cost) -> Tensor:
        assert isinstance(draw, Chosen)
        value = _cost_of(Draw(draw.seen, draw.distribution), cost)
        likely, left = draw.weight[: self.k], value.detach()[: self.k]
        baseline = (likely * left).sum(0) / likely.sum(0)
        return boxed_sum(draw.log_prob, value, baseline, draw.weight)
