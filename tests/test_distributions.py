"""Distributions against torch's own, against exact probabilities, and against their limits."""

import math
from statistics import NormalDist

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Independent, Normal

from advrl.distributions import Binomial, Implicit, OneHotCategorical, inverse_transform, relaxed_rsample
from advrl.distributions.inverse import one_hot_transform

FALSE_ALARM = 1e-6


def assert_frequencies(counts: Tensor, probs: Tensor) -> None:
    """Observed counts (K,) agree with probabilities (K,): a z-test per outcome, Bonferroni's bound."""
    n = counts.sum()
    z = (counts - n * probs) / (n * probs * (1 - probs)).sqrt()
    bound = NormalDist().inv_cdf(1 - FALSE_ALARM / (2 * len(probs)))
    assert z.abs().max() < bound, f"|z| = {z.abs().max():.1f} > {bound:.1f}"


def test_inverse_transform_has_the_table_s_frequencies(device):
    torch.manual_seed(0)
    probs = torch.tensor([[0.1, 0.2, 0.3, 0.4], [5.0, 1.0, 1.0, 3.0]], device=device)  # rows need not be normalised
    draws = inverse_transform(probs, 200_000)
    assert draws.shape == (200_000, 2)
    for row in range(2):
        counts = torch.bincount(draws[:, row], minlength=4).double().cpu()
        assert_frequencies(counts, (probs[row] / probs[row].sum()).double().cpu())


def test_inverse_transform_never_draws_an_outcome_of_probability_zero(device):
    probs = torch.tensor([0.0, 1.0, 0.0, 3.0, 0.0], device=device)
    draws = inverse_transform(probs.expand(1000, 5), 1000)
    assert set(draws.unique().tolist()) == {1, 3}


@pytest.mark.parametrize("outcomes", [1, 2, 10, 17])
def test_one_hot_draws_are_those_of_the_table(outcomes):
    probs = torch.rand(3, 4, outcomes)
    probs[..., 1:2] = 0.0
    torch.manual_seed(0)
    index = inverse_transform(probs, 50)
    torch.manual_seed(0)
    rows = one_hot_transform(probs, 50)
    assert torch.equal(rows, torch.nn.functional.one_hot(index, outcomes).float())


def test_inverse_transform_at_the_largest_uniform(monkeypatch):
    """u just below 1 times the total can round up to the total, which lies behind the last outcome."""
    monkeypatch.setattr(torch, "rand", lambda *size, **kwargs: torch.full(size, 1 - 2**-24, dtype=torch.float32))
    probs = torch.tensor([0.3, 0.7 + 1e-6, 0.0])
    assert inverse_transform(probs, 4).tolist() == [1, 1, 1, 1]


def test_a_nan_gives_an_outcome_and_a_nan_log_prob(device):
    """A policy that diverged must reach the loss, where it is named; out of range, an outcome ends a GPU's process."""
    logits = torch.full((4,), torch.nan, device=device)
    dist = Binomial(16, logits, validate_args=False)
    draw = dist.sample((3,))
    assert bool(((draw >= 0) & (draw <= 16)).all()) and bool(dist.log_prob(draw).isnan().all())
    assert OneHotCategorical(logits=logits, validate_args=False).sample().sum() == 1


@pytest.mark.parametrize("trials", [1, 2, 16, 40])
def test_binomial_log_prob_is_torch_s(trials):
    logits = torch.tensor([-90.0, -3.0, 0.0, 0.7, 30.0], dtype=torch.float64)
    k = torch.arange(trials + 1, dtype=torch.float64)[:, None].expand(-1, 5)
    ours, theirs = Binomial(trials, logits).log_prob(k), torch.distributions.Binomial(trials, logits=logits).log_prob(k)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(ours.exp().sum(0), torch.ones(5, dtype=torch.float64))


def test_binomial_frequencies_are_its_probabilities(device):
    torch.manual_seed(0)
    logits = torch.tensor([-2.0, 0.3, 1.5], device=device)
    dist = Binomial(16, logits)
    draws = dist.sample((100_000,))
    assert draws.shape == (100_000, 3) and draws.dtype == logits.dtype
    support = torch.arange(17, device=device, dtype=logits.dtype)[:, None].expand(-1, 3)
    probs = dist.log_prob(support).exp().double().cpu()
    for column in range(3):
        counts = torch.bincount(draws[:, column].long().cpu(), minlength=17).double()
        frequent = probs[:, column] * len(draws) > 20  # the normal approximation needs a few counts; pool the rest
        pooled = torch.cat([counts[frequent], counts[~frequent].sum()[None]])
        pooled_probs = torch.cat([probs[frequent, column], probs[~frequent, column].sum()[None]])
        assert_frequencies(pooled, pooled_probs)


def test_binomial_gradient_and_mean(device):
    logits = torch.randn(4, 5, dtype=torch.float32, device=device, requires_grad=True)
    dist = Binomial(16, logits)
    x = dist.sample((3,))
    grad = torch.autograd.grad(dist.log_prob(x).sum(), logits)[0]
    torch.testing.assert_close(grad, (x - 16 * logits.sigmoid()).sum(0))  # d log p / d l = k - N p
    torch.testing.assert_close(dist.mean, 16 * logits.sigmoid())
    assert dist.expand((2, 4, 5)).sample().shape == (2, 4, 5)


@pytest.mark.parametrize(("trials", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)])
def test_binomial_refuses_other_numbers_of_trials(trials, error):
    with pytest.raises(error, match="total_count"):
        Binomial(trials, torch.zeros(2))


def test_binomial_extreme_logits_are_finite():
    logits = torch.tensor([-200.0, 200.0], requires_grad=True)
    dist = Binomial(16, logits)
    assert dist.sample((10,)).unique(dim=0).tolist() == [[0.0, 16.0]]
    grad = torch.autograd.grad(dist.log_prob(torch.tensor([3.0, 3.0])).sum(), logits)[0]
    assert torch.isfinite(grad).all()


def test_one_hot_frequencies_and_log_prob(device):
    torch.manual_seed(0)
    dist = OneHotCategorical(logits=torch.tensor([[0.0, 1.0, -1.0], [2.0, 0.0, 0.0]], device=device))
    draws = dist.sample((100_000,))
    assert draws.shape == (100_000, 2, 3) and bool((draws.sum(-1) == 1).all())
    for row in range(2):
        assert_frequencies(draws[:, row].double().sum(0).cpu(), dist.probs[row].double().cpu())
    torch.testing.assert_close(dist.log_prob(draws[:5]), (draws[:5] * dist.logits).sum(-1))
    assert dist.expand((4, 2)).sample((3,)).shape == (3, 4, 2, 3)


def test_implicit_is_a_point_mass_with_a_gradient():
    value = torch.randn(3, 2, 2, requires_grad=True)
    dist = Implicit(value, 2)
    assert (dist.batch_shape, dist.event_shape) == ((3,), (2, 2))
    assert dist.has_rsample
    x = dist.rsample((4,))
    assert x.shape == (4, 3, 2, 2)
    x.sum().backward()
    torch.testing.assert_close(value.grad, torch.full_like(value, 4.0))
    with pytest.raises(NotImplementedError, match="Path"):
        dist.log_prob(x)
    with pytest.raises(ValueError, match="event_dim"):
        Implicit(value, 4)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0, 3.0])
def test_rounded_relaxations_are_exact_draws_at_every_temperature(temperature, device):
    torch.manual_seed(0)
    logits = torch.tensor([-1.0, 0.2, 2.0], device=device)
    n = 100_000
    ones = relaxed_rsample(Bernoulli(logits=logits), n, temperature).round().double().sum(0).cpu()
    for k, p in zip(ones, logits.sigmoid().double().cpu(), strict=True):
        assert_frequencies(torch.stack([n - k, k]), torch.stack([1 - p, p]))
    classes = relaxed_rsample(OneHotCategorical(logits=logits), n, temperature).argmax(-1)
    assert_frequencies(torch.bincount(classes.cpu(), minlength=3).double(), logits.softmax(0).double().cpu())


def test_hard_relaxation_is_discrete_with_the_soft_gradient():
    logits = torch.tensor([0.5, -0.5], dtype=torch.float64, requires_grad=True)
    for dist in (Bernoulli(logits=logits), Binomial(16, logits), OneHotCategorical(logits=logits)):
        torch.manual_seed(0)
        soft = relaxed_rsample(dist, 7, 0.7)
        torch.manual_seed(0)
        hard = relaxed_rsample(dist, 7, 0.7, hard=True)
        torch.testing.assert_close(hard, hard.round())
        weights = torch.randn_like(soft)
        gradients = [torch.autograd.grad((x * weights).sum(), logits, retain_graph=True)[0] for x in (soft, hard)]
        torch.testing.assert_close(*gradients)


def test_a_relaxed_binomial_is_its_bernoullis_summed():
    logits = torch.randn(2, 3, dtype=torch.float64)
    torch.manual_seed(1)
    counts = relaxed_rsample(Independent(Binomial(16, logits), 1), 5, 0.6)
    torch.manual_seed(1)
    parts = relaxed_rsample(Bernoulli(logits=logits[..., None].expand(-1, -1, 16)), 5, 0.6)
    torch.testing.assert_close(counts, parts.sum(-1))
    assert counts.shape == (5, 2, 3)


def test_relaxed_bernoulli_density_matches_the_closed_form():
    """P(sigmoid((l + L) / t) <= x) = sigmoid(t logit(x) - l): Maddison et al. (2017), eq. 25, integrated."""
    torch.manual_seed(0)
    logit, t, n = 0.4, 0.7, 100_000
    x = relaxed_rsample(Bernoulli(logits=torch.tensor(logit, dtype=torch.float64)), n, t)
    for q in (0.1, 0.5, 0.9):
        p = torch.sigmoid(torch.tensor(t * math.log(q / (1 - q)) - logit, dtype=torch.float64))
        k = (x <= q).double().sum()
        assert_frequencies(torch.stack([k, n - k]), torch.stack([p, 1 - p]))


def test_relaxation_refuses_what_it_cannot_relax():
    with pytest.raises(ValueError, match="Normal has no relaxation"):
        relaxed_rsample(Independent(Normal(torch.zeros(2), 1.0), 1), 1, 1.0)
    uneven = torch.distributions.Binomial(torch.tensor([3.0, 4.0]), logits=torch.zeros(2))
    with pytest.raises(ValueError, match="one total_count"):
        relaxed_rsample(uneven, 1, 1.0)
