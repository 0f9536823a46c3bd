r"""The log-densities of the common distributions, and their scores written out.

A surrogate's first derivative weighs the score of every sample and sums, which for these needs no graph:

    Normal     d log p / d mu = (x - mu) / s^2,   d log p / d s = ((x - mu)^2 / s^2 - 1) / s
    coins      d log p / d l = x - trials sigma(l)
    dice       d log p / d l = x                  in log-probabilities l, which their normalisation turns into x - p

Shapes: n samples, *batch, *event.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Normal, OneHotCategorical
from torch.nn.functional import softplus

from advrl.estimators.base import base_of


class Law(Protocol):
    """A family of distributions, as functions of its parameters (*batch, *event), the nodes."""

    @property
    def event(self) -> int:
        """Dimensions of the event."""

    def log_prob(self, x: Tensor, *nodes: Tensor) -> Tensor:
        """log p(x) of x (n, *batch, *event), (n, *batch), up to what does not depend on the nodes."""

    def pull(self, x: Tensor, weight: Tensor, *nodes: Tensor) -> tuple[Tensor | None, ...]:
        """sum_n weight d log p(x) / d node for weights (n, *batch): as the nodes, ``None`` for what needs none."""


@dataclass(frozen=True)
class Gaussian:
    """Nodes: mean and standard deviation; ``event`` dimensions."""

    event: int

    def log_prob(self, x: Tensor, *nodes: Tensor) -> Tensor:
        loc, scale = nodes
        level = scale.log() + math.log(2 * math.pi) / 2
        each = torch.sub(-level, ((loc - x) / scale).square(), alpha=0.5)
        return total(each, self.event)

    def pull(self, x: Tensor, weight: Tensor, *nodes: Tensor) -> tuple[Tensor | None, ...]:
        loc, scale = nodes
        away = x - loc
        weight, precision = spread(weight, self.event), scale.square().reciprocal()
        if not scale.requires_grad:
            return away.mul_(weight).sum(0) * precision, None
        pulled = away * weight
        return pulled.sum(0) * precision, (pulled.mul_(away).sum(0) * precision - weight.sum(0)) / scale


@dataclass(frozen=True)
class Coins:
    """Node: log-odds, of as many coins as there are trials; ``event`` dimensions."""

    event: int
    trials: int = 1

    def log_prob(self, x: Tensor, *nodes: Tensor) -> Tensor:
        (logits,) = nodes
        none = softplus(logits)
        return total(x * logits, self.event) - total(none, self.event) * self.trials

    def pull(self, x: Tensor, weight: Tensor, *nodes: Tensor) -> tuple[Tensor | None, ...]:
        weight = spread(weight, self.event)
        mean = nodes[0].sigmoid() * self.trials
        return ((weight * x).sum(0) - weight.sum(0) * mean,)


@dataclass(frozen=True)
class Dice:
    """Node: normalised log-probabilities; ``event`` dimensions, the last of which are the sides of a die."""

    event: int

    def log_prob(self, x: Tensor, *nodes: Tensor) -> Tensor:
        (logits,) = nodes  # impossible outcomes, of logit -inf, are not drawn, and 0 x inf is nan
        return total(x * logits.clamp(min=torch.finfo(logits.dtype).min), self.event)

    def pull(self, x: Tensor, weight: Tensor, *nodes: Tensor) -> tuple[Tensor | None, ...]:
        return ((spread(weight, self.event) * x).sum(0),)


def law_of(distribution: Distribution) -> tuple[Law, tuple[Tensor, ...]] | None:
    """The law of a distribution and its nodes, ``None`` if it is none of these."""
    base, event = base_of(distribution), len(distribution.event_shape)
    if type(base) is Normal:
        return Gaussian(event), (base.loc, base.scale)
    if isinstance(base, Bernoulli):
        return Coins(event), (base.logits,)
    if isinstance(base, OneHotCategorical):
        return Dice(event), (base.logits,)
    return None


def spread(weight: Tensor, event: int) -> Tensor:
    """Numbers (*, ) with ``event`` dimensions of 1 behind."""
    return weight.unsqueeze(-1) if event == 1 else weight.reshape(*weight.shape, *[1] * event)


def total(each: Tensor, event: int) -> Tensor:
    """The sum over the last ``event`` dimensions."""
    if event == 1:
        return each.sum(-1)
    return each.flatten(each.dim() - event).sum(-1) if event else each
