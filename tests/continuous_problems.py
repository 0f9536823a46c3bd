"""Families with their expectations by quadrature or enumeration, and the estimators that are tested on them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    Exponential,
    Independent,
    Normal,
    Poisson,
)

from advrl.distributions import Binomial, OneHotCategorical
from advrl.estimators import (
    Antithetic,
    AntitheticScore,
    ControlVariate,
    Critic,
    Importance,
    Lax,
    Measure,
    Score,
    Taylor,
    leave_one_out,
    optimal_baseline,
)

F64 = torch.float64


WEIGHTS = torch.tensor([0.6, -0.9], dtype=F64)


def cost(x: Tensor, w: Tensor) -> Tensor:
    """Neither linear nor separable, (*, 2) and (*, 2) to (*); w are the cost's parameters."""
    y = x @ WEIGHTS - 0.8
    return w[..., 0] * (y**2 + 0.2 * y**3) + w[..., 1] * (x[..., 0] * x[..., 1]).sin()


def cost_of_levels(x: Tensor, w: Tensor) -> Tensor:
    """The same of one-hot rows (*, 2, 3)."""
    return cost(x @ torch.tensor([0.0, 1.0, 2.5], dtype=F64), w)


@dataclass(frozen=True)
class Family:
    """A distribution of two variables from its parameters (*, k), and every outcome with its weight."""

    theta: Tensor
    make: Callable[[Tensor], Distribution]
    outcomes: Callable[[Tensor], tuple[Tensor, Tensor]]
    cost: Callable[[Tensor, Tensor], Tensor] = cost

    def expectation(self, theta: Tensor, w: Tensor) -> Tensor:
        """E[cost], differentiable in the parameters to any order."""
        x, weight = self.outcomes(theta)
        return (weight * self.cost(x, w)).sum()


def grid(values: Tensor) -> Tensor:
    return torch.cartesian_prod(values, values)


def gauss(rule: Callable[[int], tuple[np.ndarray, np.ndarray]], n: int) -> tuple[Tensor, Tensor]:
    points, weights = (torch.from_numpy(a) for a in rule(n))
    return grid(points), grid(weights / weights.sum()).prod(-1)


HERMITE, LAGUERRE = gauss(np.polynomial.hermite_e.hermegauss, 40), gauss(np.polynomial.laguerre.laggauss, 80)


def enumerated(make: Callable[[Tensor], Distribution], outcomes: Tensor):
    return lambda theta: (outcomes, make(theta).log_prob(outcomes).exp())


def normal(theta: Tensor) -> Distribution:
    return Independent(Normal(theta[..., :2], theta[..., 2:].exp()), 1)


def bernoulli(theta: Tensor) -> Distribution:
    return Independent(Bernoulli(logits=theta), 1)


def binomial(theta: Tensor) -> Distribution:
    return Independent(Binomial(3, theta), 1)


def torch_binomial(theta: Tensor) -> Distribution:
    return Independent(torch.distributions.Binomial(3, probs=theta.sigmoid()), 1)


def poisson(theta: Tensor) -> Distribution:
    return Independent(Poisson(theta.exp()), 1)


def exponential(theta: Tensor) -> Distribution:
    return Independent(Exponential(theta.exp()), 1)


def one_hot(theta: Tensor) -> Distribution:
    return Independent(OneHotCategorical(logits=theta.unflatten(-1, (2, 3))), 1)


def categorical(theta: Tensor) -> Distribution:
    return Independent(Categorical(probs=theta.unflatten(-1, (2, 3)).exp()), 1)


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=F64)


LEVELS = tensor(0, 1, 2)


FAMILIES = {
    "normal": Family(tensor(0.4, -0.7, -0.5, 0.1), normal, lambda t: (t[:2] + t[2:].exp() * HERMITE[0], HERMITE[1])),
    "bernoulli": Family(tensor(0.4, -0.8), bernoulli, enumerated(bernoulli, grid(tensor(0, 1)))),
    "binomial": Family(tensor(0.4, -0.8), binomial, enumerated(binomial, grid(tensor(0, 1, 2, 3)))),
    "torch's binomial": Family(tensor(0.4, -0.8), torch_binomial, enumerated(torch_binomial, grid(tensor(0, 1, 2, 3)))),
    "poisson": Family(tensor(0.3, -0.4), poisson, enumerated(poisson, grid(torch.arange(40, dtype=F64)))),
    "exponential": Family(tensor(0.3, 0.5), exponential, lambda t: (LAGUERRE[0] / t.exp(), LAGUERRE[1])),
    "one-hot": Family(
        tensor(0.3, -0.5, 0.2, 1.0, 0.1, -0.4),
        one_hot,
        enumerated(one_hot, torch.eye(3, dtype=F64)[grid(torch.arange(3))]),
        cost_of_levels,
    ),
    "categorical": Family(
        tensor(0.3, -0.5, 0.2, 1.0, 0.1, -0.4),
        categorical,
        enumerated(categorical, grid(LEVELS)),
        lambda x, w: cost(x.double(), w),
    ),
}


W = tensor(1.0, 0.7)


class Stand(nn.Module):
    """A control variate of some shape, (*, 2) to (*, 1)."""

    def forward(self, x: Tensor) -> Tensor:
        return (0.5 * (x @ WEIGHTS.to(x.dtype)) ** 2 + x[..., 0].tanh()).unsqueeze(-1)


class Slope(nn.Module):
    """A critic of some shape."""

    def forward(self, context: Tensor) -> Tensor:
        return 1.0 + context.sum(-1)


def wider(q: Distribution) -> Distribution:
    assert isinstance(q, Independent)
    if isinstance(q.base_dist, Normal):
        return Independent(Normal(q.base_dist.loc.detach() + 0.2, 1.3 * q.base_dist.scale.detach()), 1)
    return Independent(type(q.base_dist)(logits=0.5 * q.base_dist.logits.detach()), 1)


ANY = ("normal", "bernoulli", "one-hot")


UNBIASED = {
    "optimal, 2": (Score(2, optimal_baseline), (*ANY, "binomial", "categorical", "poisson", "exponential")),
    "optimal, 5": (Score(5, optimal_baseline), ANY),
    "critic": (Score(2, Critic(Slope())), ANY),
    "critic, made for it": (Score(2, Critic()), ANY),
    "antithetic": (Antithetic(1), ("normal",)),
    "antithetic score": (AntitheticScore(2), ("normal",)),
    "measure": (Measure(1), tuple(FAMILIES)),
    "measure, 3, independent": (Measure(3, coupled=False), tuple(FAMILIES)),
    "taylor, 1": (Taylor(2, order=1), (*ANY, "binomial", "poisson", "exponential")),
    "taylor, 2": (Taylor(2, order=2), (*ANY, "binomial", "poisson", "exponential")),
    "lax": (Lax(2, ControlVariate(Stand())), ("normal", "exponential")),
    "importance": (Importance(2, wider), ANY),
    "importance, leave-one-out": (Importance(3, wider, leave_one_out), ANY),
}


CASES = [(name, family) for name, (_, families) in UNBIASED.items() for family in families]


def estimates(estimator, family: Family, replicates: int) -> tuple[Tensor, Tensor, Tensor]:
    """Values (replicates,) of independent estimates, and the leaves that they depend on: a copy per replicate."""
    theta = family.theta.expand(replicates, -1).clone().requires_grad_()
    w = W.expand(replicates, 2).clone().requires_grad_()
    return estimator(family.make(theta), lambda x: family.cost(x, w)), theta, w
