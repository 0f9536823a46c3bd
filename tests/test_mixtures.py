"""Mixtures of Gaussians: their densities and samples, the counting of modes, the pictures, and the recipes on them."""

import json
import math
import re
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

import advrl
from advrl.agents import AdversarialTrainer, ModeEvaluator, fit
from advrl.agents.checkpoint import load_checkpoint
from advrl.agents.fit import Interrupted
from advrl.cli import main
from advrl.data import Draws, Mixture, grid, ring
from advrl.metrics import mode_coverage
from advrl.nn import MLP, POINT_FAMILIES, FourierFeatures, Policy, point_family
from advrl.plots import Frame, evolution_plot, frame_plot, points_plot, read_frames, read_metrics, save_frame
from advrl.recipes import Grid, Ring
from advrl.recipes.parts import NoiseDecay
from tests.statistics import FALSE_ALARM, assert_unbiased

SMALL = ["--steps", "12", "--log-every", "4", "--picture-every", "6", "--checkpoint-every", "5", "--batch-size", "16",
         "--width", "16", "--latent", "4", "--quiet"]  # fmt: skip
PERFECT = 1 - math.exp(-4.5)  # mass of a plane Gaussian within three standard deviations


def run(*argv: object) -> int:
    return main([str(a) for a in argv])


# Data


def test_ring_and_grid_are_pacgan_s():
    circle = [(math.cos(k * math.pi / 4), math.sin(k * math.pi / 4)) for k in range(8)]
    torch.testing.assert_close(ring().centres, torch.tensor(circle), atol=1e-6, rtol=0)
    places = [-4.0, -2.0, 0.0, 2.0, 4.0]
    assert {tuple(row) for row in grid().centres.tolist()} == {(x, y) for x in places for y in places}
    assert (ring().std, grid().std, ring().modes, grid().modes) == (0.01, 0.05, 8, 25)
    assert ring(2, 0.02).centres.norm(dim=1).allclose(torch.tensor(2.0))


def test_log_prob_is_the_closed_form_and_integrates_to_one(device):
    mixture = grid(1.0, 0.16, side=2).to(device)
    axis = torch.linspace(-2, 2, 161, device=device)
    x = torch.cartesian_prod(axis, axis)
    log_prob = mixture.log_prob(x)
    square = (x[:, None] - mixture.centres).square().sum(2)
    density = (-square / (2 * 0.16**2)).exp().mean(1) / (2 * math.pi * 0.16**2)
    torch.testing.assert_close(log_prob.exp(), density, atol=1e-6, rtol=1e-4)
    # The trapezoidal rule on a smooth function that is 0 at the edges: its error is far below single precision.
    assert float(log_prob.double().exp().sum()) * (4 / 160) ** 2 == pytest.approx(1, abs=1e-5)


def test_samples_have_the_mixture_s_modes_and_spread(device):
    torch.manual_seed(0)
    mixture = ring().to(device)
    x = mixture.sample(40_000).double()
    centres = mixture.centres.double()
    distance, mode = torch.cdist(x, centres).min(1)
    assert_unbiased(nn.functional.one_hot(mode, 8).double().cpu(), torch.full((8,), 1 / 8))
    offset = (x - centres[mode]) / mixture.std
    moments = torch.cat([offset, offset.square(), offset.prod(1, keepdim=True), (distance < 0.03)[:, None]], 1)
    assert_unbiased(moments.cpu(), torch.tensor([0.0, 0, 1, 1, 0, PERFECT]))
    assert mixture.scale == pytest.approx(float(x.square().mean().sqrt()), rel=0.02)


def test_fresh_batches_resume_exactly_and_leave_the_global_generator_alone(tmp_path):
    before = torch.get_rng_state()
    draws = Draws(ring(), 8, seed=3)
    first = [next(draws) for _ in range(3)]
    assert not torch.equal(first[0], first[1]) and first[0].shape == (8, 2)
    torch.save(draws.state_dict(), tmp_path / "state.pt")
    ahead = [next(draws) for _ in range(3)]
    resumed = Draws(ring(), 8, seed=9)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert all(torch.equal(batch, next(resumed)) for batch in ahead)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ring(0.0), "radius must be"),
        (lambda: ring(std=-0.1), "std must be"),
        (lambda: ring(std=0.2), "overlap at a standard deviation of 0.2; it must be below 0.128"),
        (lambda: grid(std=float("nan")), "std must be"),
        (lambda: grid(spacing=0.1), "overlap"),
        (lambda: Mixture("x", torch.zeros(3), 1.0), "(modes, coordinates)"),
        (lambda: Mixture("x", torch.full((3, 2), math.inf), 1.0), "finite"),
        (lambda: Draws(ring(), 0), "batch_size"),
    ],
)
def test_bad_mixtures_are_refused(make, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        make()


# Metrics


def test_a_perfect_sampler(device):
    torch.manual_seed(1)
    mixture = ring().to(device)
    n = 200_000
    found = mode_coverage(mixture.sample(n), mixture.centres, mixture.std)
    z = (float(found.high_quality) - PERFECT) / math.sqrt(PERFECT * (1 - PERFECT) / n)
    assert abs(z) < NormalDist().inv_cdf(1 - FALSE_ALARM / 2)
    assert found.modes == 8
    # 2 n KL is chi-square with as many degrees of freedom as cells but one, here at most 8 (n good samples, or fewer).
    bound = scipy.stats.chi2.isf(FALSE_ALARM / 2, 8)
    assert 0 <= 2 * n * float(found.reverse_kl) < bound and 0 <= 2 * n * float(found.divergence) < bound
    torch.testing.assert_close(found.kl, found.reverse_kl, atol=1e-4, rtol=0)
    # Half the squared distance in standard deviations is exponential of mean 1, cut off at 9/2.
    mean = 1 - 4.5 * math.exp(-4.5) / PERFECT
    assert abs(float(found.spread) ** 2 - mean) * math.sqrt(n * PERFECT) < 1 * NormalDist().inv_cdf(1 - FALSE_ALARM / 2)
    assert math.sqrt(mean) == pytest.approx(0.974, abs=5e-4)


def test_a_sampler_of_one_mode():
    mixture = ring()
    found = mode_coverage(mixture.centres[:1].expand(100, 2), mixture.centres, mixture.std)
    assert (found.modes, found.high_quality) == (1, 1)
    assert float(found.reverse_kl) == pytest.approx(math.log(8))
    assert found.kl == math.inf
    assert float(found.divergence) == pytest.approx(math.log(8 / PERFECT))
    assert found.shares.tolist() == [1, 0, 0, 0, 0, 0, 0, 0] and found.spread == 0


def test_a_sampler_of_no_mode():
    mixture = ring()
    found = mode_coverage(torch.zeros(10, 2), mixture.centres, mixture.std)
    assert (found.modes, found.high_quality, found.kl, found.reverse_kl) == (0, 0, math.inf, math.inf)
    assert math.isnan(found.spread)
    assert float(found.divergence) == pytest.approx(4.5)  # -log of exp(-9/2), the mass outside


def test_counts_by_hand():
    """Two centres: of six samples three are in the first disc, one in the second, one on no side of it, one far off."""
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0]])
    samples = torch.tensor([[0, 0], [2.99, 0], [0, -2.99], [10, 1], [10, 3.01], [5, 50]])
    found = mode_coverage(samples, centres, 1.0)
    assert (found.modes, found.shares.tolist()) == (2, [0.75, 0.25])
    assert float(found.high_quality) == pytest.approx(4 / 6)
    assert float(found.reverse_kl) == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert float(found.kl) == pytest.approx(-0.5 * math.log(1.5) - 0.5 * math.log(0.5))
    assert float(found.spread) == pytest.approx(math.sqrt((2 * 2.99**2 + 1) / 4 / 2))
    h, p = [3 / 6, 1 / 6, 2 / 6], [PERFECT / 2, PERFECT / 2, 1 - PERFECT]
    assert float(found.divergence) == pytest.approx(sum(a * math.log(a / b) for a, b in zip(h, p, strict=True)))
    assert mode_coverage(samples.flip(0), centres.flip(0), 1.0).shares.tolist() == [0.25, 0.75]


def test_divergence_is_a_lower_bound():
    """Of the KL from a wider to a narrower Gaussian, closed form, by the data processing inequality."""
    torch.manual_seed(0)
    wide = float(mode_coverage(1.5 * torch.randn(100_000, 2), torch.zeros(1, 2), 1.0).divergence)
    assert 0.01 < wide < 1.5**2 - 1 - 2 * math.log(1.5)


@pytest.mark.parametrize(
    ("samples", "centres", "std"),
    [
        (torch.zeros(0, 2), torch.zeros(3, 2), 1.0),
        (torch.zeros(4, 3), torch.zeros(3, 2), 1.0),
        (torch.zeros(4), torch.zeros(3, 2), 1.0),
        (torch.full((4, 2), math.nan), torch.zeros(3, 2), 1.0),
        (torch.zeros(4, 2), torch.zeros(3, 2), 0.0),
    ],
)
def test_samples_that_cannot_be_counted_are_refused(samples, centres, std):
    with pytest.raises(ValueError, match=r"must (be|have)"):
        mode_coverage(samples, centres, std)


def test_the_evaluator_tells_a_perfect_sampler_from_a_collapsed_one():
    before = torch.get_rng_state()
    mixture = grid()
    judge = ModeEvaluator(mixture)
    report = judge.evaluate(mixture.sample, splits=3)
    for row in report.rows.values():  # the sampler is perfect, and the seed is the same: so are the figures
        assert row == report.rows["generated"]
    assert report.rows["generated"]["modes"].mean == 25
    collapsed = judge.evaluate(lambda n: mixture.centres[:1].expand(n, 2), splits=2)
    assert collapsed.as_dict()["rows"]["generated"]["kl"] == {"mean": None, "standard_error": None}
    assert (
        "inf" in str(collapsed) and "log K" in str(collapsed) and mixture.definition.split(" around")[0] in str(report)
    )
    assert judge.evaluate(lambda n: torch.zeros(n, 2) + 1, splits=1).class_shares == {}
    draws = iter(range(4))

    def rarely(n: int) -> torch.Tensor:  # in two of four draws not one sample is of high quality
        points = torch.ones(n, 2)
        points[: next(draws) % 2] = mixture.centres[1]
        return points

    shares = judge.evaluate(rarely, splits=4).class_shares["generated"]
    assert shares == [0.0, 1.0, *[0.0] * (len(shares) - 2)]
    assert judge.fast(mixture.sample)["divergence"] < 0.01 < judge.fast(lambda n: torch.zeros(n, 2))["divergence"]
    assert torch.equal(before, torch.get_rng_state())
    with pytest.raises(ValueError, match=r"sample\(10000\) must have shape"):
        judge.evaluate(lambda n: torch.zeros(n, 3))


# Networks, policies, and the noise on what the discriminator sees


def test_fourier_features_are_the_closed_form(device):
    x = torch.tensor([[0.5, -1.0]], device=device)
    features = FourierFeatures(2, 2, scale=2.0).to(device)(x).cpu()
    a, b = math.pi * 0.25, -math.pi * 0.5
    waves = [a, 2 * a, b, 2 * b]
    expected = [0.25, -0.5, *map(math.sin, waves), *map(math.cos, waves)]
    torch.testing.assert_close(features, torch.tensor([expected]), atol=1e-6, rtol=0)
    assert FourierFeatures(2, 0).out_features == 2 and FourierFeatures(2, 3).out_features == 14


@pytest.mark.parametrize("name", POINT_FAMILIES)
def test_policies_over_points(name, device):
    torch.manual_seed(0)
    family = point_family(name, scale=3.0)
    policy = Policy(MLP(4, family.numbers * 2, (8,)).to(device), family, 4)
    z = policy.noise(5)
    distribution = policy.distribution(z)
    assert (distribution.batch_shape, distribution.event_shape) == ((5,), (2,))
    numbers = policy.net(z)
    torch.testing.assert_close(policy.mean(z), 3 * numbers[:, :2])
    if name == "gaussian":
        std = (-7 + 7 * numbers[:, 2:].sigmoid()).exp()
        x = distribution.sample()
        expected = torch.distributions.Normal(numbers[:, :2], std).log_prob(x).sum(1)
        torch.testing.assert_close(distribution.log_prob(x), expected)
    assert policy.sample(7).shape == (7, 2)


@pytest.mark.parametrize("make", [lambda: point_family("binomial"), lambda: point_family("implicit", 0.0),
                                  lambda: FourierFeatures(0), lambda: FourierFeatures(2, -1)])  # fmt: skip
def test_bad_numbers_are_refused(make):
    with pytest.raises(ValueError):
        make()


class Coordinate(nn.Module):
    """A discriminator whose logit is the first coordinate, so that what it was shown can be read."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.weight * x[:, 0]


def test_instance_noise_has_its_standard_deviation_and_ends():
    torch.manual_seed(0)
    noise = NoiseDecay(0.8, 10)
    assert [noise(step) for step in (0, 5, 10, 20)] == [0.8, 0.4, 0.0, 0.0]
    trainer = AdversarialTrainer(MLP(2, 2, (4,)), Coordinate(), latent=2, instance_noise=noise)
    trainer.steps = 5
    seen = trainer.logits(torch.full((50_000, 2), 3.0)).detach()[:, None].double()
    assert_unbiased(torch.cat([seen, (seen - 3).square()], 1), torch.tensor([3.0, 0.16]))
    trainer.steps = 10
    before = torch.get_rng_state()
    assert torch.equal(trainer.logits(torch.full((4, 2), 3.0)), torch.full((4,), 3.0))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("recipe", [Ring, Grid])
@pytest.mark.parametrize(("policy", "estimator"), [("implicit", "path"), ("gaussian", "path"), ("gaussian", "loo"),
                                                   ("gaussian", "score")])  # fmt: skip
@pytest.mark.usefixtures("meta")
def test_every_pair_makes_nothing_on_the_default_device(recipe, policy, estimator):
    config = recipe(policy=policy, estimator=estimator, width=8, batch_size=4, discriminator_steps=2, samples=2
                    if estimator == "loo" else None)  # fmt: skip
    with torch.device("cpu"):
        parts = config.build(torch.device("cpu"))
    metrics = fit(parts.trainer, parts.real, 2, progress=False)
    assert all(math.isfinite(value) for value in metrics.values())
    assert parts.frame(2).surface.shape == (96, 96)
    parts.evaluator.fast(parts.trainer.average.sample)


def test_a_frame_is_the_discriminator_s_surface():
    parts = Ring(width=8).build(torch.device("cpu"))
    frame = parts.frame(0)
    reach = Frame.reach(parts.data.centres)
    x, y = np.linspace(-reach, reach, 96)[[70, 20]]
    with torch.no_grad():
        logit = parts.trainer.discriminator(torch.tensor([[x, y]], dtype=torch.float32))
    assert frame.surface[20, 70] == pytest.approx(float(logit.sigmoid()), rel=1e-4)  # rows are the second coordinate


# Pictures


def frames(number: int) -> list[Frame]:
    generator = np.random.default_rng(0)
    return [Frame(10 * k, generator.normal(size=(20, 2)), generator.random((9, 9))) for k in range(1, number + 1)]


def test_frames_survive_a_file(tmp_path):
    for frame in frames(3):
        save_frame(frame, tmp_path / f"step-{frame.step:06d}.npz")
    for one, other in zip(frames(3), read_frames(tmp_path), strict=True):
        assert one.step == other.step
        np.testing.assert_allclose(one.samples, other.samples, rtol=1e-6)
        np.testing.assert_allclose(one.surface, other.surface, atol=1e-3)
    (tmp_path / "x.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match="is no frame"):
        read_frames(tmp_path)


def test_an_evolution_shows_the_first_and_the_last_step():
    for number in (1, 5, 30):
        figure = evolution_plot(frames(number), ring().centres)
        titles = [axis.get_title("left") for axis in figure.axes if axis.get_title("left")]
        assert len(titles) == min(number, 8) and titles[0] == "step 10" and titles[-1] == f"step {10 * number}"
        assert len(set(titles)) == len(titles)
    with pytest.raises(ValueError, match="frames is empty"):
        evolution_plot([], ring().centres)


def test_the_picture_counts_high_quality_samples():
    mixture = ring()
    samples = torch.cat([mixture.centres[:3], torch.zeros(1, 2)])
    titles = [axis.get_title("left") for axis in points_plot(samples, mixture.centres, mixture.std, "x").axes]
    assert "75.0 %" in titles[1]
    assert len(frame_plot(frames(1)[0], mixture.centres, mixture.std).axes) == 4  # the last is the bar of colours
    with pytest.raises(ValueError, match="points in the plane"):
        points_plot(torch.zeros(3, 3), mixture.centres, mixture.std)


# Recipes


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "ring"
    assert run("train", "ring", *SMALL, "--out", folder) == 0
    return folder


def test_a_run_s_folder(trained):
    names = {p.relative_to(trained).as_posix() for p in trained.rglob("*") if p.is_file()}
    assert {"config.json", "metrics.csv", "checkpoint.pt", "best.pt", "generator.safetensors", "evaluation.json",
            "plots/curves.png", "plots/class_shares.png", "plots/evolution.png", "samples/step-000006.png",
            "samples/step-000012.png", "frames/step-000006.npz"} - names <= {"plots/class_shares.png"}  # fmt: skip
    metrics = read_metrics(trained / "metrics.csv")
    assert {"d_loss", "g_cost", "r1", "modes", "high_quality", "reverse_kl", "divergence"} <= metrics.keys()
    report = json.loads((trained / "evaluation.json").read_text())
    assert report["n"] == 10_000 and report["rows"]["perfect sampler"]["modes"]["mean"] == 8
    assert report["rows"]["perfect sampler"]["high_quality"]["mean"] == pytest.approx(PERFECT, abs=0.005)


def test_sample_evaluate_plot_and_load(trained, tmp_path, capsys):
    assert run("sample", trained, "-n", 50, "--out", tmp_path / "s.png") == 0
    assert "float32 (50, 2)" in capsys.readouterr().out
    points = advrl.load(trained).sample(64)
    assert points.shape == (64, 2)
    np.testing.assert_array_equal(np.load(tmp_path / "s.npy"), advrl.load(trained).sample(50).numpy())
    assert run("evaluate", trained, "--splits", 2) == 0
    out = capsys.readouterr().out
    assert "2 draws of 10,000 samples" in out and "8 Gaussians of standard deviation 0.01" in out
    assert run("plot", trained) == 0
    assert run("plot", trained, "--out", tmp_path / "c.png", "--metrics", "divergence", "modes") == 0
    assert min((tmp_path / name).stat().st_size for name in ("s.png", "c.png")) > 1000


def test_resume_is_the_run_that_was_never_interrupted(trained, tmp_path, monkeypatch):
    """Stopped at step 8 and resumed: networks, optimisers, generators, metrics and frames agree."""
    step = AdversarialTrainer.step

    def stopping(self, batch, z=None):
        if self.steps == 8:
            raise Interrupted(8, None)
        return step(self, batch, z)

    with monkeypatch.context() as patch:
        patch.setattr(AdversarialTrainer, "step", stopping)
        assert run("train", "ring", *SMALL, "--out", tmp_path / "b") == 130
    assert load_checkpoint(tmp_path / "b" / "checkpoint.pt")["step"] == 5
    assert run("train", "ring", "--resume", tmp_path / "b", "--quiet") == 0
    one, other = (load_checkpoint(folder / "checkpoint.pt") for folder in (trained, tmp_path / "b"))
    for part in ("generator", "discriminator", "average"):
        for name, value in one["trainer"][part].items():
            assert torch.equal(value, other["trainer"][part][name]), (part, name)
    assert torch.equal(one["rng"]["torch"], other["rng"]["torch"])
    assert torch.equal(one["data"]["generator"], other["data"]["generator"])
    tables = [read_metrics(folder / "metrics.csv") for folder in (trained, tmp_path / "b")]
    for name in tables[0].keys() - {"seconds"}:
        np.testing.assert_array_equal(tables[0][name], tables[1][name])
    for one_frame, other_frame in zip(
        read_frames(trained / "frames"), read_frames(tmp_path / "b" / "frames"), strict=True
    ):
        np.testing.assert_array_equal(one_frame.samples, other_frame.samples)
        np.testing.assert_array_equal(one_frame.surface, other_frame.surface)
    assert (tmp_path / "b" / "plots" / "evolution.png").exists()


def test_two_seeds_of_the_grid_with_a_gaussian_policy(tmp_path, capsys):
    argv = [word for word in SMALL if word != "--quiet"]
    assert (
        run("train", "grid", *argv, "--policy", "gaussian", "--estimator", "loo", "--seeds", 2, "--out", tmp_path / "g")
        == 0
    )
    out = capsys.readouterr().out
    for words in (
        "25 Gaussians of standard deviation 0.05",
        "Score(n=8",
        "perfect sampler",
        "over 2 seeds",
        "evolution.png",
    ):
        assert words in out, words


def test_metz_s_ring_is_a_flag_away(tmp_path):
    assert run("train", "ring", *SMALL, "--radius", 2, "--std", 0.02, "--out", tmp_path / "metz") == 0
    assert Ring(radius=2, std=0.02).mixture().scale == pytest.approx(2 * Ring().mixture().scale)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--policy", "binomial"], "draws pixels, but ring needs points in the plane; use --policy implicit"),
        (["--policy", "gausian"], "did you mean 'gaussian'?"),
        (["--estimator", "loo"], "path"),
        (["--std", "0.3"], "overlap"),
        (["--radius", "-1"], "radius must be"),
        (["--octaves", "-1"], "--octaves must be at least 0"),
        (["--instance-noise", "-0.1"], "--instance-noise must be"),
        (["--noise-until", "0"], "--noise-until must be"),
        (["--data", "mine.npz"], "ring draws its own points and takes no --data, got mine.npz"),
    ],
)  # fmt: skip
def test_bad_options_are_one_sentence(options, words, tmp_path, capsys):
    assert run("train", "ring", *options, "--out", tmp_path / "x") == 2
    captured = capsys.readouterr()
    assert words in captured.err and "Traceback" not in captured.err
    assert not (tmp_path / "x").exists() or not list((tmp_path / "x").iterdir())


def test_the_recipes_explain_themselves(capsys):
    assert run("train", "--help") == 0
    out = capsys.readouterr().out
    assert "ring" in out and "grid" in out and "policy implicit" in out
    assert run("train", "ring", "--help") == 0
    out = capsys.readouterr().out
    for option in ("--radius", "--std", "--octaves", "--instance-noise", "--noise-until"):
        assert option in out
