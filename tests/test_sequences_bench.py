"""The benchmark of sequence GANs runs, and its two contenders do the same."""

import csv
import importlib
from pathlib import Path

import pytest
import torch

from advrl.cli import main


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    return importlib.import_module("sequences")


def test_the_benchmark_writes_a_row_for_each_contender(bench, device, tmp_path, capsys):
    out = tmp_path / "rows.csv"
    rows = bench.main(["--quick", "--device", str(device), "--out", str(out)])
    assert [row["task"] for row in rows if row["contender"] == "ours"] == list(bench.NAMES)
    with open(out) as file:
        assert len(list(csv.DictReader(file))) == len(rows)
    assert capsys.readouterr().out.count("| ours |") == len(bench.NAMES)


def test_the_gradients_are_the_same_and_a_wrong_one_is_noticed(bench, device, monkeypatch):
    torch.manual_seed(0)
    assert bench.agree(device) < 1e-9
    values = bench.plain_values
    monkeypatch.setattr(bench, "plain_values", lambda *arguments: values(*arguments).roll(1, 1))
    assert bench.agree(device) > 1e-3


def test_the_floor_counts_the_published_sizes(bench):
    """0.48 TFLOP with one highway matrix: 65 GFLOP to write the rollouts, 21.1 MFLOP for a sequence that is judged."""
    sizes = bench.Sizes()
    nets = bench.networks(sizes, torch.device("cpu"))
    matrix = 2 * 1720**2
    judged = bench.flops("discriminator", sizes, nets) / (3 * 64)
    assert judged - matrix == pytest.approx(21.1e6, rel=0.01)
    total = bench.flops("rollouts", sizes, nets) - (16 * 19 + 1) * 64 * matrix
    assert total == pytest.approx(0.48e12, rel=0.02)


def test_what_a_discriminator_remembers(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    memory = importlib.import_module("discriminator_memory")
    torch.manual_seed(0)
    real, fake = torch.randint(5, (30,)), torch.randint(4, (20,))  # with ties
    pairs = (real[:, None] > fake).double() + (real[:, None] == fake).double() / 2
    assert memory.area(real.float(), fake.float()) == pytest.approx(float(pairs.mean()))
    small = ["--vocab", "9", "--length", "5", "--sequences", "64", "--steps", "4", "--quiet", "--device", "cpu"]
    assert main(["train", "oracle", *small, "--out", str(tmp_path / "mle")]) == 0
    out, figure = tmp_path / "memory.csv", tmp_path / "memory.png"
    memory.main([str(tmp_path / "mle"), "--updates", "50", "--kinds", "cnn-small,recurrent", "--out", str(out),
                 "--figure", str(figure)])  # fmt: skip
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["discriminator"], row["updates"]) for row in rows] == [
        (kind, updates) for kind in ("cnn-small", "recurrent") for updates in ("25", "50")
    ]
    assert figure.stat().st_size > 5_000
