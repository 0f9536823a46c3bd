r"""Measure-valued (weak) derivatives: the derivative of a density as a difference of two densities.

    d/dtheta p(x; theta) = c (p+(x) - p-(x)),   so   d/dtheta E[f] = c (E_{p+}[f] - E_{p-}[f])

Pflug (1989); Heidergott, Vazquez-Abad & Volk-Makarewicz (2008); Mohamed et al. (2020), section 6 and table 1. In
several independent coordinates each is replaced in turn, the others kept as drawn, for each parameter:

    Normal mean          c = 1 / (std sqrt(2 pi)),  mean + std W and mean - std W, W Rayleigh (Weibull(2, sqrt 2))
    Normal std           c = 1 / std,               double-sided Maxwell and normal
    Bernoulli, Binomial  c = N p (1 - p) per logit, 1 + Y and Y, Y ~ Binomial(N - 1, p)
    categories           every one of them, weighted by its probability: the sum over one coordinate is exact
    Poisson rate         c = 1,                     X + 1 and X
    Exponential rate     c = 1 / rate,              Exponential and Gamma(2)

Coupled, the two sides share what random numbers they can; that helps smooth costs and may hurt others (the normal's
mean with x^2 at theta = 2: 4.37 against 3.46). Shapes: n samples, *batch, D coordinates of the event, m terms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import singledispatch

import torch
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Binomial,
    Categorical,
    Distribution,
    Exponential,
    Normal,
    OneHotCategorical,
    Poisson,
)

from advrl.checks import integer
from advrl.estimators.base import Cost, Draw, Estimator, _cost_of, base_of, name_of
from advrl.estimators.quick import sample_of


@dataclass(frozen=True)
class Terms:
    """m replacements for every coordinate: d E[f] / d nodes[m] = mean over n of weights[m] * f(values[m, n])."""

    nodes: Tensor  # (m, *coordinates), requires grad
    weights: Tensor  # (m, *coordinates), without
    values: Tensor  # (m, n, *coordinates, *category)


@dataclass(frozen=True)
class Measure(Estimator):
    """Weak derivatives, coordinate by coordinate: unbiased, for costs that need no derivative, of bounded variance.

    Evaluates the cost n times for its value and, for each sample, once for every term of every coordinate: 2 D for a
    normal's means, 4 D with its standard deviations, 2 D for Bernoullis, D K for D variables of K categories. Mixed
    derivatives with the cost's parameters are right, second ones in the distribution's parameters are not.

    Args:
        n: samples per distribution.
        coupled: whether the two sides share their random numbers.
        limit: refuse distributions that need more replacements than this per sample.
    """

    unbiased = True
    needs_gradient = False
    variables = "independent Normal, Bernoulli, Binomial, OneHotCategorical, Categorical, Poisson, Exponential"
    higher_order = False

    coupled: bool = True
    limit: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        integer("limit", self.limit)

    def evaluations_of(self, distribution: Distribution) -> int:
        """n (1 + terms x coordinates)."""
        return self.n * (1 + _terms(base_of(distribution)) * _coordinates(distribution))

    def check(self, distribution: Distribution) -> None:
        base = base_of(distribution)
        better = "path" if distribution.has_rsample else "loo"
        needed = _terms(base) * _coordinates(distribution)
        if needed == 0:
            raise ValueError(f"measure has no derivative for {name_of(distribution)} variables: use {better}")
        if needed > self.limit:
            raise ValueError(
                f"measure would evaluate the cost {needed:,} times per sample, above its limit of {self.limit:,}: "
                f"use {better}, or Measure(limit={needed})"
            )

    def draw(self, distribution: Distribution) -> Draw:
        self.check(distribution)
        return Draw(sample_of(distribution, self.n), distribution)

    def surrogate(self, draw: Draw, cost: Cost) -> Tensor:
        base, x = base_of(draw.distribution), draw.x
        batch = draw.distribution.batch_shape
        terms = derivatives(base, self.n, self.coupled)
        if terms is None:
            return _cost_of(draw, cost).mean(0)
        m, size = len(terms.nodes), _coordinates(draw.distribution)
        inner = base.event_shape
        flat = x.reshape(self.n, *batch, size, *inner)
        values = terms.values.reshape(m, 1, self.n, *batch, size, *inner)
        here = torch.eye(size, dtype=torch.bool, device=x.device)
        here = here.reshape(size, 1, *[1] * len(batch), size, *[1] * len(inner))
        replaced = torch.where(here, values, flat).reshape(-1, *x.shape[1:])  # (m D n, *batch, *event)
        value = _cost_of(Draw(torch.cat([x, replaced]), draw.distribution), cost)
        f = (
            value[self.n :].reshape(m, size, self.n, *batch).mean(2)
        )  # the part that each replacement has in the gradient
        nodes = terms.nodes.reshape(m, *batch, size).movedim(-1, 1)
        weights = terms.weights.reshape(m, *batch, size).movedim(-1, 1)
        return value[: self.n].mean(0) + (weights * f * (nodes - nodes.detach())).sum((0, 1))


def _coordinates(distribution: Distribution) -> int:
    base = base_of(distribution)
    return base.batch_shape[len(distribution.batch_shape) :].numel()


def _terms(base: Distribution) -> int:
    """How many replacements each coordinate takes; 0 if the family has none.

    A normal whose mean or std alone is learned takes half; of one seen without gradients both are counted.
    """
    if isinstance(base, Normal):
        return 2 if base.loc.requires_grad != base.scale.requires_grad else 4
    if isinstance(base, (Categorical, OneHotCategorical)):
        return base.logits.shape[-1]
    return 2 if isinstance(base, (Bernoulli, Binomial, Poisson, Exponential)) else 0


@singledispatch
def derivatives(base: Distribution, n: int, coupled: bool) -> Terms | None:
    """The replacements for the parameters that require a gradient; ``None`` if none does."""
    raise ValueError(f"measure has no derivative for {name_of(base)} variables")


@derivatives.register
def _(base: Normal, n: int, coupled: bool) -> Terms | None:
    nodes, weights, values = [], [], []
    mean, std = base.loc.detach(), base.scale.detach()
    shape = (n, *mean.shape)
    if base.loc.requires_grad:
        up = _rayleigh(mean, shape)
        down = up if coupled else _rayleigh(mean, shape)
        c = 1 / (std * math.sqrt(2 * math.pi))
        nodes += [base.loc, base.loc]
        weights += [c, -c]
        values += [mean + std * up, mean - std * down]
    if base.scale.requires_grad:
        maxwell = _maxwell(mean, shape)
        # a double-sided Maxwell variable times a uniform one is standard normal: Heidergott et al. (2008)
        normal = maxwell * torch.rand_like(maxwell) if coupled else torch.randn_like(maxwell)
        nodes += [base.scale, base.scale]
        weights += [1 / std, -1 / std]
        values += [mean + std * maxwell, mean + std * normal]
    return Terms(torch.stack(nodes), torch.stack(weights), torch.stack(values)) if nodes else None


@derivatives.register
def _(base: Binomial, n: int, coupled: bool) -> Terms | None:
    # torch keeps the number of trials as a tensor; one trial less may be none, which its sampler allows
    return _trials(base, base.total_count, n, coupled)


@derivatives.register
def _(base: Bernoulli, n: int, coupled: bool) -> Terms | None:
    return _trials(base, torch.ones_like(base.probs), n, coupled)


@derivatives.register(Categorical)
@derivatives.register(OneHotCategorical)
def _(base: Categorical | OneHotCategorical, n: int, coupled: bool) -> Terms | None:
    one_hot = isinstance(base, OneHotCategorical)
    inner = base._categorical if isinstance(base, OneHotCategorical) else base
    node = inner._param
    if not node.requires_grad:
        return None
    k = node.shape[-1]
    # torch keeps logits and probabilities normalised, and the gradient passes through that: one side is enough
    weights = inner.probs.detach() if node is vars(inner).get("logits") else torch.ones_like(node)
    classes = torch.arange(k, device=node.device)
    shape = (k, n, *node.shape[:-1])
    index = classes.reshape(k, *[1] * (len(shape) - 1))
    values = (index.unsqueeze(-1) == classes).to(node.dtype).expand(*shape, k) if one_hot else index.expand(shape)
    return Terms(node.movedim(-1, 0), weights.movedim(-1, 0), values)


@derivatives.register
def _(base: Poisson, n: int, coupled: bool) -> Terms | None:
    if not base.rate.requires_grad:
        return None
    x = base.sample((n,))
    other = x if coupled else base.sample((n,))
    one = torch.ones_like(base.rate)
    return Terms(torch.stack([base.rate] * 2), torch.stack([one, -one]), torch.stack([x + 1, other]))


@derivatives.register
def _(base: Exponential, n: int, coupled: bool) -> Terms | None:
    if not base.rate.requires_grad:
        return None
    x = base.sample((n,))
    first = x if coupled else base.sample((n,))
    c = 1 / base.rate.detach()
    values = torch.stack([x, first + base.sample((n,))])  # Gamma(2) is the sum of two
    return Terms(torch.stack([base.rate] * 2), torch.stack([c, -c]), values)


def _trials(base: Bernoulli | Binomial, count: Tensor, n: int, coupled: bool) -> Terms | None:
    node = base._param
    if not node.requires_grad:
        return None
    p = base.probs.detach()
    c = count * p * (1 - p) if node is vars(base).get("logits") else count * torch.ones_like(p)

    def fewer() -> Tensor:
        if isinstance(base, Bernoulli):
            return torch.zeros_like(p).expand(n, *p.shape)
        return torch.binomial((count - 1).expand(n, *p.shape).contiguous(), p.expand(n, *p.shape).contiguous())

    y = fewer()
    return Terms(torch.stack([node] * 2), torch.stack([c, -c]), torch.stack([y + 1, y if coupled else fewer()]))


def _rayleigh(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=like.device).exponential_().mul_(2).sqrt_()


def _maxwell(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Double-sided: the length of three normals, with a sign of its own."""
    normals = torch.randn(3, *shape, dtype=like.dtype, device=like.device)
    return torch.copysign(normals.square().sum(0).sqrt(), torch.randn(shape, dtype=like.dtype, device=like.device))
