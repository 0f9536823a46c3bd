r"""Importance weighting: learn about p from draws of another distribution q.

    E_p[c(x)] = E_q[w(x) c(x)],  w = p / q                       Precup, Sutton & Singh (2000)

so the weighted mean cost, differentiated through log p, is the gradient's estimate, unbiased to any order. Its variance
is that of the weights: E_q[w^2] = exp(2-Renyi divergence), exponential in the number of coordinates that differ.
Self-normalised, sum w c / sum w: biased by O(1/n), (E[c] Var w - Cov(w c, w)) / n to first order, but no weight counts
more than all others together. Shapes: n samples, *batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.distributions import Distribution

from advrl.checks import same_shape
from advrl.estimators.base import Cost, Draw, Estimator, _cost_of
from advrl.estimators.kernels import leave_one_out
from advrl.estimators.quick import sample_of
from advrl.estimators.score import check_log_prob

Behaviour = Distribution | Callable[[Distribution], Distribution]


@dataclass(frozen=True)
class Importance(Estimator):
    """The score function from draws of an explicit behaviour distribution: off-policy, or in reused samples.

    Unbiased where the behaviour has mass wherever the policy has; with ``normalised`` biased by O(1/n). Evaluates the
    cost n times. The value is the weighted mean cost, an estimate of E_p[c].

    Args:
        n: samples per distribution.
        behaviour: q, of the policy's batch and event shape, or a function from the policy's distribution to it.
        baseline: ``None``, a number, or a callable of the detached weighted costs w c (n, *batch), such as
            :func:`leave_one_out`. The self-normalised form has its own: the estimate itself.
        normalised: divide by the sum of the weights instead of n.

    Raises:
        TypeError: without a behaviour.
        ValueError: for leave-one-out or self-normalisation with one sample, or both a baseline and the latter.
    """

    unbiased = True
    needs_gradient = False
    variables = "any with a log_prob"

    behaviour: Behaviour | None = None
    baseline: float | Callable[[Tensor], Tensor] | None = None
    normalised: bool = False

    def __repr__(self) -> str:
        behaviour, baseline = (getattr(rule, "__name__", rule) for rule in (self.behaviour, self.baseline))
        return f"Importance(n={self.n}, behaviour={behaviour}, baseline={baseline}, normalised={self.normalised})"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (isinstance(self.behaviour, Distribution) or callable(self.behaviour)):
            raise TypeError(f"behaviour must be a distribution or a function that makes one, got {self.behaviour!r}")
        if (self.normalised or self.baseline is leave_one_out) and self.n < 2:
            what = "self-normalisation" if self.normalised else "the leave-one-out baseline"
            raise ValueError(f"{what} needs n >= 2 samples, got n={self.n}")
        if self.normalised:
            if self.baseline is not None:
                raise ValueError("the self-normalised estimate is its own baseline: give none")
            object.__setattr__(self, "unbiased", False)  # of this one, not of the class
            object.__setattr__(self, "higher_order", False)

    def check(self, distribution: Distribution) -> None:
        check_log_prob("importance", distribution)

    def draw(self, distribution: Distribution) -> OffPolicyDraw:
        self.check(distribution)
        q = self.behaviour if isinstance(self.behaviour, Distribution) else self.behaviour(distribution)  # type: ignore[misc]
        if (q.batch_shape, q.event_shape) != (distribution.batch_shape, distribution.event_shape):
            raise ValueError(
                f"behaviour must have the policy's batch shape {tuple(distribution.batch_shape)} and event shape "
                f"{tuple(distribution.event_shape)}, got {tuple(q.batch_shape)} and {tuple(q.event_shape)}"
            )
        x = sample_of(q, self.n)
        return OffPolicyDraw(x, distribution, q.log_prob(x).detach())

    def surrogate(self, draw: Draw, cost: Cost) -> Tensor:
        assert isinstance(draw, OffPolicyDraw)
        value = _cost_of(draw, cost)
        log_prob = draw.distribution.log_prob(draw.x)
        same_shape(log_prob=log_prob, cost=value)
        log_weight = log_prob - draw.log_behaviour
        if self.normalised:
            return (log_weight.softmax(0) * value).sum(0)
        weight = log_weight.exp()
        weighted = weight * value
        baseline = self.baseline(weighted.detach()) if callable(self.baseline) else self.baseline or 0.0
        return (weighted - (weight - weight.detach()) * baseline).mean(0)


@dataclass(frozen=True)
class OffPolicyDraw(Draw):
    """Samples of the behaviour distribution, with their log-probabilities (n, *batch) under it."""

    log_behaviour: Tensor
