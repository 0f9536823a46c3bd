r"""LAX: the score function of the cost minus the path derivative of a network that learns to stand in for it.

    g = (c(x) - a(x)) grad log p(x) + grad a(x(theta)),  a = a_phi     Grathwohl et al. (2018), eq. 5

is unbiased for every phi, and phi descends the variance: grad Var(g) = grad E[g^2] (their eq. 8). The cost itself needs
no derivative. With a = 0 it is REINFORCE, with a = c the path derivative. Shapes: n samples, *batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.distributions import Distribution

from advrl.checks import same_shape
from advrl.estimators.base import Cost, Draw, Estimator, _cost_of, name_of
from advrl.estimators.baselines import Fitted
from advrl.estimators.kernels import score_function
from advrl.estimators.nodes import parameters_of
from advrl.estimators.score import check_log_prob


class ControlVariate(Fitted):
    """The learned a_phi(x) of :class:`Lax`.

    Args:
        net: maps flattened samples (n, *batch, D) to (n, *batch) or (n, *batch, 1). If ``None``, a perceptron with one
            hidden layer, made as soon as D is known, that starts from a = 0.
        hidden: units of that layer.
    """

    def forward(self, x: Tensor, event_dim: int) -> Tensor:
        """a(x), (n, *batch), for samples (n, *batch, *event)."""
        assert self.net is not None
        value: Tensor = self.net(x.flatten(x.dim() - event_dim) if event_dim else x.unsqueeze(-1))
        return value.squeeze(-1) if value.dim() > x.dim() - event_dim else value


@dataclass(frozen=True)
class Lax(Estimator):
    """The score function with a learned, reparameterised control variate; the cost may be a black box.

    Unbiased whatever the control variate is, to any order while that stays as it is. Evaluates the cost n times. In
    training mode a surrogate leaves the squared gradient in the control variate's ``fit_loss``, which takes a second
    pass over the log-probabilities.

    Args:
        n: samples per distribution.
        control: the control variate; its own by default.
    """

    unbiased = True
    needs_gradient = False
    variables = "any with rsample and a log_prob"

    control: ControlVariate = field(default_factory=ControlVariate)

    def check(self, distribution: Distribution) -> None:
        if not distribution.has_rsample:
            raise ValueError(f"lax needs a reparameterised distribution, and {name_of(distribution)} is none: use loo")
        check_log_prob("lax", distribution)
        self.control.build(distribution)

    def draw(self, distribution: Distribution) -> Draw:
        self.check(distribution)
        return Draw(distribution.rsample((self.n,)), distribution)

    def surrogate(self, draw: Draw, cost: Cost) -> Tensor:
        distribution, event_dim = draw.distribution, len(draw.distribution.event_shape)
        fixed = draw.x.detach()
        value = _cost_of(Draw(fixed, distribution), cost)
        log_prob = distribution.log_prob(fixed)
        moving = self.control(draw.x, event_dim)
        same_shape(control=moving, cost=value)
        surrogate = score_function(log_prob, value, self.control(fixed, event_dim)).mean(0)
        surrogate = surrogate + (moving - moving.detach()).mean(0)
        self.control.fit_loss = None
        nodes = parameters_of(distribution)
        if self.control.training and nodes and any(p.requires_grad for p in self.control.parameters()):
            known = score_function(log_prob, value.detach(), self.control(fixed, event_dim)).mean(0)
            gradient = torch.autograd.grad(
                (known + moving.mean(0)).sum(), nodes, create_graph=True, allow_unused=True, retain_graph=True
            )
            squares = [g.square().sum() for g in gradient if g is not None]
            self.control.fit_loss = sum(squares[1:], squares[0]) / max(1, value[0].numel())
        return surrogate
