"""Relaxations: exact biases, the conditional relaxation, one estimate against its formula, extreme logits."""

from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import Bernoulli, Independent

from advrl.distributions import Binomial, OneHotCategorical
from advrl.estimators import (
    Arm,
    DisArm,
    Enumerate,
    GumbelRao,
    GumbelSoftmax,
    MuProp,
    RaoBlackwell,
    Rebar,
    ReinMax,
    Relax,
    UnorderedSet,
    conditional_gumbel,
    make_estimator,
    reinmax,
)
from tests.discrete_problems import (
    BIASED,
    COINS,
    DICE,
    F64,
    PROBLEMS,
    REPLICATES,
    Problem,
    W,
    tensor,
)
from tests.statistics import FALSE_ALARM, assert_unbiased


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
