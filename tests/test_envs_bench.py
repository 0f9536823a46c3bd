"""``advrl bench envs`` runs, and a contender that pays something else is noticed before it is timed."""

import csv
import runpy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from advrl.cli import main
from advrl.lab.bench_envs import Options, agree, contenders, run


def test_the_benchmark_writes_a_row_for_each(tmp_path, capsys):
    words = ["--num-envs", "8", "--singles", "2", "--rounds", "2", "--seconds", "0.001", "--out", str(tmp_path)]
    assert main(["bench", "envs", *words]) == 0
    rows = list(csv.DictReader((tmp_path / "envs.csv").read_text().splitlines()))
    assert [row["environment"] for row in rows] == [
        "batch", "batch", "dynamics", "SyncVectorEnv of plain", "SyncVectorEnv of single"]  # fmt: skip
    assert all(float(row["low"]) <= float(row["steps_per_second"]) <= float(row["high"]) for row in rows)
    assert "SyncVectorEnv of plain" in capsys.readouterr().out


def test_stable_baselines_beside_it(tmp_path):
    script = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "envs.py"))
    rows = run(Options(8, 2, rounds=1, seconds=0.001, out=tmp_path), lambda: tmp_path, more=script["dummies"])
    assert [row["environment"] for row in rows[-2:]] == ["DummyVecEnv of plain", "DummyVecEnv of single"]


def test_a_wrong_contender_is_noticed():
    few = contenders(Options(num_envs=4, singles=2))
    agree(few)
    wrong = replace(few[-1], name="wrong", step=lambda actions: torch.ones(len(actions)))
    with pytest.raises(AssertionError, match="wrong pays something else"):
        agree([*few, wrong])


def test_numbers_out_of_range_are_refused(tmp_path):
    with pytest.raises(ValueError, match="--rounds must be at least 1"):
        run(Options(rounds=0), lambda: tmp_path)
