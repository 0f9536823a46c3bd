"""The study of dynamics and its benchmark run, count what they say they count, and refuse what cannot be."""

import csv
import importlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from advrl.cli import main
from advrl.lab.bench_dynamics import LOOKED_AT, Options, play, summary
from advrl.lab.dynamics_setups import CONTENDERS, MIXTURES, SETUPS, Pace, make_contender
from advrl.metrics import rotation_index
from advrl.plots import columns_plot, occupancy_plot, outcome_plot


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_rotation_index_of_paths_that_are_known():
    angle = torch.arange(0, 4 * math.pi, 0.1, dtype=torch.float64)
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    whole = circle[: int(2 * math.pi / 0.1) + 1]
    assert rotation_index(whole) > 0.99
    assert rotation_index(whole.flip(0)) == pytest.approx(float(rotation_index(whole)), abs=1e-12)
    assert rotation_index(circle[:, :1] * torch.tensor([[1.0, 2.0, -1.0]])) < 1e-12  # to and fro on a line
    turned = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))[0][:, :2]
    assert rotation_index(3 + 7 * whole @ turned.T) == pytest.approx(float(rotation_index(whole)), abs=1e-9)
    there_and_back = torch.cat([whole, whole.flip(0)])
    assert rotation_index(there_and_back) < 1e-12
    assert rotation_index(torch.ones(4, 3)) == 0
    torch.manual_seed(0)
    assert rotation_index(torch.randn(4000, 8)) < 0.1  # 4000 steps in 28 planes: about 1 / sqrt(4000)
    with pytest.raises(ValueError, match="at least three points"):
        rotation_index(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="finite"):
        rotation_index(torch.tensor([[0.0], [math.nan], [1.0]]))


def test_the_study_writes_what_it_says(tmp_path, capsys):
    names = ["alternating", "optimistic", "lookahead", "unrolled-5"]
    words = ["--tasks", "ring", "--dynamics", ",".join(names), "--steps", "10", "--looks", "10", "--seeds", "2"]
    assert main(["bench", "dynamics", *words, "--batch-size", "8", "--out", str(tmp_path)]) == 0
    table, runs, looks = (rows(tmp_path / f"{name}.csv") for name in ("table", "runs", "looks"))
    assert [row["dynamics"] for row in table] == names
    assert len(runs) == 8 and len(looks) == 80
    assert all(float(row["steps"]) == 10 for row in runs)
    first = [row for row in runs if row["dynamics"] == "optimistic"]
    values = [float(row["high_quality"]) for row in first]
    row = next(row for row in table if row["dynamics"] == "optimistic")
    assert float(row["high_quality"]) == pytest.approx(np.mean(values))
    assert float(row["high_quality_se"]) == pytest.approx(np.std(values, ddof=1) / 2**0.5)
    for picture in ("columns", "occupancy", "outcome"):
        assert (tmp_path / f"ring-{picture}.png").stat().st_size > 5000
    assert "| ring | optimistic |" in capsys.readouterr().out


def test_a_study_goes_on_where_it_ended(tmp_path, capsys, monkeypatch):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    words = ["bench", "dynamics", "--tasks", "ring", "--steps", "9", "--looks", "8", "--batch-size", "4"]
    both = [*words, "--dynamics", "alternating,optimistic", "--seeds", "2"]
    assert main([*both, "--out", str(whole)]) == 0
    assert main([*words, "--dynamics", "optimistic", "--seeds", "1", "--out", str(parts)]) == 0
    before = (parts / "cells" / "ring-optimistic-0.npz").stat().st_mtime_ns
    capsys.readouterr()
    assert main([*both, "--out", str(parts)]) == 0
    said = capsys.readouterr().out
    assert "2/4 ring alternating, seed 0" in said and "ring optimistic, seed 0" not in said
    assert (parts / "cells" / "ring-optimistic-0.npz").stat().st_mtime_ns == before
    for one, other in zip(rows(whole / "looks.csv"), rows(parts / "looks.csv"), strict=True):
        assert one == other
    assert main([*both, "--rate", "2", "--out", str(parts)]) == 2  # not the runs of this study
    assert "--rate 1.0, not 2.0" in capsys.readouterr().err


def test_the_pace_goes_by_the_share_of_the_run():
    pace = Pace(SETUPS["annealed"], scale=2.0)
    assert (pace.rate(0), pace.noise(0)) == (1.0, 0.8)
    pace.share = 0.4  # half of the noise's time
    assert (pace.rate(10**6), pace.noise(10**6)) == (1.0, pytest.approx(0.4))
    pace.share = 0.9
    assert (pace.rate(0), pace.noise(0)) == (pytest.approx(0.2), 0.0)
    assert Pace(SETUPS["metz"], scale=2.0).noise(0) == 0.0


def test_equal_time_is_kept_and_shares_are_of_all_samples():
    options = Options(seconds=0.5, looks=8, batch_size=8)
    for name in ("alternating", "unrolled-10"):
        played = play("grid", name, 0, options)
        assert 0.5 <= played.seconds < 1.0  # a step more than half a second, on a busy machine several
        assert played.steps > 1 and played.shares.shape == (8, 25) and played.columns.shape == (8, LOOKED_AT, 2)
        np.testing.assert_allclose(played.shares.sum(1), 1.0)
    again = [play("ring", "optimistic", 3, Options(steps=8, looks=8, batch_size=8)) for _ in range(2)]
    np.testing.assert_array_equal(again[0].columns, again[1].columns)
    assert math.isnan(summary(again[:1])[0]["modes_se"])


@pytest.mark.parametrize("setup", SETUPS)
@pytest.mark.parametrize("name", CONTENDERS)
def test_every_contender_takes_a_step(name, setup):
    trainer, _ = make_contender(name, MIXTURES["ring"](), torch.device("cpu"), SETUPS[setup])
    metrics = trainer.step(MIXTURES["ring"]().sample(4))
    assert all(bool(torch.isfinite(value)) for value in metrics.values())


def test_what_cannot_be_is_refused(capsys):
    for words, said in (
        (["--dynamics", "unrolled-7"], "unknown dynamics"), (["--tasks", "rings"], "did you mean 'ring'"),
        (["--looks", "3"], "--looks must be at least 8"), (["--seconds", "0"], "--seconds"),
        (["--steps", "2"], "--steps must be at least 40"), (["--setup", "meta"], "did you mean 'metz'"),
        (["--rate", "0"], "--rate"), (["--batch-size", "0"], "--batch-size"),
    ):  # fmt: skip
        assert main(["bench", "dynamics", *words]) == 2
        assert said in capsys.readouterr().err
    for plot, rest in ((columns_plot, ([], np.zeros((1, 2)))), (occupancy_plot, (np.zeros(1),)), (outcome_plot, (8,))):
        with pytest.raises(ValueError, match="is empty"):
            plot({}, *rest)


def test_the_benchmark_writes_a_row_for_each(monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    bench = importlib.import_module("dynamics")
    out = tmp_path / "cost.csv"
    found = bench.main(["--dynamics", "optimistic,alternating", "--batch-size", "4", "--steps", "1", "--rounds", "2",
                        "--out", str(out)])  # fmt: skip
    assert [row["dynamics"] for row in found] == ["alternating", "optimistic"]
    assert found[0]["times_alternating"] == 1.0
    assert [row["dynamics"] for row in rows(out)] == ["alternating", "optimistic"]
    assert "times alternating" in capsys.readouterr().out
