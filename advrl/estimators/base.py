"""What every estimator is: a draw from a distribution, and a surrogate of the cost of what was drawn.

Calling an estimator does both. The result has the distribution's batch shape; its *value* is the Monte-Carlo estimate
of E[cost(x)], its *backward* the gradient estimate, for the distribution's parameters and for those inside the cost
alike. A trainer calls the halves apart, so that one generator pass serves both players::

    draw = estimator.draw(policy.distribution(z))     # the discriminator learns from draw.x.detach()
    loss = estimator.surrogate(draw, cost).mean()     # the policy learns from this
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from advrl.checks import finite, integer

Cost = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Draw:
    """``n`` samples ``x`` (n, *batch, *event) and the distribution that they came from."""

    x: Tensor
    distribution: Distribution


@dataclass(frozen=True)
class Estimator(ABC):
    """A gradient estimator of E[cost(x)] with ``n`` samples per distribution.

    What has state (moving averages, critics, learned control variates) is a ``nn.Module`` among the fields. A module
    that learns leaves the scalar to minimise in its attribute ``fit_loss`` when the surrogate is made in training mode;
    after ``eval()`` it stays as it is.

    Class attributes, of which tables, tests and documentation are made:
        unbiased: whether the gradient's expectation is the exact one.
        needs_gradient: whether the cost is differentiated in the samples.
        variables: which distributions it treats, in words.
        higher_order: whether second derivatives of the surrogate, mixed ones with the cost's parameters included, are
            estimates of those of E[cost(x)] too.
    """

    unbiased: ClassVar[bool]
    needs_gradient: ClassVar[bool]
    variables: ClassVar[str]
    higher_order: ClassVar[bool] = True

    n: int = 1

    def __post_init__(self) -> None:
        integer("n", self.n)

    @property
    def evaluations(self) -> int:
        """How many values of the cost one estimate takes, per distribution."""
        return self.n

    def evaluations_of(self, distribution: Distribution) -> int:
        """The same for estimators whose number depends on the distribution."""
        return self.evaluations

    def check(self, distribution: Distribution) -> None:
        """Raise a ``ValueError`` that names a fitting estimator if this one cannot treat the distribution."""

    @abstractmethod
    def draw(self, distribution: Distribution) -> Draw:
        """Draw ``n`` samples: what the cost, and a discriminator, will see."""

    def surrogate(self, draw: Draw, cost: Cost) -> Tensor:
        """(*batch) whose value is the mean cost and whose gradient is the estimate.

        Args:
            draw: what :meth:`draw` returned.
            cost: maps (n, *batch, *event) to (n, *batch).

        Raises:
            ValueError: if the cost has another shape; and, inside ``torch.autograd.set_detect_anomaly(True)``, if it is
                not finite, naming the sample. Without that switch nothing is looked at: a trainer does not wait for
                the device, and has its own word for a run that diverged.
        """
        value = _cost_of(draw, cost)
        return value.squeeze(0) if len(value) == 1 else value.sum(0) / len(value)

    def __call__(self, distribution: Distribution, cost: Cost) -> Tensor:
        """Draw and return the surrogate, (*batch).

        Raises:
            ValueError: as :meth:`surrogate`; and, on a CPU, if the cost is not finite, naming the sample.
        """
        draw = self._take(distribution)
        value = self.surrogate(draw, cost)
        if value.device.type == "cpu" and not transformed() and not math.isfinite(float(value.detach().sum())):
            with torch.autograd.set_detect_anomaly(True):  # once more, looking at every cost
                return self.surrogate(draw, cost)
        return value

    def _take(self, distribution: Distribution) -> Draw:
        """What the surrogate needs: the draw, less what only others than the surrogate look at."""
        return self.draw(distribution)


def transformed() -> bool:
    """Whether this runs inside ``torch.func``, which follows plain operations and nothing else."""
    return bool(torch._C._are_functorch_transforms_active())


def is_sequence(distribution: Distribution) -> bool:
    """Whether events are written step by step, with a log-probability of each."""
    return hasattr(distribution, "log_probs")


def _cost_of(draw: Draw, cost: Cost, steps: bool = False) -> Tensor:
    """The cost of each sample, (n, *batch); of a sequence (n, *batch, T) too, where ``steps`` are taken."""
    value = cost(draw.x)
    expected = draw.x.shape[: 1 + len(draw.distribution.batch_shape)]  # a relaxed event may have a dimension more
    if steps and is_sequence(draw.distribution) and value.shape == draw.x.shape:
        expected = draw.x.shape
    if value.shape != expected:
        raise ValueError(
            f"cost must map samples of shape {tuple(draw.x.shape)} to one value each, shape {tuple(expected)}, "
            f"got {tuple(value.shape)}"
        )
    if torch.is_anomaly_enabled():  # torch's debug switch: looking at the values makes the host wait for the device
        finite("cost", value)
    return value


def base_of(distribution: Distribution) -> Distribution:
    """The distribution inside any ``Independent`` wrappers."""
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    return distribution


def name_of(distribution: Distribution) -> str:
    """The distribution's class, for messages."""
    return type(base_of(distribution)).__name__


def modules_of(estimator: object) -> dict[str, nn.Module]:
    """The stateful parts of an estimator: the modules among its fields, by name."""
    if not is_dataclass(estimator):
        return {}
    values = {field.name: getattr(estimator, field.name) for field in fields(estimator)}
    return {name: value for name, value in values.items() if isinstance(value, nn.Module)}


def fit_loss(estimator: Estimator) -> Tensor | None:
    """What the estimator's learned parts left to minimise at the last surrogate, a scalar; ``None`` without any."""
    losses = [loss for part in modules_of(estimator).values() if (loss := getattr(part, "fit_loss", None)) is not None]
    return sum(losses[1:], losses[0]) if losses else None
