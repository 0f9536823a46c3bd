r"""MuProp: the score function of what the tangent at the mean leaves over. Gu, Levine, Sutskever & Mnih (2016).

With m = E[x], held fixed where the tangent is taken, and h(x) = c(m) + c'(m) (x - m),

    grad E[c] = E[(c(x) - h(x)) grad log p(x)] + c'(m) grad m

Shapes: n samples, *batch, *event.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

from advrl.estimators.base import Cost, Draw, Estimator, _cost_of
from advrl.estimators.boxed import boxed
from advrl.estimators.discrete import parts_of
from advrl.estimators.kernels import score_function
from advrl.estimators.laws import total
from advrl.estimators.quick import sample_of


@dataclass(frozen=True)
class MuProp(Estimator):
    """The score function with the cost's tangent at the mean as control variate.

    Unbiased, to any order, and without variance for a linear cost; the cost must be defined and differentiable between
    the discrete values. Evaluates it n times at the samples and once, with its gradient, at the mean, so at least for
    that one more than :class:`Score`. A Binomial needs only its counts.

    Args:
        n: samples per distribution.
    """

    unbiased = True
    needs_gradient = True
    variables = "Bernoulli, Binomial, OneHotCategorical"

    @property
    def evaluations(self) -> int:
        return self.n + 1

    def check(self, distribution: Distribution) -> None:
        parts_of("muprop", distribution)

    def draw(self, distribution: Distribution) -> Draw:
        self.check(distribution)
        return Draw(sample_of(distribution, self.n), distribution)

    def surrogate(self, draw: Draw, cost: Cost) -> Tensor:
        parts, x = parts_of("muprop", draw.distribution), draw.x
        value = _cost_of(draw, cost)
        mean = parts.mean()
        with torch.enable_grad():
            centre = mean.detach().requires_grad_()
            at_centre = _cost_of(Draw(centre.unsqueeze(0), draw.distribution), cost).squeeze(0)
            if not at_centre.requires_grad:  # a constant cost has no tangent to take
                slope = torch.zeros_like(centre)
            else:
                learned = value.requires_grad  # the cost has parameters, whose gradient passes through the tangent too
                ones = torch.ones_like(at_centre)
                slope = torch.autograd.grad(at_centre, centre, ones, create_graph=learned, materialize_grads=True)[0]
                at_centre = at_centre if learned else at_centre.detach()
        fixed, law = centre.detach(), parts.law
        tangent = (at_centre - total(slope * fixed, law.event)) + total(slope * x, law.event)
        moved = total(slope * (mean - fixed), law.event)
        if tangent.requires_grad:
            return score_function(parts.log_prob(x), value, tangent).mean(0) + moved
        return boxed(law, (parts.node,), x, value, tangent) + moved
