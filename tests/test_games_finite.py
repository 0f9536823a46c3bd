"""The GAN on a finite set, the ratio game and Gaussian fits: exact values, orders of play, and what goes round."""

import math

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, Normal

from advrl.games import (
    density_step,
    finite_gan,
    forward_kl_fit,
    gan_gap,
    jacobian,
    max_min_play,
    ratio_value,
    reverse_kl_fit,
    total_variation,
    vector_field,
)
from advrl.tabular import jensen_shannon, optimal_logit

KIND = {"dtype": torch.float64}


def simplex(*shape, seed=0):
    torch.manual_seed(seed)
    return torch.randn(*shape, **KIND).softmax(-1)


def test_value_at_the_best_discriminator_is_the_divergence():
    """V(q, D*) = 2 JS(p, q) - log 4, to 1e-10: theorem 1."""
    for seed in range(20):
        p, theta = simplex(7, seed=seed), torch.randn(7, **KIND)
        q = theta.softmax(-1)
        value = finite_gan(p)(theta, optimal_logit(p, q))[0]
        assert abs(value - (2 * jensen_shannon(p, q) - math.log(4))) < 1e-10
    assert finite_gan(p)(p.log(), torch.zeros(7, **KIND))[0] == pytest.approx(-math.log(4), abs=1e-14)


def test_disjoint_support_and_untrained_outcomes():
    p, q = torch.tensor([0.5, 0.5, 0, 0], **KIND), torch.tensor([0.0, 0, 1, 0], **KIND)
    game = finite_gan(p, generator=lambda x: x)
    assert game(q, optimal_logit(p, q))[0] == 0  # 2 log 2 - log 4
    logit = torch.randn(4, **KIND)
    slope = vector_field(game, q, logit)[1]
    assert slope[3] == 0 and (slope[:3] != 0).all()


def test_density_steps_halve_the_total_variation(device):
    p, q = simplex(6).to(device), simplex(6, seed=1).to(device)
    before = total_variation(p, q)
    for _ in range(40):
        q = density_step(p, q)
        after = total_variation(p, q)
        assert after == pytest.approx(float(before) / 2, rel=1e-3)
        before = after
    assert before < 1e-12
    missing = torch.tensor([1.0, 0, 0], device=device)
    torch.testing.assert_close(density_step(missing[[1, 0, 2]], missing), torch.tensor([0.5, 0.5, 0], device=device))


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.9])
def test_density_steps_of_any_rate_converge(rate):
    p, q = simplex(6), simplex(6, seed=1)
    mirror = q * torch.exp(-rate * (q / (p + q)).log())
    torch.testing.assert_close(density_step(p, q, rate), mirror / mirror.sum())
    last = jensen_shannon(p, q)
    for _ in range(200):
        q = density_step(p, q, rate)
        assert jensen_shannon(p, q) <= last + 1e-15
        last = jensen_shannon(p, q)
    assert total_variation(p, q) < max(math.exp(-rate * 200 / 4), 1e-15)


PLACES = torch.arange(-32, 33, dtype=torch.float64) / 16


def spike(t):
    """A point mass that slides along the places, shared by the two next to it: E x = t."""
    return (1 - 16 * (PLACES - t).abs()).clamp(min=0)


def steps_of(game, x, y, eta, count):
    """Alternating steps, y first: the trainer's order."""
    radii = []
    for _ in range(count):
        y = y - eta * vector_field(game, x, y)[1]
        x = x - eta * vector_field(game, x, y)[0]
        radii.append(torch.hypot(x, y))
    return torch.stack(radii)


def test_the_same_game_converges_in_densities_and_orbits_in_parameters():
    p, start = spike(torch.zeros((), **KIND)), torch.tensor(0.51, **KIND)
    game = finite_gan(p, spike, lambda slope: slope * PLACES)  # the Dirac-GAN on a lattice
    radii = steps_of(game, start, torch.zeros_like(start), 0.1, 600)  # nearly five turns at half a radian a unit
    assert radii.min() > 0.49 and radii.max() < 0.53
    q = spike(start)
    for _ in range(40):
        q = density_step(p, q)
    assert total_variation(p, q) < 1e-12


def test_table_and_softmax_are_attracted_but_the_spike_of_width_w_hardly_is():
    """J has positive real parts for logits in tables; a shifted bump of variance v has them at v / 4 alone."""
    p = simplex(5)
    values = torch.linalg.eigvals(jacobian(finite_gan(p), p.log(), torch.zeros(5, **KIND)))
    still = values.abs() < 1e-9  # a constant added to the generator's logits
    assert still.sum() == 1 and (values.real[~still] > 1e-3).all()
    places = torch.arange(-40, 41, **KIND) / 10
    for width in (0.3, 0.6):

        def bump(t, width=width):
            return (-((places - t) ** 2) / (2 * width**2)).softmax(-1)

        zero = torch.zeros((), **KIND)
        p = bump(zero)
        variance = (p * places**2).sum()
        found = torch.linalg.eigvals(jacobian(finite_gan(p, bump, lambda t: t * places), zero, zero))
        turn = variance / (2 * width**2)  # half the slope of the bump's mean in t
        exact = torch.complex(variance / 4, (turn**2 - variance**2 / 16).sqrt())
        assert (found - exact).abs().min() < 1e-12 and (found - exact.conj()).abs().min() < 1e-12


def test_table_game_converges_by_plain_steps():
    p, x = simplex(4), torch.zeros(4, **KIND)
    y = torch.zeros(4, **KIND)
    game = finite_gan(p)
    for _ in range(600):
        gx, gy = vector_field(game, x, y)
        x, y = x - 4 * gx, y - 4 * gy
    assert total_variation(p, x.softmax(-1)) < 1e-5


def test_max_min_drops_modes_and_min_max_does_not():
    p = torch.tensor([0.4, 0.3, 0.2, 0.1], **KIND)
    play = max_min_play(p, 4000, 0.02)
    late = play.outcomes[1000:]
    held = torch.eye(4, **KIND)[late]
    assert total_variation(p, held).min() == pytest.approx(1 - 0.4)  # one outcome at every single step
    assert (late[1:] != late[:-1]).sum() > 500  # and hops
    torch.testing.assert_close(held.mean(0), p, atol=0.01, rtol=0)
    assert play.values[1000:].min() > -math.log(4) - 0.05 and play.values.max() <= -math.log(4) + 1e-12
    q = torch.eye(4, **KIND)[0]
    for _ in range(40):
        q = density_step(p, q)
    assert total_variation(p, q) < 1e-11


def test_duality_gap_is_zero_at_one_half_alone():
    p = simplex(5)
    zero = torch.zeros(5, **KIND)
    assert gan_gap(p, p, zero).abs() < 1e-15
    for seed in range(1, 20):
        q = simplex(5, seed=seed)
        assert gan_gap(p, q, zero) > 1e-4
        assert gan_gap(p, q, optimal_logit(p, q)) > 1e-4
        assert gan_gap(p, p, torch.randn(5, **KIND)) > 1e-4


def test_gap_is_what_the_players_would_gain():
    p, q, a = simplex(4), simplex(4, seed=1), torch.randn(4, **KIND)
    game = finite_gan(p, generator=lambda x: x)
    top = game(q, optimal_logit(p, q))[0]
    bottom = min(game(corner, a)[0] for corner in torch.eye(4, **KIND))
    torch.testing.assert_close(gan_gap(p, q, a), top - bottom)


@pytest.mark.parametrize("normalised", [True, False])
def test_copied_density_has_half_the_likelihoods_gradient(normalised):
    p, theta = simplex(6), torch.randn(6, **KIND, requires_grad=True)
    features = torch.randn(6, 6, **KIND)
    energy = features @ theta
    model = energy.log_softmax(-1) if normalised else energy
    got = torch.autograd.grad(ratio_value(p, model, None, "mle"), theta, retain_graph=True)[0]
    likelihood = torch.autograd.grad((p * energy.log_softmax(-1)).sum(), theta)[0]
    torch.testing.assert_close(got, likelihood / 2, rtol=0, atol=1e-14)


def test_gan_is_the_finite_gan_and_noise_is_left_alone():
    p = simplex(5)
    q, c = (torch.randn(5, **KIND, requires_grad=True) for _ in range(2))
    value = ratio_value(p, c, q.log_softmax(-1), "gan")
    torch.testing.assert_close(value, finite_gan(p)(q, c - q.log_softmax(-1))[0])
    fixed = ratio_value(p, c, q.log_softmax(-1), "nce")
    assert torch.autograd.grad(fixed, q, allow_unused=True)[0] is None
    best = p.log().requires_grad_()  # the model that is the data
    assert torch.autograd.grad(ratio_value(p, best, q.log_softmax(-1), "nce"), best)[0].abs().max() < 1e-14


def test_nce_recovers_the_constant_of_a_gaussian():
    """Model -(x - m)^2 / (2 s^2) + c without a normalisation: c comes to -log Z = -log(s sqrt(2 pi))."""
    x = torch.linspace(-15, 15, 3001, **KIND)
    width = math.log(float(x[1] - x[0]))
    data = (Normal(1.0, 0.7).log_prob(x) + width).exp().double()
    noise = Normal(torch.zeros((), **KIND), 2.0).log_prob(x) + width
    m, log_s, c = (torch.zeros((), **KIND, requires_grad=True) for _ in range(3))
    search = torch.optim.LBFGS(
        [m, log_s, c], max_iter=300, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure():
        search.zero_grad()
        loss = -ratio_value(data, -((x - m) ** 2) / (2 * (2 * log_s).exp()) + c + width, noise, "nce")
        loss.backward()
        return loss

    search.step(closure)
    assert m.item() == pytest.approx(1, abs=1e-5) and log_s.exp().item() == pytest.approx(0.7, abs=1e-5)
    assert c.item() == pytest.approx(-math.log(0.7 * math.sqrt(2 * math.pi)), abs=1e-5)


def humps(apart, std):
    places = torch.tensor([-apart, apart], **KIND)
    return MixtureSameFamily(Categorical(torch.full((2,), 0.5, **KIND)), Normal(places, torch.full_like(places, std)))


def test_forward_divergence_covers_both_humps():
    fit = forward_kl_fit(humps(3.0, 0.5))
    assert fit.mean == 0 and fit.std == pytest.approx(math.sqrt(0.25 + 9))
    q = Normal(torch.tensor(fit.mean, **KIND), fit.std)
    x = torch.linspace(-30, 30, 100_001, **KIND)
    log_p = humps(3.0, 0.5).log_prob(x)
    assert fit.divergence == pytest.approx(float(torch.trapezoid(log_p.exp() * (log_p - q.log_prob(x)), x)), abs=1e-9)


def test_reverse_divergence_locks_on_to_one_hump():
    p = humps(3.0, 0.5)
    for start in (-1.0, 1.0):
        fit = reverse_kl_fit(p.log_prob, start)
        assert fit.mean == pytest.approx(3 * start, abs=1e-6) and fit.std == pytest.approx(0.5, abs=1e-6)
        assert fit.divergence == pytest.approx(math.log(2), abs=1e-6)  # half of p is not there
    both = forward_kl_fit(p)
    for mean, std in ((both.mean, both.std), (3.0, 0.5)):
        x = torch.linspace(mean - 12 * std, mean + 12 * std, 40_001, **KIND)
        log_q = Normal(torch.tensor(mean, **KIND), std).log_prob(x)
        value = float(torch.trapezoid(log_q.exp() * (log_q - p.log_prob(x)), x))
        assert value >= math.log(2) - 1e-6
    near = reverse_kl_fit(humps(0.3, 0.5).log_prob, 0.2)  # one hump: one Gaussian in the middle
    assert near.mean == pytest.approx(0, abs=1e-5) and near.divergence < 1e-2


def test_reverse_divergence_to_a_gaussian_is_zero():
    fit = reverse_kl_fit(Normal(torch.tensor(-2.0, **KIND), 3.0).log_prob, 5.0, 0.1)
    assert fit.mean == pytest.approx(-2, abs=1e-6) and fit.std == pytest.approx(3, abs=1e-6)
    assert fit.divergence == pytest.approx(0, abs=1e-10)


def test_wrong_use_says_so():
    p = simplex(3)
    with pytest.raises(ValueError, match="data"):
        finite_gan(2 * p)
    with pytest.raises(ValueError, match="density"):
        density_step(p, -p)
    with pytest.raises(ValueError, match="rate"):
        density_step(p, p, 1.5)
    with pytest.raises(ValueError, match="steps"):
        max_min_play(p, 0)
    with pytest.raises(ValueError, match="learner"):
        ratio_value(p, p.log(), p.log(), "vae")
    with pytest.raises(ValueError, match="own copy"):
        ratio_value(p, p.log(), p.log(), "mle")
    with pytest.raises(ValueError, match="own copy"):
        ratio_value(p, p.log(), None, "gan")
