"""Costs of the logit against closed forms, and against the divergences whose gradient they claim."""

import math
import re

import pytest
import torch
from scipy.special import wrightomega
from torch import Tensor
from torch.func import grad, vmap

from advrl.objectives import (
    GAMES,
    NAMES,
    Game,
    Objective,
    Separable,
    from_cost,
    gradient_penalty,
    make_game,
    r1,
    r2,
    safe_exp,
)

LOGITS = [-100.0, -20.0, -1.0, 0.0, 1.0, 20.0, 100.0]


def sigmoid(a: float) -> float:
    return 1 / (1 + math.exp(-a)) if a > 0 else math.exp(a) / (1 + math.exp(a))


def bell(v: float) -> float:
    """Derivative of tanh(v) / 2."""
    return 2 * sigmoid(2 * v) * sigmoid(-2 * v)


def conjugate_slope(v: float) -> float:
    """r with log r + 1 - 1/r = v, where the supremum in Jeffreys' conjugate is."""
    return 1 / float(wrightomega(1 - v))


# name: derivative of the cost, cost at 0, discriminator's loss at 0, slope nowhere positive
TRUTH = {
    "minimax": (lambda a: -sigmoid(a), -math.log(2), math.log(4), True),
    "non-saturating": (lambda a: -sigmoid(-a), math.log(2), math.log(4), True),
    "maximum-likelihood": (lambda a: -math.exp(a), -1.0, math.log(4), True),
    "reverse-kl": (lambda a: -1.0, 0.0, math.log(4), True),
    "jeffreys": (lambda a: -math.exp(a) - 1, -1.0, math.log(4), True),
    "pearson": (lambda a: -2 * math.exp(2 * a), 0.0, math.log(4), True),
    "neyman": (lambda a: -2 * math.exp(-a), 0.0, math.log(4), True),
    "hellinger": (lambda a: -math.exp(a / 2) / 2, 0.0, math.log(4), True),
    "total-variation": (lambda a: 0.0, 0.0, math.log(4), True),
    "least-squares": (lambda a: a - 1, 0.5, 0.5, False),
    "least-squares-pearson": (lambda a: a, 0.0, 1.0, False),
    "hinge": (lambda a: -1.0, 0.0, 2.0, True),
    "wasserstein-clip": (lambda a: -1.0, 0.0, 0.0, True),
    "wasserstein-gp": (lambda a: -1.0, 0.0, 0.0, True),
    "relativistic": (lambda a: -sigmoid(-a), math.log(2), math.log(2), True),  # beside a real logit of 0
    "r3gan": (lambda a: -sigmoid(-a), math.log(2), math.log(2), True),
    "boundary-seeking": (lambda a: a, 0.0, math.log(4), False),
    "gail": (lambda a: -sigmoid(a), -math.log(2), math.log(4), True),
    "gail-log-d": (lambda a: -sigmoid(-a), math.log(2), math.log(4), True),
    "airl": (lambda a: -1.0, 0.0, math.log(4), True),
    "fairl": (lambda a: (1 + a) * math.exp(a), 0.0, math.log(4), False),
    "f-gan-kl": (lambda v: -math.exp(v - 1), -math.exp(-1), math.exp(-1), True),
    "f-gan-reverse-kl": (lambda v: -1.0, 1.0, 0.0, True),
    "f-gan-jeffreys": (lambda v: -conjugate_slope(v), 0.0, 0.0, True),
    "f-gan-pearson": (lambda v: -v / 2 - 1, 0.0, 0.0, False),
    "f-gan-neyman": (lambda v: -math.exp(-v / 2), 0.0, 0.0, True),
    "f-gan-hellinger": (lambda v: -math.exp(v), 0.0, 0.0, True),
    "f-gan-total-variation": (lambda v: -bell(v), 0.0, 0.0, True),
    "f-gan-jensen-shannon": (lambda v: -sigmoid(v), 0.0, 0.0, True),
    "ebgan": (lambda e: 1.0, 0.0, 1.0, False),  # an energy: higher is worse
}
NOT_MONOTONE = {"least-squares", "least-squares-pearson", "boundary-seeking", "fairl", "f-gan-pearson", "ebgan"}

# name: derivative of the discriminator's loss in a real logit, and in a fake one; cross-entropy where there is no row
D_SLOPES = {
    "least-squares": (lambda a: a - 1, lambda a: a),
    "least-squares-pearson": (lambda a: a - 1, lambda a: a + 1),
    "hinge": (lambda a: -float(a < 1), lambda a: float(a > -1)),
    "wasserstein-clip": (lambda a: -1.0, lambda a: 1.0),
    "wasserstein-gp": (lambda a: -1.0, lambda a: 1.0),
    "relativistic": (lambda a: -0.5, lambda a: 0.5),  # equal logits
    "r3gan": (lambda a: -0.5, lambda a: 0.5),
    "f-gan-kl": (lambda v: -1.0, lambda v: math.exp(v - 1)),
    "f-gan-reverse-kl": (lambda v: -math.exp(-v), lambda v: 1.0),
    "f-gan-jeffreys": (lambda v: -1.0, conjugate_slope),
    "f-gan-pearson": (lambda v: -1.0, lambda v: v / 2 + 1),
    "f-gan-neyman": (lambda v: -math.exp(-v), lambda v: math.exp(-v / 2)),
    "f-gan-hellinger": (lambda v: -math.exp(-v), math.exp),
    "f-gan-total-variation": (lambda v: -bell(v), lambda v: bell(v)),
    "f-gan-jensen-shannon": (lambda v: -sigmoid(-v), sigmoid),
    "ebgan": (lambda e: 1.0, lambda e: -float(e < 1)),
}
CROSS_ENTROPY = (lambda a: -sigmoid(-a), sigmoid)


def test_every_named_game_has_its_truth_here():
    assert set(TRUTH) == set(GAMES), "a new objective needs a row in TRUTH"
    assert {name for name, (*_, decreasing) in TRUTH.items() if not decreasing} == NOT_MONOTONE
    penalties = {name: game.penalties for name, game in GAMES.items() if game.penalties}
    assert penalties == {"wasserstein-gp": ((10.0, gradient_penalty),), "r3gan": ((0.5, r1), (0.5, r2))}
    assert {name: game.clip for name, game in GAMES.items() if game.clip} == {"wasserstein-clip": 0.01}


def cost_of(objective: Objective, a: Tensor) -> Tensor:
    """The cost, beside real logits of 0 where it needs some."""
    return objective.cost(a, torch.zeros_like(a)) if objective.needs_real else objective.cost(a)


@pytest.mark.parametrize("name", GAMES)
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_the_discriminator_s_slopes_are_right_from_minus_to_plus_100(name, dtype, rtol):
    real, fake = (torch.tensor(LOGITS, dtype=dtype, requires_grad=True) for _ in range(2))
    slopes = torch.autograd.grad(GAMES[name].objective.d_loss(real, fake).sum(), (real, fake))
    for got, truth in zip(slopes, D_SLOPES.get(name, CROSS_ENTROPY), strict=True):
        exact = torch.tensor([truth(x) for x in LOGITS], dtype=dtype)
        known = exact.abs() < 1e30 if dtype == torch.float32 else exact.abs() < 1e300  # beyond: safe_exp's tangent
        assert bool(torch.isfinite(got).all())
        torch.testing.assert_close(got[known], exact[known], rtol=rtol, atol=1e-37)


@pytest.mark.parametrize("name", GAMES)
def test_cost_and_derivative_are_right_from_minus_to_plus_100(name, device):
    objective = GAMES[name].objective
    slope, at_zero, loss_at_zero, decreasing = TRUTH[name]
    if device.type != "mps":
        a = torch.tensor(LOGITS, dtype=torch.float64, device=device)
        exact = torch.tensor([slope(x) for x in LOGITS], dtype=torch.float64, device=device)
        torch.testing.assert_close(vmap(grad(lambda a: cost_of(objective, a)))(a), exact, rtol=1e-12, atol=1e-300)
    a = torch.tensor(LOGITS, dtype=torch.float32, device=device)
    got = vmap(grad(lambda a: cost_of(objective, a)))(a)
    assert bool(torch.isfinite(got).all())
    assert bool(torch.isfinite(cost_of(objective, a)).all())
    for x, g in zip(LOGITS, got.tolist(), strict=True):
        if abs(slope(x)) < 1e30:
            assert g == pytest.approx(slope(x), rel=1e-5, abs=1e-37)
    zero = torch.zeros(1, device=device)
    assert cost_of(objective, zero).item() == pytest.approx(at_zero, abs=1e-7)
    assert objective.d_loss(zero, zero).item() == pytest.approx(loss_at_zero, abs=1e-6)
    dense = torch.linspace(-100, 100, 2001, device=device)
    assert bool((vmap(grad(lambda a: cost_of(objective, a)))(dense) <= 0).all()) == decreasing
    real = torch.zeros_like(a)
    assert torch.equal(objective.reward(a, real), -objective.cost(a, real))


@pytest.mark.parametrize("name", GAMES)
def test_the_discriminator_s_loss_is_finite_and_its_parts_are_means(name):
    objective = GAMES[name].objective
    torch.manual_seed(0)
    real, fake = torch.rand(5, dtype=torch.float64), torch.rand(3, 5, dtype=torch.float64)
    together = objective.d_loss(real, fake)
    assert together.shape == (3, 5)
    # d_loss(r, f) = g(r) + h(f): the mean over pairs is the mean over reals plus the mean over fakes
    zero = torch.zeros(5, dtype=torch.float64)
    if isinstance(objective.d_loss, Separable):
        parts = objective.d_loss(real, zero).mean() + objective.d_loss(zero, fake).mean()
        torch.testing.assert_close(together.mean() + objective.d_loss(zero, zero).mean(), parts)
    else:
        assert objective.needs_real
        torch.testing.assert_close(objective.d_loss(real + 3, fake + 3), together)  # only differences count
    for dtype in (torch.float32, torch.float64):
        a = torch.tensor(LOGITS, dtype=dtype)
        assert bool(torch.isfinite(objective.d_loss(a, a)).all())


@pytest.mark.parametrize("name", GAMES)
@pytest.mark.parametrize(("real", "fake"), [((5,), (5, 1)), ((5, 1), (5,)), ((4,), (6,)), ((1,), (5,)), ((5,), ())])
def test_the_discriminator_s_loss_refuses_logits_that_do_not_pair_up(name, real, fake):
    with pytest.raises(ValueError, match=re.escape(f"fake logits (B,) or (S, B), got {real} and {fake}")):
        GAMES[name].objective.d_loss(torch.zeros(real), torch.zeros(fake))


@pytest.mark.parametrize("name", [name for name in GAMES if isinstance(GAMES[name].objective.d_loss, Separable)])
def test_batches_of_unequal_size_have_a_loss_each(name):
    """torchgan makes the reals' targets in the shape of the fakes, and raises on 4 reals and 6 fakes."""
    loss = GAMES[name].objective.d_loss
    real, fake = torch.linspace(0.1, 2, 4), torch.linspace(0.2, 1, 6)
    each = [loss(r[None], f[None]).item() for r in real for f in fake]
    assert (loss.real(real).mean() + loss.fake(fake).mean()).item() == pytest.approx(sum(each) / 24, rel=1e-5)


def test_minimax_is_not_the_non_saturating_cost():
    """torch-mimicry's "gan" is cross-entropy against ones, of slope -1 at a = -20; the minimax slope is -D = -2e-9."""
    a = torch.tensor([-20.0], dtype=torch.float64)
    slope = {name: vmap(grad(GAMES[name].objective.cost))(a).item() for name in ("minimax", "non-saturating")}
    assert slope["minimax"] == pytest.approx(-math.exp(-20), rel=1e-8)
    assert slope["non-saturating"] == pytest.approx(-1.0)


def test_the_non_saturating_slope_is_1_where_the_generator_loses_all():
    """torch-mimicry takes log(sigmoid(a) + 1e-8), of slope .0014 at a = -25 and 9e-6 at a = -30."""
    a = torch.tensor([-25.0, -30.0, -100.0])
    assert torch.equal(vmap(grad(GAMES["non-saturating"].objective.cost))(a), torch.full((3,), -1.0))


def test_names_and_what_needs_more_than_a_name():
    assert set(NAMES) > set(GAMES) and len(set(NAMES)) == len(NAMES)
    for name in NAMES:
        make_game(name)
    with pytest.raises(ValueError, match="did you mean 'hellinger'"):
        make_game("helinger")
    for name, words in {"catgan": "objectives.catgan", "k+1": "labels.*objectives.class_logit"}.items():
        with pytest.raises(
            ValueError, match=f"{re.escape(name)} needs a discriminator with an output per class.*{words}"
        ):
            make_game(name)


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
