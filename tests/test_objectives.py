"""Costs of the logit against closed forms, and against the divergences whose gradient they claim."""

import math
import re

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap

from advrl.objectives import GAMES, Game, Objective, from_cost, gradient_penalty, r1, safe_exp

LOGITS = [-100.0, -20.0, -1.0, 0.0, 1.0, 20.0, 100.0]


def sigmoid(a: float) -> float:
    return 1 / (1 + math.exp(-a)) if a > 0 else math.exp(a) / (1 + math.exp(a))


# name: derivative of the cost, cost at 0, discriminator's loss at 0, slope nowhere positive
TRUTH = {
    "minimax": (lambda a: -sigmoid(a), -math.log(2), math.log(4), True),
    "non-saturating": (lambda a: -sigmoid(-a), math.log(2), math.log(4), True),
    "maximum-likelihood": (lambda a: -math.exp(a), -1.0, math.log(4), True),
    "reverse-kl": (lambda a: -1.0, 0.0, math.log(4), True),
    "least-squares": (lambda a: a - 1, 0.5, 0.5, False),
    "hinge": (lambda a: -1.0, 0.0, 2.0, True),
    "wasserstein-gp": (lambda a: -1.0, 0.0, 0.0, True),
}

# name: derivative of the discriminator's loss in a real logit, and in a fake one; cross-entropy where there is no row
D_SLOPES = {
    "least-squares": (lambda a: a - 1, lambda a: a),
    "hinge": (lambda a: -float(a < 1), lambda a: float(a > -1)),
    "wasserstein-gp": (lambda a: -1.0, lambda a: 1.0),
}
CROSS_ENTROPY = (lambda a: -sigmoid(-a), sigmoid)


def test_every_named_game_has_its_truth_here():
    assert set(TRUTH) == set(GAMES), "a new objective needs a row in TRUTH"
    penalties = {name: game.penalties for name, game in GAMES.items() if game.penalties}
    assert penalties == {"wasserstein-gp": ((10.0, gradient_penalty),)}


@pytest.mark.parametrize("name", GAMES)
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_the_discriminator_s_slopes_are_right_from_minus_to_plus_100(name, dtype, rtol):
    real, fake = (torch.tensor(LOGITS, dtype=dtype, requires_grad=True) for _ in range(2))
    slopes = torch.autograd.grad(GAMES[name].objective.d_loss(real, fake).sum(), (real, fake))
    for got, truth in zip(slopes, D_SLOPES.get(name, CROSS_ENTROPY), strict=True):
        exact = torch.tensor([truth(x) for x in LOGITS], dtype=dtype)
        torch.testing.assert_close(got, exact, rtol=rtol, atol=1e-37)


@pytest.mark.parametrize("name", GAMES)
def test_cost_and_derivative_are_right_from_minus_to_plus_100(name, device):
    objective = GAMES[name].objective
    slope, at_zero, loss_at_zero, decreasing = TRUTH[name]
    if device.type != "mps":
        a = torch.tensor(LOGITS, dtype=torch.float64, device=device)
        exact = torch.tensor([slope(x) for x in LOGITS], dtype=torch.float64, device=device)
        torch.testing.assert_close(vmap(grad(objective.cost))(a), exact, rtol=1e-12, atol=1e-300)
    a = torch.tensor(LOGITS, dtype=torch.float32, device=device)
    got = vmap(grad(objective.cost))(a)
    assert bool(torch.isfinite(got).all())
    assert bool(torch.isfinite(objective.cost(a)).all())
    for x, g in zip(LOGITS, got.tolist(), strict=True):
        if x < 80 or name != "maximum-likelihood":
            assert g == pytest.approx(slope(x), rel=1e-5, abs=1e-37)
    zero = torch.zeros(1, device=device)
    assert objective.cost(zero).item() == pytest.approx(at_zero)
    assert objective.d_loss(zero, zero).item() == pytest.approx(loss_at_zero)
    dense = torch.linspace(-100, 100, 2001, device=device)
    assert bool((vmap(grad(objective.cost))(dense) <= 0).all()) == decreasing
    assert torch.equal(objective.reward(a), -objective.cost(a))


@pytest.mark.parametrize("name", GAMES)
def test_the_discriminator_s_loss_is_finite_and_its_parts_are_means(name):
    objective = GAMES[name].objective
    torch.manual_seed(0)
    real, fake = torch.randn(5, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    together = objective.d_loss(real, fake)
    assert together.shape == (3, 5)
    # d_loss(r, f) = g(r) + h(f): the mean over pairs is the mean over reals plus the mean over fakes
    zero = torch.zeros(5, dtype=torch.float64)
    parts = objective.d_loss(real, zero).mean() + objective.d_loss(zero, fake).mean()
    torch.testing.assert_close(together.mean() + objective.d_loss(zero, zero).mean(), parts)
    for dtype in (torch.float32, torch.float64):
        a = torch.tensor(LOGITS, dtype=dtype)
        assert bool(torch.isfinite(objective.d_loss(a, a)).all())


@pytest.mark.parametrize("name", GAMES)
@pytest.mark.parametrize(("real", "fake"), [((5,), (5, 1)), ((5, 1), (5,)), ((4,), (6,)), ((1,), (5,)), ((5,), ())])
def test_the_discriminator_s_loss_refuses_logits_that_do_not_pair_up(name, real, fake):
    with pytest.raises(ValueError, match=re.escape(f"fake logits (B,) or (S, B), got {real} and {fake}")):
        GAMES[name].objective.d_loss(torch.zeros(real), torch.zeros(fake))


def kl(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p.log() - q.log())).sum()


def js(p: Tensor, q: Tensor) -> Tensor:
    m = (p + q) / 2
    return (kl(p, m) + kl(q, m)) / 2


DIVERGENCES = {
    "minimax": lambda p, q: 2 * js(p, q),
    "non-saturating": lambda p, q: kl(q, p) - 2 * js(p, q),
    "maximum-likelihood": kl,
    "reverse-kl": lambda p, q: kl(q, p),
}


@pytest.mark.parametrize("name", DIVERGENCES)
def test_with_the_optimal_discriminator_a_cost_s_gradient_is_its_divergence_s(name):
    """grad D(p || q_theta) = E_q[c(a) grad log q] at a = log p - log q, frozen: central differences on six atoms."""
    torch.manual_seed(0)
    p = torch.randn(6, dtype=torch.float64).softmax(0)
    theta = torch.randn(6, dtype=torch.float64)
    q = theta.softmax(0)
    c = GAMES[name].objective.cost(p.log() - q.log())
    jacobian = torch.diag(q) - q[:, None] * q  # d q_i / d theta_j
    policy_gradient = c @ jacobian  # sum_i c_i d q_i
    step = 1e-5

    def divergence(logits: Tensor) -> Tensor:
        return DIVERGENCES[name](p, logits.softmax(0))

    steps = step * torch.eye(6, dtype=torch.float64)
    differences = torch.stack([(divergence(theta + e) - divergence(theta - e)) / (2 * step) for e in steps])
    torch.testing.assert_close(policy_gradient, differences, rtol=0, atol=1e-8)


def test_at_the_optimal_discriminator_the_value_is_the_js_divergence():
    """V(D*) = -log 4 + 2 JS(p, q)."""
    torch.manual_seed(0)
    p, q = (torch.randn(6, dtype=torch.float64).softmax(0) for _ in range(2))
    a = p.log() - q.log()
    d_loss = GAMES["minimax"].objective.d_loss
    zero = torch.zeros_like(a)
    real_part, fake_part = d_loss(a, zero) - math.log(2), d_loss(zero, a) - math.log(2)
    loss = (p * real_part).sum() + (q * fake_part).sum()
    torch.testing.assert_close(-loss, -math.log(4) + 2 * js(p, q))


def test_the_largest_real_label_loss_has_its_minimum_at_the_density_ratio():
    """The cross-entropy discriminator's optimum on a table is a* = log p - log q: its gradient vanishes there."""
    torch.manual_seed(0)
    p, q = (torch.randn(6, dtype=torch.float64).softmax(0) for _ in range(2))
    a = (p.log() - q.log()).requires_grad_()
    zero = torch.zeros_like(a)
    d_loss = GAMES["minimax"].objective.d_loss
    loss = (p * d_loss(a, zero)).sum() + (q * d_loss(zero, a)).sum()
    assert torch.autograd.grad(loss, a)[0].abs().max() < 1e-12


def test_safe_exp_is_exact_below_and_convex_and_finite_above():
    a = torch.linspace(-100, 79, 500, dtype=torch.float32)
    assert torch.equal(safe_exp(a), a.exp())
    top = torch.tensor([70.0, 79.0, 80.0, 81.0, 90.0, 100.0, 1000.0], dtype=torch.float32)
    value, slope = safe_exp(top), vmap(grad(safe_exp))(top)
    assert bool(torch.isfinite(value).all())
    assert bool((value.diff() > 0).all())
    assert bool((slope.diff() >= 0).all())
    assert slope[0] > 0
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        ends = safe_exp(torch.tensor([-100.0, 0.0, 100.0], dtype=dtype))
        assert bool(torch.isfinite(ends).all())
        assert bool((ends.diff() > 0).all())


def test_a_user_s_cost_plays_against_cross_entropy():
    mine = from_cost(lambda a: -a.tanh(), name="mine")
    assert isinstance(mine, Objective)
    assert mine.name == "mine"
    assert mine.cost(torch.tensor([0.5])).item() == pytest.approx(-math.tanh(0.5))
    assert mine.d_loss(torch.zeros(1), torch.zeros(1)).item() == pytest.approx(math.log(4))
    for wrong, got in ((lambda a: a.mean(), r"\(\)"), (lambda a: 1.0, "float")):
        with pytest.raises(ValueError, match=rf"wrong must map logits .* but \(3,\) gave {got}"):
            from_cost(wrong, name="wrong").cost(torch.zeros(3))


def test_a_game_takes_pairs_of_weight_and_penalty():
    assert Game(GAMES["hinge"].objective, ((0.5, r1),)).penalties == ((0.5, r1),)
    for weight in (-1.0, math.nan):
        with pytest.raises(ValueError, match="penalty weight must be"):
            Game(GAMES["hinge"].objective, ((weight, r1),))
