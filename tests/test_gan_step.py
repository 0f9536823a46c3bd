"""The benchmark of one step runs, and its loops do the same."""

import csv
import importlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    bench = importlib.import_module("gan_step")
    monkeypatch.setitem(bench.TASKS, "dcgan", replace(bench.TASKS["dcgan"], batch=4))
    return bench


@pytest.mark.parametrize(("task", "precision"), [("ring", "bf16"), ("dcgan", "fp32")])
def test_the_benchmark_writes_a_row_for_each_loop(bench, task, precision, tmp_path, capsys):
    out = tmp_path / "rows.csv"
    words = ["--task", task, "--steps", "1", "--rounds", "2", "--precision", precision, "--out", str(out)]
    rows = bench.main(words)
    assert {"ours", "tuned", "naive"} <= {row["contender"] for row in rows}
    with open(out) as file:
        assert len(list(csv.DictReader(file))) == len(rows)
    assert capsys.readouterr().out.count(f"| {task} |") == len(rows)
    step_flops = {"ring": 0.2, "dcgan": 1.2}[task]  # G once, D three times, forward and backward
    assert step_flops < rows[0]["step_gflop"] < 2 * step_flops


def test_the_loops_do_the_same_and_a_wrong_one_is_noticed(bench, monkeypatch):
    torch.manual_seed(0)
    task = bench.TASKS["ring"]
    networks, data = (task.generator(), task.discriminator()), task.data()
    assert bench.agree(task, networks, data) < 0.02
    monkeypatch.setattr(bench, "softplus", lambda a: torch.relu(a))  # the tuned loop's loss
    assert bench.agree(task, networks, data) > 0.02
