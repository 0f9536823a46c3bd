"""Estimators of discrete variables: the nine tests of each, by enumeration and closed forms."""

import copy
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, Distribution, Independent, Normal

from advrl.agents import AdversarialTrainer, fit
from advrl.distributions import Binomial, Implicit, OneHotCategorical, relaxed_rsample
from advrl.estimators import (
    ESTIMATORS,
    Arm,
    ControlVariate,
    DisArm,
    Draw,
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
    Score,
    StraightThrough,
    UnorderedSet,
    conditional_gumbel,
    fit_loss,
    leave_one_out,
    make_estimator,
    modules_of,
    reinmax,
)
from advrl.nn import FAMILIES as POLICIES
from advrl.nn import MLP, Policy
from advrl.seeding import rng_state, seed_everything
from tests.pairs import KINDS
from tests.statistics import FALSE_ALARM, assert_unbiased

F64 = torch.float64
REPLICATES = 6_000


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=F64)


# ---------------------------------------------------------------------------------------------- problems


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


# ------------------------------------------------------------------- 1, 5, 7: expectations, to second order


@pytest.mark.parametrize(("name", "problem"), CASES)
def test_unbiased_to_second_order(name, problem):
    """Value, gradient in the distribution's and the cost's parameters, and the Hessian's rows, each cell by itself."""
    torch.manual_seed(0)
    estimator, problem = copy.deepcopy(UNBIASED[name][0]), PROBLEMS[problem]
    assert estimator.unbiased and estimator.higher_order
    value, first, second = derivatives(estimator, problem, REPLICATES)
    at = problem.theta.clone().requires_grad_(), W.clone().requires_grad_()
    exact = problem.expectation(*at)
    gradient = torch.cat(torch.autograd.grad(exact, at))
    assert_columns(torch.cat([value[:, None], first], 1), torch.cat([exact.detach()[None], gradient]))
    assert_columns(second.flatten(1), hessian(problem).flatten())


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", EXACT)
def test_sums_over_all_outcomes_are_exact(name, problem):
    problem = PROBLEMS[problem]
    value, first, second = derivatives(EXACT[name], problem, 2)
    at = problem.theta.clone().requires_grad_(), W.clone().requires_grad_()
    exact = problem.expectation(*at)
    torch.testing.assert_close(value, exact.detach().expand(2))
    torch.testing.assert_close(first, torch.cat(torch.autograd.grad(exact, at)).expand_as(first))
    torch.testing.assert_close(second, hessian(problem).expand_as(second))


@pytest.mark.parametrize(
    "estimator",
    [Rebar(2), Relax(2, control=Stand()), MuProp(2), DisArm(1), Arm(1), RaoBlackwell(2), UnorderedSet(3)],
    ids=repr,
)
def test_unbiased_on_ten_coins(estimator):
    """1,024 outcomes: what one or two variables forgive (a sum over the wrong dimension) shows in ten."""
    torch.manual_seed(0)
    theta = torch.linspace(-1.5, 1.2, 10, dtype=F64)
    problem = Problem(theta, lambda t: Independent(Bernoulli(logits=t), 1), COIN, 10)
    net, outcomes = Net(10), (torch.arange(1024)[:, None] >> torch.arange(10) & 1).to(F64)
    at = theta.clone().requires_grad_()
    exact = (problem.make(at).log_prob(outcomes).exp() * net(outcomes)).sum()
    copies = theta.expand(2_000, -1).clone().requires_grad_()
    value = copy.deepcopy(estimator)(problem.make(copies), net)
    gradient = torch.autograd.grad(value.sum(), copies)[0]
    assert_unbiased(gradient, torch.autograd.grad(exact, at)[0])
    assert_unbiased(value.detach()[:, None], exact.detach()[None])


# --------------------------------------------------------------------------------- 2: biased ones


def expected_gradient(slope: Callable[[Tensor, Tensor], Tensor], problem: Problem) -> Tensor:
    """E[gradient] of a straight-through estimator by the sum over hard samples; ``slope`` maps theta and hard to x."""
    theta = problem.theta.clone().requires_grad_()
    p = problem.make(problem.theta).log_prob(problem.outcomes).exp()
    return torch.autograd.grad((p * quadratic(slope(theta, problem.outcomes))).sum(), theta)[0]


def quadratic(x: Tensor) -> Tensor:
    """Quadratic in each variable, with products between them."""
    x = x.flatten(1)
    a = torch.randn(x.shape[1], x.shape[1], dtype=F64, generator=torch.Generator().manual_seed(4))
    return ((x @ a) * x).sum(1) + x @ a[0]


@pytest.mark.parametrize("problem", ["bernoulli", "one-hot", "one-hots"])
def test_reinmax_is_exact_for_quadratic_costs_and_straight_through_is_not(problem):
    problem = PROBLEMS[problem]
    binary = problem.values.dim() == 1

    def second(theta: Tensor, hard: Tensor) -> Tensor:
        return reinmax(theta.reshape(hard.shape[1:]).expand_as(hard), binary=binary, hard=hard)

    def first(theta: Tensor, hard: Tensor) -> Tensor:
        mean = problem.make(theta).mean
        return hard + (mean - mean.detach())

    theta = problem.theta.clone().requires_grad_()
    p = problem.make(theta).log_prob(problem.outcomes).exp()
    exact = torch.autograd.grad((p * quadratic(problem.outcomes)).sum(), theta)[0]
    torch.testing.assert_close(expected_gradient(second, problem), exact)
    assert (expected_gradient(first, problem) - exact).abs().max() > 0.01


def test_reinmax_is_not_exact_for_a_cube():
    theta = tensor(0.3, -1.0, 0.8).requires_grad_()
    p, hard, values = theta.softmax(0), torch.eye(3, dtype=F64), tensor(0, 1, 3)
    x = reinmax(theta.expand(3, 3), hard=hard)
    found = torch.autograd.grad((p.detach() * (x @ values) ** 3).sum(), theta, retain_graph=True)[0]
    exact = torch.autograd.grad(p @ values**3, theta)[0]
    assert (found - exact).abs().max() > 0.01


def test_reinmax_on_a_binomial_is_that_on_its_coins():
    """Exact for the square of a count."""
    torch.manual_seed(0)
    logits = tensor(0.4, -0.8)
    theta = logits.expand(REPLICATES, 2).clone().requires_grad_()
    g = torch.autograd.grad(ReinMax()(Independent(Binomial(5, theta), 1), lambda x: (x**2).sum(-1)).sum(), theta)[0]
    p = logits.sigmoid()
    assert_unbiased(g, (5 * (1 - 2 * p) + 50 * p) * p * (1 - p))  # E x^2 = 5 p (1 - p) + 25 p^2


def test_gumbel_rao_has_the_bias_of_st_gumbel_and_less_variance():
    """The expectation of both by quadrature over the noise; for a quadratic cost it vanishes with t."""
    u = (torch.arange(400_000, dtype=F64) + 0.5) / 400_000
    bias = []
    for temperature in (1.0, 0.3, 0.03):
        logit = tensor(0.6).squeeze().requires_grad_()
        p = logit.sigmoid().detach()
        z = logit + u.logit()
        soft = (z / temperature).sigmoid()
        x = (z > 0).to(F64) + (soft - soft.detach())
        mean = torch.autograd.grad(((x - 0.2) ** 2).mean(), logit)[0]
        variances = []
        for estimator in (GumbelSoftmax(1, temperature, hard=True), GumbelRao(1, temperature, k=8)):
            torch.manual_seed(0)
            theta = logit.detach().expand(20_000, 1).clone().requires_grad_()
            value = estimator(Independent(Bernoulli(logits=theta), 1), lambda x: ((x - 0.2) ** 2).sum(-1))
            g = torch.autograd.grad(value.sum(), theta)[0]
            assert_unbiased(g, mean[None])
            variances.append(g.var())
        assert variances[1] < variances[0]
        bias.append((mean - p * (1 - p) * (0.8**2 - 0.2**2)).abs())
    assert bias[2] < bias[1] / 4  # of first order in t: about a tenth


@pytest.mark.parametrize("problem", [*COINS, *DICE])
@pytest.mark.parametrize("name", BIASED)
def test_biased_estimators_say_so_and_their_value_is_exact_in_expectation(name, problem):
    torch.manual_seed(0)
    estimator, problem = BIASED[name], PROBLEMS[problem]
    assert not estimator.unbiased
    theta = problem.theta.expand(REPLICATES, -1).clone()
    draw = estimator.draw(problem.make(theta))
    torch.testing.assert_close(draw.x, draw.x.round(), rtol=0, atol=1e-9)  # hard, whatever its gradient
    value = estimator.surrogate(draw, lambda x: problem.cost(x, W))
    assert_unbiased(value[:, None], problem.expectation(problem.theta, W)[None])


# --------------------------------------------------------------------------------- 3: variances


def toy(estimator: Estimator, p: float, t: float, replicates: int = 40_000) -> Tensor:
    """Gradients (replicates, 1) of E[(b - t)^2], b ~ Bernoulli(p), in the logit. Tucker et al. (2017), section 5.1."""
    theta = torch.full((replicates,), p, dtype=F64).logit().requires_grad_()
    value = estimator(Bernoulli(logits=theta), lambda b: (b - t) ** 2)
    return torch.autograd.grad(value.sum(), theta)[0][:, None]


@dataclass(frozen=True)
class Toy:
    """Closed forms of the toy's variances."""

    p: float
    t: float

    def variances(self) -> dict[str, tuple[Estimator, float]]:
        p, q, a, b = self.p, 1 - self.p, (1 - self.t) ** 2, self.t**2
        m, d2 = min(p, q), (a - b) ** 2
        return {
            "score": (Score(1), p * q * (q * a + p * b) ** 2),
            "score, optimal": (Score(1, q * a + p * b), 0.0),
            "leave-one-out, 2": (Score(2, leave_one_out), d2 * p * q * (1 - 2 * p * q) / 2),
            "disarm": (DisArm(1), d2 * p * q * (max(p, q) / 2 - p * q)),
            "arm": (Arm(1), d2 * ((1 - (1 - 2 * m) ** 3) / 12 - m**2 * (1 - m) ** 2)),
            "relax, untrained": (Relax(1), p * q * (q * a + p * b) ** 2),
            "rebar, eta 0": (Rebar(1, eta=0.0), p * q * (q * a + p * b) ** 2),
            "muprop": (MuProp(1), p * q * (p**3 + q**3) ** 2),
            "enumerate": (Enumerate(), 0.0),
            "rao-blackwell": (RaoBlackwell(1, k=1), 0.0),
            "unordered set": (UnorderedSet(2), 0.0),
        }


TOYS = [Toy(0.5, 0.45), Toy(0.3, 0.45), Toy(0.7, 0.499)]


@pytest.mark.parametrize("name", TOYS[0].variances())
@pytest.mark.parametrize("toy_", TOYS, ids=repr)
def test_variance_on_tucker_s_toy(toy_, name):
    torch.manual_seed(0)
    estimator, variance = toy_.variances()[name]
    truth = toy_.p * (1 - toy_.p) * (1 - 2 * toy_.t)
    g = toy(estimator, toy_.p, toy_.t)
    if variance < 1e-20:
        torch.testing.assert_close(g, torch.full_like(g, truth))
        return
    assert_unbiased(g, tensor(truth))
    squares = (g - truth) ** 2  # the mean of these is the variance; their own spread bounds the error
    if squares.std() < 1e-12:  # the score at p = 1/2 takes two values as far from the mean
        torch.testing.assert_close(squares, torch.full_like(squares, variance))
    else:
        assert_unbiased(squares, tensor(variance))


def test_an_unordered_set_has_less_variance_than_as_many_independent_samples():
    problem = PROBLEMS["one-hot"]
    variances = []
    for estimator in (UnorderedSet(3), Score(3, leave_one_out)):
        torch.manual_seed(0)
        value, theta, _ = estimates(estimator, problem, REPLICATES)
        variances.append(torch.autograd.grad(value.sum(), theta)[0].var(0).sum())
    assert variances[0] < variances[1] / 2


# --------------------------------------------------- 4, 5, 6, 8: the value, the cost's parameters, the batch, counts

ALL: dict[str, tuple[Estimator, tuple[str, ...]]] = {
    **UNBIASED,
    **{name: (estimator, tuple(PROBLEMS)) for name, estimator in EXACT.items()},
    **{name: (estimator, (*COINS, *DICE)) for name, estimator in BIASED.items()},
}


@pytest.mark.parametrize("name", [n for n in ALL if not n.startswith(("enumerate", "rao", "unordered"))])
def test_the_value_is_the_mean_cost_of_the_draw_and_so_is_its_gradient_in_the_cost_s_parameters(name):
    torch.manual_seed(0)
    estimator, problem = copy.deepcopy(ALL[name][0]), PROBLEMS[ALL[name][1][0]]
    draw = estimator.draw(problem.make(problem.theta.expand(3, -1)))
    w = W.expand(3, 2).clone().requires_grad_()
    value, mean = estimator.surrogate(draw, lambda x: problem.cost(x, w)), problem.cost(draw.x, w).mean(0)
    torch.testing.assert_close(value, mean)
    torch.testing.assert_close(*(torch.autograd.grad(v.sum(), w)[0] for v in (value, mean)))


@pytest.mark.parametrize("name", ALL)
def test_what_the_discriminator_sees_is_a_draw_of_the_policy(name):
    """x[0] has the distribution's mean, also where the cost sees something else."""
    torch.manual_seed(0)
    estimator, problems = ALL[name]
    problem = PROBLEMS[problems[0]]
    x = copy.deepcopy(estimator).draw(problem.make(problem.theta.expand(REPLICATES, -1))).x.detach()
    assert x.shape[1:] == (REPLICATES, *problem.make(problem.theta).event_shape)
    assert_unbiased(x[0], problem.make(problem.theta).mean)


@pytest.mark.parametrize("name", ALL)
def test_entries_of_the_batch_do_not_touch_each_other(name):
    torch.manual_seed(0)
    estimator, problems = ALL[name]
    for problem in (PROBLEMS[p] for p in problems):
        theta = problem.theta.expand(2, 3, -1).clone().requires_grad_()
        value = copy.deepcopy(estimator)(problem.make(theta), lambda x, p=problem: p.cost(x, W))
        assert value.shape == (2, 3)
        gradient = torch.autograd.grad(value[1, 1], theta)[0]
        here = torch.zeros(2, 3, dtype=torch.bool)
        here[1, 1] = True
        assert bool((gradient[~here] == 0).all()), name
        alone = copy.deepcopy(estimator)(problem.make(problem.theta), lambda x, p=problem: p.cost(x, W))
        assert alone.shape == ()


@pytest.mark.parametrize("name", ALL)
def test_evaluations_are_counted_right(name):
    estimator, problems = ALL[name]
    for problem in (PROBLEMS[p] for p in problems):
        shapes = []
        dist = problem.make(problem.theta.expand(3, -1))

        def cost(x: Tensor, problem=problem, shapes=shapes) -> Tensor:
            shapes.append(x.shape)
            return problem.cost(x, W)

        own = copy.deepcopy(estimator)
        own(dist, cost)
        assert sum(s[0] for s in shapes) == own.evaluations_of(dist)
        if type(own).evaluations_of is Estimator.evaluations_of:
            assert own.evaluations == own.evaluations_of(dist)
        assert len(shapes) <= 1 + isinstance(own, (MuProp, Rebar))
        assert all(s[1:] == (3, *dist.event_shape) for s in shapes)


# ------------------------------------------------------------------- 9: derivatives at fixed noise


@pytest.mark.parametrize("binary", [True, False])
def test_conditional_gumbel_has_the_derivative_of_finite_differences(binary):
    torch.manual_seed(0)
    logits = torch.randn(3, 4, dtype=F64, requires_grad=True)
    hard = (torch.rand(5, 3, 4) < 0.5).to(F64) if binary else OneHotCategorical(logits=logits).sample((5,))

    def z(logits: Tensor) -> Tensor:
        torch.manual_seed(1)  # the same noise each time
        return conditional_gumbel(logits, hard, binary=binary)

    assert torch.autograd.gradcheck(z, logits)
    assert torch.autograd.gradgradcheck(z, logits)


@pytest.mark.parametrize("binary", [True, False])
def test_the_noise_of_z_used_again(binary):
    """z~ is z in value, and its derivatives are those at the noise that, fresh, would have made it."""
    torch.manual_seed(0)
    logits = torch.randn(4, dtype=F64)
    logits = (logits if binary else logits.log_softmax(0)).requires_grad_()
    if binary:
        z = logits + torch.rand(6, 4, dtype=F64).logit()
        hard = (z > 0).to(F64)
        p = logits.detach().sigmoid()
        u = (z - logits).detach().sigmoid()
        v = torch.where(hard > 0, (u - (1 - p)) / p, u / (1 - p))  # u is uniform above or below 1 - p

        def again(logits: Tensor) -> Tensor:
            p = logits.sigmoid()
            return logits + torch.where(hard > 0, 1 - p + v * p, v * (1 - p)).logit()
    else:
        z = logits - torch.empty(6, 4, dtype=F64).exponential_().log()
        hard = torch.zeros_like(z).scatter_(-1, z.argmax(-1, keepdim=True), 1.0)
        race = (-z.detach()).exp()  # arrivals, of rates p: the first is Exp(1), the others come after it
        first = race.amin(-1, keepdim=True)
        e = (race - first) * logits.detach().exp()

        def again(logits: Tensor) -> Tensor:
            return -(e / logits.softmax(-1) + first).log()

    tied = conditional_gumbel(logits, hard, binary=binary, z=z)
    torch.testing.assert_close(tied, z)
    assert torch.autograd.gradcheck(again, logits)
    for mine, theirs in zip(tied.flatten(), again(logits).flatten(), strict=True):
        torch.testing.assert_close(*(torch.autograd.grad(t, logits, retain_graph=True)[0] for t in (mine, theirs)))


def difference(f: Callable[[Tensor], Tensor], theta: Tensor) -> Tensor:
    """df/dtheta by central differences, for f to (), error O(1e-10)."""
    h = 1e-5 * torch.eye(len(theta), dtype=F64)
    return torch.stack([(f(theta + step) - f(theta - step)) / 2e-5 for step in h])


@pytest.mark.parametrize("name", ["rebar", "muprop", "arm", "disarm"])
def test_one_estimate_is_what_the_formula_says(name):
    """Term by term at fixed noise, the derivatives in each by finite differences; four coins."""
    torch.manual_seed(0)
    problem = PROBLEMS["bernoulli"]
    theta, net = problem.theta, problem.net
    leaf = theta.clone().requires_grad_()
    estimator = {"rebar": Rebar(1, 0.6, 0.8), "muprop": MuProp(1), "arm": Arm(1), "disarm": DisArm(1)}[name]
    draw = estimator.draw(problem.make(leaf))
    found = torch.autograd.grad(estimator.surrogate(draw, net), leaf)[0]
    b = draw.x.detach()[0]
    score = difference(lambda t: problem.make(t).log_prob(b), theta)
    if name == "rebar":
        u, p = (draw.z.detach()[0] - theta).sigmoid(), theta.sigmoid()
        v = torch.where(b > 0, (u - (1 - p)) / p, u / (1 - p))

        def given(t: Tensor) -> Tensor:
            p = t.sigmoid()
            return net(((t + torch.where(b > 0, 1 - p + v * p, v * (1 - p)).logit()) / 0.6).sigmoid())

        slope = difference(lambda t: net(((t + u.logit()) / 0.6).sigmoid()) - given(t), theta)
        expected = (net(b) - 0.8 * given(theta)) * score + 0.8 * slope
    elif name == "muprop":
        m = theta.sigmoid()
        slope = difference(net, m)
        expected = (net(b) - net(m) - slope @ (b - m)) * score + slope * m * (1 - m)
    else:
        other = draw.x[1]
        weight = draw.weight[0]
        if name == "disarm":
            weight = 0.5 * (b - other) * theta.abs().sigmoid()
        expected = (net(b) - net(other)) * weight
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


# ------------------------------------------------------------------- the conditional relaxation


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("binary", [True, False])
def test_conditional_relaxations_keep_the_hard_sample_and_have_the_marginal_of_z(binary, dtype):
    """H(z~) = b always; over b, z~ is logistic or Gumbel around the logits: Kolmogorov-Smirnov per variable."""
    torch.manual_seed(0)
    logits = torch.tensor([2.0, -1.5, 0.3, 0.0], dtype=dtype)
    logits = logits if binary else logits.log_softmax(0)
    n = 50_000
    if binary:
        hard = (torch.rand(n, 4, dtype=dtype) < logits.sigmoid()).to(dtype)
    else:
        hard = OneHotCategorical(logits=logits).sample((n,))
    z = conditional_gumbel(logits, hard, binary=binary)
    again = (z > 0).to(dtype) if binary else torch.zeros_like(z).scatter_(-1, z.argmax(-1, keepdim=True), 1.0)
    assert torch.equal(again, hard)
    law = stats.logistic if binary else stats.gumbel_r
    for k in range(4):
        assert stats.kstest(z[:, k].numpy(), law(loc=logits[k].item()).cdf).pvalue > FALSE_ALARM / 4


def test_a_wrong_conditional_relaxation_is_caught():
    """log p + log1p(p) + log v + log1p(v) where logit(p) + logit(v) is meant, as a peer has it."""
    torch.manual_seed(0)
    p = torch.tensor(0.6, dtype=F64)
    b = torch.rand(20_000, dtype=F64) < p
    v = torch.where(b, 1 - p + p * torch.rand(20_000, dtype=F64), (1 - p) * torch.rand(20_000, dtype=F64))
    wrong = p.log() + p.log1p() + v.log() + v.log1p()
    assert stats.kstest(wrong.numpy(), stats.logistic(loc=p.logit().item()).cdf).pvalue < FALSE_ALARM / 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [30.0, 255.0, 1e4])
def test_extreme_logits_give_finite_gradients(scale, dtype):
    torch.manual_seed(0)
    logits = torch.tensor([1.0, -1.0, 0.0], dtype=dtype) * scale
    for make in (lambda t: Independent(Bernoulli(logits=t), 1), lambda t: OneHotCategorical(logits=t)):
        for name in ("gumbel-rao", "reinmax", "rebar", "relax", "muprop", "arm", "disarm", "enumerate",
                     "rao-blackwell", "unordered-set"):  # fmt: skip
            theta = logits.expand(50, 3).clone().requires_grad_()
            estimator = make_estimator(name, n=3 if name == "unordered-set" else 4)
            if name in ("arm", "disarm") and isinstance(make(theta), OneHotCategorical):
                continue
            value = estimator(make(theta), lambda x: (x.sum(-1) - 0.4) ** 2 + x[..., 0])
            assert bool(torch.isfinite(value).all()), name
            assert bool(torch.isfinite(torch.autograd.grad(value.sum(), theta)[0]).all()), name


def test_impossible_outcomes_are_never_drawn():
    """Masked logits of -inf: the sums pass them over, and sets and remainders still have gradients."""
    torch.manual_seed(0)
    mask = torch.tensor([0.0, -torch.inf, 0.0, -torch.inf, 0.0], dtype=F64)
    for estimator in (Enumerate(), RaoBlackwell(2, k=2), RaoBlackwell(2, k=4), UnorderedSet(3), Rebar(), ReinMax(),
                      GumbelRao(), MuProp(), Relax()):  # fmt: skip
        theta = torch.randn(50, 5, dtype=F64).requires_grad_()
        dist = OneHotCategorical(logits=theta + mask)
        assert bool((estimator.draw(dist).x.detach()[..., [1, 3]] == 0).all())
        value = estimator(dist, lambda x: x @ tensor(1, 2, 3, 4, 5) ** 2)
        gradient = torch.autograd.grad(value.sum(), theta)[0]
        assert bool(torch.isfinite(gradient).all() and (gradient[:, [1, 3]] == 0).all()), estimator


def test_reinmax_takes_logits_that_are_not_contiguous():
    torch.manual_seed(0)
    logits = torch.randn(4, 3, 5, dtype=F64).movedim(1, -1).requires_grad_()
    x = reinmax(logits, 1.5)
    assert x.shape == logits.shape and bool((x.sum(-1) == 1).all())
    assert torch.autograd.grad((x**3).sum(), logits)[0].shape == logits.shape


# ------------------------------------------------------------------- tests that can fail


@dataclass(frozen=True)
class Naive(UnorderedSet):
    """Samples without replacement whose ratios are left out."""

    def draw(self, distribution: Distribution):
        draw = super().draw(distribution)
        n = len(draw.x)
        return type(draw)(
            draw.x,
            draw.distribution,
            draw.log_prob,
            torch.full_like(draw.ratio, 1 / n) / draw.log_prob.detach().exp(),
            draw.pairs,
        )


@dataclass(frozen=True)
class Loose(Rebar):
    """REBAR whose relaxed sample forgets the hard one."""

    def relaxed(self, draw):
        return draw.parts.relax(torch.cat([draw.z, draw.z]), self.temperature)


@dataclass(frozen=True)
class Faint(DisArm):
    """DisARM with a factor that should be sigma(|l|)."""

    def weigh(self, logits: Tensor, u: Tensor, difference: Tensor) -> Tensor:
        return difference * logits.sigmoid() / 2


@pytest.mark.parametrize(
    ("estimator", "problem"), [(Naive(3), "one-hot"), (Loose(1), "bernoulli"), (Faint(1), "bernoulli")], ids=repr
)
def test_known_mistakes_are_caught(estimator, problem):
    torch.manual_seed(0)
    problem = PROBLEMS[problem]
    value, theta, _ = estimates(estimator, problem, REPLICATES)
    at = problem.theta.clone().requires_grad_()
    exact = torch.autograd.grad(problem.expectation(at, W), at)[0]
    with pytest.raises(AssertionError, match="biased"):
        assert_unbiased(torch.autograd.grad(value.sum(), theta)[0], exact)


def test_validation_stays_as_it_is_and_is_not_waited_for(monkeypatch):
    """No estimator turns validation off for others, nor lets torch validate what it drew itself."""
    before = Distribution._validate_args
    problems = [PROBLEMS[p].make(PROBLEMS[p].theta) for p in ("bernoulli", "one-hots")]
    assert all(d._validate_args for d in problems)

    def refuse(*_):
        raise AssertionError("validated")

    monkeypatch.setattr(Distribution, "_validate_sample", refuse)
    for name in OURS:
        for dist in problems[: 1 if name in ("arm", "disarm") else 2]:
            make_estimator(name)(dist, lambda x, d=dist: x.flatten(-len(d.event_shape)).sum(-1))
    assert Distribution._validate_args == before


# ------------------------------------------------------------------- what is refused

OURS = ["st-gumbel", "gumbel-rao", "reinmax", "rebar", "relax", "muprop", "arm", "disarm", "enumerate", "rao-blackwell",
        "unordered-set"]  # fmt: skip


@pytest.mark.parametrize("name", OURS)
def test_names_and_refusals(name):
    assert name in ESTIMATORS
    estimator = make_estimator(name, temperature=0.3)
    assert type(estimator) is KINDS[name] and estimator.n == ESTIMATORS[name].samples
    assert getattr(estimator, "temperature", 0.3) == 0.3
    if name == "unordered-set":
        estimator = make_estimator(name, n=2)
    for dist in (Normal(torch.zeros(2), 1.0), Implicit(torch.zeros(2, 1))):
        with pytest.raises(ValueError, match="use path"):
            estimator.check(dist)
        with pytest.raises(ValueError, match="use path"):
            estimator.draw(dist)
    with pytest.raises(ValueError, match=r"\(\d+, 2\).*got \(\d+, 2, 1\)"):
        estimator(Bernoulli(logits=torch.zeros(2)), lambda x: x.unsqueeze(-1))


def test_wrong_use_fails_with_a_sentence():
    die, index = OneHotCategorical(logits=torch.zeros(3)), Categorical(logits=torch.zeros(3))
    many = Independent(Bernoulli(logits=torch.zeros(64)), 1)
    for pairs in (Arm(), DisArm()):
        with pytest.raises(ValueError, match="treats Bernoulli and Binomial variables, not OneHotCategorical: use loo"):
            pairs.check(die)
    for relaxing in (Rebar(), Relax(), GumbelRao(), ReinMax(), MuProp()):
        with pytest.raises(ValueError, match="not Categorical: use loo, or a OneHotCategorical"):
            relaxing.check(index)
        relaxing.check(many)
    for listing in (Enumerate(), RaoBlackwell(), UnorderedSet(2)):
        with pytest.raises(ValueError, match=r"64 variables of 2 values have 2\^64, above its limit of 4,096: use loo"):
            listing.check(many)
        listing.check(index)
    with pytest.raises(ValueError, match=r"3\^1, above its limit of 2"):
        Enumerate(limit=2).check(die)
    for kind in (Rebar, Relax, GumbelRao, ReinMax):
        with pytest.raises(ValueError, match="temperature must be finite and above 0, got 0"):
            kind(1, 0.0)
    with pytest.raises(ValueError, match="temperature"):
        reinmax(torch.zeros(3), -1.0)
    with pytest.raises(ValueError, match=r"like the logits, got \(3, 1\)"):
        reinmax(torch.zeros(3), hard=torch.zeros(3, 1))
    with pytest.raises(ValueError, match=r"like the logits, got hard \(3,\)"):
        conditional_gumbel(torch.zeros(3), torch.zeros(3))
    with pytest.raises(ValueError, match="n = 2 to 10 samples, got n=1"):
        UnorderedSet(1)
    with pytest.raises(ValueError, match="n=4 samples needs as many outcomes, got 3: use enumerate"):
        UnorderedSet(4).check(die)
    with pytest.raises(ValueError, match="k must be at least 1"):
        RaoBlackwell(1, k=0)
    with pytest.raises(ValueError, match="value must be finite and above 0"):
        Learned(0.0)
    with pytest.raises(ValueError, match=r"cost \(2, 3\), control \(2, 1\)"):
        Relax(2, control=Odd())(Bernoulli(logits=torch.zeros(3)), lambda x: x)
    mixed = torch.distributions.Binomial(torch.tensor([2.0, 3.0]), logits=torch.zeros(2))
    with pytest.raises(ValueError, match="one total_count"):
        Rebar().check(mixed)


class Odd(ControlVariate):
    """Of a wrong shape."""

    def forward(self, x: Tensor, event_dim: int) -> Tensor:
        return x[..., :1]


@pytest.mark.parametrize("name", ALL)
def test_a_cost_that_is_not_finite_is_named(name):
    estimator, problem = copy.deepcopy(ALL[name][0]), PROBLEMS[ALL[name][1][0]]

    def cost(x: Tensor) -> Tensor:
        return torch.where(torch.arange(3) == 1, torch.nan, problem.cost(x, W))

    with pytest.raises(ValueError, match=r"cost must be finite, but entry \(0, 1\) is nan"):
        estimator(problem.make(problem.theta.expand(3, -1)), cost)


def test_a_trainer_s_surrogate_does_not_look_at_the_values():
    def cost(x: Tensor) -> Tensor:
        return torch.where(torch.arange(3) == 1, torch.nan, x)

    estimator = DisArm(2)
    draw = estimator.draw(Bernoulli(logits=torch.zeros(3)))
    assert bool(torch.isnan(estimator.surrogate(draw, cost)[1]))  # looking would make every step wait for the device
    with torch.autograd.set_detect_anomaly(True), pytest.raises(ValueError, match=r"entry \(0, 1\) is nan \(4 entr"):
        estimator.surrogate(draw, cost)


# ------------------------------------------------------------------- what is learned


def variance(estimator: Estimator) -> tuple[float, float]:
    """Of one estimate on the toy at p = 0.3, with its standard error."""
    for module in modules_of(estimator).values():
        module.eval()
    torch.manual_seed(1)
    squares = (toy(estimator, 0.3, 0.45) - 0.3 * 0.7 * 0.1) ** 2
    for module in modules_of(estimator).values():
        module.train()
    return squares.mean().item(), squares.std().item() / math.sqrt(len(squares))


@pytest.mark.parametrize(
    "estimator",
    [
        Relax(1, control=ControlVariate(hidden=16)),
        Relax(1, Learned(0.5), control=ControlVariate(hidden=16)),
        Rebar(1, Learned(3.0), Learned(0.2)),
        Rebar(1, 0.5, Learned(1.8)),
    ],
    ids=["relax", "relax, temperature", "rebar", "rebar, eta"],
)
def test_learning_reduces_the_variance_and_leaves_the_expectation(estimator):
    torch.manual_seed(0)
    estimator = copy.deepcopy(estimator)
    estimator.check(Bernoulli(logits=torch.zeros(1, dtype=F64)))
    before, _ = variance(estimator)
    learned = [p for module in modules_of(estimator).values() for p in module.parameters()]
    optimiser = torch.optim.Adam(learned, 0.03)
    for _ in range(150):
        theta = torch.full((128,), 0.3, dtype=F64).logit().requires_grad_()
        estimator(Bernoulli(logits=theta), lambda b: (b - 0.45) ** 2)
        loss = fit_loss(estimator)
        optimiser.zero_grad()
        loss.backward(inputs=learned)
        optimiser.step()
    after, error = variance(estimator)
    assert after + 6 * error < before / 2
    torch.manual_seed(2)
    for module in modules_of(estimator).values():
        module.eval()
    assert_unbiased(toy(estimator, 0.3, 0.45), tensor(0.3 * 0.7 * 0.1))
    assert fit_loss(estimator) is None, "after eval() there is nothing to fit"


@pytest.mark.parametrize("problem", ["bernoulli", "binomial", "one-hots"])
@pytest.mark.parametrize("kind", ["rebar", "relax"])
def test_the_fit_loss_is_the_squared_gradient(kind, problem):
    torch.manual_seed(0)
    problem = PROBLEMS[problem]
    estimator: Estimator = Rebar(2, Learned(0.6), Learned(0.8)) if kind == "rebar" else Relax(2)
    theta = problem.theta.expand(3, -1).clone().requires_grad_()
    dist = problem.make(theta)
    value = estimator(dist, lambda x: problem.cost(x, W))
    gradient = torch.autograd.grad(value.sum(), theta, retain_graph=True)[0]
    loss = fit_loss(estimator)
    torch.testing.assert_close(loss, gradient.square().sum() / 3)
    learned = [p for module in modules_of(estimator).values() for p in module.parameters()]
    assert all(p is not None for p in torch.autograd.grad(loss, learned, allow_unused=kind == "relax"))


def test_learned_state_survives_a_round_trip():
    torch.manual_seed(0)
    dist = Independent(Bernoulli(logits=torch.zeros(5, 3)), 1)
    first, second = Relax(2, Learned(0.4)), Relax(2, Learned(2.0))
    for estimator in (first, second):
        estimator.check(dist)
    for p in first.control.parameters():
        nn.init.normal_(p)
    for name, module in modules_of(first).items():
        modules_of(second)[name].load_state_dict(module.state_dict())
    values = []
    for estimator in (first, second):
        torch.manual_seed(1)
        theta = torch.zeros(5, 3, requires_grad=True)
        value = estimator(Independent(Bernoulli(logits=theta), 1), lambda x: x.prod(-1))
        values.append(torch.autograd.grad(value.sum(), theta)[0])
    assert torch.equal(*values)


def make_trainer(seed: int) -> AdversarialTrainer:
    seed_everything(seed)
    policy = Policy(MLP(4, (1, 3, 3), (8,)), POLICIES["binomial"], 4)
    return AdversarialTrainer(
        policy, MLP((1, 3, 3), (), (8,)), estimator=Relax(2, Learned(0.5), control=ControlVariate(hidden=4))
    )


def test_a_run_with_relax_resumes_bit_for_bit(tmp_path):
    data = (torch.arange(90).view(10, 1, 3, 3) % 17).float() / 8 - 1
    options = {"progress": False, "batch_size": 8, "checkpoint_every": 20}
    straight = make_trainer(0)
    start = copy.deepcopy(straight.state_dict()["estimator.control"])
    fit(straight, data, 40, out=tmp_path / "a", **options)
    after = rng_state()["torch"]
    fit(make_trainer(0), data, 20, out=tmp_path / "b", **options)
    resumed = make_trainer(123)
    torch.randn(17)
    fit(resumed, data, 40, out=tmp_path / "b", resume=True, **options)
    for part in ("generator", "estimator.control", "estimator.temperature"):
        one, other = straight.state_dict()[part], resumed.state_dict()[part]
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert not all(torch.equal(start[key], straight.state_dict()["estimator.control"][key]) for key in start)
    assert torch.equal(after, rng_state()["torch"])


def test_straight_through_gumbel_sees_hard_samples():
    estimator = make_estimator("st-gumbel", temperature=0.4)
    assert estimator == GumbelSoftmax(1, 0.4, hard=True)
    torch.manual_seed(0)
    draw = estimator.draw(OneHotCategorical(logits=torch.zeros(100, 3)))
    torch.manual_seed(0)
    assert torch.equal(draw.x, relaxed_rsample(OneHotCategorical(logits=torch.zeros(100, 3)), 1, 0.4, hard=True))
    assert isinstance(draw, Draw) and isinstance(StraightThrough(), Estimator)
