"""Estimators of continuous families, and those for any: the nine tests of each, by quadrature and enumeration."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import (
    Bernoulli,
    Beta,
    Categorical,
    Distribution,
    Exponential,
    Gamma,
    Independent,
    Laplace,
    MultivariateNormal,
    Normal,
    Poisson,
    Uniform,
)

from advrl.agents import AdversarialTrainer
from advrl.distributions import Binomial, Implicit, OneHotCategorical, VonMises
from advrl.estimators import (
    Antithetic,
    AntitheticScore,
    ControlVariate,
    Critic,
    EvolutionStrategy,
    Importance,
    Lax,
    Measure,
    Path,
    Score,
    StickingTheLanding,
    Taylor,
    VarianceNormalised,
    fit_loss,
    grpo,
    leave_one_out,
    make_estimator,
    optimal_baseline,
    reflect,
)
from advrl.nn import FAMILIES as FAMILIES_OF_POLICIES
from advrl.nn import MLP, Policy
from tests.statistics import assert_unbiased

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


@pytest.mark.parametrize(("name", "family"), CASES)
def test_unbiased(name, family):
    """Value, gradient in the distribution's and in the cost's parameters, each cell by itself."""
    torch.manual_seed(0)
    estimator, family = copy.deepcopy(UNBIASED[name][0]), FAMILIES[family]
    assert estimator.unbiased
    value, theta, w = estimates(estimator, family, 20_000)
    draws = torch.cat([value.detach()[:, None], *torch.autograd.grad(value.sum(), (theta, w))], 1)
    at = family.theta.clone().requires_grad_(), W.clone().requires_grad_()
    exact = family.expectation(*at)
    assert_unbiased(draws, torch.cat([exact.detach()[None], *torch.autograd.grad(exact, at)]))


def hessian(family: Family) -> Tensor:
    """Second derivatives in (theta, w), without those in w alone, which are 0."""
    k = len(family.theta)
    full = torch.autograd.functional.hessian(
        lambda both: family.expectation(both[:k], both[k:]), torch.cat([family.theta, W])
    )
    return full[:k]


@pytest.mark.parametrize(("name", "family"), CASES)
def test_second_and_mixed_derivatives(name, family):
    """Against the exact Hessian; an estimator that says that it cannot still has the mixed part right."""
    torch.manual_seed(0)
    estimator, family = copy.deepcopy(UNBIASED[name][0]), FAMILIES[family]
    value, theta, w = estimates(estimator, family, 20_000)
    first = torch.autograd.grad(value.sum(), theta, create_graph=True)[0]
    rows = []
    for k in range(first.shape[1]):
        parts = torch.autograd.grad(first[:, k].sum(), (theta, w), retain_graph=True, materialize_grads=True)
        rows.append(torch.cat(parts, 1))
    draws, exact, k = torch.stack(rows, 1), hessian(family), first.shape[1]
    if not estimator.higher_order:
        draws, exact = draws[..., k:], exact[:, k:]
    assert_unbiased(draws.flatten(1), exact.flatten())


def test_measure_is_right_to_say_that_it_has_no_second_derivatives():
    torch.manual_seed(0)
    family = FAMILIES["normal"]
    value, theta, _ = estimates(Measure(1), family, 2_000)
    first = torch.autograd.grad(value.sum(), theta, create_graph=True)[0]
    second = torch.autograd.grad(first[:, 0].sum(), theta)[0]
    with pytest.raises(AssertionError, match="biased"):
        assert_unbiased(second[:, :1] + 1e-9 * torch.randn(2_000, 1, dtype=F64), hessian(family)[:1, 0])


class Fixed(nn.Module):
    """A critic that says 7, the optimal baseline below."""

    def forward(self, context: Tensor) -> Tensor:
        return torch.full_like(context, 7.0)


class Squared(nn.Module):
    """The perfect control variate below."""

    def forward(self, x: Tensor) -> Tensor:
        return x**2


def assert_variance(draws: Tensor, mean: Tensor, variance: Tensor) -> None:
    """Columns of independent draws have these means and variances; the squares' own spread bounds the error."""
    assert_unbiased(draws, mean)
    assert_unbiased((draws - mean) ** 2, variance)


# Variance of one estimate of the gradient in theta at N(theta, 1), theta = 2, of E[x^2], which is 4.
LEAVE_TWO, LEAVE_FIVE = (42 + 34) / 2, (42 + 34 / 4) / 5
SQUARE = {
    "score": (Score(1), 87.0),
    "score, mean baseline": (Score(1, 5.0), 42.0),
    "score, optimal baseline": (Score(1, 7.0), 38.0),
    "score, optimal baseline of a critic": (Score(1, Critic(Fixed())), 38.0),
    "score, leave-one-out, 2": (Score(2, leave_one_out), LEAVE_TWO),
    "score, leave-one-out, 5": (Score(5, leave_one_out), LEAVE_FIVE),
    "score, optimal of 2, which is leave-one-out": (Score(2, optimal_baseline), LEAVE_TWO),
    "score, antithetic": (AntitheticScore(1), 32.0),
    "path": (Path(1), 4.0),
    "measure, independent": (Measure(1, coupled=False), 4 / math.pi + 4 * (8 / math.pi - 2)),
    "measure, coupled": (Measure(1), 16 * (4 / math.pi - 1)),
    "lax, untrained": (Lax(1, ControlVariate(hidden=2)), 87.0),
    "lax, perfect": (Lax(1, ControlVariate(Squared())), 4.0),
    "importance, on policy": (Importance(1, lambda q: q), 87.0),
    "importance, on policy, leave-one-out": (Importance(5, lambda q: q, leave_one_out), LEAVE_FIVE),
    "taylor, 1": (Taylor(1, order=1), 15.0),  # what is left over is eps^2, and E[eps^6] = 15
}


@pytest.mark.parametrize("name", SQUARE)
def test_variance_on_the_lecture_s_problem(name):
    torch.manual_seed(0)
    estimator, variance = SQUARE[name]
    theta = torch.full((200_000,), 2.0, dtype=F64, requires_grad=True)
    value = estimator(Normal(theta, torch.ones_like(theta)), lambda x: x**2)
    g = torch.autograd.grad(value.sum(), theta)[0]
    assert_variance(g[:, None], tensor(4.0), tensor(variance))


@pytest.mark.parametrize("estimator", [Antithetic(1), Taylor(1)], ids=repr)
def test_no_variance_is_left_on_a_parabola(estimator):
    theta = torch.full((50,), 2.0, dtype=F64, requires_grad=True)
    value = estimator(Normal(theta, torch.ones_like(theta)), lambda x: x**2)
    torch.testing.assert_close(torch.autograd.grad(value.sum(), theta)[0], torch.full_like(theta, 4.0))


def test_the_estimated_optimal_baseline_needs_many_samples():
    """On the same draws: with 8 samples leave-one-out is better, with 1,024 the estimate has come near the optimum.

    The estimate's own variance is E[(x^2 - 7)^2 s^4] / (N - 1) = 282 / (N - 1) to first order, so N times that of the
    gradient is about 38 + 282 / (N - 1), against 42 + 34 / (N - 1): they cross at N = 63.
    """
    torch.manual_seed(0)
    gains = []
    for n, replicates in ((8, 100_000), (1024, 4_000)):
        theta = torch.full((replicates,), 2.0, dtype=F64, requires_grad=True)
        dist = Normal(theta, torch.ones_like(theta))
        draw = Score(n).draw(dist)
        squares = []
        for rule in (leave_one_out, optimal_baseline):
            value = Score(n, rule).surrogate(draw, lambda x: x**2)
            squares.append(n * (torch.autograd.grad(value.sum(), theta)[0] - 4) ** 2)
        assert_unbiased(squares[0][:, None], tensor(42 + 34 / (n - 1)))
        gain = squares[0] - squares[1]
        gains.append(gain.mean() / gain.std() * math.sqrt(replicates))
    assert gains[0] < -4.75 and gains[1] > 4.75  # z at a false-alarm rate of 1e-6


def quadratic(mean: float, std: float, k: float) -> dict[str, tuple[Tensor, Tensor]]:
    """Baseline (for mean, for std) and variance of both gradients, Mohamed et al.'s (x - k)^2."""
    m2, v = (mean - k) ** 2, std**2
    return {
        "score": (tensor(0, 0), tensor(m2**2 / v + 14 * m2 + 15 * v, 2 * m2**2 / v + 60 * m2 + 74 * v)),
        "mean": (tensor(m2 + v, m2 + v), tensor(8 * m2 + 10 * v, 40 * m2 + 56 * v)),
        "optimal": (tensor(m2 + 3 * v, m2 + 5 * v), tensor(8 * m2 + 6 * v, 40 * m2 + 24 * v)),
        "path": (tensor(0, 0), tensor(4 * v, 4 * m2 + 8 * v)),
    }


@pytest.mark.parametrize(("mean", "std", "k"), [(1.0, 1.0, 0.5), (1.0, 1.0, -3.0), (0.3, 1.4, 0.8)])
@pytest.mark.parametrize("row", ["score", "mean", "optimal", "path"])
def test_variance_on_mohamed_s_quadratic(mean, std, k, row):
    torch.manual_seed(0)
    baselines, variance = quadratic(mean, std, k)[row]
    if (mean, std, k) == (1.0, 1.0, 0.5):
        table = {"score": (18.5625, 89.125), "mean": (12, 66), "optimal": (8, 34), "path": (4, 9)}
        torch.testing.assert_close(variance, tensor(*table[row]))
    columns = []
    for parameter, baseline in enumerate(baselines):
        leaf = tensor(mean, std).expand(200_000, 2).clone().requires_grad_()
        estimator = Path(1) if row == "path" else Score(1, baseline)
        value = estimator(Normal(leaf[:, 0], leaf[:, 1]), lambda x: (x - k) ** 2)
        columns.append(torch.autograd.grad(value.sum(), leaf)[0][:, parameter])
    assert_variance(torch.stack(columns, 1), tensor(2 * (mean - k), 2 * std), variance)


def cosine(mean: float, std: float, k: float) -> tuple[float, float, float]:
    q, c, s = math.exp(-((k * std) ** 2)), math.cos(2 * k * mean), math.sin(k * mean) ** 2
    path = k**2 * ((1 - c * q**2) / 2 - s * q)
    score = (1 + c * (1 - 4 * (k * std) ** 2) * q**2) / (2 * std**2) - k**2 * s * q
    return -k * math.sin(k * mean) * q**0.5, score, path


def bump(mean: float, std: float, k: float) -> tuple[float, float, float]:
    v = std**2
    a, c = 1 + 2 * k * v, 1 + 4 * k * v
    gradient = -2 * k * mean / a * a**-0.5 * math.exp(-k * mean**2 / a)
    z, s, m = c**-0.5 * math.exp(-2 * k * mean**2 / c), v / c, mean / c
    return gradient, z * (s + (m - mean) ** 2) / v**2 - gradient**2, 4 * k**2 * z * (s + m**2) - gradient**2


@pytest.mark.parametrize(
    ("closed", "f", "digits"),
    [
        (cosine, lambda x: (2 * x).cos(), (0.22181, 1.99959)),  # here the score function wins
        (bump, lambda x: (-2 * x**2).exp(), (0.026573, 0.349674)),
    ],
)
def test_variance_on_mohamed_s_cosine_and_bump(closed, f, digits):
    torch.manual_seed(0)
    gradient, *variances = closed(1.0, 1.5, 2.0)
    assert variances == pytest.approx(digits, rel=1e-4)
    for estimator, variance in zip((Score(1), Path(1)), variances, strict=True):
        mean = torch.full((200_000,), 1.0, dtype=F64, requires_grad=True)
        value = estimator(Normal(mean, torch.full_like(mean, 1.5)), f)
        g = torch.autograd.grad(value.sum(), mean)[0]
        assert_variance(g[:, None], tensor(gradient), tensor(variance))


def group_expectation(n: int, advantage: Callable[[Tensor], Tensor], logit: Tensor) -> Tensor:
    """E of (1/n) sum_i A_i s_i over all 2^n groups of n Bernoulli draws, cost (x - 0.45)^2."""
    x = torch.cartesian_prod(*[tensor(0, 1)] * n).T  # (n, 2^n)
    log_prob = Bernoulli(logits=logit).log_prob(x)
    score = x - logit.sigmoid()
    return (log_prob.sum(0).exp() * (advantage((x - 0.45) ** 2) * score).mean(0)).sum()


@pytest.mark.parametrize("n", [2, 4])
def test_the_bias_of_group_normalisation(n):
    """The mean with itself in it costs (n - 1) / n exactly; the standard deviation what enumeration says."""
    torch.manual_seed(0)
    logit = tensor(0.6)
    p, f = logit.sigmoid(), lambda x: (x - 0.45) ** 2
    truth = p * (1 - p) * 0.1

    def centred(c: Tensor, x: Tensor) -> Tensor:
        return c - c.mean(0)

    torch.testing.assert_close(group_expectation(n, lambda c: c - c.mean(0), logit)[None], truth * (n - 1) / n)
    for advantage in (centred, grpo):
        estimator = Score(n, advantage=advantage)
        assert not estimator.unbiased and not estimator.higher_order and Score.unbiased
        leaf = logit.expand(20_000).clone().requires_grad_()
        g = torch.autograd.grad(estimator(Bernoulli(logits=leaf), f).sum(), leaf)[0]
        exact = group_expectation(n, lambda c, advantage=advantage: advantage(c, c), logit)
        assert_unbiased(g[:, None], exact[None])
    assert abs(exact - truth) > 2 * truth  # costs that vary little are blown up


def test_the_bias_of_self_normalised_importance_weights():
    """By enumeration of all pairs and triples; it falls like 1/n."""
    torch.manual_seed(0)
    logit, behaviour = tensor(0.6).requires_grad_(), Bernoulli(logits=tensor(-0.3))
    f, bias = lambda x: (x - 0.2) ** 2, {}
    truth = torch.autograd.grad(logit.sigmoid() * 0.64 + (1 - logit.sigmoid()) * 0.04, logit)[0]
    for n in (2, 3, 8):
        x = torch.cartesian_prod(*[tensor(0, 1)] * n).T
        weight = (Bernoulli(logits=logit).log_prob(x) - behaviour.log_prob(x)).softmax(0)
        chance = behaviour.log_prob(x).sum(0).exp()
        exact = torch.autograd.grad((chance * (weight * f(x)).sum(0)).sum(), logit)[0]
        bias[n] = (exact - truth).abs().item()
        if n < 8:
            leaf = logit.detach().expand(20_000).clone().requires_grad_()
            q = Bernoulli(logits=tensor(-0.3).expand(20_000))
            estimator = Importance(n, q, normalised=True)
            assert not estimator.unbiased
            g = torch.autograd.grad(estimator(Bernoulli(logits=leaf), f).sum(), leaf)[0]
            assert_unbiased(g[:, None], exact)
    assert bias[8] < bias[2] / 3


@pytest.mark.parametrize(("signs", "factor"), [(False, 3.0), (True, 1.0)])
def test_the_bias_of_evolution_strategies(signs, factor):
    """E x^3 = t^3 + 3t, smoothed: normal directions add 3 scale^2 to the derivative, signs scale^2."""
    torch.manual_seed(0)
    leaf = torch.full((50_000,), 0.7, dtype=F64, requires_grad=True)
    value = EvolutionStrategy(2, scale=0.8, signs=signs)(Normal(leaf, torch.ones_like(leaf)), lambda x: x**3)
    g = torch.autograd.grad(value.sum(), leaf)[0]
    assert_unbiased(g[:, None], tensor(3 * 0.7**2 + 3 + factor * 0.8**2))


@pytest.mark.parametrize("name", ["normal", "bernoulli", "binomial", "torch's binomial", "one-hot"])
def test_evolution_strategies_estimate_the_smoothed_gradient(name):
    """Signs: the exact mean is a sum over all directions e of (F(u + e s) - F(u - e s)) e / 2s, u the logits."""
    torch.manual_seed(0)
    family, scale = FAMILIES[name], 0.3
    k = len(family.theta)
    signs = torch.cartesian_prod(*[tensor(-1, 1)] * k)
    moved = torch.stack([family.expectation(family.theta + scale * e, W) for e in signs])
    back = torch.stack([family.expectation(family.theta - scale * e, W) for e in signs])
    exact = ((moved - back)[:, None] * signs).mean(0) / (2 * scale)
    value, theta, _ = estimates(EvolutionStrategy(2, scale, signs=True), family, 20_000)
    assert_unbiased(torch.autograd.grad(value.sum(), theta)[0], exact)
    assert_unbiased(value.detach()[:, None], ((moved + back) / 2).mean()[None])


def test_evolution_strategies_move_an_implicit_generator():
    torch.manual_seed(0)
    leaf = torch.zeros(20_000, 3, dtype=F64, requires_grad=True)
    value = EvolutionStrategy(1, scale=0.5)(Implicit(leaf), lambda x: (x @ tensor(1, -2, 3)).round())
    g = torch.autograd.grad(value.sum(), leaf)[0]
    # of a round-off under normal noise of std s |w|: w_d times the density of the steps at k + 1/2
    s = 0.5 * math.sqrt(14)
    slope = sum(2 * math.exp(-((k + 0.5) ** 2) / (2 * s**2)) for k in range(40)) / (s * math.sqrt(2 * math.pi))
    assert_unbiased(g, slope * tensor(1, -2, 3))


def test_sticking_the_landing():
    """Unbiased for E[c + log q], any order; no variance where q is right; the plain path derivative keeps some."""
    torch.manual_seed(0)

    def target(x: Tensor) -> Tensor:
        return 0.5 * ((x - 1.0) / 2.0) ** 2 + 0.1 * x.sin()

    t, weight = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(60))

    def exact(theta: Tensor) -> Tensor:
        x = theta[0] + theta[1].exp() * t
        return ((target(x) - theta[1] - t**2 / 2) * weight).sum() / weight.sum()

    at = tensor(0.3, -0.2)
    leaf = at.expand(50_000, 2).clone().requires_grad_()
    value = StickingTheLanding(1)(Normal(leaf[:, 0], leaf[:, 1].exp()), target)
    first = torch.autograd.grad(value.sum(), leaf, create_graph=True)[0]
    second = torch.cat([torch.autograd.grad(first[:, k].sum(), leaf, retain_graph=True)[0] for k in (0, 1)], 1)
    probe = at.clone().requires_grad_()
    assert_unbiased(value.detach()[:, None] + math.log(2 * math.pi) / 2, exact(at)[None])
    assert_unbiased(first.detach(), torch.autograd.grad(exact(probe), probe)[0])
    assert_unbiased(second, torch.autograd.functional.hessian(exact, at).flatten())

    leaf = tensor(1.0, 2.0).expand(1_000, 2).clone().requires_grad_()
    q = Normal(leaf[:, 0], leaf[:, 1])
    landed = StickingTheLanding(1)(q, lambda x: 0.5 * ((x - 1.0) / 2.0) ** 2)
    torch.testing.assert_close(torch.autograd.grad(landed.sum(), leaf)[0], torch.zeros_like(leaf))
    plain = Path(1)(q, lambda x: 0.5 * ((x - 1.0) / 2.0) ** 2 + q.log_prob(x))
    assert torch.autograd.grad(plain.sum(), leaf)[0].std() > 0.3


EVERY = {
    **{name: estimator for name, (estimator, _) in UNBIASED.items()},
    "sticking the landing": StickingTheLanding(2),
    "es": EvolutionStrategy(3),
    "grpo": Score(3, advantage=grpo),
    "nvil": Score(3, advantage=VarianceNormalised(Critic())),
    "importance, self-normalised": Importance(3, wider, normalised=True),
}


@pytest.mark.parametrize("name", EVERY)
def test_replicates_do_not_touch_each_other(name):
    torch.manual_seed(0)
    value, theta, w = estimates(copy.deepcopy(EVERY[name]), FAMILIES["normal"], 3)
    for leaf in (theta, w):
        gradient = torch.autograd.grad(value[1], leaf, retain_graph=True)[0]
        assert bool((gradient[[0, 2]] == 0).all()) and bool((gradient[1] != 0).any())


@pytest.mark.parametrize("name", EVERY)
def test_the_cost_is_evaluated_as_often_as_declared(name):
    torch.manual_seed(0)
    seen, estimator = [], copy.deepcopy(EVERY[name])
    theta = FAMILIES["normal"].theta.expand(5, 4).clone().requires_grad_()
    distribution = normal(theta)
    estimator(distribution, lambda x: seen.append(x.shape) or cost(x, W))
    assert len(seen) == 1 and seen[0] == (estimator.evaluations_of(distribution), 5, 2)


def test_evaluations_are_counted_by_hand():
    gaussian, fixed = normal(FAMILIES["normal"].theta.clone().requires_grad_()), Normal(W.clone().requires_grad_(), 1.0)
    assert Measure(3).evaluations_of(gaussian) == 3 * (1 + 4 * 2)
    assert Measure(3).evaluations_of(Independent(fixed, 1)) == 3 * (1 + 2 * 2)
    assert Measure(1).evaluations_of(one_hot(FAMILIES["one-hot"].theta)) == 1 + 3 * 2
    assert Taylor(3).evaluations_of(gaussian) == 5 and Taylor(3, order=1).evaluations_of(gaussian) == 4
    assert Antithetic(3).evaluations == EvolutionStrategy(3).evaluations == AntitheticScore(3).evaluations == 6
    assert Lax(3).evaluations == StickingTheLanding(3).evaluations == 3


@pytest.mark.parametrize("name", EVERY)
def test_the_value_is_the_mean_cost(name):
    """Of the samples that the draw shows, weighted where they are, with log q where that is part of it."""
    torch.manual_seed(0)
    estimator = copy.deepcopy(EVERY[name])
    theta = FAMILIES["normal"].theta.expand(5, 4).clone().requires_grad_()
    distribution = normal(theta)
    draw = estimator.draw(distribution)
    value = estimator.surrogate(draw, lambda x: cost(x, W))
    expected = cost(draw.x, W)
    if isinstance(estimator, Importance):
        weight = (distribution.log_prob(draw.x) - wider(distribution).log_prob(draw.x)).exp()
        expected = weight * expected * (len(weight) / weight.sum(0) if estimator.normalised else 1)
    if isinstance(estimator, StickingTheLanding):
        expected = expected + distribution.log_prob(draw.x)
    torch.testing.assert_close(value, expected.mean(0))


@pytest.mark.parametrize(
    "estimator", [Path(2), Antithetic(2), Importance(3, wider), Importance(3, wider, normalised=True)], ids=repr
)
def test_finite_differences_at_fixed_noise(estimator):
    """Where the draw or its weights follow the parameters, the gradient is the value's own."""
    family = FAMILIES["normal"]

    def value(theta: Tensor) -> Tensor:
        torch.manual_seed(0)
        if isinstance(estimator, Importance):  # its samples are the behaviour's, which stays
            fixed = Importance(3, wider(normal(family.theta)), normalised=estimator.normalised)
            return fixed(normal(theta), lambda x: cost(x, W))
        return estimator(normal(theta), lambda x: cost(x, W))

    assert torch.autograd.gradcheck(value, family.theta.clone().requires_grad_())


def test_the_score_of_every_sample():
    """The optimal baseline's part of the gradient, coordinate by coordinate, against a loop over the others."""
    torch.manual_seed(0)
    c, s = torch.randn(4, 3, dtype=F64), torch.randn(4, 3, 2, dtype=F64)
    b = optimal_baseline(c, s)
    for i in range(4):
        others = [j for j in range(4) if j != i]
        above = sum(c[j, :, None] * s[j] ** 2 for j in others)
        torch.testing.assert_close(b[i], above / sum(s[j] ** 2 for j in others))
    torch.testing.assert_close(optimal_baseline(c, torch.zeros_like(s))[..., 0], leave_one_out(c))
    mvn_loc = torch.zeros(5, 2, dtype=F64, requires_grad=True)
    value = Score(4, optimal_baseline)(MultivariateNormal(mvn_loc, torch.eye(2, dtype=F64)), lambda x: cost(x, W))
    assert torch.autograd.grad(value.sum(), mvn_loc)[0].isfinite().all()


def test_a_critic_learns_its_context():
    """V(z) comes near E[c | z], the gradient's variance falls; in evaluation mode nothing is left to minimise."""
    torch.manual_seed(0)
    critic = Critic(hidden=16).double()
    optimiser = None
    for _ in range(400):
        z = torch.rand(64, 1, dtype=F64) * 4 - 2
        estimator = Score(1, critic.at(z))
        estimator(Normal(z[:, 0], torch.full((64,), 0.5, dtype=F64)), lambda x: x**2)
        loss = fit_loss(estimator)
        optimiser = optimiser or torch.optim.Adam(critic.parameters(), 0.02)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    z = tensor(-1.5, 0.0, 1.0)[:, None]
    learned = critic.eval()(torch.zeros(1, 3, dtype=F64), z)
    assert (learned - (z[:, 0] ** 2 + 0.25)).abs().max() < 0.5
    assert critic.fit_loss is None
    same = Score(1, critic)
    assert same.baseline_of(same.draw(Normal(z[:, 0], 0.5)), torch.zeros(1, 3, dtype=F64)).shape == (3,)


def test_a_control_variate_learns_to_take_the_variance_away():
    torch.manual_seed(0)
    lax = Lax(4, ControlVariate(hidden=16))
    theta = torch.full((256,), 2.0, requires_grad=True)
    lax.check(Normal(theta, torch.ones_like(theta)))
    optimiser, spread = torch.optim.Adam(lax.control.parameters(), 0.02), []
    for step in range(301):
        value = lax(Normal(theta, torch.ones_like(theta)), lambda x: x.detach() ** 2)  # a black box
        loss = fit_loss(lax)
        if step % 300 == 0:
            spread.append(torch.autograd.grad(value.sum(), theta, retain_graph=True)[0].var())
        optimiser.zero_grad()
        loss.backward(inputs=list(lax.control.parameters()))
        optimiser.step()
    assert spread[1] < spread[0] / 4
    lax.control.eval()
    lax(Normal(theta, torch.ones_like(theta)), lambda x: x**2)
    assert fit_loss(lax) is None


def test_variance_normalisation_divides_by_the_past():
    torch.manual_seed(0)
    rule = VarianceNormalised(Critic(Slope()), decay=0.5)
    estimator = Score(2, advantage=rule)
    theta = torch.full((20_000,), 2.0, dtype=F64, requires_grad=True)
    dist = Normal(theta, torch.ones_like(theta))
    before = rule.variance.item()
    g = torch.autograd.grad(estimator(dist, lambda x: x**2).sum(), theta)[0]
    assert before == 1.0 and rule.variance > 1.0
    assert_unbiased(g[:, None], tensor(4.0))
    scale = rule.variance.sqrt().item()
    g = torch.autograd.grad(estimator(dist, lambda x: x**2).sum(), theta)[0]
    assert_unbiased(g[:, None], tensor(4.0 / scale))
    assert set(rule.state_dict()) == {"variance"} and fit_loss(estimator) is not None
    frozen = rule.eval().variance.clone()
    estimator(dist, lambda x: x**2)
    assert torch.equal(rule.variance, frozen)


@pytest.mark.parametrize(
    "distribution",
    [
        Normal(W, 2.0),
        Laplace(W, 2.0),
        Uniform(W - 2, W + 3),
        VonMises(W, W + 1),
        MultivariateNormal(W, torch.eye(2, dtype=F64)),
        Independent(Normal(W, 2.0), 1),
    ],
    ids=repr,
)
def test_a_mirror_image_is_as_likely(distribution):
    x = distribution.sample((4,))
    image = reflect(distribution, x)
    torch.testing.assert_close(distribution.log_prob(image), distribution.log_prob(x))
    torch.testing.assert_close(reflect(distribution, image), x)


def test_wrong_use_fails_with_a_sentence():
    binary, gaussian = Bernoulli(logits=torch.zeros(2)), Normal(torch.zeros(2), 1.0)
    wide = Normal(W.clone().requires_grad_(), 1.0)
    many = Independent(OneHotCategorical(logits=torch.zeros(64, 17)), 1)
    wrong = {
        "mirror images need a symmetric one": (lambda: Antithetic().draw(binary), "not Bernoulli: use loo"),
        "of a skewed one": (lambda: Antithetic().draw(Gamma(torch.ones(2), 1.0)), "not Gamma: use path"),
        "reflect": (lambda: reflect(binary, torch.zeros(2)), "symmetric"),
        "lax needs rsample": (lambda: Lax().draw(binary), "Bernoulli is none: use loo"),
        "stl needs rsample": (lambda: StickingTheLanding().draw(binary), "Bernoulli is none: use loo"),
        "stl needs a density": (lambda: StickingTheLanding().draw(Implicit(torch.zeros(2, 1))), "lacks: use path"),
        "no weak derivative": (lambda: Measure().draw(Beta(torch.ones(2), 1.0)), "Beta variables: use path"),
        "too many categories": (lambda: Measure().draw(many), "1,088 times.*above its limit of 256: use loo"),
        "too many dimensions": (lambda: Taylor().draw(many), "1,088 second derivatives.*use loo"),
        "es": (lambda: EvolutionStrategy().draw(Poisson(torch.ones(2))), "not of Poisson: use loo"),
        "es's step": (lambda: EvolutionStrategy(1, 0.0), "scale must be finite and above 0"),
        "order": (lambda: Taylor(order=3), "order must be 1 or 2, got 3"),
        "one sample": (lambda: Score(1, optimal_baseline), "n >= 2"),
        "one sample of grpo": (lambda: Score(1, advantage=grpo)(gaussian, lambda x: x), "n >= 2 samples"),
        "both": (lambda: Score(2, 1.0, grpo), "give one of them"),
        "an advantage of another shape": (
            lambda: Score(2, advantage=lambda c, x: c.mean(0))(gaussian, lambda x: x),
            r"cost \(2, 2\), advantage \(2,\)",
        ),
        "one weight": (lambda: Importance(1, gaussian, normalised=True), "n >= 2"),
        "two baselines": (lambda: Importance(2, gaussian, 1.0, normalised=True), "own baseline"),
        "another behaviour": (lambda: Importance(2, Normal(0.0, 1.0)).draw(gaussian), r"batch shape \(2,\)"),
        "a critic of another shape": (
            lambda: Score(2, Critic(nn.Linear(1, 3)))(gaussian, lambda x: x),
            r"critic \(2, 3\), cost_per_context \(2,\)",
        ),
        "a cost of another shape": (lambda: Measure()(wide, torch.sum), r"shape \(3, 2\) to one.*got \(\)"),
    }  # fmt: skip
    for call, words in wrong.values():
        with pytest.raises(ValueError, match=words):
            call()
    with pytest.raises(TypeError, match="behaviour must be a distribution"):
        Importance(2)


def test_argument_validation_is_left_as_it_is():
    before = Distribution._validate_args
    for estimator, families in UNBIASED.values():
        estimates(copy.deepcopy(estimator), FAMILIES[families[0]], 2)
    assert Distribution._validate_args is before


@pytest.mark.parametrize("name", ["nvil", "lax"])
def test_what_is_learned_survives_a_resume(name):
    """Four steps at once, and two, saved, loaded into fresh networks, and two more: the same weights, bit for bit."""

    def trainer() -> AdversarialTrainer:
        torch.manual_seed(0)
        family = FAMILIES_OF_POLICIES["gaussian"]
        return AdversarialTrainer(
            Policy(MLP(3, (2, 4, 4), (8,)), family, 3), MLP((1, 4, 4), (), (8,)), estimator=make_estimator(name)
        )

    real, z = torch.rand(4, 5, 1, 4, 4), torch.randn(4, 5, 3)

    def train(of: AdversarialTrainer, steps: range) -> AdversarialTrainer:
        for step in steps:
            torch.manual_seed(step)
            of.step(real[step], z[step])
        return of

    through = train(trainer(), range(4))
    half = train(trainer(), range(2))
    resumed = trainer()
    resumed.load_state_dict(half.state_dict())
    learned = train(resumed, range(2, 4)).state_dict()
    part = next(name for name in learned if name.startswith("estimator."))
    for other in (part, "generator"):
        assert all(torch.equal(a, learned[other][key]) for key, a in through.state_dict()[other].items())
    assert any(
        bool((a != b).any()) for a, b in zip(learned[part].values(), trainer().state_dict()[part].values(), strict=True)
    )
