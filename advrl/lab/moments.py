r"""Streaming moments of vectors, in float64, that merge: over chunks of draws, and over the ranks of a distributed run.

Of R draws g in R^P with u = g - c for a fixed centre c and q = |u|^2, what is kept is

    mean(u), sum (u - mean)^2 per coordinate,    mean(q), sum (q - mean)^2,    sum (u - mean)(q - mean) per coordinate

Two sets merge exactly by Chan, Golub & LeVeque (1979) and Pébay (2008), eq. 2.1 and 3.x for co-moments. The total
variance V is the sum over coordinates; its standard error needs the spread of |g - mean|^2 = q - 2 d.u + |d|^2 with d =
mean(u),

    Var |g - mean|^2 = Var q - 4 d.Cov(q, u) + 4 d'Cov(u)d

whose last term is taken with Cov(u)'s diagonal alone: exact for P = 1, and else of the order |d|^2, which a centre near
the mean keeps below all others. The fourth moment of the draws is in Var q: heavy tails widen the error as they should.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.distributed as dist
from torch import Tensor

from advrl.distributed import world_size


@dataclass(frozen=True)
class Moments:
    """Moments of ``count`` draws of P numbers about a common ``centre`` (P,); all float64.

    Args:
        centre: (P,) c; two sets merge if it is the same.
        count: R.
        first: (P,) mean of u.
        second: (P,) sum of (u - mean)^2.
        size: () mean of q.
        spread: () sum of (q - mean)^2.
        skew: (P,) sum of (u - mean)(q - mean).
    """

    centre: Tensor
    count: int
    first: Tensor
    second: Tensor
    size: Tensor
    spread: Tensor
    skew: Tensor

    @classmethod
    def empty(cls, centre: Tensor) -> Moments:
        """Of no draws."""
        centre = centre.double()
        none = centre.new_zeros(())
        return cls(centre, 0, centre * 0, centre * 0, none, none, centre * 0)

    @classmethod
    def of(cls, draws: Tensor, centre: Tensor) -> Moments:
        """Of draws (R, P)."""
        u = draws.double() - centre
        q = (u * u).sum(1)
        first, size = u.mean(0), q.mean()
        away, far = u - first, q - size
        return cls(centre, len(u), first, (away * away).sum(0), size, (far * far).sum(), far @ away)

    def merge(self, other: Moments) -> Moments:
        """Of the draws of both."""
        count = self.count + other.count
        if not self.count or not other.count:
            return other if other.count else self
        step, leap = other.first - self.first, other.size - self.size
        share = other.count / count
        both = self.count * share
        return Moments(
            self.centre,
            count,
            self.first + step * share,
            self.second + other.second + step * step * both,
            self.size + leap * share,
            self.spread + other.spread + leap * leap * both,
            self.skew + other.skew + step * leap * both,
        )

    @cached_property
    def mean(self) -> Tensor:
        """(P,) mean of the draws."""
        return self.centre + self.first

    @cached_property
    def variance(self) -> Tensor:
        """(P,) unbiased variance of each coordinate of one draw."""
        return self.second / (self.count - 1)

    @cached_property
    def error(self) -> Tensor:
        """(P,) standard error of the mean."""
        return (self.variance / self.count).sqrt()

    @cached_property
    def total(self) -> float:
        """The total variance, summed over coordinates."""
        return float(self.variance.sum())

    @cached_property
    def total_error(self) -> float:
        """Standard error of the total variance, from the draws' fourth moment.

        For P = 1 it is sqrt((m4 - s^4) / R + 2 s^4 / (R (R - 1))), which for normal draws is s^2 sqrt(2 / R).
        """
        d, count = self.first, self.count
        spread = float(self.spread) + 4 * float(d @ (d * self.second - self.skew))
        second = 2 * float(self.variance @ self.variance) / (count * (count - 1))  # all that is left of a fair coin's
        return (max(spread, 0.0) / count**2 + second) ** 0.5


def gather(moments: Moments) -> Moments:
    """Merge the moments of all ranks, in the order of the ranks, so that every rank has the same."""
    ranks = world_size()
    if ranks == 1:
        return moments
    m = moments
    count = m.first.new_tensor([m.count])
    flat = torch.cat([count, m.size[None], m.spread[None], m.first, m.second, m.skew])
    parts = [torch.empty_like(flat) for _ in range(ranks)]
    dist.all_gather(parts, flat)
    merged = Moments.empty(m.centre)
    for part in parts:
        first, second, skew = part[3:].chunk(3)
        merged = merged.merge(Moments(m.centre, int(part[0]), first, second, part[1], part[2], skew))
    return merged


def summed(value: Tensor) -> Tensor:
    """The sum of a tensor over all ranks; itself with one."""
    if world_size() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value
