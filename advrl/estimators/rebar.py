r"""REBAR and RELAX: the score function with a relaxed sample as control variate.

With z the perturbed logits, b = H(z) the hard sample, z~ ~ p(z | b) and a any smooth function,

    g = (c(b) - a(z~)) grad log p(b) + grad a(z) - grad a(z~)        Grathwohl et al. (2018)

is unbiased, because E[a(z~) grad log p(b) + grad a(z~)] = grad E[a(z)]. REBAR's a is the cost at the tempered
relaxation, times eta: Tucker et al. (2017); RELAX's a network. What is free in a descends the variance by
grad E[g^2]. z~ reuses the noise of z (as Tucker et al. couple them), so that they are equal in value and only
their derivatives differ. Shapes: n samples, *batch, *event.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from advrl.checks import number, same_shape
from advrl.estimators.base import Cost, Draw, Estimator, _cost_of, modules_of
from advrl.estimators.baselines import Learning
from advrl.estimators.discrete import Parts, parts_of
from advrl.estimators.gumbel import conditional_gumbel
from advrl.estimators.kernels import score_function
from advrl.estimators.lax import ControlVariate


class Learned(Learning):
    """A positive number that descends the variance of the estimator it is given to.

    Args:
        value: where it starts.
    """

    def __init__(self, value: float) -> None:
        super().__init__()
        start = math.log(number("value", value, 0.0, exclusive=True))
        self.log = nn.Parameter(torch.full((), start, device="cpu"))

    def forward(self) -> Tensor:
        """The number, ()."""
        return self.log.exp()


@dataclass(frozen=True)
class Relaxation(Draw):
    """A draw that remembers the perturbed logits z and the hard sample of its parts that they made."""

    parts: Parts
    z: Tensor
    hard: Tensor


@dataclass(frozen=True)
class _Relaxing(Estimator):
    unbiased = True
    variables = "Bernoulli, Binomial, OneHotCategorical"
    name: ClassVar[str]

    temperature: float | Learned = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.temperature, Learned):
            number("temperature", self.temperature, 0.0, exclusive=True)

    def check(self, distribution: Distribution) -> None:
        parts_of(self.name, distribution)

    def draw(self, distribution: Distribution) -> Relaxation:
        self.check(distribution)
        parts = parts_of(self.name, distribution)
        z, hard = parts.perturb(self.n)
        return Relaxation(parts.decode(hard), distribution, parts, z, hard)

    def relaxed(self, draw: Relaxation) -> Tensor:
        """The relaxed sample, then the relaxed sample given the hard one, (2n, *batch, *event)."""
        parts = draw.parts
        given = conditional_gumbel(parts.logits, draw.hard, binary=parts.binary, z=draw.z)
        return parts.relax(torch.cat([draw.z, given]), _number(self.temperature))

    def combine(self, draw: Relaxation, value: Tensor, free: Tensor, given: Tensor) -> Tensor:
        """The surrogate of costs and control variates at both relaxed samples, all (n, *batch)."""
        same_shape(cost=value, control=free)
        self._fit(draw, value.detach(), free, given)
        log_prob = draw.parts.log_prob(draw.x)
        return (score_function(log_prob, value, given) + (free - given)).mean(0)

    def _fit(self, draw: Relaxation, value: Tensor, free: Tensor, given: Tensor) -> None:
        """Leave the squared gradient with the first learned part, in training mode."""
        modules = list(modules_of(self).values())
        for module in modules:
            module.fit_loss = None  # type: ignore[assignment]
        parts = draw.parts
        learning = any(m.training and p.requires_grad for m in modules for p in m.parameters())
        if not (learning and parts.node.requires_grad):
            return
        difference = (free - given).sum() / self.n
        slope = torch.autograd.grad(difference, parts.node, create_graph=True, materialize_grads=True)[0]
        mean = parts.mean().detach()
        if not parts.binary:  # torch's logits are normalised: what the normalisation lets through
            slope = slope - mean * slope.sum(-1, keepdim=True)
        gradient = (parts.spread(value - given) * (draw.x - mean)).mean(0) + slope
        modules[0].fit_loss = gradient.square().sum() / max(1, value[0].numel())


@dataclass(frozen=True)
class Rebar(_Relaxing):
    """REBAR: the cost itself, at a relaxed sample, as control variate.

    Unbiased for every temperature and eta, to any order; the cost must be defined and differentiable between the
    discrete values. Evaluates it 3n times. A Binomial is the sum of its coins, each of them relaxed.

    Args:
        n: samples per distribution.
        temperature: of the relaxation, above 0: too low and its derivative explodes, too high and it says little of
            the cost; a number or a :class:`Learned` one.
        eta: factor of the control variate; a number or a :class:`Learned` one. With 0 this is the score function.
    """

    needs_gradient = True
    name = "rebar"

    eta: float | Learned = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.eta, Learned):
            number("eta", self.eta)

    @property
    def evaluations(self) -> int:
        return 3 * self.n

    def surrogate(self, draw: Draw, cost: Cost) -> Tensor:
        assert isinstance(draw, Relaxation)
        value = _cost_of(draw, cost)  # by itself: what has no gradient need not be passed back through the cost
        free, given = _cost_of(Draw(self.relaxed(draw), draw.distribution), cost).chunk(2)
        eta = _number(self.eta)
        return self.combine(draw, value, eta * free, eta * given)


@dataclass(frozen=True)
class Relax(_Relaxing):
    """RELAX: a network at a relaxed sample as control variate; the cost may be a black box.

    Unbiased whatever the network is, to any order while it stays as it is. Evaluates the cost n times. In training
    mode the surrogate leaves the squared gradient in the network's ``fit_loss``, for which the network must be twice
    differentiable. A Binomial is the sum of its coins, each of them relaxed.

    Args:
        n: samples per distribution.
        temperature: of the relaxed samples that the network sees, above 0; a number or a :class:`Learned` one.
        control: the network; its own by default, which starts from 0, where this is the score function.
    """

    needs_gradient = False
    name = "relax"

    control: ControlVariate = field(default_factory=ControlVariate)

    def check(self, distribution: Distribution) -> None:
        super().check(distribution)
        self.control.build(distribution)

    def surrogate(self, draw: Draw, cost: Cost) -> Tensor:
        assert isinstance(draw, Relaxation)
        value = _cost_of(draw, cost)
        free, given = self.control(self.relaxed(draw), len(draw.distribution.event_shape)).chunk(2)
        return self.combine(draw, value, free, given)


def _number(value: float | Learned) -> float | Tensor:
    return value() if isinstance(value, Learned) else value
