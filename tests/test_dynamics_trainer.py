"""Dynamics as the update rule of adversarial training: against the plain trainer, exact games, resumed, refused."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advrl.agents import (
    DYNAMICS,
    AdamRule,
    AdversarialTrainer,
    Alternating,
    Averaging,
    DynamicsTrainer,
    GameOptimizer,
    SGDRule,
    Simultaneous,
    Unrolled,
    fit,
    make_dynamics,
)
from advrl.cli import main
from advrl.estimators import MovingAverage, Score, leave_one_out, make_estimator
from advrl.nn import FAMILIES, MLP, Policy
from advrl.objectives import GAMES, Game, make_game, r1
from advrl.plots import read_metrics
from advrl.recipes import RECIPES, Ring

SECOND_ORDER = ("unrolled", "consensus", "symplectic", "competitive")
LR = (2e-3, 1e-3)


def nets(device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return MLP(3, 2, (8,), "tanh").to(device, dtype), MLP(2, (), (8,), "tanh").to(device, dtype)


def rules() -> tuple[AdamRule, AdamRule]:
    return AdamRule(LR[0]), AdamRule(LR[1])


def trainer_for(name: str, device: torch.device | str = "cpu", **options: Any) -> DynamicsTrainer:
    return DynamicsTrainer(*nets(device), dynamics=make_dynamics(name, *rules(), first="y"), latent=3, **options)


def weights(trainer: AdversarialTrainer) -> list[Tensor]:
    return [*trainer.generator.parameters(), *trainer.discriminator.parameters()]


def same(one: AdversarialTrainer, other: AdversarialTrainer, atol: float = 0.0) -> None:
    for a, b in zip(weights(one), weights(other), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=atol)


@pytest.mark.parametrize("steps", [(1, 1), (3, 1), (2, 3)])
def test_alternating_is_the_plain_trainer(steps, device):
    """Penalties, schedule, averages and both numbers of steps included."""
    shared: dict[str, Any] = {
        "latent": 3, "penalties": [(0.5, r1)], "penalty_every": 2, "schedule": lambda step: 1 / (1 + step), "ema": 0.9,
        "discriminator_steps": steps[0], "generator_steps": steps[1],
    }  # fmt: skip
    plain = AdversarialTrainer(*nets(device), lr_generator=LR[0], lr_discriminator=LR[1], **shared)
    ours = DynamicsTrainer(*nets(device), dynamics=Alternating(*rules(), first="y"), **shared)
    assert ours.batches_per_step == plain.batches_per_step == steps[0]
    for _ in range(4):
        real, z = torch.randn(steps[0] * 16, 2, device=device), torch.randn((sum(steps) - 1) * 16, 3, device=device)
        expected, found = plain.step(real, z), ours.step(real, z)
    assert set(found) == set(expected)
    same(ours, plain, 2e-4 * LR[1])
    for a, b in zip(ours.average.parameters(), plain.average.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-4 * LR[1])
    torch.testing.assert_close(found["d_loss"], expected["d_loss"])


def test_discriminator_steps_come_before_the_joint_step_on_batches_of_their_own():
    """Against the same written out with GameOptimizer: two steps of y alone, one of both, one of x alone."""
    generator, discriminator = nets(dtype=torch.float64)
    real, z = torch.randn(3 * 4, 2, dtype=torch.float64), torch.randn(4 * 4, 3, dtype=torch.float64)
    sgd = SGDRule(0.1)
    trainer = DynamicsTrainer(
        copy.deepcopy(generator), copy.deepcopy(discriminator), dynamics=Simultaneous(sgd, sgd), latent=3,
        discriminator_steps=3, generator_steps=2,
    )  # fmt: skip
    trainer.step(real, z)
    softplus = nn.functional.softplus
    for i in range(4):
        batch, noise = real.chunk(3)[min(i, 2)], z.chunk(4)[i]
        fake = discriminator(generator(noise))
        cost, loss = softplus(-fake).mean(), softplus(-discriminator(batch)).mean() + softplus(fake).mean()
        down = torch.autograd.grad(cost, list(generator.parameters()), retain_graph=True)
        own = torch.autograd.grad(loss, list(discriminator.parameters()))
        with torch.no_grad():
            for move, net, slope in ((i >= 2, generator, down), (i <= 2, discriminator, own)):
                for p, g in zip(net.parameters(), slope, strict=True):
                    p -= 0.1 * g * move
    for a, b in zip(weights(trainer), [*generator.parameters(), *discriminator.parameters()], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", DYNAMICS)
def test_the_trainer_plays_the_game_that_its_networks_are(name):
    """GameOptimizer on the losses written out, in double precision: the shared samples and logits change nothing."""
    generator, discriminator = nets(dtype=torch.float64)
    sgd = (SGDRule(0.1), SGDRule(0.2))
    make = lambda: make_dynamics(name, *sgd, unroll_steps=3, first="y")  # noqa: E731
    trainer = DynamicsTrainer(copy.deepcopy(generator), copy.deepcopy(discriminator), dynamics=make(), latent=3)
    players = GameOptimizer(make(), dict(generator.named_parameters()), dict(discriminator.named_parameters()))
    softplus, call = nn.functional.softplus, torch.func.functional_call
    for _ in range(4):
        real, z = torch.randn(8, 2, dtype=torch.float64), torch.randn(8, 3, dtype=torch.float64)

        def losses(x: Any, y: Any, real: Tensor = real, z: Tensor = z) -> tuple[Tensor, Tensor]:
            fake, true = call(discriminator, y, (call(generator, x, (z,)),)), call(discriminator, y, (real,))
            return softplus(-fake).mean(), softplus(-true).mean() + softplus(fake).mean()

        trainer.step(real, z)
        players.step(losses)
    for net, found in ((trainer.generator, players.x), (trainer.discriminator, players.y)):
        assert isinstance(found, dict)
        for parameter, p in net.named_parameters():
            torch.testing.assert_close(p.detach(), found[parameter], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", DYNAMICS)
def test_a_resumed_run_is_the_one_never_interrupted(name, device, tmp_path):
    data = torch.randn(64, 2)
    quiet: dict[str, Any] = {"batch_size": 8, "progress": False, "checkpoint_every": 3, "log_every": 3}
    straight, lost, again = (trainer_for(name, device, penalties=[(0.1, r1)]) for _ in range(3))
    torch.manual_seed(1)
    fit(straight, data, 8, out=tmp_path / "straight", **quiet)
    torch.manual_seed(1)
    fit(lost, data, 4, out=tmp_path / "lost", **quiet)
    torch.manual_seed(2)
    fit(again, data, 8, out=tmp_path / "lost", resume=True, **quiet)
    same(straight, again)
    for a, b in zip(straight.average.parameters(), again.average.parameters(), strict=True):
        assert torch.equal(a, b)
    assert all(p.requires_grad and p.grad is None for p in weights(again))


@pytest.mark.parametrize("name", DYNAMICS)
@pytest.mark.parametrize(
    ("family", "estimator"), [("binomial", "loo"), ("gaussian", "path"), ("categorical", "gumbel")]
)
def test_every_dynamics_with_sampling_policies(name, family, estimator):
    torch.manual_seed(0)
    policy = Policy(MLP(3, (FAMILIES[family].numbers, 2, 2), (8,)), FAMILIES[family], 3)
    trainer = DynamicsTrainer(
        policy, MLP((1, 2, 2), (), (8,)), dynamics=make_dynamics(name, *rules(), first="y"),
        estimator=make_estimator(estimator), instance_noise=lambda step: 0.1,
    )  # fmt: skip
    before = [p.clone() for p in weights(trainer)]
    for _ in range(3):
        metrics = trainer.step(torch.rand(6, 1, 2, 2) * 2 - 1)
    assert {"d_loss", "g_cost", "logit_real", "logit_fake", "calibration_real", "calibration_fake"} == set(metrics)
    assert all(m.shape == () and not m.requires_grad and bool(torch.isfinite(m)) for m in metrics.values())
    assert all(not torch.equal(a, b) for a, b in zip(before, weights(trainer), strict=True))


LOSSES_ALONE = [
    name for name, game in GAMES.items() if game.clip is None and game.controller is None and game.advantage is None
]


@pytest.mark.parametrize("name", ["wasserstein-clip", "began"])
def test_what_is_more_than_losses_is_refused(name):
    with pytest.raises(ValueError, match="needs more than its losses"):
        trainer_for("optimistic", objective=make_game(name))


@pytest.mark.parametrize("game", LOSSES_ALONE)
@pytest.mark.parametrize("name", ["optimistic", *SECOND_ORDER])
def test_every_objective(name, game):
    trainer = trainer_for(name, objective=GAMES[game])
    for _ in range(2):
        metrics = trainer.step(torch.randn(6, 2))
    assert all(bool(torch.isfinite(m)) for m in metrics.values())


def test_the_score_function_s_mixed_derivative_reaches_unrolling():
    """One coin against a linear judge: the exact unrolled gradient is the mean over all outcomes.

    y' = y - eta d/dy (-y p + ...) depends on p through the weight of the samples alone, so that a surrogate whose
    second derivatives are wrong would give the first-order gradient.
    """

    class Coin(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.logit = nn.Parameter(torch.tensor([0.4], dtype=torch.float64))

        def distribution(self, z: Tensor) -> torch.distributions.Distribution:
            logits = self.logit.expand(len(z), 1)
            return torch.distributions.Independent(torch.distributions.Bernoulli(logits=logits), 1)

        def noise(self, n: int) -> Tensor:
            return torch.zeros(n, 1, dtype=torch.float64)

    eta, inner, start = 1.0, 0.7, 0.5
    n = 200_000
    linear = Game(GAMES["wasserstein-gp"].objective)  # d_loss = fake - real, cost = -fake
    found = {}
    for first_order in (False, True):
        torch.manual_seed(0)
        judge = nn.Linear(1, 1, bias=False).double()
        nn.init.constant_(judge.weight, start)
        coin = Coin()
        trainer = DynamicsTrainer(
            coin, judge, dynamics=Unrolled(SGDRule(eta), SGDRule(inner), 1, first_order), objective=linear, ema=0.0,
            estimator=Score(2, leave_one_out),
        )  # fmt: skip
        trainer.step(torch.zeros(n, 1, dtype=torch.float64))
        found[first_order] = (0.4 - float(coin.logit.detach())) / eta
    p = torch.tensor(0.4, dtype=torch.float64).sigmoid()
    slope = float(p * (1 - p))
    # f = -y' p with y' = y - inner p: df/dlogit = -(y' - inner p) p (1 - p) in full, -y' p (1 - p) to first order
    exact = {False: -(start - 2 * inner * float(p)) * slope, True: -(start - inner * float(p)) * slope}
    error = 6 * 2 / n**0.5  # a term is at most 2 in size; six standard errors
    for first_order, value in exact.items():
        assert found[first_order] == pytest.approx(value, abs=error)
    assert abs(exact[False] - exact[True]) > 3 * error  # so that one cannot pass for the other


@pytest.mark.parametrize("name", DYNAMICS)
def test_nothing_is_made_on_the_default_device(name):
    trainer = trainer_for(name, penalties=[(0.5, r1)])
    torch.set_default_device("meta")
    try:
        for _ in range(2):
            trainer.step(torch.zeros(4, 2, device="cpu"), torch.zeros(4, 3, device="cpu"))
    finally:
        torch.set_default_device(None)
    assert {p.device.type for p in weights(trainer)} == {"cpu"}


def test_averages_of_the_dynamics_are_what_is_evaluated():
    trainer = trainer_for("averaging")
    seen = []
    for _ in range(5):
        trainer.step(torch.randn(8, 2))
        seen.append([p.detach().clone() for p in trainer.generator.parameters()])
    for i, p in enumerate(trainer.average.parameters()):
        torch.testing.assert_close(p, torch.stack([s[i] for s in seen]).mean(0))
    slow = trainer_for("lookahead")
    start = [p.detach().clone() for p in slow.generator.parameters()]
    for _ in range(4):
        slow.step(torch.randn(8, 2))
    for a, b in zip(start, slow.average.parameters(), strict=True):
        assert torch.equal(a, b)
    slow.step(torch.randn(8, 2))
    for a, b in zip(slow.generator.parameters(), slow.average.parameters(), strict=True):
        assert torch.equal(a, b)


def test_frozen_parameters_stay_and_the_rest_moves():
    generator, discriminator = nets()
    frozen = next(discriminator.parameters()).requires_grad_(False)
    before = frozen.clone()
    trainer = DynamicsTrainer(generator, discriminator, dynamics=make_dynamics("extragradient", *rules()), latent=3)
    trainer.step(torch.randn(4, 2))
    assert torch.equal(frozen, before) and not frozen.requires_grad


def test_wrong_use_is_refused_with_a_sentence():
    policy = Policy(MLP(3, (FAMILIES["bernoulli"].numbers, 2, 2), (8,)), FAMILIES["bernoulli"], 3)
    judge = MLP((1, 2, 2), (), (8,))
    make = lambda name, estimator: DynamicsTrainer(  # noqa: E731
        policy, judge, dynamics=make_dynamics(name, *rules()), estimator=make_estimator(estimator)
    )
    with pytest.raises(ValueError, match="learns along the way"):
        make("optimistic", "relax")
    not_twice = [n for n in ("st", "disarm", "reinmax", "measure", "es") if not make_estimator(n).higher_order]
    assert not_twice
    for name in SECOND_ORDER:
        with pytest.raises(ValueError, match="needs second derivatives"):
            make(name, not_twice[0])
    with pytest.raises(TypeError, match="dynamics must be a Dynamics"):
        DynamicsTrainer(*nets(), dynamics="optimistic", latent=3)
    state = trainer_for("optimistic").state_dict()
    with pytest.raises(ValueError, match="another dynamics"):
        trainer_for("lookahead").load_state_dict(state)
    plain = AdversarialTrainer(*nets(), latent=3)
    with pytest.raises(ValueError, match="none of a dynamics"):
        trainer_for("optimistic").load_state_dict(plain.state_dict())
    with pytest.raises(ValueError, match="parts"):
        plain.load_state_dict(state)


def test_moving_averages_of_an_estimator_are_part_of_the_state():
    policy = Policy(MLP(3, (1, 2, 2), (8,)), FAMILIES["bernoulli"], 3)
    dynamics = Averaging(Alternating(*rules()))
    trainer = DynamicsTrainer(policy, MLP((1, 2, 2), (), (8,)), dynamics=dynamics, estimator=Score(2, MovingAverage()))
    trainer.step(torch.zeros(4, 1, 2, 2))
    assert set(trainer.state_dict()) == {
        "steps", "generator", "discriminator", "average", "estimator.baseline", "dynamics"
    }  # fmt: skip


@pytest.mark.parametrize("name", ["optimistic", "unrolled"])
def test_the_command_line_trains_resumes_and_loads_a_dynamics(name, tmp_path):
    words = ["--dynamics", name, "--unroll-steps", "2", "--batch-size", "16", "--width", "8", "--quiet"]
    words += ["--checkpoint-every", "4", "--log-every", "4", "--picture-every", "8"]
    out = tmp_path / "run"
    assert main(["train", "ring", *words, "--steps", "8", "--out", str(out)]) == 0
    assert main(["train", "ring", *words, "--steps", "12", "--resume", str(out)]) == 0
    assert list(read_metrics(out / "metrics.csv")["step"]) == [4, 8, 12]
    assert RECIPES["ring"] is Ring


def test_the_command_line_refuses_what_does_not_go_together(capsys):
    assert main(["train", "ring", "--dynamics", "optimist"]) == 2
    assert "did you mean 'optimistic'" in capsys.readouterr().err
    assert main(["train", "ring", "--dynamics", "optimistic", "--precision", "bf16"]) == 2
    assert "need --dynamics alternating" in capsys.readouterr().err
