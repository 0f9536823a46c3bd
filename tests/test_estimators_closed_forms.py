"""Estimators against closed forms: variances, and biases of those that have one."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import (
    Bernoulli,
    Normal,
)

from advrl.distributions import Implicit
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
    grpo,
    leave_one_out,
    optimal_baseline,
)
from tests.continuous_problems import (
    F64,
    FAMILIES,
    W,
    estimates,
    tensor,
)
from tests.statistics import assert_unbiased


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
