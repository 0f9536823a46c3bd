r"""Samples that are judged together, as one draw: what keeps the score function unbiased with a coupled discriminator.

Where the discriminator looks at g samples at once (packing, minibatch features), what it says of x_i depends on its
neighbours, so E[c_i(x_1..x_g)] has the gradient E[c_i sum_j grad log p(x_j)], of which paying each sample for itself
keeps the one term j = i. The unit is then the pack, of density prod_j p(x_j) and one cost; leave-one-out compares
independent packs. Shapes: B samples, g in a pack.
"""

from __future__ import annotations

from torch import Size, Tensor
from torch.distributions import Distribution

from advrl.estimators import (
    Antithetic,
    Estimator,
    GumbelRao,
    GumbelSoftmax,
    Path,
    ReinMax,
    Score,
    StraightThrough,
    optimal_baseline,
)

PATHWISE = (Path, Antithetic, GumbelSoftmax, GumbelRao, ReinMax, StraightThrough)
"""Estimators whose whole gradient is the cost's, through the samples: coupling them does no harm."""


class Packs(Distribution):
    """A distribution of B independent samples seen as B / g of packs: batch shape (B / g,), event shape (g, *event).

    Raises:
        ValueError: unless it has one batch dimension, which g divides.
    """

    def __init__(self, samples: Distribution, size: int) -> None:
        if len(samples.batch_shape) != 1 or samples.batch_shape[0] % size:
            raise ValueError(f"a batch of shape {tuple(samples.batch_shape)} does not divide into packs of {size}")
        self.samples, self.size = samples, size
        self.has_rsample = samples.has_rsample
        batch = Size([samples.batch_shape[0] // size])
        super().__init__(batch, Size([size, *samples.event_shape]), validate_args=False)

    @property
    def mean(self) -> Tensor:
        """(B / g, g, *event), which a critic may look at."""
        return self.samples.mean.unflatten(0, (-1, self.size))

    def sample(self, sample_shape: Size | list[int] | tuple[int, ...] = Size()) -> Tensor:
        """(*sample_shape, B / g, g, *event)."""
        return self.samples.sample(sample_shape).unflatten(len(sample_shape), (-1, self.size))

    def log_prob(self, value: Tensor) -> Tensor:
        """(*, B / g) the sum over the pack."""
        first = value.dim() - len(self.event_shape) - 1
        each: Tensor = self.samples.log_prob(value.flatten(first, first + 1))
        return each.unflatten(-1, (-1, self.size)).sum(-1)


def packs_of(estimator: Estimator, together: int | None) -> int:
    """How many samples an estimator must take as one draw when so many are judged together (``None``: all).

    Raises:
        ValueError: if it cannot, with the ways out.
    """
    if together == 1 or isinstance(estimator, PATHWISE):
        return 1
    name = type(estimator).__name__
    if together is None:
        raise ValueError(
            "the discriminator judges all samples of a batch together (batch norm in training mode, minibatch "
            f"features of the whole batch, feature matching), and {name} would pay each for itself, which is biased: "
            "give the layer a group, use reference batch norm, or an estimator such as path or gumbel"
        )
    if not isinstance(estimator, Score) or estimator.baseline is optimal_baseline:
        raise ValueError(
            f"the discriminator judges {together} samples together, and {name} works on single ones: use score or loo, "
            "which are then paid per pack, or an estimator such as path or gumbel"
        )
    return together


def unpacked(x: Tensor, size: int) -> Tensor:
    """(S, B / g, g, *event) as (S, B, *event)."""
    return x.flatten(1, 2) if size > 1 else x


def per_draw(cost: Tensor, draws: int) -> Tensor:
    """Costs (S, L) of L judgements as (S, draws): the mean of several in a draw, repeated for several draws in one."""
    if cost.shape[1] >= draws:
        return cost if cost.shape[1] == draws else cost.unflatten(1, (draws, -1)).mean(2)
    return cost.repeat_interleave(draws // cost.shape[1], 1, output_size=draws)
