"""Stabilisers of the adversarial trainer: each against what it says, and all of them resumed bit for bit."""

import copy
import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Independent
from torch.nn.functional import softplus

from advrl.agents import (
    AUGMENTATIONS,
    AdversarialTrainer,
    Augmentation,
    FeatureMatching,
    HistoricalAveraging,
    HistoryPool,
    Stabiliser,
    evaluation,
    fit,
)
from advrl.agents.packs import Packs
from advrl.estimators import Draw, Path, Score, leave_one_out, make_estimator
from advrl.lab import bench_stabilisers
from advrl.nn import (
    FAMILIES,
    MLP,
    DCGANDiscriminator,
    MinibatchDiscrimination,
    MinibatchStdDev,
    Packing,
    Policy,
    before_output,
    spectrally_normalised,
)
from advrl.objectives import Objective, non_saturating, r1
from advrl.recipes import Digits, Ring
from tests.test_devices import NoWaiting

SHAPE = (1, 8, 8)


class Coins(nn.Module):
    """A policy of one coin per z, heads with logit theta_0 + theta_1 z."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([0.3, -0.8], dtype=torch.float64))

    def distribution(self, z: Tensor) -> Independent:
        return Independent(Bernoulli(logits=self.theta[0] + self.theta[1] * z), 1)


class Table(nn.Module):
    """Logits of pairs of coins, looked up: no sum of one number per coin."""

    def __init__(self) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.tensor([0.5, -2.0, 1.0, 3.0], dtype=torch.float64))

    def forward(self, pair: Tensor) -> Tensor:
        return self.values[(2 * pair[:, 0] + pair[:, 1]).detach().long()]


reverse_kl = Objective("reverse-kl", non_saturating.d_loss, lambda fake, real=None: -fake)


def expected_gradient(pack: int | None = None) -> Tensor:
    """Of the trainer's own estimate, exactly: all 2^4 draws of 2 samples of 2 coins, leave-one-out."""
    loo, coins = Score(2, leave_one_out), Coins()
    trainer = AdversarialTrainer(
        coins, Packing(Table(), 2), latent=1, objective=reverse_kl, estimator=loo, lr_generator=0.0
    )
    trainer.pack = trainer.pack if pack is None else pack
    z = torch.tensor([[0.5], [-1.0]], dtype=torch.float64)
    total = torch.zeros(2, dtype=torch.float64)
    for bits in itertools.product((0.0, 1.0), repeat=4):
        x = torch.tensor(bits, dtype=torch.float64).view(2, 2, 1)
        samples = trainer.distribution(z)
        probability = samples.log_prob(x).sum().exp().detach()
        draw = Draw(x.unflatten(1, (1, 2)), Packs(samples, 2)) if trainer.pack == 2 else Draw(x, samples)
        trainer._generator_step(z, draw, z)
        assert coins.theta.grad is not None
        total += probability * coins.theta.grad
    return total


def test_pay_per_pack_is_unbiased_and_pay_per_sample_is_not():
    coins, table = Coins(), Table()
    z = torch.tensor([[0.5], [-1.0]], dtype=torch.float64)
    cost = torch.zeros((), dtype=torch.float64)
    for pair in itertools.product((0.0, 1.0), repeat=2):
        x = torch.tensor(pair, dtype=torch.float64)[:, None]
        cost = cost - coins.distribution(z).log_prob(x).sum().exp() * table(x.T)[0]
    exact = torch.autograd.grad(cost, coins.theta)[0]
    torch.testing.assert_close(expected_gradient(), exact, rtol=1e-10, atol=1e-12)
    assert (expected_gradient(pack=1) - exact).norm() > 0.3 * exact.norm()  # the neighbour's share is missing


def binomial(shape=SHAPE) -> Policy:
    return Policy(MLP(4, shape, (8,)), FAMILIES["binomial"], 4)


def implicit() -> Policy:
    return Policy(MLP(4, SHAPE, (8,)), FAMILIES["implicit"], 4)


def test_a_discriminator_that_couples_samples_is_refused_where_it_would_bias():
    normed = DCGANDiscriminator(1, 8, 2)
    with pytest.raises(ValueError, match="Score would pay each for itself, which is biased"):
        AdversarialTrainer(binomial(), normed)
    AdversarialTrainer(binomial(), normed.eval())
    AdversarialTrainer(implicit(), normed.train())
    features = before_output(MLP(SHAPE, ()), MinibatchDiscrimination)
    for options in ({"discriminator": features}, {"discriminator": MLP(SHAPE, ()), "stabilisers": [FeatureMatching()]}):
        with pytest.raises(ValueError, match="biased"):
            AdversarialTrainer(binomial(), **options)
    grouped = before_output(MLP(SHAPE, ()), lambda f: MinibatchDiscrimination(f, group=2))
    assert AdversarialTrainer(binomial(), grouped).pack == 2
    assert AdversarialTrainer(implicit(), grouped).pack == 1
    with pytest.raises(ValueError, match="Rebar works on single ones"):
        AdversarialTrainer(binomial(), grouped, estimator=make_estimator("rebar"))


@pytest.mark.parametrize("layers", ["packs", "groups", "both"])
def test_packs_of_a_path_are_those_of_a_loop(layers):
    torch.manual_seed(0)
    inner = MLP(4, ()) if layers != "groups" else MLP(2, ())
    net: nn.Module = inner
    if layers != "packs":
        net = before_output(inner, lambda f: MinibatchDiscrimination(f, 3, group=3))
    net = Packing(net, 2) if layers != "groups" else net
    g = nn.Linear(3, 2)
    trainer = AdversarialTrainer(g, net, latent=3, estimator=Path(), lr_generator=0.0, lr_discriminator=0.0)
    z, real = torch.randn(12, 3), torch.randn(12, 2)
    exact = torch.autograd.grad(softplus(-net(g(z))).mean(), g.weight)[0]
    metrics = trainer.step(real, z)
    torch.testing.assert_close(g.weight.grad, exact)
    torch.testing.assert_close(metrics["logit_real"], net(real).mean())
    with pytest.raises(ValueError, match="does not divide"):
        trainer.step(real[:5], z[:5])


def test_a_score_function_learns_from_packs():
    torch.manual_seed(0)
    net = Packing(before_output(MLP((2, 8, 8), ()), lambda f: MinibatchStdDev(2)), 2)
    trainer = AdversarialTrainer(binomial(), net, estimator=Score(3, leave_one_out), penalties=[(1.0, r1)])
    assert trainer.pack == 4
    for _ in range(2):
        metrics = trainer.step(torch.rand(8, *SHAPE) * 2 - 1)
    assert all(bool(torch.isfinite(m)) for m in metrics.values())
    x = torch.rand(3, *SHAPE)
    assert trainer.judge(x).shape == (3,)
    torch.testing.assert_close(trainer.judge(x)[1], net(x[1].expand(4, *SHAPE)).mean())


def test_packs_are_a_distribution():
    coins = Coins().distribution(torch.randn(6, 1, dtype=torch.float64))
    packs = Packs(coins, 3)
    x = packs.sample((5,))
    assert x.shape == (5, 2, 3, 1) and packs.mean.shape == (2, 3, 1)
    torch.testing.assert_close(packs.log_prob(x), coins.log_prob(x.flatten(1, 2)).view(5, 2, 3).sum(-1))
    with pytest.raises(ValueError, match="packs of 4"):
        Packs(coins, 4)


def test_feature_matching_is_the_squared_distance_of_mean_features():
    torch.manual_seed(0)
    g, d = nn.Linear(3, 2), MLP(2, (), (5,))
    trainer = AdversarialTrainer(
        g, d, latent=3, stabilisers=[FeatureMatching()], lr_generator=0.0, lr_discriminator=0.0
    )
    real, z = torch.randn(8, 2), torch.randn(8, 3)
    f = lambda x: d.net[1](d.net[0](x)).mean(0)  # noqa: E731
    exact = (f(real).detach() - f(g(z))).square().sum()
    gradient = torch.autograd.grad(exact, g.weight)[0]
    assert trainer.step(real, z)["g_cost"].item() == pytest.approx(exact.item(), rel=1e-5)
    torch.testing.assert_close(g.weight.grad, gradient)
    with pytest.raises(ValueError, match=r"no layer 'nett' .*net\.0, net\.2"):
        AdversarialTrainer(g, d, latent=3, stabilisers=[FeatureMatching("nett")])
    first = AdversarialTrainer(g, d, latent=3, stabilisers=[FeatureMatching("net.0")], lr_generator=0.0)
    assert first.step(real, z)["g_cost"].item() == pytest.approx((real.mean(0) - g(z).mean(0)).square().sum().item())


class Number(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))


def test_historical_averaging_finds_the_equilibrium_of_xy():
    """Simultaneous gradient steps on V = x y leave on a spiral; pulled to their averages the players arrive.

    With the mean m slow beside the players, who wait at (2w - J)^-1 2w m, J the rotation, |m| falls as t^-1/(1 + 4w^2).
    """

    def play(weight: float | None, steps: int = 1500) -> float:
        x, y = Number(1.0), Number(0.0)
        pull = HistoricalAveraging(weight or 1.0)
        pull.follow("generator", x)
        pull.follow("discriminator", y)
        for step in range(1, steps + 1):
            loss_x, loss_y = x.value * y.value.detach(), -x.value.detach() * y.value
            if weight is not None:
                loss_x, loss_y = loss_x + pull.penalty("generator"), loss_y + pull.penalty("discriminator")
            gx, gy = torch.autograd.grad(loss_x, x.value)[0], torch.autograd.grad(loss_y, y.value)[0]
            with torch.no_grad():
                x.value.sub_(0.1 * gx)
                y.value.sub_(0.1 * gy)
            pull.after(step)
        return (x.value**2 + y.value**2).sqrt().item()

    assert play(None) == pytest.approx(1.01 ** (1500 / 2), rel=1e-3)  # |lambda|^2 = 1 + 0.1^2
    assert play(0.1) < 0.01
    assert play(1.0, 3000) / play(1.0, 750) == pytest.approx(4 ** (-1 / 5), rel=0.03)


def test_the_history_is_the_mean_of_the_weights_after_each_step():
    torch.manual_seed(0)
    g, d = nn.Linear(3, 2), MLP(2, (), (5,))
    trainer = AdversarialTrainer(g, d, latent=3, stabilisers=[HistoricalAveraging(0.1)], lr_generator=0.1)
    seen = []
    for step in range(4):
        metrics = trainer.step(torch.randn(8, 2))
        if step > 1:  # the mean of one is itself
            assert metrics["historical-averaging_g"] > 0
        seen.append(g.weight.detach().clone())
    torch.testing.assert_close(trainer.stabilisers[0].generator_0, torch.stack(seen).mean(0))


def test_the_pool_hands_out_past_fakes(device):
    pool = HistoryPool(6)
    pool.attach(None, torch.zeros(2, 1, device=device))
    torch.manual_seed(0)
    batches = [torch.arange(4.0, device=device)[:, None] + 10 * i for i in range(40)]
    past: set[float] = set()
    for i, fresh in enumerate(batches):
        held = set(pool.held[: int(pool.count), 0].tolist())
        out = pool.fakes(fresh)
        assert out.shape == fresh.shape and torch.equal(out[2:], fresh[2:])
        first = set(out[:2, 0].tolist())
        assert len(first) == 2
        assert first == set(fresh[:2, 0].tolist()) if i == 0 else first <= held
        past |= first if i else set()
        assert int(pool.count) == min(2 * (i + 1), 6)
    assert len(past) > 20
    assert len(set(pool.held[:, 0].tolist())) == 6
    with pytest.raises(ValueError, match="6 samples are fewer than half a batch of 14"):
        pool.fakes(torch.zeros(14, 1, device=device))


def test_shift_moves_and_cutout_cuts(device):
    torch.manual_seed(0)
    x = torch.rand(64, 2, 8, 8, device=device) + 0.5
    moved = AUGMENTATIONS["shift"](x)
    frame = nn.functional.pad(x, (1, 1, 1, 1))
    windows = [frame[:, :, a : a + 8, b : b + 8] for a in range(3) for b in range(3)]
    hits = torch.stack([(moved == w).flatten(1).all(1) for w in windows])
    assert bool(hits.any(0).all()) and int(hits.any(1).sum()) == 9  # each is one of the nine shifts, all occur
    cut = AUGMENTATIONS["cutout"](x)
    holes = (cut == 0).all(1)
    assert torch.equal(cut[~holes[:, None].expand_as(x)], x[~holes[:, None].expand_as(x)])
    assert holes.sum((1, 2)).max() == 16 and holes.sum((1, 2)).min() >= 4


def test_affine_is_grid_sample_and_can_be_differentiated_twice(device):
    x = torch.randn(5, 2, 9, 7, dtype=torch.float64, device=device)
    affine = AUGMENTATIONS["affine"]
    torch.manual_seed(1)
    moved = affine(x)
    torch.manual_seed(1)  # the same maps, by torch
    maps = torch.eye(2, 3, dtype=x.dtype, device=device) + (2 * torch.rand_like(x[:, 0, :2, :3]) - 1) * 0.125
    grid = nn.functional.affine_grid(maps, list(x.shape), align_corners=False)
    expected = nn.functional.grid_sample(x, grid, padding_mode="border", align_corners=False)
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-12)
    assert len({tuple(row) for row in maps.flatten(1).tolist()}) == 5  # a map for each image
    torch.testing.assert_close(affine(x, 0.0), x, rtol=0, atol=1e-12)

    def squared(x):
        torch.manual_seed(1)
        return affine(x) ** 2

    small = torch.randn(2, 1, 3, 3, dtype=torch.float64, device=device, requires_grad=True)
    assert torch.autograd.gradcheck(squared, small) and torch.autograd.gradgradcheck(squared, small)


def test_colour_keeps_the_picture_up_to_an_affine_change():
    torch.manual_seed(0)
    x = torch.rand(5, 1, 8, 8)
    for before, after in zip(x, AUGMENTATIONS["colour"](x), strict=True):
        pair = torch.stack([before.flatten(), after.flatten()])
        assert torch.corrcoef(pair)[0, 1] > 0.9999
        assert 0.5 <= after.std() / before.std() <= 1.5


def test_the_discriminator_sees_nothing_but_augmented_images_and_the_gradient_flows():
    torch.manual_seed(0)
    seen = []

    class Mark(Stabiliser):
        name = "mark"

        def show(self, x: Tensor) -> Tensor:
            return x + 100

    d = MLP(SHAPE, (), (4,))
    d.register_forward_pre_hook(lambda module, given: seen.append(given[0].detach().mean().item()))
    generator = implicit()
    trainer = AdversarialTrainer(
        generator, d, stabilisers=[Augmentation(), Mark()], penalties=[(1.0, r1)], lr_generator=0.0
    )
    trainer.step(torch.rand(6, *SHAPE))
    assert len(seen) == 4 and min(seen) > 90  # real, fake, R1, and the generator's
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in generator.parameters())
    with pytest.raises(ValueError, match=r"needs images .* got samples \(2,\)"):
        AdversarialTrainer(nn.Linear(3, 2), MLP(2, ()), latent=3, stabilisers=[Augmentation()])
    with pytest.raises(ValueError, match="did you mean 'shift'"):
        Augmentation(["shifts"])


@pytest.mark.parametrize("separate", [True, False])
def test_batch_norm_sees_real_and_fake_batches_apart_or_together(separate):
    torch.manual_seed(0)
    means = []
    d = nn.Sequential(nn.BatchNorm1d(2, momentum=1.0), nn.Linear(2, 1))
    d.register_forward_hook(lambda *_: means.append(d[0].running_mean.clone()))
    g = nn.Linear(3, 2)
    trainer = AdversarialTrainer(g, d, latent=3, separate_batches=separate, lr_generator=0.0)
    real, z = torch.randn(6, 2) + 5, torch.randn(6, 3)
    trainer.step(real, z)
    parts = [real.mean(0), g(z).mean(0)]
    expected = [*parts, parts[1]] if separate else [(parts[0] + parts[1]) / 2, parts[1]]
    for mean, exact in zip(means, expected, strict=True):
        torch.testing.assert_close(mean, exact.detach())


def everything(seed: int) -> AdversarialTrainer:
    torch.manual_seed(seed)
    net = before_output(MLP((2, 8, 8), (), (8,)), lambda f: MinibatchDiscrimination(f, 3, 2, group=2))
    return AdversarialTrainer(
        implicit(),
        spectrally_normalised(Packing(net, 2)),
        stabilisers=[FeatureMatching(), HistoricalAveraging(0.1), HistoryPool(10), Augmentation()],
        penalties=[(1.0, r1)],
        instance_noise=lambda step: 0.1,
    )


def test_a_run_with_everything_goes_on_bit_for_bit(tmp_path):
    data, options = torch.rand(32, *SHAPE), {"batch_size": 8, "progress": False}
    straight = everything(0)
    fit(straight, data, 9, **options)
    fit(everything(0), data, 5, out=tmp_path, **options)
    again = everything(3)
    fit(again, data, 9, out=tmp_path, resume=True, **options)
    one, other = straight.state_dict(), again.state_dict()
    assert {"stabiliser.history-pool", "stabiliser.historical-averaging"} < one.keys()
    for name in one:
        if name.startswith(("gen", "dis", "ave", "stab")):
            assert all(torch.equal(one[name][key], other[name][key]) for key in one[name]), name
    with pytest.raises(ValueError, match=r"stabiliser\.history-pool"):
        AdversarialTrainer(implicit(), MLP(SHAPE, ())).load_state_dict(one)


def test_a_step_with_everything_reads_no_value():
    trainer, batch = everything(0), torch.rand(8, *SHAPE)
    with NoWaiting():
        for _ in range(3):
            trainer.step(batch)


@pytest.mark.usefixtures("meta")
def test_everything_is_made_on_the_samples_device():
    with torch.device("cpu"):
        trainer, batch = everything(0), torch.rand(8, *SHAPE)
    assert trainer.step(batch)["d_loss"].device.type == "cpu"


def test_a_name_comes_once():
    with pytest.raises(ValueError, match="one stabiliser of a name, got history-pool, history-pool"):
        AdversarialTrainer(implicit(), MLP(SHAPE, ()), stabilisers=[HistoryPool(), HistoryPool()])


FLAGS: dict[str, Any] = {
    "packing": 2, "minibatch_features": 3, "minibatch_stddev": True, "spectral_norm": True, "history_pool": 64,
    "historical_averaging": 0.1, "minibatch_group": 4, "joint_batches": True, "batch_size": 16, "steps": 4,
}  # fmt: skip


@pytest.mark.parametrize(
    "config",
    [
        Ring(**FLAGS, width=8, feature_matching=True),
        Digits(**FLAGS, width=8, samples=2, augment="shift,cutout"),
        Digits(**FLAGS, width=8, policy="implicit", feature_matching=True, augment="colour"),
    ],
    ids=["ring", "digits", "implicit"],
)
def test_every_flag_reaches_the_trainer(config, monkeypatch):
    monkeypatch.setattr(evaluation.Evaluator.__init__, "__defaults__", ("cpu", 0, 20))  # the classifier's steps last
    config.validate()
    parts = config.build(torch.device("cpu"))
    trainer = parts.trainer
    assert trainer.together == 8 and not trainer.separate_batches
    assert trainer.pack == (1 if config.policy == "implicit" else 8)
    assert {"historical-averaging", "history-pool"} < {s.name for s in trainer.stabilisers}
    batch = parts.real[:16] if isinstance(parts.real, Tensor) else next(parts.real)
    for _ in range(2):
        metrics = trainer.step(batch)
    assert all(bool(torch.isfinite(m)) for m in metrics.values())
    if isinstance(config, Ring):
        assert parts.frame(1).surface.shape[0] > 8


def test_flags_that_cannot_be_are_refused(monkeypatch):
    for change, sentence in (
        ({"packing": 3}, "--batch-size 128 does not divide into 3 samples judged together"),
        ({"history_pool": 10}, "less than half a batch"),
        ({"augment": "shfit"}, "did you mean 'shift'"),
        ({"packing": 2, "probe_gradients": "loo"}, "--probe-gradients needs a cost of each sample by itself"),
        ({"historical_averaging": -1.0}, "--historical-averaging must be"),
    ):
        with pytest.raises(ValueError, match=sentence):
            replace(Digits(), **change).validate()
    with pytest.raises(ValueError, match="ring draws points"):
        Ring(augment="shift").validate()
    monkeypatch.setattr(evaluation.Evaluator.__init__, "__defaults__", ("cpu", 0, 20))
    with pytest.raises(ValueError, match="Score would pay"):
        Digits(feature_matching=True).build(torch.device("cpu"))


def test_defaults_are_the_trainer_without_stabilisers():
    torch.manual_seed(0)
    one = AdversarialTrainer(implicit(), MLP(SHAPE, ()))
    players = copy.deepcopy((one.generator, one.discriminator))
    other = AdversarialTrainer(*players, stabilisers=[Stabiliser()])
    batch, z = torch.rand(6, *SHAPE), torch.randn(6, 4)
    for trainer in (one, other):
        torch.manual_seed(1)
        trainer.step(batch, z)
    assert one.state_dict().keys() == other.state_dict().keys()
    for a, b in zip(one.generator.parameters(), other.generator.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("task", ["ring", "rows"])
def test_the_study_writes_its_table(task, tmp_path):
    said: list[str] = []
    options = bench_stabilisers.Options(
        task=task, methods="" if task == "rows" else "plain,packing 2", seeds=2, steps=3, rounds=1, device="cpu",
        out=tmp_path,
    )  # fmt: skip
    bench_stabilisers.run(options, lambda: tmp_path, said.append)
    rows = (tmp_path / f"stabilisers-{task}.csv").read_text().splitlines()
    assert len(rows) > 2 and "±" in said[-1]
    with pytest.raises(ValueError, match="did you mean 'ring'"):
        bench_stabilisers.run(replace(options, task="rng"), lambda: tmp_path)
