"""Mixtures and von Mises distributions that are drawn with a gradient: law, gradient, second derivatives."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor
from torch.distributions import Beta, Categorical, Cauchy, Independent, Laplace, MultivariateNormal, Normal

from advrl.distributions import MixtureSameFamily, VonMises
from advrl.estimators import Antithetic, Lax, Path, StickingTheLanding
from tests.statistics import FALSE_ALARM, assert_unbiased

F64 = torch.float64


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=F64)


def univariate(theta: Tensor, family=Normal) -> MixtureSameFamily:
    logits, loc, log_scale = theta.chunk(3, -1)
    return MixtureSameFamily(Categorical(logits=logits), family(loc, log_scale.exp()))


UNIVARIATE = tensor(0.3, -0.4, 0.1, -2.0, 0.5, 2.0, -0.7, 0.2, -0.3)


def factorised(theta: Tensor) -> MixtureSameFamily:
    logits, loc, log_scale = theta[..., :2], theta[..., 2:6].unflatten(-1, (2, 2)), theta[..., 6:].unflatten(-1, (2, 2))
    return MixtureSameFamily(Categorical(logits=logits), Independent(Normal(loc, log_scale.exp()), 1))


FACTORISED = tensor(0.3, -0.4, -1.0, 0.5, 1.2, -0.6, -0.7, 0.2, -0.3, 0.1)


def full(theta: Tensor) -> MixtureSameFamily:
    logits, loc, rest = theta[..., :2], theta[..., 2:6].unflatten(-1, (2, 2)), theta[..., 6:].unflatten(-1, (2, 3))
    corner = torch.zeros_like(rest[..., 0])
    rows = torch.stack([rest[..., 0].exp(), corner, rest[..., 1], rest[..., 2].exp()], -1)
    return MixtureSameFamily(Categorical(logits=logits), MultivariateNormal(loc, scale_tril=rows.unflatten(-1, (2, 2))))


FULL = tensor(0.3, -0.4, -1.0, 0.5, 1.2, -0.6, -0.4, 0.8, 0.1, -0.2, -0.5, 0.2)


def one_cost(x: Tensor) -> Tensor:
    return (x + 0.3).sin() + 0.2 * x**2


def two_cost(x: Tensor) -> Tensor:
    return one_cost(x[..., 0]) * x[..., 1] + (x[..., 0] - 0.5 * x[..., 1]).cos()


HERMITE = tuple(torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(40))


def expectation(make, theta: Tensor) -> Tensor:
    """E[cost] by Gauss-Hermite over each component."""
    dist = make(theta)
    t, weight = HERMITE[0], HERMITE[1] / HERMITE[1].sum()
    probs, component = dist.mixture_distribution.probs, dist.component_distribution
    if not dist.event_shape:
        x = component.loc + component.scale * t[:, None]
        return (probs * weight[:, None] * one_cost(x)).sum()
    factor = (
        component.scale_tril if isinstance(component, MultivariateNormal) else component.base_dist.scale.diag_embed()
    )
    grid = torch.cartesian_prod(t, t)
    x = component.mean + (factor @ grid[:, None, :, None]).squeeze(-1)
    return (probs * torch.cartesian_prod(weight, weight).prod(-1)[:, None] * two_cost(x)).sum()


@pytest.mark.parametrize(
    ("make", "theta", "cost"),
    [(univariate, UNIVARIATE, one_cost), (factorised, FACTORISED, two_cost), (full, FULL, two_cost)],
    ids=["univariate", "factorised", "full"],
)
def test_path_derivative_of_a_mixture(make, theta, cost):
    """Weights, means and scales, first and second derivatives, against quadrature."""
    torch.manual_seed(0)
    n, k = 20_000, len(theta)
    leaf = theta.expand(n, k).clone().requires_grad_()
    dist = make(leaf)
    assert dist.has_rsample
    value = Path(1)(dist, cost)
    first = torch.autograd.grad(value.sum(), leaf, create_graph=True)[0]
    at = theta.clone().requires_grad_()
    exact = expectation(make, at)
    assert_unbiased(value.detach()[:, None], exact.detach()[None])
    assert_unbiased(first.detach(), torch.autograd.grad(exact, at)[0])
    second = torch.stack([torch.autograd.grad(first[:, i].sum(), leaf, retain_graph=True)[0] for i in range(k)], 1)
    cells = torch.autograd.functional.hessian(lambda t: expectation(make, t), theta).flatten()
    assert_unbiased(second.flatten(1), cells)


@pytest.mark.parametrize("family", [Normal, Laplace, Cauchy], ids=lambda f: f.__name__)
def test_the_derivative_of_a_draw_is_that_of_the_quantile(family):
    """At fixed u, dx/dtheta by differences of the inverse distribution function, found by bisection."""
    torch.manual_seed(0)

    def quantile(u: Tensor, theta: Tensor) -> Tensor:
        low, high = torch.full_like(u, -1e4), torch.full_like(u, 1e4)
        for _ in range(80):
            middle = (low + high) / 2
            below = univariate(theta, family).cdf(middle) < u
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2

    leaf = UNIVARIATE.expand(20, 9).clone().requires_grad_()
    x = univariate(leaf, family).rsample()
    slope = torch.autograd.grad(x.sum(), leaf)[0]
    u = univariate(UNIVARIATE, family).cdf(x.detach())
    for i in range(9):
        step = torch.zeros(9, dtype=F64)
        step[i] = 1e-5
        numeric = (quantile(u, UNIVARIATE + step) - quantile(u, UNIVARIATE - step)) / 2e-5
        torch.testing.assert_close(slope[:, i], numeric, rtol=1e-5, atol=1e-6)


def test_a_mixture_s_draws_have_its_law_and_are_torch_s():
    torch.manual_seed(0)
    dist = univariate(UNIVARIATE)
    x = dist.rsample((20_000,))
    assert stats.kstest(x.numpy(), lambda v: dist.cdf(torch.from_numpy(np.asarray(v))).numpy()).pvalue > FALSE_ALARM
    torch.manual_seed(1)
    ours = factorised(FACTORISED).expand((3,)).rsample((4,))
    torch.manual_seed(1)
    assert torch.equal(ours, factorised(FACTORISED).expand((3,)).sample((4,))) and ours.shape == (4, 3, 2)


def test_a_mixture_in_single_precision_has_finite_gradients_far_out():
    theta = torch.tensor([0.0, 0.0, -50.0, 50.0, -3.0, -3.0], requires_grad=True)
    x = univariate(theta).rsample((2_000,))
    gradient = torch.autograd.grad(x.sum(), theta)[0]
    assert gradient.isfinite().all()
    torch.testing.assert_close(gradient[2:4].sum(), torch.tensor(2_000.0), rtol=1e-3, atol=0)  # a shift moves them all


def test_components_without_a_usable_distribution_function():
    dist = MixtureSameFamily(Categorical(logits=torch.zeros(2)), Beta(torch.ones(2), torch.ones(2)))
    assert not dist.has_rsample
    with pytest.raises(NotImplementedError, match="Beta components has no rsample"):
        dist.rsample()
    with pytest.raises(ValueError, match="MixtureSameFamily is none: use loo"):
        Path().draw(dist)


@pytest.mark.parametrize("estimator", [StickingTheLanding(2), Lax(2)], ids=repr)
def test_other_estimators_take_mixtures(estimator):
    leaf = FULL.expand(5, -1).clone().requires_grad_()
    value = estimator(full(leaf), two_cost)
    assert torch.autograd.grad(value.sum(), leaf)[0].isfinite().all()


def cdf(z: float, k: float) -> float:
    density = lambda t: math.exp(k * (math.cos(t) - 1))  # noqa: E731
    whole = 2 * integrate.quad(density, 0, math.pi, epsabs=1e-13, epsrel=1e-12, limit=200)[0]
    return 0.5 + integrate.quad(density, 0, z, epsabs=1e-13, epsrel=1e-12, limit=200)[0] / whole


@pytest.mark.parametrize("k", [0.05, 0.7, 3.0, 12.0, 49.0, 51.0, 400.0])
def test_von_mises_distribution_function(k):
    """F by quadrature, and dz/dk at fixed u by its differences, on both sides of the change of method."""
    z = np.linspace(-0.95, 0.95, 7) * min(math.pi, 4 / math.sqrt(k))
    loc = 0.8
    dist = VonMises(tensor(loc), tensor(k))
    torch.testing.assert_close(dist.cdf(torch.from_numpy(z) + loc), tensor(*(cdf(a, k) for a in z)), rtol=0, atol=1e-9)

    class Given(VonMises):
        def sample(self, sample_shape=torch.Size()):
            return torch.from_numpy(z) + loc

    leaf = torch.full((7,), k, dtype=F64, requires_grad=True)
    x = Given(torch.full((7,), loc, dtype=F64), leaf).rsample()
    torch.testing.assert_close(x.detach(), torch.from_numpy(z) + loc)
    slope = torch.autograd.grad(x.sum(), leaf)[0]
    step = 1e-4 * k
    density = np.exp(k * (np.cos(z) - 1)) / (
        2 * integrate.quad(lambda t: math.exp(k * (math.cos(t) - 1)), 0, math.pi)[0]
    )
    numeric = [-(cdf(a, k + step) - cdf(a, k - step)) / (2 * step) / p for a, p in zip(z, density, strict=True)]
    torch.testing.assert_close(slope, tensor(*numeric), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("k", [0.7, 60.0])
def test_path_derivative_of_von_mises(k):
    """First and second derivatives of E[sin(x) + cos(2x)] = A1 sin(m) + A2 cos(2m), A_j = I_j(k) / I_0(k)."""
    torch.manual_seed(0)

    def exact(theta: Tensor) -> Tensor:
        m, kappa = theta
        first = torch.special.i1e(kappa) / torch.special.i0e(kappa)
        return first * m.sin() + (1 - 2 * first / kappa) * (2 * m).cos()

    theta = tensor(2.5, k)
    leaf = theta.expand(20_000, 2).clone().requires_grad_()
    value = Path(1)(VonMises(leaf[:, 0], leaf[:, 1]), lambda x: x.sin() + (2 * x).cos())
    first = torch.autograd.grad(value.sum(), leaf, create_graph=True)[0]
    second = torch.cat([torch.autograd.grad(first[:, i].sum(), leaf, retain_graph=True)[0] for i in (0, 1)], 1)
    at = theta.clone().requires_grad_()
    assert_unbiased(value.detach()[:, None], exact(theta)[None])
    assert_unbiased(first.detach(), torch.autograd.grad(exact(at), at)[0])
    assert_unbiased(second, torch.autograd.functional.hessian(exact, theta).flatten())


def test_von_mises_draws_have_their_law():
    torch.manual_seed(0)
    dist = VonMises(tensor(0.0), tensor(1.7))
    x = dist.rsample((20_000,)).squeeze(-1)
    assert stats.kstest(x.numpy(), stats.vonmises(1.7).cdf).pvalue > FALSE_ALARM
    assert dist.expand((3,)).rsample((2,)).shape == (2, 3)
    pairs = Antithetic(3).draw(VonMises(tensor(0.4, 2.0), tensor(1.0, 3.0))).x
    torch.testing.assert_close(pairs[:3] + pairs[3:], tensor(0.8, 4.0).expand(3, 2))
