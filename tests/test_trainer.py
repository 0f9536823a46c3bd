"""The adversarial trainer: against a loop written out by hand, and every estimator with every policy that fits it."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from advrl.agents import AdversarialTrainer
from advrl.estimators import ESTIMATORS, MovingAverage, Path, Score, leave_one_out, make_estimator
from advrl.nn import FAMILIES, MLP, Policy
from advrl.objectives import GAMES, Game, Objective, non_saturating, r1
from tests.pairs import fits

SHAPE = (1, 4, 4)


def policy(name: str, device: torch.device | str = "cpu") -> Policy:
    family = FAMILIES[name]
    return Policy(MLP(5, (family.numbers, 4, 4), hidden=(16,)), family, 5).to(device)


def reals(n: int, device: torch.device | str = "cpu") -> Tensor:
    return (torch.randint(0, 17, (n, *SHAPE)).float() / 8 - 1).to(device)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_estimator_with_every_policy(name, estimator, device):
    torch.manual_seed(0)
    generator, discriminator = policy(name, device), MLP(SHAPE, (), hidden=(16,)).to(device)
    if not fits(name, estimator):
        with pytest.raises(ValueError, match=r"use (path|loo)"):
            AdversarialTrainer(generator, discriminator, estimator=make_estimator(estimator))
        return
    before = [p.clone() for p in generator.parameters()]
    trainer = AdversarialTrainer(generator, discriminator, estimator=make_estimator(estimator))
    metrics = trainer.step(reals(6, device))
    assert all(m.shape == () and not m.requires_grad and bool(torch.isfinite(m)) for m in metrics.values())
    assert any(not torch.equal(a, b) for a, b in zip(before, generator.parameters(), strict=True))
    assert all(p.requires_grad for p in discriminator.parameters())
    assert trainer.steps == 1


@pytest.mark.parametrize("name", GAMES)
def test_every_objective(name):
    torch.manual_seed(0)
    trainer = AdversarialTrainer(policy("binomial"), MLP(SHAPE, (), hidden=(16,)), objective=GAMES[name])
    for _ in range(3):
        metrics = trainer.step(reals(6))
    assert all(bool(torch.isfinite(m)) for m in metrics.values())


def test_steps_are_those_of_a_loop_written_by_hand():
    """Path gradient, R1, averages: the same parameters as the textbook loop that runs the generator twice."""
    torch.manual_seed(0)
    generator, discriminator = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)), MLP(2, (), hidden=(8,))
    g, d = copy.deepcopy(generator), copy.deepcopy(discriminator)
    trainer = AdversarialTrainer(
        generator, discriminator, estimator=Path(), latent=3, penalties=[(0.5, r1)], penalty_every=2, ema=0.9
    )
    g_opt = torch.optim.Adam(g.parameters(), 2e-3, betas=(0.5, 0.99))
    d_opt = torch.optim.Adam(d.parameters(), 2e-3, betas=(0.5, 0.99))
    average = copy.deepcopy(g)
    for step in range(5):
        real, z = torch.randn(6, 2), torch.randn(6, 3)
        trainer.step(real, z)

        x = real.clone().requires_grad_()
        logits = d(x)
        loss = softplus(-logits).mean() + softplus(d(g(z).detach())).mean()
        if step % 2 == 0:
            slope = torch.autograd.grad(logits.sum(), x, create_graph=True)[0]
            loss = loss + 0.5 * 2 * slope.square().sum(1).mean()
        d_opt.zero_grad()
        loss.backward()
        d_opt.step()
        g_opt.zero_grad()
        softplus(-d(g(z))).mean().backward()
        g_opt.step()
        decay = min(0.9, (step + 2) / (step + 11))
        for mine, live in zip(average.parameters(), g.parameters(), strict=True):
            mine.data = decay * mine.data + (1 - decay) * live.data
    for ours, hand in ((generator, g), (discriminator, d), (trainer.average, average)):
        for a, b in zip(ours.parameters(), hand.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_both_players_take_their_number_of_steps():
    calls = []

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = MLP(2, (), hidden=(4,))

        def forward(self, x: Tensor) -> Tensor:
            calls.append((len(x), self.net.training, next(self.net.parameters()).requires_grad))
            return self.net(x)

    trainer = AdversarialTrainer(
        nn.Linear(3, 2), Counting(), latent=3, discriminator_steps=3, generator_steps=2, estimator=Path()
    )
    assert trainer.batches_per_step == 3
    trainer.step(torch.randn(12, 2))
    assert [needs for *_, needs in calls] == [True] * 6 + [False] * 2  # real and fake each, then the generator's two
    assert {n for n, *_ in calls} == {4}


def test_the_generator_runs_once_for_both_players():
    runs = []
    generator = nn.Linear(3, 2)
    generator.register_forward_hook(lambda *_: runs.append(1))
    trainer = AdversarialTrainer(generator, MLP(2, (), hidden=(4,)), latent=3)
    runs.clear()
    trainer.step(torch.randn(4, 2))
    assert len(runs) == 1


def test_an_ordinary_module_is_an_implicit_policy_and_one_column_of_logits_will_do():
    trainer = AdversarialTrainer(nn.Linear(3, 2), nn.Linear(2, 1), latent=3)
    assert isinstance(trainer.estimator, Path)
    trainer.step(torch.randn(4, 2))
    with pytest.raises(ValueError, match=r"\(4,\) or \(4, 1\), got \(4, 2\)"):
        AdversarialTrainer(nn.Linear(3, 2), nn.Linear(2, 2), latent=3).step(torch.randn(4, 2))
    with pytest.raises(ValueError, match="latent="):
        AdversarialTrainer(nn.Linear(3, 2), nn.Linear(2, 1))


def test_parameters_that_were_frozen_stay_frozen():
    discriminator = MLP(2, (), hidden=(4,))
    frozen = next(discriminator.parameters()).requires_grad_(False)
    before = frozen.clone()
    AdversarialTrainer(nn.Linear(3, 2), discriminator, latent=3).step(torch.randn(4, 2))
    assert not frozen.requires_grad
    assert torch.equal(frozen, before)


def test_relativistic_costs_see_the_real_logits():
    seen = []

    def cost(fake: Tensor, real: Tensor | None = None) -> Tensor:
        seen.append((tuple(fake.shape), None if real is None else tuple(real.shape)))
        assert real is not None
        return softplus(real - fake)

    pairing = Objective("pairing", lambda real, fake: softplus(fake - real), cost, needs_real=True)
    AdversarialTrainer(policy("implicit"), MLP(SHAPE, (), hidden=(4,)), objective=pairing).step(reals(6))
    assert seen == [((1, 6), (6,))]


def test_state_dict_covers_everything_and_refuses_another_trainer():
    torch.manual_seed(0)
    average = Score(2, MovingAverage())
    make = lambda estimator: AdversarialTrainer(policy("binomial"), MLP(SHAPE, (), hidden=(4,)), estimator=estimator)  # noqa: E731
    one, other = make(average), make(Score(2, MovingAverage()))
    for _ in range(3):
        one.step(reals(4))
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    assert set(one.state_dict()) == {
        "steps", "generator", "discriminator", "average", "g_opt", "d_opt", "estimator.baseline"
    }  # fmt: skip
    real, z = reals(4), torch.randn(4, 5)
    for trainer in (one, other):
        torch.manual_seed(1)
        trainer.step(real, z)
    for a, b in zip(one.generator.parameters(), other.generator.parameters(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(average.baseline.average, other.estimator.baseline.average)
    with pytest.raises(ValueError, match=r"estimator\.baseline"):
        make(Score(2, leave_one_out)).load_state_dict(one.state_dict())


def test_learning_rates_follow_the_schedule():
    trainer = AdversarialTrainer(
        nn.Linear(3, 2),
        MLP(2, ()),
        latent=3,
        lr_generator=0.1,
        lr_discriminator=0.2,
        schedule=lambda step: 1 / (1 + step),
    )
    for step in range(3):
        trainer.step(torch.randn(4, 2))
        assert trainer.g_opt.param_groups[0]["lr"] == pytest.approx(0.1 / (1 + step))
        assert trainer.d_opt.param_groups[0]["lr"] == pytest.approx(0.2 / (1 + step))


def test_the_policy_learns_the_exact_optimum_of_a_known_cost():
    """Against a discriminator that is a known function, the policy must move its mass to the best count."""
    torch.manual_seed(0)

    class Judge(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            return -((x.flatten(1) - 0.5) ** 2).sum(1) * 10 + 0 * self.unused

    generator = policy("binomial")
    reverse_kl = Objective("reverse-kl", non_saturating.d_loss, lambda fake, real=None: -fake)
    trainer = AdversarialTrainer(
        generator, Judge(), objective=Game(reverse_kl), estimator=Score(8, leave_one_out), lr_generator=0.02
    )
    for _ in range(300):
        trainer.step(reals(16))
    # E (x/8 - 1.5)^2 over Binomial(16, p) is least where 16p/64 (1-p) + (2p - 1.5)^2 is: 8(2p-1.5) + (1-2p)/4*... = 0
    p = torch.linspace(0.01, 0.99, 981)
    best = p[((16 * p * (1 - p)) / 64 + (2 * p - 1.5) ** 2).argmin()]
    means = (generator.mean(generator.noise(200)) + 1) / 2
    assert (means - best).abs().mean() < 0.05
