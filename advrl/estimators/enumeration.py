r"""The sum over all outcomes, or over the likeliest with the score function for the rest.

    E[c] = sum_x p(x) c(x) = sum_{x in C} p(x) c(x) + (1 - P(C)) E[c(x) | x not in C]

with C the k likeliest outcomes: Liu, Regier, Tripuraneni, Jordan & McAuliffe (2019). Several independent
variables count as one whose outcomes are all their combinations. Shapes: M outcomes, n samples, *batch, *event.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

from advrl.checks import integer
from advrl.distributions import inverse_transform
from advrl.estimators.base import Cost, Draw, Estimator, _cost_of
from advrl.estimators.boxed import boxed_mean
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
class Listed:
    """Outcomes that the cost will see (m, *batch, *event), the k likeliest first, their log-probabilities (m, *batch),
    and that of all but those k, (*batch)."""

    seen: Tensor
    log_prob: Tensor
    log_rest: Tensor


@dataclass(frozen=True)
class Chosen(Draw):
    """A draw with the outcomes that the cost will see in its place."""

    listed: Listed


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
        return Chosen(sample_of(distribution, self.n), distribution, self._list(distribution))

    def _take(self, distribution: Distribution) -> Chosen:
        listed = self._list(distribution)
        return Chosen(listed.seen, distribution, listed)

    def _list(self, distribution: Distribution) -> Listed:
        support = support_of("rao-blackwell", distribution, self.limit)
        # an outcome of probability 0 may have to stand for an empty rest: it weighs nothing, and must not make a nan
        log_prob = support.log_prob.clamp(min=torch.finfo(support.log_prob.dtype).min / 4)
        fixed = log_prob.detach()
        k = min(self.k, len(log_prob))
        index = fixed.topk(k, 0).indices
        if k == len(log_prob):
            return Listed(support[index], log_prob.gather(0, index), torch.zeros_like(fixed[0]))
        rest = log_prob.scatter(0, index, -torch.inf)
        log_rest = rest.logsumexp(0)
        others = inverse_transform((rest - log_rest).detach().exp().movedim(0, -1), self.n)
        index = torch.cat([index, others])
        return Listed(support[index], log_prob.gather(0, index), log_rest)

    def surrogate(self, draw: Draw, cost: Cost) -> Tensor:
        assert isinstance(draw, Chosen)
        listed = draw.listed
        value = _cost_of(Draw(listed.seen, draw.distribution), cost)
        if len(value) <= self.k:
            return (listed.log_prob.exp() * value).sum(0)
        top, others = listed.log_prob.split([self.k, self.n])
        likely, left = value.split([self.k, self.n])
        probs = top.exp()
        summed = (probs * likely).sum(0)
        baseline = (summed / probs.sum(0)).detach()
        rest = boxed_mean(others - listed.log_rest, left, baseline)
        return summed + listed.log_rest.exp() * rest
