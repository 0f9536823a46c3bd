r"""The GAN's game on a finite set: played with densities it converges, with parameters it may go round.

Data p (K,), generator q (K,), discriminator's logits a (K,), and Goodfellow et al. (2014), eq. 1,

    V(q, a) = sum_k p_k log sigmoid(a_k) + q_k log sigmoid(-a_k),

which is linear in q and concave in a: a convex-concave game with one equilibrium, q = p and a = 0, worth -log 4. What
spoils it is the map from parameters to q and a, or the order of play: min max, the discriminator answering, leads to p;
max min, the generator answering, puts all of q on one outcome, wherever the discriminator is fooled best: Goodfellow
(2016), sections 5.1.1 and 5.1.2. Discriminators that answer best are in ``advrl.tabular``. Shapes: K outcomes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from advrl.checks import integer, number
from advrl.games.game import Game, Params, zero_sum
from advrl.tabular import jensen_shannon


def finite_gan(
    data: Tensor,
    generator: Callable[[Params], Tensor] | None = None,
    discriminator: Callable[[Params], Tensor] | None = None,
) -> Game:
    """V(q(x), a(y)): x the generator's parameters, minimising, y the discriminator's.

    Where neither draws an outcome, the gradient at its logit is exactly 0: it keeps the value that it began with.

    Args:
        data: (K,) probabilities p.
        generator: x to probabilities (K,); the softmax of x (K,) if ``None``.
        discriminator: y to logits (K,); y (K,) itself if ``None``.
    """
    _probabilities("data", data)

    def value(x: Params, y: Params) -> Tensor:
        q = x.softmax(-1) if generator is None else generator(x)
        return _value(data, q, y if discriminator is None else discriminator(y))

    return zero_sum(value, "finite-gan")


def density_step(data: Tensor, density: Tensor, rate: float = 1.0) -> Tensor:
    r"""(K,) the generator's density after one step in the space of densities, against the best discriminator.

    The mirror descent of the simplex, q <- q exp(-rate dV/dq) / Z with dV/dq = log(1 - D*) = log(q / (p + q)), which is
    the geometric mean q^(1 - rate) (p + q)^rate / Z. With rate 1, q <- (p + q) / 2: the total variation to the data
    halves with every step.

    Args:
        data: (K,) probabilities p.
        density: (K,) probabilities q.
        rate: of the step, in (0, 1].
    """
    _probabilities("data", data)
    _probabilities("density", density)
    rate = number("rate", rate, 0, 1, exclusive=True)
    weights = density.pow(1 - rate) * (data + density).pow(rate)
    return weights / weights.sum()


class Picks(NamedTuple):
    """What ``max_min_play`` saw: the outcome that held all of q at each step (T,), and min_q V (T,)."""

    outcomes: Tensor
    values: Tensor


def max_min_play(data: Tensor, steps: int, rate: float = 0.1) -> Picks:
    """max_a min_q V: before each gradient step of the discriminator, by ``rate``, the generator answers best.

    Its best answer is always one outcome, that of the largest logit, so total variation to the data never falls below
    1 - max p: modes are dropped, and hopped between. Only the average over time comes to p, and min_q V to -log 4.

    Args:
        data: (K,) probabilities p.
        steps: T, how many.
        rate: of the discriminator's ascent.
    """
    _probabilities("data", data)
    number("rate", rate, 0, exclusive=True)
    logit = torch.zeros_like(data)
    outcomes, values = [], []
    for _ in range(integer("steps", steps)):
        pick = logit.argmax()
        outcomes.append(pick)
        q = torch.zeros_like(data).index_fill(0, pick, 1.0)
        values.append(_value(data, q, logit))
        logit = logit + rate * (data * (-logit).sigmoid() - q * logit.sigmoid())
    return Picks(torch.stack(outcomes), torch.stack(values))


def gan_gap(data: Tensor, density: Tensor, logit: Tensor) -> Tensor:
    """() max_a V(q, a) - min_q V(q, a) at (q, a): 0 at q = p, a = 0 alone, where nobody gains by moving.

    The first is 2 JS(p, q) - log 4; the second has all of q on the outcome of the largest logit.
    """
    best = torch.zeros_like(density).index_fill(0, logit.argmax(), 1.0)
    top = 2 * jensen_shannon(data, density) - math.log(4)
    return top - _value(data, best, logit)


def total_variation(p: Tensor, q: Tensor) -> Tensor:
    """(*batch,) half of sum |p - q|, from 0 to 1; p and q are (*batch, K)."""
    return (p - q).abs().sum(-1) / 2


def _value(data: Tensor, density: Tensor, logit: Tensor) -> Tensor:
    """() V(q, a), 0 log 0 being 0: infinite logits are for outcomes that only one of them draws."""
    real = torch.where(data > 0, data * logsigmoid(torch.where(data > 0, logit, 0.0)), 0.0)
    fake = torch.where(density > 0, density * logsigmoid(-torch.where(density > 0, logit, 0.0)), 0.0)
    return (real + fake).sum()


def _probabilities(name: str, value: Tensor) -> None:
    if value.dim() != 1 or not bool((value >= 0).all()) or abs(float(value.sum()) - 1) > 1e-5:
        raise ValueError(f"{name} must be (K,) probabilities that sum to 1, got {value.tolist()}")
