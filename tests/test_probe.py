"""Estimators probed inside a running GAN: the figures are right, and the run stays what it was, bit for bit."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from advrl.agents import AdversarialTrainer
from advrl.agents.checkpoint import load_checkpoint
from advrl.cli import main
from advrl.estimators import GumbelSoftmax, Score, StraightThrough, leave_one_out
from advrl.lab import GradientProbe, probe_plot
from advrl.lab.harness import gradients
from advrl.nn import FAMILIES, MLP, Policy
from advrl.objectives import Objective, non_saturating
from advrl.plots import read_metrics

SMALL = ["--steps", "12", "--log-every", "4", "--picture-every", "12", "--checkpoint-every", "6", "--batch-size", "16",
         "--width", "16", "--latent", "4", "--quiet", "--device", "cpu"]  # fmt: skip
PROBED = {"loo": Score(4, leave_one_out), "st": StraightThrough(4), "gumbel": GumbelSoftmax(4)}


def trainer_for(family: str = "bernoulli", size: int = 2, objective: Objective = non_saturating) -> AdversarialTrainer:
    """A policy over 2 x 2 images: sixteen outcomes per z with bits."""
    torch.manual_seed(0)
    shape = (FAMILIES[family].numbers, size, size)
    policy = Policy(MLP(3, shape, (8,)).double(), FAMILIES[family], 3)
    discriminator = MLP((1, size, size), (), (8,)).double()
    with torch.no_grad():  # a discriminator that bends, so that relaxations are biased
        for p in discriminator.parameters():
            p.mul_(4)
    return AdversarialTrainer(policy, discriminator, objective=objective)


def real(size: int = 2) -> torch.Tensor:
    return torch.ones(4, 1, size, size, dtype=torch.float64)


def test_enumeration_is_used_where_it_can_be():
    trainer = trainer_for()
    probe = GradientProbe(trainer, PROBED, real(), replicates=4000)
    row = probe.measure()
    assert probe.enumerates and row["reference/error"] == row["reference/draws"] == 0
    assert abs(row["loo/z"]) < row["bound"] < abs(row["gumbel/z"])
    assert row["gumbel/bias"] > 3 * row["gumbel/noise"] and 0 < row["loo/cosine"] < 1
    assert {key.split("/")[0] for key in row} == {*PROBED, "reference", "bound", "probe"}

    leaf = probe.policy.net(probe.z).detach().requires_grad_()  # the same gradient, from the definition
    bits = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 4).reshape(16, 1, 1, 2, 2)
    prob = torch.stack([FAMILIES["bernoulli"].distribution(leaf).log_prob(x.expand(2, 1, 2, 2)).exp() for x in bits])
    cost = non_saturating.cost(trainer.logits(2 * bits.flatten(0, 1) - 1))
    (exact,) = torch.autograd.grad((prob * cost[:, None]).sum(0).mean(), leaf)
    assert row["reference/length"] == pytest.approx(float(exact.norm()))


def test_a_leave_one_out_reference_agrees_with_enumeration(monkeypatch):
    """Within its own error: |r - exact|^2 over the sum of squared errors is 1 on average; 8 coordinates, below 8."""
    trainer = trainer_for()
    probe = GradientProbe(trainer, PROBED, real(), draws=2**16)
    problem = probe._problem()
    exact, error, draws = probe._reference(problem, 1)
    assert draws == 0 and float(error.sum()) == 0
    probe.enumerates = False
    about, error, draws = probe._reference(problem, 1)
    assert draws >= 2**16 and float(error.min()) > 0
    assert float((about - exact).square().sum() / error.square().sum()) < 8
    row = probe.measure()
    assert row["reference/draws"] == draws and 0 < row["reference/error"] < 0.1
    assert abs(row["loo/z"]) < row["bound"] and row["loo/noise"] > row["reference/error"]


def test_the_reference_of_digits_takes_a_hundred_thousand_draws():
    probe = GradientProbe(trainer_for("binomial", 8), PROBED, real(8))
    assert not probe.enumerates and probe.draws >= 10**5


@pytest.mark.parametrize("family", ["binomial", "categorical", "gaussian"])
def test_every_family_with_a_density_is_probed(family):
    row = GradientProbe(
        trainer_for(family), {"loo": Score(4, leave_one_out)}, real(), replicates=1000, draws=4096
    ).measure()
    assert abs(row["loo/z"]) < row["bound"] and 0 < row["loo/cosine"] <= 1


def test_objectives_that_compare_with_real_samples():
    """The i-th z is held against the i-th real sample, in every replicate."""
    paired = Objective("paired", non_saturating.d_loss, lambda fake, real=None: (fake - real).exp(), needs_real=True)
    trainer = trainer_for(objective=paired)
    data = torch.randn(4, 1, 2, 2, dtype=torch.float64)
    probe = GradientProbe(trainer, {"loo": Score(4, leave_one_out)}, data, replicates=4000)
    problem = probe._problem()
    torch.manual_seed(0)
    torch.testing.assert_close(
        gradients(Score(4, leave_one_out), problem, 20_000).mean(0),
        probe._reference(problem, 0)[0],
        atol=0.05 * float(probe._reference(problem, 0)[0].norm()),
        rtol=0.0,
    )
    assert abs(probe.measure()["loo/z"]) < 5
    with pytest.raises(ValueError, match="paired compares with real samples"):
        GradientProbe(trainer, PROBED, data[:1])


def test_modules_are_put_back_as_they_were():
    trainer = trainer_for()
    trainer.discriminator.eval()
    before = {k: v.clone() for k, v in trainer.discriminator.state_dict().items()}
    GradientProbe(trainer, PROBED, real(), replicates=10).measure()
    assert trainer.generator.training and not trainer.discriminator.training
    assert all(torch.equal(v, before[k]) for k, v in trainer.discriminator.state_dict().items())
    assert all(p.grad is None for p in [*trainer.generator.parameters(), *trainer.discriminator.parameters()])


def test_what_cannot_be_probed_is_refused():
    trainer = trainer_for()
    with pytest.raises(ValueError, match="at least one"):
        GradientProbe(trainer, {}, real())
    with pytest.raises(ValueError, match="treats Bernoulli"):
        GradientProbe(trainer_for("gaussian"), {"st": StraightThrough()}, real())
    with pytest.raises(ValueError, match="needs a log_prob"):
        GradientProbe(trainer_for("implicit"), {"score": Score()}, real())
    plain = AdversarialTrainer(MLP(3, (1, 2, 2), (8,)), MLP((1, 2, 2), ()), latent=3)
    with pytest.raises(TypeError, match=r"needs an advrl\.nn\.Policy, got MLP"):
        GradientProbe(plain, PROBED, real())


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Images of 2 x 2 pixels, so that a policy of bits has sixteen outcomes."""
    path = tmp_path_factory.mktemp("data") / "tiny.npz"
    np.savez(path, images=np.random.default_rng(0).random((400, 2, 2)).astype(np.float32))
    return path


def run(*argv: object) -> int:
    return main([str(a) for a in argv])


@pytest.fixture(scope="module")
def probed(tmp_path_factory, data) -> tuple[Path, Path]:
    """A run without a probe, and the same with one."""
    base = tmp_path_factory.mktemp("runs")
    train = ["train", "digits", *SMALL, "--data", data, "--policy", "bernoulli"]
    assert run(*train, "--out", base / "bare") == 0
    assert run(*train, "--out", base / "probed", "--probe-gradients", "score,loo,gumbel", "--probe-every", "4") == 0
    return base / "bare", base / "probed"


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return isinstance(b, (list, tuple)) and len(a) == len(b) and all(map(same, a, b))
    return a == b


def test_the_probe_does_not_change_the_run(probed):
    """Weights, optimiser states, random states and every logged number are those of the run without it."""
    bare, with_probe = (load_checkpoint(folder / "checkpoint.pt") for folder in probed)
    for part in ("trainer", "data", "rng", "meter", "best"):
        assert same(bare[part], with_probe[part]), part
    tables = [read_metrics(folder / "metrics.csv") for folder in probed]
    for table in tables:
        del table["seconds"]
    assert str(tables[0]) == str(tables[1])
    assert same({"a": [torch.ones(1)]}, {"a": [torch.ones(1)]}) and not same([torch.ones(1)], [torch.zeros(1)])


def test_the_probe_leaves_a_table_events_and_a_picture(probed, capsys):
    folder = probed[1]
    table = read_metrics(folder / "probe.csv")
    assert table["step"] == [4.0, 8.0, 12.0] and table["reference/draws"] == [0.0] * 3
    assert all(0 <= value < 1 for value in table["loo/cosine"]) and min(table["score/variance"]) > 0
    assert (folder / "plots" / "probe.png").stat().st_size > 10_000
    assert len(os.listdir(folder / "tensorboard" / "probe")) == 1
    (folder / "plots" / "probe.png").unlink()
    assert run("plot", folder) == 0 and "probe.png" in capsys.readouterr().out
    assert (folder / "plots" / "probe.png").exists()


def test_a_resumed_run_goes_on_with_its_table(probed, tmp_path):
    assert run("train", "digits", "--resume", probed[1], "--out", tmp_path / "more", "--steps", "16", "--quiet") == 0
    table = read_metrics(tmp_path / "more" / "probe.csv")
    assert table["step"] == [4.0, 8.0, 12.0, 16.0]
    before = read_metrics(probed[1] / "probe.csv")
    assert [row[:3] for row in (table["loo/variance"], table["loo/z"])] == [before["loo/variance"], before["loo/z"]]


def test_wrong_words_end_with_a_sentence(tmp_path, data, capsys):
    train = ["train", "digits", *SMALL, "--data", data, "--out", tmp_path / "r", "--probe-gradients"]
    assert run(*train, "lo") == 2
    assert "did you mean 'loo'" in capsys.readouterr().err and not (tmp_path / "r").exists()
    assert run(*train, "path") == 2
    error = capsys.readouterr().err
    assert "path needs a reparameterised distribution" in error
    (tmp_path / "probe.csv").write_text("step,seconds\n1,2.0\n")
    with pytest.raises(ValueError, match="no estimator's bias"):
        probe_plot(tmp_path)


def test_a_mixture_is_probed_too(tmp_path):
    """A recipe whose real points are drawn afresh for every batch."""
    options = ["--policy", "gaussian", "--steps", "4", "--width", "8", "--picture-every", "4", "--quiet"]
    probing = ["--probe-gradients", "score,loo,path", "--probe-every", "4"]
    assert run("train", "ring", *options, *probing, "--out", tmp_path / "r") == 0
    assert read_metrics(tmp_path / "r" / "probe.csv")["step"] == [4.0]
