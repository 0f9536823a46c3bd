r"""Evolution strategies and SPSA: move the distribution's parameters at random, see which way the cost goes.

    g = 1/n sum_i (c(x_i+) - c(x_i-)) / (2 scale) * e_i,   x_i+- ~ p(.; theta +- scale e_i)

Salimans et al. (2017), eq. 1, with antithetic directions; Spall (1992), eq. 2.2 for signs e in {-1, 1}. Its expectation
is the gradient of E[c] smoothed over the directions, so the bias is O(scale^2): with J = E[c] a cubic in one parameter
J''' scale^2 / 2 for normal directions, a third of that for signs. The variance grows like 1 / scale^2 where the two
sides cannot share their random numbers (here they do), and like the number of parameters. Shapes: n pairs, *batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Binomial, Distribution, Normal, OneHotCategorical
from torch.distributions.utils import clamp_probs

from advrl.checks import number
from advrl.distributions import Implicit
from advrl.estimators.base import Cost, Draw, Estimator, _cost_of, base_of, name_of


@dataclass(frozen=True)
class Coordinates:
    """A family in unconstrained coordinates.

    Args:
        where: the coordinates as functions of the distribution's parameters, each (*batch, *rest).
        noise: draws (n, *shape) of the random numbers that a sample takes.
        sample: coordinates (n, *batch, *rest) and noise to samples (n, *batch, *event).
    """

    where: list[Tensor]
    noise: Callable[[int], Tensor]
    sample: Callable[[list[Tensor], Tensor], Tensor]


@dataclass(frozen=True)
class EvolutionStrategy(Estimator):
    """Antithetic finite differences along random directions of the *distribution's* parameters, not of the network's.

    Moved are a Normal's mean and log standard deviation (where they are learned), the logits of Bernoulli, Binomial and
    OneHotCategorical variables, and the value of an implicit G(z); from there the chain rule goes on as usual. Both
    sides of a pair use the same random numbers. The value is the mean cost of the moved distributions. Biased by
    O(scale^2); evaluates the cost 2n times, and needs neither its gradient nor a log_prob.

    Args:
        n: pairs of directions; the samples are (2n, *batch, *event), first all plus, then all minus.
        scale: length of a step in each coordinate.
        signs: directions of random signs (SPSA) instead of normal ones.
    """

    unbiased = False
    needs_gradient = False
    variables = "Normal, Bernoulli, Binomial, OneHotCategorical, implicit"
    higher_order = False

    scale: float = 0.1
    signs: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        number("scale", self.scale, 0.0, exclusive=True)

    @property
    def evaluations(self) -> int:
        return 2 * self.n

    def check(self, distribution: Distribution) -> None:
        if not isinstance(base_of(distribution), (Normal, Bernoulli, Binomial, OneHotCategorical, Implicit)):
            better = "path" if distribution.has_rsample else "loo"
            raise ValueError(
                f"es moves the parameters of Normal, Bernoulli, Binomial, OneHotCategorical and implicit "
                f"distributions, not of {name_of(distribution)}: use {better}"
            )

    def draw(self, distribution: Distribution) -> MovedDraw:
        self.check(distribution)
        family = coordinates(base_of(distribution))
        learned = [u.requires_grad for u in family.where]  # nothing moves but what is learned; all, where nothing is
        with torch.no_grad():
            directions = [
                self._direction(u) if mine or not any(learned) else u.new_zeros(self.n, *u.shape)
                for u, mine in zip(family.where, learned, strict=True)
            ]
            noise = family.noise(self.n)
            sides = [
                family.sample([u + s * self.scale * e for u, e in zip(family.where, directions, strict=True)], noise)
                for s in (1, -1)
            ]
        return MovedDraw(torch.cat(sides), distribution, family.where, directions)

    def surrogate(self, draw: Draw, cost: Cost) -> Tensor:
        assert isinstance(draw, MovedDraw)
        value = _cost_of(draw, cost)
        total = value.mean(0)
        slope = (value[: self.n] - value[self.n :]) / (2 * self.scale)
        for u, e in zip(draw.where, draw.directions, strict=True):
            wide = slope.reshape(*slope.shape, *[1] * (e.dim() - slope.dim()))
            part = (wide * e).mean(0) * (u - u.detach())
            total = total + part.reshape(*total.shape, -1).sum(-1)
        return total

    def _direction(self, like: Tensor) -> Tensor:
        e = torch.randn(self.n, *like.shape, dtype=like.dtype, device=like.device)
        return e.sign() if self.signs else e


@dataclass(frozen=True)
class MovedDraw(Draw):
    """Samples of the moved distributions, the coordinates (*batch, *rest), the directions (n, *batch, *rest)."""

    where: list[Tensor]
    directions: list[Tensor]


@singledispatch
def coordinates(base: Distribution) -> Coordinates:
    """The family's unconstrained coordinates and how it is sampled from fixed random numbers."""
    raise ValueError(f"es does not know how to move the parameters of {name_of(base)}")


@coordinates.register
def _(base: Normal) -> Coordinates:
    where = [base.loc, base.scale.log()]
    return Coordinates(where, lambda n: _like(torch.randn, base.loc, n), lambda u, e: u[0] + u[1].exp() * e)


@coordinates.register
def _(base: Bernoulli) -> Coordinates:
    def sample(u: list[Tensor], noise: Tensor) -> Tensor:
        return (noise < u[0].sigmoid()).to(noise.dtype)

    return Coordinates([base.logits], lambda n: _like(torch.rand, base.logits, n), sample)


@coordinates.register
def _(base: Binomial) -> Coordinates:
    trials = getattr(base, "trials", None)  # ours knows it without waiting for the device
    if trials is None:
        trials = int(base.total_count.max())
        if base.total_count.min() != trials:
            raise ValueError("es moves a Binomial only if all its entries have one total_count")
    each = base.logits.unsqueeze(-1).expand(*base.logits.shape, trials)

    def sample(u: list[Tensor], noise: Tensor) -> Tensor:
        return (noise < u[0].sigmoid().unsqueeze(-1)).to(noise.dtype).sum(-1)

    return Coordinates([base.logits], lambda n: _like(torch.rand, each, n), sample)


@coordinates.register
def _(base: OneHotCategorical) -> Coordinates:
    def sample(u: list[Tensor], noise: Tensor) -> Tensor:
        scores = u[0] - (-clamp_probs(noise).log()).log()
        return torch.zeros_like(scores).scatter_(-1, scores.argmax(-1, keepdim=True), 1.0)

    return Coordinates([base.logits], lambda n: _like(torch.rand, base.logits, n), sample)


@coordinates.register
def _(base: Implicit) -> Coordinates:
    return Coordinates([base.value], lambda n: base.value[:0], lambda u, _: u[0])


def _like(draw: Callable[..., Tensor], like: Tensor, n: int) -> Tensor:
    return draw(n, *like.shape, dtype=like.dtype, device=like.device)
