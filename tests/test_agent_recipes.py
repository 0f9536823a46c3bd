"""Recipes whose generator plays an environment: short runs, what they leave, how they go on, what is refused."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import advrl
from advrl.agents import evaluation
from advrl.cli import main
from advrl.data import LSTMOracle
from advrl.plots import read_metrics
from advrl.recipes import Canvas, SequenceOracle, run
from advrl.recipes.oracle import OracleEvaluator

SHORT = ["--steps", "6", "--log-every", "2", "--checkpoint-every", "3", "--picture-every", "3", "--batch-size", "8",
         "--width", "8", "--device", "cpu", "--quiet"]  # fmt: skip
SEQUENCES = ["train", "sequence-oracle", "--vocab", "4", "--length", "3", "--oracle-hidden", "4", *SHORT]


@pytest.fixture(autouse=True)
def quick(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluation, "SHARES_FROM", 300)
    monkeypatch.setattr(evaluation, "FAST_FROM", 100)
    monkeypatch.setattr(evaluation.Evaluator.__init__, "__defaults__", ("cpu", 0, 20))
    monkeypatch.setattr(evaluation.Evaluator.evaluate, "__defaults__", (1,))
    monkeypatch.setattr(OracleEvaluator.evaluate, "__defaults__", (2,))
    monkeypatch.setattr(run, "progress_plot", lambda folder: None)  # tested elsewhere


@pytest.mark.parametrize(
    ("agent", "reward"), [("reinforce", "oracle"), ("actor-critic", "discriminator"), ("ppo", "discriminator")]
)
def test_an_agent_learns_sequences(agent, reward, capsys):
    assert main([*SEQUENCES, "--agent", agent, "--reward", reward, "--out", "run"]) == 0
    report = json.loads(Path("run/evaluation.json").read_text())
    assert set(report["rows"]) == {"generated", "oracle"}
    assert {"nll", "entropy", "duplicates", "gap"} == set(report["rows"]["generated"])
    metrics = read_metrics(Path("run/metrics.csv"))
    assert {"reward", "g_cost", "nll", "floor", "gap"} <= set(metrics)
    assert ("d_loss" in metrics) == (reward == "discriminator")
    trained = advrl.load("run", device="cpu")
    x = trained.sample(5, seed=1)
    assert x.shape == (5, 3) and x.dtype == torch.int64 and torch.equal(x, trained.sample(5, seed=1))


def test_sample_evaluate_and_resume(capsys):
    assert main([*SEQUENCES, "--out", "straight"]) == 0
    assert main([*SEQUENCES, "--out", "short", "--steps", "3"]) == 0
    assert main(["train", "sequence-oracle", "--resume", "short", "--steps", "6", "--quiet"]) == 0
    assert read_metrics(Path("short/metrics.csv"))["step"][-1] == 6
    assert main(["sample", "straight", "-n", "7", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "int64 (7, 3)" in said
    assert np.load("straight/samples/sample-1.npy").shape == (7, 3)
    assert main(["evaluate", "straight", "--splits", "2", "--device", "cpu"]) == 0
    assert "oracle itself: the floor" in capsys.readouterr().out


@pytest.mark.parametrize("brush", ["stroke", "pixel"])
def test_an_agent_draws(brush, capsys):
    assert main(["train", "canvas", *SHORT, "--brush", brush, "--strokes", "4", "--out", "run"]) == 0
    assert sorted(p.name for p in (advrl.load("run", device="cpu").folder / "samples").glob("*.png")) == [
        "step-000003.png",
        "step-000006.png",
    ]
    x = advrl.load("run", device="cpu").sample(3)
    assert x.shape == (3, 1, 8, 8) and float(x.min()) >= -1 and float(x.max()) <= 1
    assert main(["sample", "run", "-n", "4", "--device", "cpu"]) == 0


def test_the_evaluator_knows_the_oracle_from_a_collapse():
    oracle = LSTMOracle(6, 5, 8, seed=1)
    judge = OracleEvaluator(oracle)
    one = oracle.sample(1)
    own, collapsed = judge.fast(oracle.sample), judge.fast(lambda n: one.expand(n, 5))
    assert own["gap"] < 0.2 < collapsed["gap"]
    assert collapsed["duplicates"] == pytest.approx(1999 / 2000) and own["duplicates"] < 0.9
    exact = -float(oracle.log_prob(one).detach()) / 5
    assert collapsed["nll"] == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (SequenceOracle(agent="pp"), "did you mean 'ppo'"),  # type: ignore[arg-type]
        (SequenceOracle(reward="oracles"), "did you mean 'oracle'"),  # type: ignore[arg-type]
        (SequenceOracle(vocab=1), "--vocab must be at least 2"),
        (SequenceOracle(objective="relativistic"), "compares fakes"),
        (SequenceOracle(objective="wasserstein-clip"), "clips"),
        (SequenceOracle(agent="reinforce", batch_size=1), "at least 2"),
        (SequenceOracle(entropy=-1.0), "--entropy"),
        (SequenceOracle(ema=1.0), "--ema"),
        (SequenceOracle(seed=-1), "--seed"),
        (SequenceOracle(reward="discriminator", objective="wasserstein-gp"), "tokens"),
        (Canvas(brush="broom"), "unknown brush"),
        (Canvas(strokes=0), "--strokes"),
        (Canvas(lam=1.5), "--lam"),
        (Canvas(epochs=0), "--epochs"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_are_refused(config, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        config.validate()


def test_the_help_names_the_agents(capsys):
    assert main(["train", "--help"]) == 0
    said = capsys.readouterr().out
    assert "canvas" in said and "sequence-oracle" in said and "agent ppo" in said
