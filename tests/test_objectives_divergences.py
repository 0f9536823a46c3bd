"""What costs descend, by finite differences on a categorical; f-divergences, their conjugates and the best outputs."""

import math

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap

from advrl.objectives import (
    DIVERGENCES,
    GAMES,
    GRADIENT_MATCHING,
    VALUE_MATCHING,
    Objective,
    Separable,
    calibration,
    f_gan,
    fairl,
    hinge,
    is_log_ratio,
    least_squares_pearson,
    least_squares_targets,
    maximum_likelihood,
    minimax,
    optimal_logit,
    relativistic,
    smooth_labels,
    wasserstein,
)

TABLE = [name for name, d in DIVERGENCES.items() if d.variational is not None]


def pair(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two distributions (6,) over six outcomes."""
    generator = torch.Generator().manual_seed(seed)
    p, q = (torch.randn(6, dtype=torch.float64, generator=generator).softmax(0) for _ in range(2))
    return p, q


def kl(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p.log() - q.log())).sum()


def js(p: Tensor, q: Tensor) -> Tensor:
    m = (p + q) / 2
    return (kl(p, m) + kl(q, m)) / 2


# written out once more, from their textbooks
EXACT = {
    "kl": kl,
    "reverse-kl": lambda p, q: kl(q, p),
    "jeffreys": lambda p, q: kl(p, q) + kl(q, p),
    "pearson": lambda p, q: ((p - q) ** 2 / q).sum(),
    "neyman": lambda p, q: ((p - q) ** 2 / p).sum(),
    "hellinger": lambda p, q: ((p.sqrt() - q.sqrt()) ** 2).sum(),
    "total-variation": lambda p, q: (p - q).abs().sum() / 2,
    "jensen-shannon": lambda p, q: 2 * js(p, q),
    "gan": lambda p, q: 2 * js(p, q) - math.log(4),
    "softened-reverse-kl": lambda p, q: kl(q, p) - 2 * js(p, q) + math.log(4),
}


def test_every_divergence_has_its_definition_here():
    assert set(EXACT) == set(DIVERGENCES) == set(GRADIENT_MATCHING) == set(VALUE_MATCHING)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_values_are_exact(name):
    for seed in range(3):
        p, q = pair(seed)
        exact = EXACT[name](p, q)
        torch.testing.assert_close(DIVERGENCES[name].between(p, q), exact, rtol=1e-12, atol=1e-14)
        # value matching: its mean under q at the best discriminator is the divergence
        torch.testing.assert_close((q * VALUE_MATCHING[name].cost(p.log() - q.log())).sum(), exact)
    equal = DIVERGENCES[name].between(p, p).item()
    assert equal == pytest.approx({"gan": -math.log(4), "softened-reverse-kl": math.log(4)}.get(name, 0), abs=1e-12)


def test_values_where_one_of_the_two_has_no_mass():
    p, q = torch.tensor([0.5, 0.5, 0.0, 0.0]), torch.tensor([0.0, 0.5, 0.5, 0.0])
    found = {name: d.between(p, q).item() for name, d in DIVERGENCES.items()}
    half = math.log(2) / 2  # of a mixture's half with itself
    exact = {
        "kl": math.inf, "reverse-kl": math.inf, "jeffreys": math.inf, "pearson": math.inf, "neyman": math.inf,
        "hellinger": 1.0, "total-variation": 0.5, "jensen-shannon": 2 * half, "gan": 2 * half - math.log(4),
        "softened-reverse-kl": math.inf,
    }  # fmt: skip
    assert found == pytest.approx(exact, rel=1e-6)
    with pytest.raises(ValueError, match="shapes must agree"):
        DIVERGENCES["kl"].between(p, q[:2])


def gradient(objective: Objective, p: Tensor, theta: Tensor) -> Tensor:
    """E_q[c grad log q] at the best discriminator of q = softmax(theta), frozen."""
    q = theta.softmax(0)
    c = objective.cost(p.log() - q.log())
    return (torch.diag(q) - q[:, None] * q).T @ c


def differences(divergence, p: Tensor, theta: Tensor) -> Tensor:
    step = 1e-5 * torch.eye(len(theta), dtype=theta.dtype)
    return torch.stack(
        [(divergence(p, (theta + e).softmax(0)) - divergence(p, (theta - e).softmax(0))) / 2e-5 for e in step]
    )


@pytest.mark.parametrize("name", DIVERGENCES)
def test_with_the_best_discriminator_a_cost_s_gradient_is_its_divergence_s(name):
    """grad D(p || q_theta) = E_q[c(a) grad log q] at a = log p - log q, frozen: central differences on six atoms."""
    torch.manual_seed(0)
    p, theta = torch.randn(6, dtype=torch.float64).softmax(0), torch.randn(6, dtype=torch.float64)
    expected = differences(EXACT[name], p, theta)
    torch.testing.assert_close(gradient(GRADIENT_MATCHING[name], p, theta), expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_named_costs_are_the_rule_s_up_to_a_constant_and_never_increase(name):
    """c = f - r f' and dc/da = -r^2 f'' <= 0, f'' by differentiating f twice."""
    d, a = DIVERGENCES[name], torch.linspace(-4, 4, 40, dtype=torch.float64)  # 40: without 0, where TV has its kink
    gap = d.cost(a) - d.objective.cost(a)
    torch.testing.assert_close(gap, gap[:1].expand_as(gap), rtol=0, atol=1e-10)
    torch.testing.assert_close(vmap(grad(d.f))(a.exp()), d.slope(a.exp()))
    curvature = vmap(grad(grad(d.f)))(a.exp())
    slope = vmap(grad(d.objective.cost))(a)
    torch.testing.assert_close(slope, -(a.exp() ** 2) * curvature)
    assert bool((slope <= 0).all())


def test_the_maximum_likelihood_cost_gives_the_data_s_gradient():
    """-E_p grad log q, from the data's side, is what e^a paid to the generator's own samples gives, exactly."""
    torch.manual_seed(0)
    p, theta = torch.randn(6, dtype=torch.float64).softmax(0), torch.randn(6, dtype=torch.float64).requires_grad_()
    exact = torch.autograd.grad(-(p * theta.log_softmax(0)).sum(), theta)[0]
    torch.testing.assert_close(gradient(maximum_likelihood, p, theta.detach()), exact, rtol=0, atol=1e-10)
    # without the copy of the density in the discriminator, its own dependence on theta is counted as well
    q = theta.softmax(0)
    wrong = torch.autograd.grad((q * maximum_likelihood.cost(p.log() - q.log())).sum(), theta)[0]
    assert (wrong - exact).norm() > 0.1 * exact.norm()


def test_fairl_s_value_is_kl_and_its_frozen_gradient_points_the_other_way():
    cosines = []
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        p = torch.randn(6, dtype=torch.float64, generator=generator).softmax(0)
        theta = torch.randn(6, dtype=torch.float64, generator=generator)
        q = theta.softmax(0)
        torch.testing.assert_close((q * fairl.cost(p.log() - q.log())).sum(), kl(p, q))
        exact = q - p  # of KL(p || softmax(theta))
        cosines.append(torch.cosine_similarity(gradient(fairl, p, theta), exact, dim=0))
    assert max(cosines) < 0
    a = torch.linspace(-3, 1, 4001, dtype=torch.float64)
    best = fairl.reward(a)
    assert a[best.argmax()].item() == pytest.approx(-1.0)
    assert best.max().item() == pytest.approx(1 / math.e)


@pytest.mark.parametrize("name", TABLE)
def test_conjugates_are_suprema_and_activations_stay_in_their_domain(name):
    d, v = DIVERGENCES[name], torch.linspace(-1.5, 3, 19, dtype=torch.float64)
    form = d.variational
    t = form.activation(v)
    assert bool((t.diff() > 0).all())
    r = torch.logspace(-6, 6, 60_001, dtype=torch.float64)
    grid = (t[:, None] * r - d.f(r)).amax(1)
    found = form.conjugate(t)
    assert bool((found >= grid - 1e-9 * (1 + grid.abs())).all())  # Fenchel's inequality
    torch.testing.assert_close(found, grid, rtol=1e-5, atol=1e-5)  # attained, up to the grid
    torch.testing.assert_close(form.composed(v), found)


@pytest.mark.parametrize("name", TABLE)
def test_the_variational_bound_is_tight_at_the_slope_and_below_elsewhere(name):
    p, q = pair()
    d = DIVERGENCES[name]
    form, r = d.variational, p / q
    value = EXACT[name](p, q)
    t = d.slope(r)
    torch.testing.assert_close((p * t).sum() - (q * form.conjugate(t)).sum(), value)
    game = f_gan(d)
    v = optimal_logit(p, q, game)
    zero = torch.zeros_like(v)

    def played(v: Tensor) -> Tensor:
        loss = game.d_loss(v, zero) - game.d_loss.fake(zero), game.d_loss(zero, v) - game.d_loss.real(zero)
        return -(p * loss[0]).sum() - (q * loss[1]).sum()

    if name != "total-variation":  # there the best output is infinite
        torch.testing.assert_close(form.activation(v), t)
        torch.testing.assert_close(played(v), value)
    for seed in range(5):
        other = torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        assert played(other) < value
    assert torch.equal(game.cost(v), -form.composed(v))


def test_jeffreys_conjugate_has_right_second_derivatives():
    t = torch.tensor([-5.0, -0.3, 0.0, 2.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(DIVERGENCES["jeffreys"].variational.conjugate, (t,))


def test_a_divergence_without_a_conjugate_says_so():
    with pytest.raises(ValueError, match="no conjugate in closed form: use the cost non-saturating"):
        f_gan(DIVERGENCES["softened-reverse-kl"])


BEST = {name: game.objective for name, game in GAMES.items() if getattr(game.objective.d_loss, "best", None)}


@pytest.mark.parametrize("name", BEST)
def test_the_best_output_is_where_the_discriminator_s_loss_is_least(name):
    p, q = pair()
    best = optimal_logit(p, q, BEST[name])

    def loss(a: Tensor) -> Tensor:
        real, fake = a.repeat_interleave(6), a.repeat(6)
        return ((p[:, None] * q).flatten() * BEST[name].d_loss(real, fake)).sum()

    at_best = loss(best.clamp(-30, 30))
    generator = torch.Generator().manual_seed(0)
    for scale in (1e-3, 0.1, 1.0):
        for _ in range(10):
            away = (best + scale * torch.randn(6, dtype=torch.float64, generator=generator)).clamp(-30, 30)
            away = away.clamp(min=0) if not BEST[name].high_is_real else away  # energies
            assert loss(away) >= at_best - 1e-12


def test_values_at_the_best_discriminator():
    """V(D*) = -log 4 + 2 JS; the hinge's loss is 2 - 2 TV; least squares at (-1, 1, 0) has a Pearson divergence."""
    p, q = pair()

    def loss(objective: Objective) -> Tensor:
        a, both = optimal_logit(p, q, objective), objective.d_loss
        assert isinstance(both, Separable)
        return (p * both.real(a)).sum() + (q * both.fake(a)).sum()

    torch.testing.assert_close(-loss(minimax), -math.log(4) + 2 * js(p, q), rtol=0, atol=1e-10)
    torch.testing.assert_close(loss(hinge), 2 - 2 * EXACT["total-variation"](p, q))
    a = optimal_logit(p, q, least_squares_pearson)
    both = ((p + q) * least_squares_pearson.cost(a)).sum()  # their C(G) has the data's part too
    torch.testing.assert_close(2 * both, ((2 * q - (p + q)) ** 2 / (p + q)).sum())
    half = torch.full_like(p, 0.5)
    torch.testing.assert_close(minimax.d_loss(0 * half, 0 * half), torch.full_like(p, math.log(4)))


def test_the_best_logit_off_the_support_and_without_one():
    p, q = torch.tensor([0.5, 0.5, 0.0, 0.0]), torch.tensor([0.0, 0.5, 0.5, 0.0])
    assert optimal_logit(p, q).tolist() == [math.inf, 0.0, -math.inf, 0.0]
    assert optimal_logit(p, q, least_squares_targets(0.0, 1.0, 1.0)).tolist() == [1.0, 0.5, 0.0, 0.0]
    with pytest.raises(ValueError, match="wasserstein has no best discriminator"):
        optimal_logit(p, q, wasserstein)
    with pytest.raises(ValueError, match="shapes must agree"):
        optimal_logit(p, q[:2])
    with pytest.raises(ValueError, match=r"must differ, got 1\.0 for both"):
        least_squares_targets(1.0, 1.0, 0.0)


def test_an_outcome_that_neither_draws_keeps_its_initial_logit():
    """Both densities are zero there, and so is the gradient: D is undefined, and a table keeps what it had."""
    p, q = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.2, 0.8, 0.0])
    a = torch.full((3,), 1.7, requires_grad=True)
    loss = (p * minimax.d_loss.real(a)).sum() + (q * minimax.d_loss.fake(a)).sum()
    slope = torch.autograd.grad(loss, a)[0]
    assert slope[2] == 0 and bool((slope[:2] != 0).all())


def test_relativistic_pairs_need_no_constant():
    """Its generator's gradient at the best logits is a divergence's too: 0 at p = q alone."""
    p, q = pair()
    a = optimal_logit(p, q, relativistic)
    real, fake = a.repeat_interleave(6), a.repeat(6)
    torch.testing.assert_close(relativistic.cost(fake + 5, real + 5), relativistic.cost(fake, real))


COUNTS = (torch.tensor([1, 2, 5]), torch.tensor([4, 3, 1]))


def test_calibration_is_1_on_batches_in_the_exact_proportions():
    p, q = (c.double() / 8 for c in COUNTS)
    a = p.log() - q.log()
    batches = [a.repeat_interleave(c) for c in COUNTS]
    found = calibration(*batches)
    assert {name: value.item() for name, value in found.items()} == pytest.approx(
        {"calibration_fake": 1.0, "calibration_real": 1.0}, abs=1e-14
    )
    changes = (lambda a: a / 2, lambda a: 3 * a, lambda a: a + 1)
    timid, sure, shifted = (calibration(*(change(b) for b in batches)) for change in changes)
    assert max(timid.values()) < 1 < min(sure.values())
    assert sure["calibration_fake"].item() == pytest.approx((q * (3 * a).exp()).sum().item())
    assert [value.item() for value in shifted.values()] == pytest.approx([math.e, 1 / math.e])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("size", [1e2, 1e5, 1e30])
def test_calibration_is_finite_for_any_logit(dtype, size):
    a = torch.tensor([-size, size], dtype=dtype)
    for value in calibration(a, a).values():
        assert value.item() == pytest.approx(1e6, rel=0.05)  # bfloat16 has three digits
    for value in calibration(a.abs(), -a.abs()).values():
        assert value.item() == pytest.approx(0, abs=1e-40)


def test_which_logits_are_log_ratios():
    assert is_log_ratio(minimax) and is_log_ratio(fairl)
    assert not is_log_ratio(hinge) and not is_log_ratio(relativistic) and not is_log_ratio(smooth_labels(minimax))
