"""Score-function estimator (REINFORCE), Williams (1992), with the baselines that keep it unbiased."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from advrl.checks import number
from advrl.distributed import mean
from advrl.estimators.base import Cost, Draw, Estimator, _cost_of, name_of
from advrl.estimators.kernels import leave_one_out, score_function

Baseline = None | float | Tensor | Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Score(Estimator):
    """grad E[c(x)] by (c(x) - b) grad log p(x): any distribution with a ``log_prob``, any cost, differentiable or not.

    Unbiased for a baseline that does not depend on the sample it is subtracted from. Evaluates the cost n times.

    Args:
        n: samples per distribution.
        baseline: ``None``; a number or tensor; or a callable of the detached costs (n, *batch), such as
            :func:`leave_one_out` or a :class:`MovingAverage`.

    Raises:
        ValueError: for leave-one-out with one sample.
    """

    unbiased = True
    needs_gradient = False
    variables = "any with a log_prob"

    baseline: Baseline = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.baseline is leave_one_out and self.n < 2:
            raise ValueError(f"the leave-one-out baseline needs n >= 2 samples, got n={self.n}")

    def __repr__(self) -> str:
        return f"Score(n={self.n}, baseline={getattr(self.baseline, '__name__', self.baseline)})"

    def check(self, distribution: Distribution) -> None:
        if type(distribution).log_prob is Distribution.log_prob or name_of(distribution) == "Implicit":
            raise ValueError(f"score needs a log_prob, which {name_of(distribution)} lacks: use path")

    def draw(self, distribution: Distribution) -> Draw:
        self.check(distribution)
        return Draw(distribution.sample((self.n,)), distribution)

    def surrogate(self, draw: Draw, cost: Cost) -> Tensor:
        value = _cost_of(draw, cost)
        baseline = self.baseline(value.detach()) if callable(self.baseline) else self.baseline
        log_prob = draw.distribution.log_prob(draw.x)
        return score_function(log_prob, value, 0.0 if baseline is None else baseline).mean(0)


class MovingAverage(nn.Module):
    """Baseline: the exponential moving average of the costs of *earlier* calls.

    The current costs enter the average only after it was used; taking them in before would shrink the gradient by
    1 - (1 - decay) / n. The first call uses 0; later averages are corrected for that start (Kingma & Ba, 2015,
    section 3).

    Args:
        decay: weight of the past, in [0, 1).
    """

    average: Tensor
    weight: Tensor

    def __init__(self, decay: float = 0.99) -> None:
        super().__init__()
        self.decay = number("decay", decay, 0.0, 1.0 - 1e-9)
        self.register_buffer("average", torch.zeros((), device="cpu"))
        self.register_buffer("weight", torch.zeros((), device="cpu"))

    @torch.no_grad()
    def forward(self, cost: Tensor) -> Tensor:
        """The average so far, (), for costs (n, *batch); then takes their mean in, over all ranks."""
        if self.average.device != cost.device or self.average.dtype != cost.dtype:
            self.to(device=cost.device, dtype=cost.dtype)
        baseline = self.average / self.weight.clamp(min=1 - self.decay)
        self.average.lerp_(mean(cost.mean()), 1 - self.decay)
        self.weight.lerp_(torch.ones_like(self.weight), 1 - self.decay)
        return baseline
