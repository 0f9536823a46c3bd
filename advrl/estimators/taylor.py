r"""Taylor (delta-method) control variate: the score function of what a parabola leaves over.

With m = E[x], f^ the expansion of the cost about m without mixed second derivatives,

    f^(x) = c(m) + g.(x - m) + 1/2 sum_d h_d (x_d - m_d)^2,      E[f^] = c(m) + 1/2 sum_d h_d Var(x_d)

    grad E[c] = E[(c - f^) grad log p] + grad E[f^]              Paisley, Blei & Jordan (2012); Miller et al. (2017)

Exact, with no variance at all, for costs that are such a parabola; worth little where the cost bends within a standard
deviation. Shapes: n samples, *batch, D coordinates of the event.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

from advrl.checks import integer
from advrl.estimators.base import Cost, Draw, Estimator, _cost_of
from advrl.estimators.kernels import score_function
from advrl.estimators.quick import sample_of
from advrl.estimators.score import check_log_prob


@dataclass(frozen=True)
class Taylor(Estimator):
    """The score function with the cost's Taylor expansion at the mean as control variate.

    Unbiased, to any order. The cost must be defined and differentiable at the mean, for discrete variables too. One
    call evaluates it n times, and once more there for ``order=1``, D times for ``order=2`` (with one Hessian-vector
    product each).

    Args:
        n: samples per distribution.
        order: 1 (linear: the gradient at the mean, as in MuProp) or 2 (with the Hessian's diagonal).
        limit: with ``order=2``, refuse events of more coordinates than this.
    """

    unbiased = True
    needs_gradient = True
    variables = "any with a log_prob, mean and variance"

    order: int = 2
    limit: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        integer("limit", self.limit)
        if self.order not in (1, 2):
            raise ValueError(f"order must be 1 or 2, got {self.order}")

    def evaluations_of(self, distribution: Distribution) -> int:
        """n + 1, or n + D with the Hessian's diagonal."""
        return self.n + self._points(distribution)

    def check(self, distribution: Distribution) -> None:
        check_log_prob("taylor", distribution)
        if self._points(distribution) > self.limit:
            raise ValueError(
                f"taylor would take {self._points(distribution):,} second derivatives, above its limit of "
                f"{self.limit:,}: use {'path' if distribution.has_rsample else 'loo'}, or Taylor(order=1)"
            )

    def draw(self, distribution: Distribution) -> Draw:
        self.check(distribution)
        return Draw(sample_of(distribution, self.n), distribution)

    def surrogate(self, draw: Draw, cost: Cost) -> Tensor:
        distribution, x = draw.distribution, draw.x
        k, shape = self._points(distribution), distribution.event_shape
        mean = distribution.mean
        centre = mean.detach()
        with torch.enable_grad():
            points = centre.expand(k, *centre.shape).clone().requires_grad_()
            value = _cost_of(Draw(torch.cat([x, points]), distribution), cost)
            at_centre = value[self.n :]
            slope = _derivative(at_centre.sum(), points)
            if self.order == 2:
                directions = torch.eye(k, dtype=x.dtype, device=x.device)
                directions = directions.reshape(k, *[1] * len(distribution.batch_shape), *shape)
                curved = _derivative((slope * directions).sum(), points)
                curvature = (curved * directions).sum(0)
            else:
                curvature = torch.zeros_like(centre)
        slope, events = slope[0], tuple(range(-len(shape), 0))

        def parabola(first: Tensor, second: Tensor) -> Tensor:
            terms = slope * first + curvature * second / 2
            return terms.sum(events) if events else terms

        away = x - centre
        moved = mean - centre
        control = at_centre[0] + parabola(away, away**2)
        if self.order == 2:
            variance = distribution.variance
            expected = parabola(moved, variance - variance.detach() + moved**2)
        else:
            expected = parabola(moved, torch.zeros_like(moved))
        log_prob = distribution.log_prob(x)
        return score_function(log_prob, value[: self.n], control).mean(0) + expected

    def _points(self, distribution: Distribution) -> int:
        return distribution.event_shape.numel() if self.order == 2 else 1


def _derivative(y: Tensor, x: Tensor) -> Tensor:
    """dy/dx that can be differentiated again; 0 where y does not depend on x (a cost that is flat, or linear)."""
    if not y.requires_grad:
        return torch.zeros_like(x)
    return torch.autograd.grad(y, x, create_graph=True, materialize_grads=True)[0]
