"""Small discrete problems with all their outcomes, and the estimators that are tested on them."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, Distribution, Independent

from advrl.distributions import Binomial, OneHotCategorical
from advrl.estimators import (
    Arm,
    ControlVariate,
    DisArm,
    Enumerate,
    Estimator,
    GumbelRao,
    GumbelSoftmax,
    Learned,
    MuProp,
    RaoBlackwell,
    Rebar,
    ReinMax,
    Relax,
    UnorderedSet,
)
from tests.statistics import assert_unbiased

F64 = torch.float64


REPLICATES = 6_000


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=F64)


class Net(nn.Module):
    """A fixed perceptron, flattened samples (*, D) to (*)."""

    def __init__(self, d: int, seed: int = 3, hidden: int = 8) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.a = nn.Parameter(torch.randn(d, hidden, generator=g, dtype=F64), requires_grad=False)
        self.b = nn.Parameter(torch.randn(hidden, generator=g, dtype=F64), requires_grad=False)
        self.c = nn.Parameter(torch.randn(hidden, generator=g, dtype=F64), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.a + self.b) @ self.c


@dataclass(frozen=True)
class Problem:
    """A distribution from its parameters (*, k), and every outcome of its ``variables`` from those of one."""

    theta: Tensor
    make: Callable[[Tensor], Distribution]
    values: Tensor  # (K, *value)
    variables: int

    @property
    def outcomes(self) -> Tensor:
        """(M, *event)"""
        rows = [torch.stack(row) for row in itertools.product(self.values, repeat=self.variables)]
        return torch.stack(rows).reshape(len(rows), *self.make(self.theta).event_shape)

    @property
    def net(self) -> Net:
        return Net(math.prod(self.make(self.theta).event_shape))

    def cost(self, x: Tensor, w: Tensor) -> Tensor:
        """A perceptron's and a square, weighted by the cost's parameters w (*, 2)."""
        x = x.to(F64).flatten(x.dim() - len(self.make(self.theta).event_shape)) if self.event else x.to(F64)[..., None]
        return w[..., 0] * (self.net(x) + 0.7) + w[..., 1] * (x.cumsum(-1)[..., -1] - 0.6 * x[..., 0] - 0.45) ** 2

    @property
    def event(self) -> bool:
        return bool(self.make(self.theta).event_shape)

    def expectation(self, theta: Tensor, w: Tensor) -> Tensor:
        """E[cost] by the sum over all outcomes, differentiable to any order."""
        return (self.make(theta).log_prob(self.outcomes).exp() * self.cost(self.outcomes, w)).sum()


COIN, LEVELS = tensor(0, 1), tensor(0, 1, 2, 3)


PROBLEMS = {
    "bernoulli": Problem(
        tensor(0.4, -0.8, 1.1, 0.0), lambda t: Independent(Bernoulli(logits=t), 1), COIN, 4
    ),
    "bernoulli, probs": Problem(
        tensor(0.4, 0.2, 0.7), lambda t: Independent(Bernoulli(probs=t), 1), COIN, 3
    ),
    "binomial": Problem(tensor(0.4, -0.8), lambda t: Independent(Binomial(3, t), 1), LEVELS, 2),
    "torch's binomial": Problem(
        tensor(0.4, -0.8), lambda t: Independent(torch.distributions.Binomial(3, logits=t), 1), LEVELS, 2
    ),
    "one-hot": Problem(
        tensor(0.3, -0.5, 0.2, 1.0, -1.5), lambda t: OneHotCategorical(logits=t), torch.eye(5, dtype=F64), 1
    ),
    "one-hot, probs": Problem(
        tensor(0.3, 0.5, 0.2), lambda t: torch.distributions.OneHotCategorical(probs=t), torch.eye(3, dtype=F64), 1
    ),
    "one-hots": Problem(
        tensor(0.3, -0.5, 0.2, 1.0, 0.1, -0.4),
        lambda t: Independent(OneHotCategorical(logits=t.unflatten(-1, (2, 3))), 1),
        torch.eye(3, dtype=F64),
        2,
    ),
    "categorical": Problem(tensor(0.3, -0.5, 0.2, 1.0, -1.5), lambda t: Categorical(logits=t), torch.arange(5), 1),
    "categoricals": Problem(
        tensor(0.3, -0.5, 0.2, 1.0, 0.1, -0.4),
        lambda t: Independent(Categorical(probs=t.unflatten(-1, (2, 3)).exp()), 1),
        torch.arange(3),
        2,
    ),
}  # fmt: skip


W = tensor(1.0, 0.7)


COINS = ("bernoulli", "bernoulli, probs", "binomial", "torch's binomial")


DICE = ("one-hot", "one-hot, probs", "one-hots")


INDICES = ("categorical", "categoricals")


class Stand(ControlVariate):
    """A control variate of some shape for samples of any size."""

    def build(self, distribution: Distribution) -> None:
        self.net = Net(distribution.event_shape.numel(), seed=5)


UNBIASED: dict[str, tuple[Estimator, tuple[str, ...]]] = {
    "rao-blackwell": (RaoBlackwell(1, k=2), (*COINS, *DICE, *INDICES)),
    "rao-blackwell, 3": (RaoBlackwell(3, k=1), ("bernoulli", "one-hots")),
    "unordered set, 2": (UnorderedSet(2), (*COINS, *DICE, *INDICES)),
    "unordered set, 3": (UnorderedSet(3), ("bernoulli", "one-hot", "categoricals")),
    "rebar": (Rebar(1), (*COINS, *DICE)),
    "rebar, 3, half": (Rebar(3, temperature=0.8, eta=0.5), ("bernoulli", "one-hots")),
    "rebar, learned": (Rebar(2, Learned(0.7), Learned(0.9)), ("bernoulli", "one-hot")),
    "relax": (Relax(2, 0.7, control=Stand()), (*COINS, *DICE)),
    "muprop": (MuProp(1), (*COINS, *DICE)),
    "arm": (Arm(1), COINS),
    "disarm": (DisArm(1), COINS),
    "disarm, 3": (DisArm(3), ("bernoulli", "binomial")),
}


CASES = [(name, problem) for name, (_, problems) in UNBIASED.items() for problem in problems]


EXACT = {
    "enumerate": Enumerate(),
    "rao-blackwell, all": RaoBlackwell(1, k=100),
}


BIASED = {
    "st-gumbel": GumbelSoftmax(2, hard=True),
    "gumbel-rao": GumbelRao(2, k=3),
    "reinmax": ReinMax(2),
}


def estimates(estimator: Estimator, problem: Problem, replicates: int) -> tuple[Tensor, Tensor, Tensor]:
    """Values (replicates,) of independent estimates, and the leaves that they depend on: a copy per replicate."""
    theta = problem.theta.expand(replicates, -1).clone().requires_grad_()
    w = W.expand(replicates, 2).clone().requires_grad_()
    return estimator(problem.make(theta), lambda x: problem.cost(x, w)), theta, w


def hessian(problem: Problem) -> Tensor:
    """Second derivatives (k, k + 2) of the exact expectation in theta, then in theta and w."""
    k = len(problem.theta)
    full = torch.autograd.functional.hessian(
        lambda both: problem.expectation(both[:k], both[k:]), torch.cat([problem.theta, W])
    )
    return full[:k]


def derivatives(estimator: Estimator, problem: Problem, replicates: int) -> tuple[Tensor, Tensor, Tensor]:
    """Values (replicates,), gradients (replicates, k + 2) and second derivatives (replicates, k, k + 2)."""
    value, theta, w = estimates(estimator, problem, replicates)
    first = torch.autograd.grad(value.sum(), (theta, w), create_graph=True)
    rows = []
    for j in range(theta.shape[1]):
        parts = torch.autograd.grad(first[0][:, j].sum(), (theta, w), retain_graph=True, materialize_grads=True)
        rows.append(torch.cat(parts, 1))
    return value.detach(), torch.cat(first, 1).detach(), torch.stack(rows, 1)


def assert_columns(draws: Tensor, exact: Tensor) -> None:
    """As ``assert_unbiased``; a column without spread beyond rounding must be exact."""
    fixed = draws.std(0) < 1e-12 * (1 + exact.abs())
    torch.testing.assert_close(draws[:, fixed], exact[fixed].expand(len(draws), -1), rtol=1e-9, atol=1e-9)
    if not fixed.all():
        assert_unbiased(draws[:, ~fixed], exact[~fixed])


ALL: dict[str, tuple[Estimator, tuple[str, ...]]] = {
    **UNBIASED,
    **{name: (estimator, tuple(PROBLEMS)) for name, estimator in EXACT.items()},
    **{name: (estimator, (*COINS, *DICE)) for name, estimator in BIASED.items()},
}
