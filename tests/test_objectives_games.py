"""Label smoothing, energies, pairs, coupled games, importance weights: on tables, by enumeration and in the trainer."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical
from torch.nn.functional import softplus

from advrl.agents import AdversarialTrainer, CoupledTrainer, HistoricalAveraging
from advrl.estimators import GumbelSoftmax, Path, Score, StraightThrough, leave_one_out
from advrl.nn import MLP, Packing, ReconstructionEnergy
from advrl.objectives import (
    BEGAN,
    GAMES,
    CoupledGame,
    Game,
    boundary_weights,
    catgan,
    class_logit,
    ebgan,
    effective_sample_size,
    entropy,
    entropy_of_mean,
    hinge,
    importance_weights,
    labelled_loss,
    least_squares,
    make_game,
    minimax,
    non_saturating,
    optimal_logit,
    relativistic,
    relativistic_average,
    reverse_kl,
    smooth_labels,
)
from tests.statistics import assert_unbiased
from tests.test_trainer import SHAPE, policy, reals

P = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
Q = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)


# label smoothing


def test_one_sided_smoothing_stops_the_logit_at_log_9():
    smoothed = smooth_labels(minimax, real=0.9)
    best = optimal_logit(P, Q, smoothed).sigmoid()
    torch.testing.assert_close(best, 0.9 * P / (P + Q))
    only_real = optimal_logit(P, torch.zeros_like(P), smoothed)
    torch.testing.assert_close(only_real, torch.full_like(P, math.log(0.9 / 0.1)))
    assert math.log(0.9 / 0.1) == pytest.approx(2.1972, abs=5e-5)
    assert smoothed.cost is minimax.cost
    assert torch.equal(optimal_logit(P, Q, smooth_labels(minimax, real=1.0)), optimal_logit(P, Q))


def test_the_smoothed_loss_is_cross_entropy_against_the_smoothed_labels():
    a = torch.linspace(-100, 100, 21, dtype=torch.float64)
    with pytest.warns(UserWarning, match=r"a fake label of 0\.2 keeps the discriminator from rejecting"):
        both = smooth_labels(non_saturating, real=0.9, fake=0.2)
    for part, label in ((both.d_loss.real, 0.9), (both.d_loss.fake, 0.2)):
        exact = nn.functional.binary_cross_entropy_with_logits(a, torch.full_like(a, label), reduction="none")
        torch.testing.assert_close(part(a), exact)
    best = optimal_logit(P, Q, both).sigmoid()
    torch.testing.assert_close(best, (0.9 * P + 0.2 * Q) / (P + Q))  # at least .2 even where only fakes are
    a = optimal_logit(P, Q, both).requires_grad_()
    slope = torch.autograd.grad((P * both.d_loss.real(a) + Q * both.d_loss.fake(a)).sum(), a)[0]
    assert slope.abs().max() < 1e-15


def test_smoothing_works_on_every_separable_loss_and_refuses_the_rest():
    torch.testing.assert_close(optimal_logit(P, Q, smooth_labels(least_squares)), 0.9 * P / (P + Q))
    assert smooth_labels(hinge, 0.9).name == "hinge, labels 0.9 and 0"
    with pytest.raises(ValueError, match="judges pairs"):
        smooth_labels(relativistic)
    for real, fake in ((0.3, 0.4), (1.2, 0.0), (0.5, 0.5), (0.9, -0.1)):
        with pytest.raises(ValueError, match="label must be"):
            smooth_labels(minimax, real, fake)


# energies


def test_ebgan_s_best_energy_and_the_generator_s_cost_there():
    game = ebgan(margin=2.0)
    best = optimal_logit(P, Q, game)
    assert best.tolist() == [0.0, 0.0, 2.0, 2.0]
    assert (Q * game.cost(best)).sum().item() == pytest.approx(2 * 0.7)
    assert not game.high_is_real
    with pytest.raises(ValueError, match="margin must be"):
        ebgan(0.0)


def test_began_s_controller_follows_its_recursion_and_stays_in_the_unit_interval():
    began = BEGAN(gamma=0.5, rate=0.3)
    k = 0.0
    for e_real, e_fake in ((1.0, 0.2), (1.0, 0.1), (2.0, 0.1), (9.0, 0.0), (0.1, 3.0), (0.2, 9.0)):
        real, fake = torch.tensor([e_real - 0.05, e_real + 0.05]), torch.tensor([e_fake, e_fake])
        torch.testing.assert_close(began.d_loss(real, fake), real - k * fake)
        told = began.update(real, fake)
        k = min(1.0, max(0.0, k + 0.3 * (0.5 * e_real - e_fake)))
        assert told["k"].item() == pytest.approx(k, abs=1e-6)
        assert told["convergence"].item() == pytest.approx(e_real + abs(0.5 * e_real - e_fake), abs=1e-6)
    assert k == 0.0
    at = BEGAN(gamma=0.5)
    at.update(torch.ones(3), torch.full((3,), 0.5))  # at equilibrium E_fake = gamma E_real, k rests
    assert at.k.item() == 0.0
    with pytest.raises(ValueError, match="gamma must be"):
        BEGAN(gamma=1.5)


def test_began_trains_and_its_state_is_in_the_checkpoint():
    torch.manual_seed(0)

    def make() -> AdversarialTrainer:
        energy = ReconstructionEnergy(MLP(SHAPE, SHAPE, (8,)), power=1)
        game = make_game("began")
        assert isinstance(game, Game)
        return AdversarialTrainer(policy("implicit"), energy, objective=game)

    one, other = make(), make()
    for _ in range(3):
        told = one.step(4 * reals(6))  # far harder to rebuild than what the generator makes
    assert 0 < one.controller.k.item() < 1
    assert {"k", "convergence"} <= told.keys()
    assert other.controller.k.item() == 0.0  # not shared between runs
    other.load_state_dict(one.state_dict())
    assert torch.equal(other.controller.k, one.controller.k)


def test_reconstruction_energy():
    x = torch.tensor([[1.0, -2.0], [0.5, 0.0]])
    for power, exact in ((1, [1.5, 0.25]), (2, [2.5, 0.125])):
        assert ReconstructionEnergy(nn.Identity(), power)(x).tolist() == [0.0, 0.0]
        zero = nn.Linear(2, 2)
        nn.init.zeros_(zero.weight), nn.init.zeros_(zero.bias)
        assert ReconstructionEnergy(zero, power)(x).tolist() == exact
    with pytest.raises(ValueError, match="power must be 1 or 2"):
        ReconstructionEnergy(nn.Identity(), 3)
    with pytest.raises(ValueError, match="shapes must agree"):
        ReconstructionEnergy(nn.Linear(2, 3))(x)


# pairs and whole batches


def test_average_relativistic_losses_against_their_definition():
    torch.manual_seed(0)
    real, fake = torch.randn(5, dtype=torch.float64), torch.randn(7, dtype=torch.float64)
    d = lambda a, b: (a - b.mean()).sigmoid()  # noqa: E731
    exact = -d(real, fake).log().mean() - (1 - d(fake, real)).log().mean()
    torch.testing.assert_close(relativistic_average.d_loss(real, fake), exact)
    other = -d(fake, real).log().mean() - (1 - d(real, fake)).log().mean()
    torch.testing.assert_close(relativistic_average.g_loss(fake, real), other)
    assert relativistic_average.d_loss(torch.zeros(3), torch.zeros(3)).item() == pytest.approx(math.log(4))
    for far in (1e4, -1e4):
        assert torch.isfinite(relativistic_average.g_loss(fake + far, real))


def test_pairs_pay_what_a_pair_of_logits_says():
    torch.manual_seed(0)
    real, fake = torch.randn(5), torch.randn(3, 5)
    torch.testing.assert_close(relativistic.d_loss(real, fake), -(real - fake).sigmoid().log())
    torch.testing.assert_close(relativistic.cost(fake, real), -(fake - real).sigmoid().log())


def test_catgan_s_entropies_have_their_bounds():
    torch.manual_seed(0)
    k, game = 5, catgan(5)
    sure = 1e3 * torch.eye(k, dtype=torch.float64).repeat(4, 1)
    unsure = torch.zeros(20, k, dtype=torch.float64)
    log_k = math.log(k)
    assert entropy(unsure).tolist() == pytest.approx([log_k] * 20)
    assert entropy(sure).abs().max() < 1e-12
    assert entropy_of_mean(sure).item() == pytest.approx(log_k)
    assert game.d_loss(sure, unsure).item() == pytest.approx(-2 * log_k)  # its least
    assert game.g_loss(sure, unsure).item() == pytest.approx(-log_k)
    x = torch.randn(20, k, dtype=torch.float64)
    p = x.softmax(-1)
    torch.testing.assert_close(entropy(x), -(p * p.log()).sum(-1))
    torch.testing.assert_close(entropy_of_mean(x), -(p.mean(0) * p.mean(0).log()).sum())
    with pytest.raises(ValueError, match="classes must be at least 2"):
        catgan(1)


def test_k_plus_one_classes_are_one_logit():
    """D = Z / (Z + 1) is the softmax over K + 1 classes with the last logit at 0."""
    torch.manual_seed(0)
    logits = torch.randn(6, 4, dtype=torch.float64)
    z = logits.exp().sum(-1)
    torch.testing.assert_close(class_logit(logits).sigmoid(), z / (z + 1))
    with_fake = torch.cat([logits, torch.zeros(6, 1, dtype=torch.float64)], 1).softmax(-1)
    torch.testing.assert_close(class_logit(logits).sigmoid(), 1 - with_fake[:, -1])
    y = torch.tensor([0, 1, 2, 3, 0, 1])
    among_real = with_fake[torch.arange(6), y] / (1 - with_fake[:, -1])
    torch.testing.assert_close(labelled_loss(logits, y), -among_real.log())


class Classes(nn.Module):
    def __init__(self, k: int) -> None:
        super().__init__()
        self.net = MLP(SHAPE, k, (8,))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


@pytest.mark.parametrize("game", [relativistic_average, catgan(4)], ids=lambda game: game.name)
def test_coupled_games_train_through_the_samples(game):
    torch.manual_seed(0)
    judge = Classes(4) if game.outputs else MLP(SHAPE, (), (8,))
    for generator, estimator in (("implicit", None), ("binomial", StraightThrough()), ("bernoulli", GumbelSoftmax())):
        trainer = CoupledTrainer(policy(generator), judge, objective=game, estimator=estimator)
        before = [p.clone() for p in trainer.generator.parameters()]
        for _ in range(2):
            told = trainer.step(reals(6))
        assert all(bool(torch.isfinite(value)) for value in told.values())
        assert any(not torch.equal(a, b) for a, b in zip(before, trainer.generator.parameters(), strict=True))
    if game.outputs:
        with pytest.raises(ValueError, match=r"catgan needs 4 outputs per sample, \(6, 4\), got \(6, 3\)"):
            CoupledTrainer(policy("implicit"), Classes(3), objective=game).step(reals(6))


def test_the_coupled_step_is_the_gradient_of_the_whole_loss():
    torch.manual_seed(0)
    generator, judge = nn.Linear(3, 2), MLP(2, (), (8,))
    trainer = CoupledTrainer(generator, judge, objective=relativistic_average, latent=3, lr_discriminator=0.0, ema=0.0)
    real, z = torch.randn(6, 2), torch.randn(6, 3)
    loss = relativistic_average.g_loss(judge(generator(z)), judge(real))
    exact = torch.autograd.grad(loss, list(generator.parameters()))
    told = trainer.step(real, z)
    assert told["g_cost"].item() == pytest.approx(loss.item())
    for p, g in zip(generator.parameters(), exact, strict=True):
        torch.testing.assert_close(p.grad, g)


def test_the_score_function_refuses_what_couples_a_batch():
    for estimator in (Score(4, leave_one_out), Score(1), None):
        with pytest.raises(ValueError, match="relativistic-average couples the samples of a batch"):
            CoupledTrainer(
                policy("binomial"), MLP(SHAPE, (), (8,)), objective=relativistic_average, estimator=estimator
            )


def test_leave_one_out_is_biased_for_a_cost_that_couples_the_batch():
    """Why it refuses: on two coins, with what each is paid depending on the other, by enumeration.

    The batch's loss is L(x, y), its exact gradient in the shared logit by summing over all four outcomes. Paying each
    sample its own term c(x; y) misses what x does to y's term.
    """
    theta = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    logit = torch.tensor([-0.7, 1.1], dtype=torch.float64)  # the discriminator's, of the two faces
    real = logit.mean()

    def prob(x: int) -> Tensor:
        return theta.sigmoid() if x else 1 - theta.sigmoid()

    def terms(x: int, y: int) -> Tensor:
        """Each fake against the real one, and the real one against the fakes' mean."""
        fakes = logit[[x, y]]
        return softplus(real - fakes) + softplus(fakes.mean() - real)

    pairs = list(itertools.product((0, 1), repeat=2))
    exact = torch.autograd.grad(sum(prob(x) * prob(y) * terms(x, y).mean() for x, y in pairs), theta)[0]
    score = {x: torch.autograd.grad(prob(x).log(), theta)[0] for x in (0, 1)}
    weight = {xy: (prob(xy[0]) * prob(xy[1])).detach() for xy in pairs}
    paid = sum(
        weight[x, y] * ((c := terms(x, y))[0] - c[1]) * (score[x] - score[y]) / 2 for x, y in pairs
    )  # leave-one-out of two: each against the other
    whole = sum(weight[x, y] * terms(x, y).mean() * (score[x] + score[y]) for x, y in pairs)  # one reward per batch
    torch.testing.assert_close(whole, exact)
    assert abs(paid - exact) > 0.1 * abs(exact)


# boundary-seeking weights


def test_importance_weights_sum_to_one_and_count_samples():
    torch.manual_seed(0)
    for logits in (torch.randn(8, 5), 300 * torch.randn(8, 5), torch.full((8, 5), 1e4)):
        weights = importance_weights(logits)
        torch.testing.assert_close(weights.sum(0), torch.ones(5))
        size = effective_sample_size(weights)
        assert bool(((size >= 1 - 1e-5) & (size <= 8 + 1e-4)).all())
    assert effective_sample_size(importance_weights(torch.zeros(8, 5))).tolist() == pytest.approx([8.0] * 5)
    one_hot = importance_weights(1e4 * torch.eye(8)[:, :5])
    assert effective_sample_size(one_hot).tolist() == [1.0] * 5
    cost = torch.randn(8, 5)
    torch.testing.assert_close(boundary_weights(cost, cost), 1 - 8 * (-cost).softmax(0))
    torch.testing.assert_close(boundary_weights(cost, cost).sum(0), torch.zeros(5), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="at least 2 per z"):
        boundary_weights(cost[:1], cost)


def test_boundary_seeking_s_gradient_is_the_weighted_likelihood_s_and_nears_maximum_likelihood():
    """-sum (w - 1/M) grad log q, written by hand; its mean by enumeration; and that nears -E_p grad log q."""
    theta = torch.zeros(4, dtype=torch.float64)
    a = P.log() - theta.log_softmax(0)  # the best discriminator of a uniform generator
    m, draws = 64, 4000
    torch.manual_seed(0)
    copies = theta.expand(draws, 4).clone().requires_grad_()
    estimator = Score(m, advantage=boundary_weights)
    draw = estimator.draw(Categorical(logits=copies))
    loss = estimator.surrogate(draw, lambda x: reverse_kl.cost(a[x]))
    found = torch.autograd.grad(loss.sum(), copies)[0]
    weights = importance_weights(a[draw.x])
    score = nn.functional.one_hot(draw.x, 4) - theta.softmax(0)
    torch.testing.assert_close(found, -((weights - 1 / m)[..., None] * score).sum(0))
    # its expectation, by the multinomial counts of the four outcomes among M = 3 samples
    exact = torch.zeros(4, dtype=torch.float64)
    for xs in itertools.product(range(4), repeat=3):
        w = importance_weights(a[list(xs)])
        exact -= ((w - 1 / 3)[:, None] * (torch.eye(4, dtype=torch.float64)[list(xs)] - 0.25)).sum(0) / 4**3
    copies = theta.expand(20_000, 4).clone().requires_grad_()
    loss = Score(3, advantage=boundary_weights)(Categorical(logits=copies), lambda x: reverse_kl.cost(a[x]))
    assert_unbiased(torch.autograd.grad(loss.sum(), copies)[0], exact)
    likelihood = theta.softmax(0) - P  # -E_p grad log q
    error = {3: (exact - likelihood).norm(), 64: (found.mean(0) - likelihood).norm()}
    assert error[64] < 0.2 * error[3]  # the bias falls like 1 / M


def test_boundary_seeking_is_a_game_with_an_estimator_of_its_own():
    torch.manual_seed(0)
    game = make_game("bs-gan")
    trainer = AdversarialTrainer(policy("binomial"), MLP(SHAPE, (), (8,)), objective=game)
    assert trainer.estimator == Score(8, advantage=boundary_weights)
    trainer.step(reals(4))
    with pytest.raises(ValueError, match="leave the estimator to it"):
        AdversarialTrainer(policy("binomial"), MLP(SHAPE, (), (8,)), objective=game, estimator=Score(8, leave_one_out))


# the trainer


def test_clipping_keeps_the_discriminator_s_weights_in_their_box():
    torch.manual_seed(0)
    judge = MLP(SHAPE, (), (8,))
    trainer = AdversarialTrainer(policy("implicit"), judge, objective=GAMES["wasserstein-clip"])
    trainer.step(reals(6))
    assert max(p.abs().max().item() for p in judge.parameters()) <= 0.01 + 1e-9


def test_every_run_of_a_log_ratio_tells_its_calibration():
    torch.manual_seed(0)
    for name in ("non-saturating", "maximum-likelihood", "hinge"):
        told = AdversarialTrainer(policy("implicit"), MLP(SHAPE, (), (8,)), objective=GAMES[name]).step(reals(6))
        assert ({"calibration_fake", "calibration_real"} <= told.keys()) == (name != "hinge")


def test_the_plain_trainer_says_where_a_coupled_game_goes():
    with pytest.raises(TypeError, match="CoupledTrainer"):
        AdversarialTrainer(
            nn.Linear(3, 2), MLP(2, (), (8,)), latent=3, objective=relativistic_average, estimator=Path()
        )
    assert isinstance(relativistic_average, CoupledGame)


def test_coupled_games_take_packs_and_no_stabilisers():
    torch.manual_seed(0)
    packs = Packing(MLP((4,), (), (8,)), 2)
    trainer = CoupledTrainer(nn.Linear(3, 2), packs, latent=3, objective=relativistic_average)
    assert all(bool(torch.isfinite(value)) for value in trainer.step(torch.randn(6, 2)).values())
    with pytest.raises(ValueError, match="play it without stabilisers"):
        CoupledTrainer(
            nn.Linear(3, 2), packs, latent=3, objective=relativistic_average, stabilisers=[HistoricalAveraging(1.0)]
        )
