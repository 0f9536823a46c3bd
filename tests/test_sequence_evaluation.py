"""Evaluation of runs that write sequences: temperature sweeps, language models in the report, alarms of collapse."""

import csv
import itertools
import json
import shutil

import pytest
import torch

import advrl
from advrl.agents.report import Estimate
from advrl.cli import main
from advrl.nn import GRUPolicy
from advrl.recipes.alarms import alarm_text, sequence_alarms
from advrl.recipes.sweep import Tempered, sweep, sweep_text, temperatures

SMALL = ["--width", "8", "--batch-size", "16", "--device", "cpu", "--steps", "30", "--picture-every", "15",
         "--log-every", "10", "--checkpoint-every", "15", "--quiet"]  # fmt: skip
ORACLE = ["train", "oracle", "--vocab", "6", "--length", "4", "--sequences", "200", "--oracle-hidden", "4", *SMALL]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of each kind."""
    folder = tmp_path_factory.mktemp("runs")
    who, does = ("a man", "a dog", "two cats", "one bird"), ("sees", "likes", "has", "paints")
    what = ("red hats", "a boat", "music", "rain")
    lines = [" ".join(words) for words in itertools.product(who, does, what)]
    (folder / "lines.txt").write_text("\n".join(lines) + "\n")
    text = ["train", "text", "--corpus", str(folder / "lines.txt"), "--dropout", "0", "--lr", "0.02", *SMALL]
    assert main([*text, "--out", str(folder / "text")]) == 0
    assert main([*ORACLE, "--out", str(folder / "oracle")]) == 0
    return folder


def test_temperatures_are_a_range_or_a_list():
    assert temperatures("0.6:1.4:9") == pytest.approx([0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4])
    assert temperatures("0.7,1,1.3") == (0.7, 1.0, 1.3)


@pytest.mark.parametrize("text", ["1", "0:1:3", "1.2,0.8", "1:2", "a,b", "0.5:1.5:1", "1,1"])
def test_temperatures_that_cannot_be(text):
    with pytest.raises(ValueError, match="--temperatures"):
        temperatures(text)


def test_a_tempered_policy_has_the_likelihood_of_its_samples():
    """Against the closed form: softmax of logits over the temperature; and all sequences' probabilities sum to 1."""
    torch.manual_seed(0)
    policy = GRUPolicy(3, 2, 4).double().requires_grad_(False)
    tempered = Tempered(policy, 0.5)
    x = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    expected = (policy.logits(x) / 0.5).log_softmax(-1).gather(-1, x.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(tempered.log_probs(x), expected)
    assert float(tempered.log_probs(x).sum(1).exp().sum()) == pytest.approx(1.0)
    shares = torch.bincount(tempered.sample(20_000) @ torch.tensor([3, 1]), minlength=9) / 20_000
    error = (expected.sum(1).exp() - shares).abs() / (shares * (1 - shares) / 20_000).sqrt()
    assert error.max() < 5.4  # 9 two-sided checks at 1e-6 together


def test_a_sweep_says_at_1_what_the_report_says(runs):
    run = advrl.load(runs / "oracle", device="cpu")
    swept = sweep(run, (1.0, 1.5))
    report = run.evaluate(10)
    for name in ("nll_oracle", "nll_test", "reverse_kl", "forward_kl", "duplicates"):
        assert swept.rows[0][name] == report.rows["generated"][name]
    assert swept.floor == (report.rows["generated"]["floor"].mean,) * 2
    cold = sweep(run, (0.3, 1.0))
    assert cold.rows[0]["nll_oracle"].mean < cold.rows[1]["nll_oracle"].mean
    assert cold.rows[0]["duplicates"].mean > cold.rows[1]["duplicates"].mean
    said = sweep_text("mine", swept, swept, "other")
    assert "mean gap in nll_test +0.0000: mine is level with other" in said and "floor" in said


@pytest.mark.parametrize(("kind", "axes"), [("oracle", ("nll_oracle", "nll_test")), ("text", ("LM", "reverse LM"))])
def test_the_command_sweeps_beside_another_run(kind, axes, runs, tmp_path, capsys):
    for name in ("mine", "theirs"):
        shutil.copytree(runs / kind, tmp_path / name)
    command = ["evaluate", str(tmp_path / "mine"), "--temperatures", "0.7,1,1.4", "--against", str(tmp_path / "theirs")]
    assert main([*command, "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "At equal quality" in said and "level with theirs" in said
    told = json.loads((tmp_path / "mine" / "sweep.json").read_text())
    assert (told["axes"]["quality"], told["axes"]["diversity"]) == axes and told["gap"] == 0.0
    with open(tmp_path / "mine" / "sweep.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["mine"] * 3 + ["real"] + ["theirs"] * 3
    assert all(float(row[axis]) > 0 for row in rows for axis in axes)
    assert (tmp_path / "mine" / "plots" / "sweep.png").stat().st_size > 5_000


def test_the_report_of_text_has_language_models_both_ways(runs, capsys):
    assert main(["evaluate", str(runs / "text"), "--splits", "3", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "reverse LM" in said and "early stopping" in said
    rows = json.loads((runs / "text" / "evaluation.json").read_text())["rows"]
    for name in ("LM", "reverse LM", "Fréchet", "distinct-2", "distinct-3", "entropy", "BLEU-4", "self-BLEU-4"):
        assert rows["generated"][name]["mean"] > 0 and rows["real"][name]["mean"] > 0


def test_what_cannot_be_swept_is_refused(runs, tmp_path, capsys):
    assert main(["evaluate", str(runs / "text"), "--against", str(runs / "text")]) == 2
    assert "--temperatures" in capsys.readouterr().err
    sweeping = ["evaluate", str(runs / "oracle"), "--temperatures", "0.8,1", "--device", "cpu"]
    assert main([*sweeping, "--against", str(runs / "text")]) == 2
    assert "writes other sequences" in capsys.readouterr().err
    assert main([*ORACLE, "--algorithm", "embedding", "--steps", "2", "--out", str(tmp_path / "vectors")]) == 0
    assert main(["evaluate", str(tmp_path / "vectors"), "--temperatures", "0.8,1", "--device", "cpu"]) == 2
    assert "token by token" in capsys.readouterr().err


def row(**figures):
    return {name: Estimate(value, 0.01) for name, value in figures.items()}


def test_alarms_name_what_is_wrong_and_a_remedy():
    real = row(ngram_entropy=7.0, duplicates=0.0)
    healthy = row(nll_oracle=6.0, floor=5.75, ngram_entropy=6.9, duplicates=0.001)
    assert sequence_alarms({"generated": healthy, "oracle": real}) == []
    collapsed = row(nll_oracle=3.0, floor=5.75, ngram_entropy=4.0, duplicates=0.6)
    alarms = sequence_alarms({"generated": collapsed, "oracle": real})
    assert [alarm.name for alarm in alarms] == ["floor", "entropy", "duplicates"]
    assert all(alarm.remedy for alarm in alarms) and alarm_text(alarms).count("ALARM") == 3
    text = row(nll=3.0, entropy=4.0, duplicates=0.6)
    assert len(sequence_alarms({"generated": text, "real": row(entropy=7.0, duplicates=0.0)})) == 2
    assert sequence_alarms({"generated": collapsed}) == []
    assert sequence_alarms({"generated": row(recall=0.1), "real": row(recall=0.5)}) == []


def test_a_run_that_collapsed_says_so_at_its_end(tmp_path, capsys, monkeypatch):
    """Frozen at its first weights but for a bias: one token, again and again."""
    from advrl.agents import LikelihoodTrainer

    def collapse(self, batch):
        self.generator.out.bias.data[0] = 30.0
        self.average.out.bias.data[0] = 30.0
        self.steps += 1
        return {"nll": torch.zeros(())}

    monkeypatch.setattr(LikelihoodTrainer, "step", collapse)
    loud = [word for word in ORACLE if word != "--quiet"]
    assert main([*loud, "--out", str(tmp_path / "run")]) == 0
    alarms = json.loads((tmp_path / "run" / "evaluation.json").read_text())["alarms"]
    assert {alarm["name"] for alarm in alarms} >= {"entropy", "duplicates"}
    assert capsys.readouterr().out.count("ALARM") == len(alarms)
    assert main(["evaluate", str(tmp_path / "run"), "--device", "cpu"]) == 0
    assert capsys.readouterr().out.count("ALARM") == len(alarms)
