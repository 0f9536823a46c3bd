"""The benchmark of sequence GANs runs, and its two contenders do the same."""

import csv
import importlib
from pathlib import Path

import pytest
import torch


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
