"""The recipe ``images`` as a conditional game: by the data's labels, and by clusters that nobody named."""

from __future__ import annotations

import copy
import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

import advrl
from advrl.agents import AdversarialTrainer
from advrl.agents.checkpoint import load_checkpoint
from advrl.cli import main
from advrl.nn import ConditionalPolicy, class_rows, paired
from advrl.plots import read_metrics
from advrl.recipes import Images
from advrl.recipes.clusters import Clusters
from tests.test_images import numbered, write_folder

TINY = ["--steps", "6", "--log-every", "3", "--picture-every", "3", "--checkpoint-every", "4", "--batch-size", "8",
        "--width", "2", "--latent", "4", "--device", "cpu", "--quiet"]  # fmt: skip


def run(*argv: object) -> int:
    return main([str(a) for a in argv])


def number_of(pair: torch.Tensor) -> int:
    return round((float(pair[0, 0, 0]) + 1) / 2 * 255)


@pytest.fixture
def data(quick):
    """60 images of three classes in an array, in an empty folder."""
    np.savez("x.npz", images=numbered(60), y=np.arange(60) % 3)
    return quick / "x.npz"


@pytest.mark.parametrize(
    "flags",
    [
        ["--classes", 3, "--augment", "affine,cutout", "--precision", "bf16"],
        ["--clusters", 4, "--policy", "binomial", "--estimator", "st"],
        ["--classes", 3, "--norm", "virtual", "--discriminator-norm", "reference"],
        ["--clusters", 4, "--policy", "bernoulli", "--samples", 2, "--spectral-norm"],
    ],
    ids=["classes", "clusters", "norms", "score"],
)
def test_train_sample_and_evaluate(flags, data, capsys):
    argv = ["train", "images", "--data", data, *TINY, *flags]
    assert run(*argv, "--out", "a") == 0
    told = json.loads((data.parent / "a" / "evaluation.json").read_text())
    known = "--classes" in flags
    assert ("class_accuracy" in told["rows"]["generated"]) == known
    trained = advrl.load("a", device="cpu")
    assert isinstance(trained.policy, ConditionalPolicy) and trained.policy.classes == (3 if known else 4)
    assert run("sample", "a", "-n", 7, "--out", "s.png") == 0
    assert torch.equal(torch.from_numpy(np.load("s.npy")), trained.sample(7))
    assert run("sample", "a", "-n", 5, "--label", 1, "--out", "one.png") == 0
    assert torch.equal(torch.from_numpy(np.load("one.npy")), trained.sample(5, label=1))
    assert run("sample", "a", "--label", 4) == 2 and "are 0 to" in capsys.readouterr().err
    assert run("evaluate", "a", "--splits", 1) == 0


@pytest.mark.parametrize(
    ("game", "stream"),
    [(("--classes", 3), False), (("--clusters", 4), False), (("--classes", 3), True), (("--clusters", 4), True)],
    ids=["classes", "clusters", "streamed classes", "streamed clusters"],
)
def test_a_resumed_run_is_the_one_that_was_never_interrupted(game, stream, data, monkeypatch):
    if stream:
        data = write_folder(data.parent / "p", numbered(60), 3)
        game = (*game, "--workers", 0)
    argv = ["train", "images", "--data", data, *TINY, *game, "--steps", 8, "--checkpoint-every", 4]
    assert run(*argv, "--out", "whole") == 0
    step = AdversarialTrainer.step

    def dying(self, batch, z=None):
        if self.steps == 6:
            raise RuntimeError("the power went")
        return step(self, batch, z)

    with monkeypatch.context() as patch:
        patch.setattr(AdversarialTrainer, "step", dying)
        with pytest.raises(RuntimeError, match="the power went"):
            run(*argv, "--out", "cut")
    assert load_checkpoint(Path("cut") / "checkpoint.pt")["step"] == 4
    assert run("train", "images", "--resume", "cut", "--quiet") == 0
    whole, cut = (load_checkpoint(Path(name) / "checkpoint.pt")["trainer"] for name in ("whole", "cut"))
    for part in ("generator", "discriminator", "average"):
        assert all(torch.equal(value, cut[part][name]) for name, value in whole[part].items())


@pytest.mark.parametrize("game", [{"classes": 3}, {"clusters": 4}], ids=["classes", "clusters"])
def test_batches_from_the_disk_are_paired_as_those_in_memory(game, data, tmp_path, device):
    folder = write_folder(tmp_path / "p", numbered(60), 3)
    options = dict(data=folder, width=2, latent=4, batch_size=6, **game)
    parts = Images(workers=0, **options).build(device)
    known = Images(**options).build(device).real  # (30, C + P, 8, 8), of the same folder in memory
    rows = {number_of(pair): pair for pair in known}
    seen = torch.cat(list(islice(parts.real, 5)))
    assert seen.shape == (30, 2, 8, 8)
    assert len(rows) == 30 and {number_of(pair) for pair in seen} == rows.keys()
    for pair in seen:
        torch.testing.assert_close(pair, rows[number_of(pair)])


def test_clusters_are_what_stands_apart(device):
    torch.manual_seed(0)
    which = torch.arange(40, device=device) % 4
    images = torch.randn(4, 1, 6, 6, device=device)[which] + 0.05 * torch.randn(40, 1, 6, 6, device=device)
    found = Clusters(images, 4)
    labels = found.of(images)
    assert len({(int(a), int(b)) for a, b in zip(which, labels, strict=True)}) == 4  # one each, by another name
    assert found.shares.tolist() == pytest.approx([0.25] * 4) and torch.equal(found.of(images[:3]), labels[:3])
    again = Clusters(images, 4)
    assert torch.equal(again.centres, found.centres)
    with pytest.raises(ValueError, match="41 clusters need at least as many images, got 40"):
        Clusters(images, 41)


def test_unequal_classes_are_drawn_as_the_data_have_them(data):
    np.savez("unequal.npz", images=numbered(60), y=np.array([0] * 40 + [1] * 16 + [2] * 4))
    assert run("train", "images", "--data", "unequal.npz", *TINY, "--classes", 3, "--out", "r") == 0
    trained = advrl.load("r", device="cpu")
    assert torch.bincount(trained.policy.asked(60)).tolist() == [40, 16, 4]
    assert run("sample", "r", "-n", 30, "--out", "s.png") == 0


@pytest.mark.parametrize(
    "flags", [["--dynamics", "optimistic"], ["--objective", "relativistic-average"], ["--probe-spectrum"],
              ["--probe-gradients", "path,antithetic", "--policy", "gaussian"], ["--discriminator-steps", 2,
              "--generator-steps", 2, "--history-pool", 16]],
)  # fmt: skip
def test_what_else_a_run_can_be_told_goes_with_pairs(flags, data):
    argv = ["train", "images", "--data", data, *TINY, "--clusters", 3, "--probe-every", 3, *flags]
    assert run(*argv, "--out", "r") == 0


def test_an_optimiser_s_state_takes_the_layout_of_the_weights(data):
    """Moments of another layout, as older checkpoints hold them, would be added to the wrong weights."""
    parts = [Images(data=data, width=2, latent=4, batch_size=6).build(torch.device("cpu")) for _ in range(2)]
    (one, other), batch = (part.trainer for part in parts), parts[0].real[:6]
    for trainer in (one, other):
        trainer.load_state_dict(parts[0].trainer.state_dict())
    one.step(batch, z := one.noise(6))
    state = copy.deepcopy(one.state_dict())
    for optimiser in ("g_opt", "d_opt"):
        for moments in state[optimiser]["state"].values():
            moments |= {name: value.contiguous() for name, value in moments.items()}
    other.load_state_dict(state)
    one.step(batch, z), other.step(batch, z)
    for mine, yours in zip(one.discriminator.parameters(), other.discriminator.parameters(), strict=True):
        assert torch.equal(mine, yours)


def test_a_discriminator_of_pairs_is_asked_about_seen_and_held_out_ones(data):
    assert run("train", "images", "--data", data, *TINY, "--classes", 3, "--out", "r") == 0
    parts = advrl.load("r", device="cpu").config.build(torch.device("cpu"))
    parts.trainer.load_state_dict(load_checkpoint(data.parent / "r" / "checkpoint.pt")["trainer"])
    judge = parts.trainer.discriminator.eval()
    logged = read_metrics(data.parent / "r" / "metrics.csv")
    halves = ((parts.data.train, parts.data.train_labels), (parts.data.held_out, parts.data.held_out_labels))
    for name, (images, labels) in zip(("logit_seen", "logit_held_out"), halves, strict=True):
        expected = judge(paired(images * 2 - 1, class_rows(labels, 3))).detach().mean()
        assert logged[name][-1] == pytest.approx(float(expected), abs=1e-6)


def test_what_cannot_be_is_refused_in_a_sentence(data, capsys):
    np.save("plain.npy", numbered(60))
    np.save("same.npy", np.repeat(numbered(2), 20, 0))
    cases = [
        (["x.npz", "--classes", 4], "--classes is 4, and x.npz has 3"),
        (["plain.npy", "--classes", 4], "--classes needs labels, and plain.npy has none: give --clusters 20 instead"),
        (["x.npz", "--classes", 3, "--clusters", 3], "give one"),
        (["x.npz", "--clusters", 1], "--clusters must be 0, or at least 2, got 1"),
        (["x.npz", "--clusters", -1], "--clusters must be at least 0, got -1"),
        (["x.npz", "--clusters", 31], "31 clusters need at least as many images, got 30"),
        (["x.npz", "--classes", 3, "--packing", 2], "--packing does not go with images --classes"),
        (["x.npz", "--clusters", 3, "--objective", "began"], "an autoencoder, which has no place for a class"),
        (["same.npy", "--clusters", 3], "3 clusters are more than there are different images"),
    ]
    for (name, *flags), message in cases:
        assert run("train", "images", "--data", name, *TINY, *flags, "--out", "r") == 2
        assert message in capsys.readouterr().err
    assert run("train", "images", "--data", "x.npz", *TINY, "--out", "r") == 0
    assert run("sample", "r", "--label", 1) == 2 and "no conditional run" in capsys.readouterr().err
    assert run("sample", "r", "--label", 1, "--truncation", 1) == 2 and "give one" in capsys.readouterr().err
