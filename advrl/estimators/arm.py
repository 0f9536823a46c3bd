r"""Antithetic pairs of coins: ARM, and DisARM, which integrates out what is left of the noise.

One uniform u per coin of log-odds l makes b = 1[u < sigma(l)] and its opposite b~ = 1[1 - u < sigma(l)], and

    ARM     d/dl E[c] = E[(c(b) - c(b~)) (1/2 - u)]                            Yin & Zhou (2019), theorem 1
    DisARM  d/dl E[c] = E[1/2 (c(b) - c(b~)) (b - b~) sigma(|l|)]              Dong, Mnih & Tucker (2020)

the latter being the former's expectation given the pair; Yin et al. (2020) found it as U2G. Second and higher
derivatives are those of the score function over both samples. Shapes: n pairs, *batch, *event.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution

from advrl.estimators.base import Cost, Draw, Estimator, _cost_of
from advrl.estimators.discrete import Parts, parts_of
from advrl.estimators.kernels import dice


@dataclass(frozen=True)
class Pairs(Draw):
    """Samples x (2n, *batch, *event), first all b, then all b~.

    Weight (2n, *batch, *event) is what multiplies the costs in the pair's gradient, less what does in the box's.
    """

    parts: Parts
    weight: Tensor


@dataclass(frozen=True)
class _Antithetic(Estimator):
    unbiased = True
    needs_gradient = False
    variables = "Bernoulli, Binomial"
    name: ClassVar[str]

    @property
    def evaluations(self) -> int:
        return 2 * self.n

    def check(self, distribution: Distribution) -> None:
        parts_of(self.name, distribution, binary=True)

    @abstractmethod
    def weigh(self, logits: Tensor, u: Tensor, difference: Tensor) -> Tensor:
        """What multiplies c(b) - c(b~), from u and b - b~, all (n, *logits)."""

    def draw(self, distribution: Distribution) -> Pairs:
        parts = parts_of(self.name, distribution, binary=True)
        with torch.no_grad():
            logits = parts.logits
            p = logits.sigmoid()
            u = torch.rand(self.n, *p.shape, dtype=p.dtype, device=p.device)
            b, opposite = (u < p).to(p.dtype), (1 - u < p).to(p.dtype)
            weight = parts.decode(self.weigh(logits, u, b - opposite))
            x = torch.cat([parts.decode(b), parts.decode(opposite)])
            # the box's own first derivative, c (x - E[x]) / 2n, makes way for the pair's
            weight = torch.cat([weight, -weight]) - (x - parts.decode(p)) / 2
        return Pairs(x, distribution, parts, weight)

    def surrogate(self, draw: Draw, cost: Cost) -> Tensor:
        assert isinstance(draw, Pairs)
        parts = draw.parts
        value = _cost_of(draw, cost)
        boxed = (dice(parts.log_prob(draw.x)) * value).mean(0)
        first = (parts.spread(value) * draw.weight).sum(0)
        return boxed + parts.total((first * (parts.node - parts.node.detach()) / self.n).unsqueeze(0))[0]


@dataclass(frozen=True)
class Arm(_Antithetic):
    """Augment, reinforce, merge: unbiased, for costs that need no derivative. Evaluates the cost 2n times.

    Better than two samples of the score function where the cost is far from 0, never better than :class:`DisArm`. A
    Binomial is the sum of its coins, which are drawn one by one. Right to any order.

    Args:
        n: antithetic pairs per distribution; the samples are (2n, *batch, *event).
    """

    name = "arm"

    def weigh(self, logits: Tensor, u: Tensor, difference: Tensor) -> Tensor:
        return 0.5 - u


@dataclass(frozen=True)
class DisArm(_Antithetic):
    """ARM without the noise that the pair does not show: unbiased, for costs that need no derivative.

    Evaluates the cost 2n times. A Binomial is the sum of its coins, which are drawn one by one. Right to any order.

    Args:
        n: antithetic pairs per distribution; the samples are (2n, *batch, *event).
    """

    name = "disarm"

    def weigh(self, logits: Tensor, u: Tensor, difference: Tensor) -> Tensor:
        return difference * logits.abs().sigmoid() / 2
