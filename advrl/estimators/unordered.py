r"""The unordered-set estimator: samples without replacement. Kool, van Hoof & Welling (2020).

A set S of n different outcomes, drawn one after the other, estimates the expectation by its Rao-Blackwellised first
element, with their leave-one-out ratio R and built-in baseline:

    sum_{s in S} p(s) R(S, s) grad log p(s) (c(s) - sum_{s' in S} p(s') R(S, s, s') c(s'))

    R(S, s) = P(S \ s | s first) / P(S),      R(S, s, s') = P(S \ s, s' | s, s' first) / P(S \ s | s first)

All the probabilities needed come from one recursion over the subsets A of S: F(A), that S \ A is what is drawn next
when A is gone, is F(S) = 1 and F(A) = sum_{t in S \ A} p(t) / (1 - P(A)) F(A + t), a sum of positive terms.
Shapes: M outcomes, n samples, *batch, *event.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.distributions import Distribution

from advrl.checks import integer
from advrl.estimators.base import Cost, Draw, Estimator, _cost_of
from advrl.estimators.boxed import boxed_sum
from advrl.estimators.discrete import exponential, support_of, support_size

LARGEST = 10  # the recursion goes over 2^n subsets


@dataclass(frozen=True)
class DrawnSet(Draw):
    """n different samples in the order in which they came, their log-probabilities (n, *batch), and the ratios.

    ratio is R(S, s), (n, *batch); pairs is R(S, s, s'), (n, n, *batch).
    """

    log_prob: Tensor
    ratio: Tensor
    pairs: Tensor


@dataclass(frozen=True)
class UnorderedSet(Estimator):
    """Samples without replacement: unbiased, to any order, for costs that need no derivative.

    No outcome is evaluated twice, so the variance falls to 0 as n reaches the number of outcomes. Its value weighs the
    costs by p(s) R(S, s). Evaluates the cost n times; the probabilities of all outcomes are listed, and several
    independent variables count as one whose outcomes are all their combinations.

    Args:
        n: samples per distribution, from 2 to 10.
        limit: refuse distributions of more outcomes.

    Raises:
        ValueError: for another n.
    """

    unbiased = True
    needs_gradient = False
    variables = "Bernoulli, Binomial, Categorical, OneHotCategorical of few outcomes"

    n: int = 4
    limit: int = 4096

    def __post_init__(self) -> None:
        super().__post_init__()
        integer("limit", self.limit)
        if not 2 <= self.n <= LARGEST:
            raise ValueError(f"an unordered set has n = 2 to {LARGEST} samples, got n={self.n}: use loo")

    def check(self, distribution: Distribution) -> None:
        size = support_size("unordered-set", distribution, self.limit)
        if self.n > size:
            raise ValueError(f"a set of n={self.n} samples needs as many outcomes, got {size}: use enumerate")

    def draw(self, distribution: Distribution) -> DrawnSet:
        self.check(distribution)
        support = support_of("unordered-set", distribution, self.limit)
        log_prob = support.log_prob
        fixed = log_prob.detach()
        noise = exponential(len(fixed), fixed[0]).log()
        index = (fixed - noise).topk(self.n, 0).indices  # the first of them is an ordinary sample
        probs = fixed.exp()
        rest = probs.scatter(0, index, 0.0).sum(0)
        follow = _follow(probs.gather(0, index), rest)
        one = 1 << torch.arange(self.n, device=index.device)
        first = follow[one]
        ratio, pairs = first / follow[0], follow[one.unsqueeze(-1) | one] / first.unsqueeze(1)
        return DrawnSet(support[index], distribution, log_prob.gather(0, index), ratio, pairs)

    def surrogate(self, draw: Draw, cost: Cost) -> Tensor:
        assert isinstance(draw, DrawnSet)
        value = _cost_of(draw, cost)
        probs = draw.log_prob.detach().exp()
        baseline = (draw.pairs * (probs * value.detach())).sum(1)
        return boxed_sum(draw.log_prob, value, baseline, probs * draw.ratio)


def _follow(probs: Tensor, rest: Tensor) -> Tensor:
    """F(A) for all subsets A of the n drawn, numbered by their bits, (2^n, *batch).

    Args:
        probs: (n, *batch) probabilities of those drawn.
        rest: (*batch) probability of all the others.
    """
    n = len(probs)
    tiny = torch.finfo(probs.dtype).tiny
    ahead, following, full = _subsets(n, probs.dtype, probs.device)
    there = [1] * rest.dim()
    ahead, full = ahead.reshape(*ahead.shape, *there) * probs.clamp(min=tiny), full.reshape(-1, *there)
    share = ahead / (ahead.sum(1) + rest).clamp(min=tiny).unsqueeze(1)
    follow = full.expand(-1, *rest.shape)
    for _ in range(n):  # one more size of A is right after each round
        follow = full + (share * follow[following]).sum(1)
    return follow


@lru_cache(maxsize=16)
def _subsets(n: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Of all subsets A: who is not in A (2^n, n), the number of A + t (2^n, n), and whether A is everything (2^n,)."""
    with torch.inference_mode(False):  # they are kept, and tensors of that mode would be refused elsewhere
        place = torch.arange(n, device=device)
        subsets = torch.arange(2**n, device=device).unsqueeze(-1)
        ahead = ((subsets >> place) & 1 == 0).to(dtype)
        return ahead, subsets | (1 << place), (subsets[:, 0] == 2**n - 1).to(dtype)
