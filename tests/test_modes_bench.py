"""advrl bench modes: resumed by the cell, beside the published rows; and the alarms of a run."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest
import torch

from advrl import cli
from advrl.agents import Every
from advrl.agents.logs import MetricsLog
from advrl.lab import bench_modes
from advrl.lab.bench_modes import Judge, Options, planned, run
from advrl.lab.modes_table import MODES, _spread_figure, draw, report, spreads, summary
from advrl.lab.published import PUBLISHED
from advrl.metrics import collapse_alarm, curve_alarms, quick_alarm, recall_alarm
from advrl.plots import read_metrics
from advrl.recipes.watch import Watch


def table_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_study_goes_on_where_it_stopped(tmp_path, monkeypatch):
    said: list[str] = []
    options = Options(tasks="ring", stabilisers="plain,packing 2+r1", seeds=1, steps=3, device="cpu", out=tmp_path)
    run(options, lambda: tmp_path, said.append)
    before = (tmp_path / "cells.csv").read_text()
    assert [row["stabiliser"] for row in table_of(tmp_path / "cells.csv")] == ["plain", "packing 2+r1"]
    assert (tmp_path / "ring.png").stat().st_size > 1_000

    played = []
    play = bench_modes.play
    monkeypatch.setattr(bench_modes, "play", lambda cell, *rest: played.append(cell) or play(cell, *rest))
    run(options, lambda: tmp_path, said.append)
    assert not played and (tmp_path / "cells.csv").read_text() == before
    run(Options(**{**vars(options), "seeds": 2, "stabilisers": "plain"}), lambda: tmp_path, said.append)
    assert [(cell.stabiliser, cell.seed) for cell in played] == [("plain", 1)]
    assert (tmp_path / "cells.csv").read_text().startswith(before)
    assert table_of(tmp_path / "table.csv")[0]["seeds"] == "2"
    assert "PacGAN2" in said[-1] and "KL(h || u)" in said[-1] and "without labels" in said[-1]


def test_a_cell_is_the_same_whoever_plays_it_first():
    options = Options(tasks="ring", seeds=2, steps=3, stabilisers="plain", device="cpu")
    first, second = planned(options)
    device = torch.device("cpu")
    bench_modes.play(first, None, device)
    again = [bench_modes.play(second, None, device) for _ in range(2)]
    assert again[0] | {"seconds": 0} == again[1] | {"seconds": 0}


def test_stacked_digits_are_counted_by_a_good_classifier(monkeypatch):
    monkeypatch.setattr(bench_modes, "DISTANCES_OF", 200)
    judge = Judge(None, torch.device("cpu"))
    assert judge.accuracy >= 0.98
    real = judge.figures(lambda n: 2 * judge.data.sample(n) - 1)
    assert real["modes"] == 1000 and real["reverse_kl"] < 0.03  # 999 / 52,000 = .019 by chance, and unequal classes
    monkeypatch.setitem(bench_modes.JUDGED, "stacked", 2_000)
    one = 2 * judge.data.sample(1, torch.Generator().manual_seed(0)) - 1
    stuck = judge.figures(lambda n: one.expand(n, *one.shape[1:]))
    assert stuck["modes"] == 1 and stuck["reverse_kl"] == pytest.approx(math.log(1000))


@pytest.mark.parametrize("network", ["perceptron", "convolutions"])
def test_stacked_digits_are_played(network, monkeypatch, tmp_path):
    monkeypatch.setitem(bench_modes.JUDGED, "stacked", 4_000)
    monkeypatch.setattr(bench_modes, "DISTANCES_OF", 200)
    options = Options(tasks="stacked", stabilisers="packing 2", networks=network, seeds=1, steps=2, device="cpu")
    run(options, lambda: tmp_path, lambda text: None)
    (row,) = table_of(tmp_path / "cells.csv")
    assert 1 <= float(row["modes"]) <= 1000 and row["category"] == "no labels" and float(row["frechet"]) > 0


@pytest.mark.parametrize(
    ("change", "wrong"),
    [({"tasks": "disc"}, "task"), ({"networks": "huge"}, "network"), ({"stabilisers": "plain+magic"}, "stabiliser"),
     ({"objectives": "hope"}, "hope"), ({"seeds": 0}, "seeds"),
     ({"networks": "fourier", "tasks": "stacked"}, "nothing")],
)  # fmt: skip
def test_what_cannot_be_is_said_before_anything_is_played(change, wrong):
    with pytest.raises(ValueError, match=wrong):
        planned(Options(**change))


def test_another_table_is_not_continued(tmp_path):
    (tmp_path / "cells.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="no column"):
        run(Options(tasks="ring", seeds=1, out=tmp_path, device="cpu"), lambda: tmp_path)


def row(network: str, objective: str, modes: float, seed: int = 0) -> dict[str, str]:
    return {"task": "ring", "objective": objective, "stabiliser": "plain", "network": network, "steps": "5",
            "batch_size": "2", "category": "no labels", "data": "fresh points", "seed": str(seed), "modes": str(modes),
            "high_quality": "1", "reverse_kl": "0.5", "kl": "inf", "seconds": "1"}  # fmt: skip


def test_means_errors_and_spreads():
    cells = [row("narrow", "hinge", 4, 0), row("narrow", "hinge", 6, 1)]
    (entry,) = summary(cells)
    assert (entry["modes"], entry["modes_se"], entry["kl"]) == (5.0, 1.0, math.inf) and math.isnan(entry["kl_se"])
    cells = [row(n, o, m) for n, o, m in (("narrow", "a", 2), ("narrow", "b", 4), ("wide", "a", 6), ("wide", "b", 8))]
    told = spreads(summary(cells))
    assert f"between objectives: {math.sqrt(2):.2f} modes" in told
    assert f"between networks: {math.sqrt(8):.2f} modes" in told
    assert spreads(summary(cells[:1])) == ""
    assert "| ring | hinge | plain | narrow | 2 | 5.0 ± 1.0 |" in report([entry])


def test_costs_beside_networks_in_one_table_and_one_figure(tmp_path):
    """What a cost follows is in the table; bars are the two spreads; a cell without a good sample leaves a gap."""
    modes = {"narrow": (2, 4), "wide": (6, 8)}
    cells = [row(n, o, m) for n, both in modes.items() for o, m in zip(("minimax", "reverse-kl"), both, strict=True)]
    cells[0]["reverse_kl"] = "inf"
    table = summary(cells)
    told = report(table)
    assert "| ring | minimax: 2 JS | plain | narrow |" in told and "| reverse-kl: KL(q‖p) |" in told
    assert [path.name for path in draw(table, tmp_path)] == ["ring.png", "ring-spread.png"]
    assert [path.name for path in draw(table[:2], tmp_path)] == ["ring.png"]
    figure = _spread_figure(table, "ring")
    above, below = figure.axes[:2], figure.axes[2:]
    assert [bar.get_height() for bar in above[1].patches] == pytest.approx([math.sqrt(2), math.sqrt(8)])
    assert sorted(len(bars.lines[0].get_xdata()) for bars in below[0].containers) == [1, 2]
    assert [text.get_text() for text in below[1].texts] == ["∞", "∞"]


def test_published_rows_say_where_they_are_from():
    assert {p.task for p in PUBLISHED} == set(MODES)
    for p in PUBLISHED:
        assert p.source and 0 <= p.modes <= MODES[p.task] and 0 <= p.reverse_kl <= math.log(MODES[p.task])


def curves(**last: float) -> dict[str, list[float]]:
    healthy = {"logit_real": 1.0, "logit_fake": -1.0, "calibration_fake": 0.9, "calibration_real": 1.1}
    return {"step": [1.0, 2.0, 3.0, 4.0]} | {k: [50.0, math.nan, v, last.get(k, v)] for k, v in healthy.items()}


def test_alarms_ring_for_what_is_wrong_alone():
    assert curve_alarms(curves()) == []
    assert [a.name for a in curve_alarms(curves(logit_real=12.0))] == ["discriminator wins"]
    assert [a.name for a in curve_alarms(curves(calibration_fake=40.0))] == ["calibration off"]
    wasserstein = {k: v for k, v in curves(logit_real=1e4).items() if not k.startswith("calibration")}
    assert curve_alarms(wasserstein) == [] == curve_alarms({"step": [], "d_loss": []})
    assert collapse_alarm([0.3, 0.5, 0.2], [1 / 3] * 3) is None
    alarm = collapse_alarm([0.6, 0.4, 0.01], [1 / 3] * 3, "mode")
    assert alarm is not None and "1 of 3 modes (2)" in alarm.finding and "--packing" in alarm.remedy
    assert recall_alarm(0.5, 0.8) is None and recall_alarm(0.1, 0.8) is not None
    with pytest.raises(ValueError, match="as many"):
        collapse_alarm([1.0], [0.5, 0.5])


def test_a_run_says_what_is_wrong(tmp_path, capsys, monkeypatch):
    alarm = recall_alarm(0.1, 0.8)
    monkeypatch.setattr("advrl.recipes.run.curve_alarms", lambda metrics: [alarm] if "logit_real" in metrics else [])
    words = "train ring --steps 4 --log-every 2 --picture-every 4 --device cpu --out"
    assert cli.main([*words.split(), str(tmp_path / "run")]) == 0
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["alarms"][0] == alarm._asdict()
    assert f"ALARM {alarm}" in " ".join(capsys.readouterr().out.split())


def test_quick_alarm_counts_modes_and_the_rarest_class():
    assert quick_alarm({"modes": 8.0}, modes=8) is None is quick_alarm({"frechet": 9.0}, modes=8, share=0.1)
    lost = quick_alarm({"modes": 3.0}, modes=8)
    assert lost is not None and lost.name == "collapse" and "3 of 8 modes" in lost.finding
    assert quick_alarm({"share_min": 0.03}, share=0.1) is None
    rare = quick_alarm({"share_min": 0.01}, share=0.1)
    assert rare is not None and "1.0%" in rare.finding and "--packing 2" in rare.remedy


def test_an_alarm_is_told_once_when_it_begins_and_logged_while_it_rings(tmp_path):
    """Collapse and a discriminator that wins, which come, go and come back; a run without alarms has no column."""
    said: list[str] = []
    state = {"modes": 8.0, "gap": 1.0}
    with MetricsLog(tmp_path, tensorboard=False) as log:

        def watched(step: int, watch: Watch) -> dict[str, float]:
            judge = watch.beside(Every(100, lambda _: {"modes": state["modes"]}))
            row = {**(judge.call(step) or {}), **watch(step)}
            curve = {"logit_real": state["gap"], "logit_fake": 0.0, "calibration_fake": 1.0, "calibration_real": 1.0}
            log.write(step, 0.0, row | curve)
            return {name: value for name, value in row.items() if name.startswith("alarm")}

        watch = Watch(tmp_path, 1_000, said.append, modes=8, share=None)
        state["modes"] = 2.0
        assert watched(100, watch) == {}  # too early to ask for all modes
        state["modes"] = 8.0
        for step in range(200, 1_000, 100):
            assert watched(step, watch) == {}
        state |= {"modes": 7.0, "gap": 30.0}
        assert watched(1_000, watch) == {"alarm_collapse": 1.0} and len(said) == 1
        assert said[0].startswith("ALARM from step 1,000  Collapse: 7 of 8 modes") and "(--packing 2)" in said[0]
        for step in range(1_100, 1_500, 100):
            last = watched(step, watch)
        assert last == {"alarm_collapse": 1.0, "alarm_discriminator_wins": 1.0} and len(said) == 2
        again = Watch(tmp_path, 1_000, said.append, modes=8, share=None)  # a resumed run knows from the log
        state["modes"] = 8.0
        assert watched(1_500, again) == {"alarm_collapse": 0.0, "alarm_discriminator_wins": 1.0}
        state["modes"] = 1.0
        assert watched(1_600, again)["alarm_collapse"] == 1.0 and len(said) == 2  # it was told before


def test_a_losing_run_says_so_on_its_way(tmp_path, capsys):
    """A discriminator of a hundred times the generator's rate, without penalty or noise, on the ring."""
    words = "train ring --r1 0 --instance-noise 0 --lr-generator 1e-6 --lr-discriminator 5e-3 --width 32 --steps 400"
    assert (
        cli.main([*words.split(), *f"--log-every 10 --picture-every 200 --device cpu --out {tmp_path}/run".split()])
        == 0
    )
    told = capsys.readouterr().out
    assert told.count("ALARM from step") == len({line for line in told.splitlines() if "ALARM from step" in line}) >= 1
    assert told.index("ALARM from step") < told.index("Trained to step 400")
    assert "ALARM  Collapse: 0 of 8 modes are found." in told  # at the end too, where no sample is good
    columns = read_metrics(tmp_path / "run" / "metrics.csv")
    assert any(name.startswith("alarm_") and columns[name][-1] == 1.0 for name in columns)
