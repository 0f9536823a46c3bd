"""Score-function estimator (REINFORCE), Williams (1992), with the baselines that keep it unbiased."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from advrl.checks import number, same_shape
from advrl.distributed import mean
from advrl.estimators.base import Cost, Draw, Estimator, _cost_of, is_sequence, name_of
from advrl.estimators.baselines import Critic, VarianceNormalised, grpo, optimal_baseline
from advrl.estimators.boxed import boxed_score
from advrl.estimators.kernels import dice, leave_one_out
from advrl.estimators.nodes import sample_scores
from advrl.estimators.quick import log_prob_of, sample_of
from advrl.estimators.sequences import reward_to_go

Baseline = None | float | Tensor | Callable[..., Tensor]
Advantage = Callable[[Tensor, Tensor], Tensor] | VarianceNormalised


@dataclass(frozen=True)
class Score(Estimator):
    """grad E[c(x)] by (c(x) - b) grad log p(x): any distribution with a ``log_prob``, any cost, differentiable or not.

    Unbiased for a baseline that does not depend on the sample it is subtracted from. Evaluates the cost n times. The
    cost of a :class:`advrl.distributions.Sequence` may also come step by step, (n, *batch, T): its value is the sum,
    and each step's score is multiplied by what is still to come, less its baseline.

    Args:
        n: samples per distribution.
        baseline: ``None``; a number or tensor; a callable of the detached costs (n, *batch), such as
            :func:`leave_one_out` or a :class:`MovingAverage`; :func:`optimal_baseline`; or a :class:`Critic`, at a
            context of its own or at the distribution's mean.
        advantage: instead of a baseline, what multiplies grad log p(x): a callable of the detached costs (n, *batch)
            and samples (n, *batch, *event) to (n, *batch), such as :func:`grpo`. Low is good, as for the cost. The
            estimate is then only as unbiased as it is, and right to first order.

    Raises:
        ValueError: for leave-one-out, the optimal baseline or :func:`grpo` with one sample, or a baseline with an
            advantage.
    """

    unbiased = True
    needs_gradient = False
    variables = "any with a log_prob"

    baseline: Baseline = None
    advantage: Advantage | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.baseline is leave_one_out and self.n < 2:
            raise ValueError(f"the leave-one-out baseline needs n >= 2 samples, got n={self.n}")
        if self.baseline is optimal_baseline and self.n < 2:
            raise ValueError(f"the optimal baseline is estimated from the other samples: n >= 2, got n={self.n}")
        if self.advantage is grpo and self.n < 2:
            raise ValueError(f"the group's standard deviation needs n >= 2 samples, got n={self.n}")
        if self.advantage is not None:
            if self.baseline is not None:
                raise ValueError("an advantage takes the place of the baseline: give one of them")
            object.__setattr__(self, "unbiased", False)  # of this one, not of the class
            object.__setattr__(self, "higher_order", False)

    def __repr__(self) -> str:
        what = "baseline" if self.advantage is None else "advantage"
        value = getattr(self, what)
        return f"Score(n={self.n}, {what}={getattr(value, '__name__', value)})"

    def check(self, distribution: Distribution) -> None:
        check_log_prob("score", distribution)
        for part in (self.baseline, self.advantage):
            if isinstance(part, (Critic, VarianceNormalised)):
                part.build(distribution)

    def draw(self, distribution: Distribution) -> Draw:
        self.check(distribution)
        return Draw(sample_of(distribution, self.n), distribution)

    def surrogate(self, draw: Draw, cost: Cost) -> Tensor:
        value = _cost_of(draw, cost, steps=True)
        if is_sequence(draw.distribution) and value.shape == draw.x.shape:
            return self._stepwise(draw, value).mean(0)
        if self.advantage is not None:
            rule = self.advantage
            if isinstance(rule, VarianceNormalised):
                rule = rule.of(draw.distribution)
            advantage = rule(value.detach(), draw.x.detach()).detach()
            same_shape(cost=value, advantage=advantage)
            box = dice(log_prob_of(draw.distribution, draw.x))
            return (value + (box - 1) * advantage).mean(0)
        if self.baseline is optimal_baseline:
            box = dice(log_prob_of(draw.distribution, draw.x))
            return (box * value).mean(0) - _optimal_part(draw, value.detach()).mean(0)
        baseline = self.baseline_of(draw, value)
        fixed = baseline.detach() if isinstance(baseline, Tensor) else baseline
        return boxed_score(draw.distribution, draw.x, value, fixed)

    def _stepwise(self, draw: Draw, value: Tensor) -> Tensor:
        """(n, *batch) of costs (n, *batch, T): step t answers for c_t and what follows it.

        Baselines and advantages see these sums, and multiply the score of step t alone.
        """
        if self.baseline is optimal_baseline or isinstance(self.baseline, Critic):
            raise ValueError(
                "per-step costs take no optimal baseline and no critic of a whole sample: use leave_one_out"
            )
        law: Any = draw.distribution
        mask, log_probs = law.mask(draw.x), law.log_probs(draw.x)
        value = torch.where(mask, value, torch.zeros_like(value))
        to_go = reward_to_go(value.detach(), mask)
        if self.advantage is not None:
            rule = self.advantage
            if isinstance(rule, VarianceNormalised):
                rule = rule.of(draw.distribution)
            advantage = rule(to_go, draw.x.detach()).detach()
            same_shape(cost=value, advantage=advantage)
            return (value + (dice(log_probs) - 1) * advantage).sum(-1)
        control = (dice(log_probs) - 1) * self.baseline_of(draw, to_go)
        return (dice(log_probs.cumsum(-1)) * value - control).sum(-1)

    def baseline_of(self, draw: Draw, cost: Tensor) -> Tensor | float:
        """The baseline for costs (n, *batch) of a draw, broadcastable to them."""
        rule = self.baseline
        if rule is None or isinstance(rule, (int, float, Tensor)):
            return 0.0 if rule is None else rule
        if isinstance(rule, Critic):
            rule = rule.of(draw.distribution)
        value: Tensor = rule(cost.detach())
        return value


def check_log_prob(estimator: str, distribution: Distribution) -> None:
    """Raise a ``ValueError`` if the distribution has no density."""
    if type(distribution).log_prob is Distribution.log_prob or name_of(distribution) == "Implicit":
        raise ValueError(f"{estimator} needs a log_prob, which {name_of(distribution)} lacks: use path")


def _optimal_part(draw: Draw, cost: Tensor) -> Tensor:
    """(n, *batch) of value 0 whose gradient is b_ik s_ik on every coordinate k of the parameters."""
    total = torch.zeros_like(cost)
    for node, score in sample_scores(draw.distribution, draw.x):
        part = optimal_baseline(cost, score) * score * (node - node.detach())
        total = total + part.reshape(*cost.shape, -1).sum(-1)
    return total


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
