"""What a problem is: a distribution with parameters at a node, a cost, and whatever is known about its gradient.

The gradient is that of E[cost(x)], averaged over the batch, with respect to the node: the numbers that parameterise the
distribution. Where a network makes those numbers, its own parameters can be asked for as well.
Shapes: R replicates, n samples, *shape of the node, *batch and *event of the distribution.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution

from advrl.estimators import Estimator


@dataclass(frozen=True)
class Problem:
    """One problem on one device.

    Args:
        name: for titles.
        node: (*shape) the distribution's parameters; with ``parameters``, as their network made them, graph and all.
        distribution: (R, *shape) nodes to a distribution of batch shape (R, *batch), one leading axis more; or with
            that axis folded into the batch, (R * B,).
        cost: (n, R, *batch, *event) samples to (n, R, *batch) costs; folded likewise.
        gradient: (*shape) the exact gradient at the node, where it is known.
        variance: the exact total variance at the node of one estimate, where it is known; ``None`` else.
        width: numbers that the cost makes of one number of a sample; for the size of the chunks.
        parameters: gradients are those of these, behind the node; of the node itself if empty.
    """

    name: str
    node: Tensor
    distribution: Callable[[Tensor], Distribution]
    cost: Callable[[Tensor], Tensor]
    gradient: Tensor | None = None
    variance: Callable[[Estimator], float | None] = lambda estimator: None
    width: int = 1
    parameters: tuple[Tensor, ...] = ()

    @cached_property
    def single(self) -> Distribution:
        """The distribution of one replicate, without a gradient."""
        return self.distribution(self.node.detach()[None])

    def truth(self) -> Tensor | None:
        """(P,) the exact gradient, float64, of the node or of the parameters; ``None`` where it is not known."""
        if self.gradient is None or not self.parameters:
            return None if self.gradient is None else self.gradient.detach().double().flatten()
        exact = torch.autograd.grad(
            self.node, self.parameters, self.gradient.to(self.node), retain_graph=True, materialize_grads=True
        )
        return torch.cat([g.flatten() for g in exact]).double()

    def closed_form(self, estimator: Estimator) -> float | None:
        """The exact total variance of one estimate, of the node; ``None`` where it is not known."""
        return None if self.parameters else self.variance(estimator)


@dataclass(frozen=True)
class Known(ABC):
    """A problem with known answers, as it is asked for: settings, from which :meth:`on` makes it on a device.

    Class attributes:
        name: on the command line.
        samples: sample sizes to compare at by default.
        replicates: how many estimates by default.
        rows: names of the estimators compared by default; all that fit if empty.
    """

    name: ClassVar[str]
    samples: ClassVar[tuple[int, ...]] = (8,)
    replicates: ClassVar[int] = 10_000
    rows: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def on(self, device: torch.device | str = "cpu") -> Problem:
        """The problem on a device."""

    def estimators(self, n: int) -> Mapping[str, Estimator]:
        """Estimators that only this problem knows (its best baseline, say), with ``n`` samples."""
        return {}
