"""Sequence GANs through the command line: on oracles, whose probabilities judge exactly, and on text."""

import copy
import json
import os
from pathlib import Path

import pytest
import torch

import advrl
from advrl.cli import main
from advrl.data import LSTMOracle
from advrl.plots import read_metrics
from advrl.recipes import OracleSequences, Text, oracles
from advrl.recipes import run as run_module
from advrl.recipes.oracles import OracleJudge
from advrl.recipes.sequence_defaults import ALGORITHMS
from advrl.recipes.sequences import temperatures
from tests.test_text_recipe import LINES

TINY = ["--width", "8", "--batch-size", "16", "--device", "cpu", "--quiet", "--log-every", "4", "--picture-every", "4",
        "--checkpoint-every", "4"]  # fmt: skip
ORACLE = ["--vocab", "6", "--length", "4", "--oracle-hidden", "4", "--sequences", "100", "--rollouts", "2"]


def trained(out: Path, *arguments: str, recipe: str = "oracle") -> Path:
    own = ORACLE if recipe == "oracle" else []
    assert main(["train", recipe, *own, *TINY, "--out", str(out), *arguments]) == 0
    return out


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Fewer samples for the judge, and no curves at the end of a run."""
    monkeypatch.setattr(oracles, "SAMPLES", 200)
    monkeypatch.setattr(oracles, "QUICK", 100)
    monkeypatch.setattr(run_module, "progress_plot", lambda folder: None)


@pytest.fixture(scope="module")
def likely(tmp_path_factory) -> Path:
    """A run of maximum likelihood."""
    return trained(tmp_path_factory.mktemp("oracle") / "mle", "--steps", "8")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "lines.txt"
    path.write_text("\n".join(LINES) + "\n")
    return path


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name != "mle"])
def test_every_algorithm_trains_on_an_oracle_and_writes(algorithm, tmp_path, capsys):
    run = trained(tmp_path / "run", "--algorithm", algorithm, "--steps", "8")
    report = json.loads((run / "evaluation.json").read_text())["rows"]
    assert report["oracle"]["nll_test"] == report["generated"]["floor"]
    assert ("reverse_kl" in report["generated"]) == (algorithm != "embedding")
    columns = read_metrics(run / "metrics.csv")
    assert {"reward", "grad_norm", "grad_variance", "nll_oracle", "duplicates"} <= columns.keys()
    assert algorithm == "constant" or {"d_accuracy", "logit_held_out"} <= columns.keys()
    loaded = advrl.load(run, device="cpu")
    assert loaded.sample(10).shape == (10, 4)
    capsys.readouterr()
    assert main(["sample", str(run), "-n", "3", "--prompt", "2 0", "--temperature", "0.7", "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all(line.startswith("2 0 ") and len(line.split()) == 4 for line in lines)


@pytest.mark.parametrize("algorithm", ["seqgan", "embedding"])
def test_every_algorithm_trains_on_text(algorithm, corpus, tmp_path, capsys):
    run = trained(tmp_path / "run", "--corpus", str(corpus), "--algorithm", algorithm, "--steps", "4", "--rollouts",
                  "1", recipe="text")  # fmt: skip
    found = json.loads((run / "evaluation.json").read_text())["rows"]["generated"]
    assert ("nll" in found) == (algorithm != "embedding") and 0 <= found["self-BLEU-2"]["mean"] <= 1
    assert "gap" in read_metrics(run / "metrics.csv")
    capsys.readouterr()
    assert main(["sample", str(run), "-n", "2", "--prompt", "a man", "--device", "cpu"]) == 0
    assert all(line.startswith("a man") for line in capsys.readouterr().out.splitlines())


def test_the_judge_knows_a_perfect_writer():
    """Of the oracle itself both divergences are 0 and both likelihoods the floor; a colder one is below it."""
    oracle = LSTMOracle(6, 4, 4)
    judge = OracleJudge(oracle, torch.device("cpu"))
    quick = judge.fast(oracle.policy)
    assert quick["divergence"] == pytest.approx(0, abs=1e-5) and quick["nll_test"] == pytest.approx(quick["floor"])
    row = judge.of(oracle.policy).rows["generated"]
    for name in ("nll_oracle", "nll_test"):
        assert abs(row[name].mean - row["floor"].mean) < 5 * (row[name].error or 1)
    assert judge.fast(oracle.policy) == quick  # the same samples, whatever was drawn before
    cold = copy.deepcopy(oracle.policy)
    with torch.no_grad():
        cold.out.weight *= 3
        cold.out.bias *= 3
    found = judge.fast(cold)
    assert found["nll_oracle"] < found["floor"] < found["nll_test"] and found["reverse_kl"] > 0.05


@pytest.mark.parametrize("kind", ["hmm", "grammar"])
def test_other_oracles(kind, tmp_path, capsys):
    run = trained(tmp_path / kind, "--kind", kind, "--algorithm", "reinforce", "--steps", "4")
    found = json.loads((run / "evaluation.json").read_text())["rows"]["generated"]
    assert ("impossible" in found) == (kind == "grammar")
    capsys.readouterr()
    assert (
        main(["sample", str(run), "-n", "3", "--prompt", "x +" if kind == "grammar" else "3", "--device", "cpu"]) == 0
    )
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_a_run_begins_with_another(likely, tmp_path):
    run = trained(tmp_path / "next", "--algorithm", "seqgan", "--init", str(likely), "--steps", "4", "--lr-generator",
                  "1e-12")  # fmt: skip
    assert advrl.load(run).config.pretrain == 0
    new, old = (advrl.load(folder, device="cpu").policy for folder in (run, likely))
    for mine, theirs in zip(new.parameters(), old.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-9, rtol=0)
    likely.rename(tmp_path / "elsewhere")  # it is not read again
    try:
        assert main(["train", "oracle", "--resume", str(run), "--steps", "8", "--quiet"]) == 0
        assert main(["evaluate", str(run), "--device", "cpu"]) == 0
    finally:
        (tmp_path / "elsewhere").rename(likely)


def test_a_run_goes_on_bit_for_bit(tmp_path):
    whole = trained(tmp_path / "whole", "--algorithm", "seqgan", "--pretrain", "2", "--warmup", "1", "--steps", "8")
    half = trained(tmp_path / "half", "--algorithm", "seqgan", "--pretrain", "2", "--warmup", "1", "--steps", "4")
    assert main(["train", "oracle", "--resume", str(half), "--steps", "8", "--quiet"]) == 0
    one, two = (torch.load(folder / "checkpoint.pt", weights_only=True)["trainer"] for folder in (whole, half))
    for part in ("generator", "discriminator", "algorithm"):
        assert all(torch.equal(one[part][name], value) for name, value in two[part].items())


def test_the_published_oracle(tmp_path):
    folder = os.environ.get("ADVRL_DATA")
    if not folder:
        pytest.skip("ADVRL_DATA is not set: it names the folder with seqgan_oracle.npz")
    run = tmp_path / "published"
    command = ["train", "oracle", "--oracle", str(Path(folder) / "seqgan_oracle.npz"), "--length", "5", "--sequences",
               "50", "--steps", "2", "--out", str(run), *TINY]  # fmt: skip
    assert main(command) == 0
    assert advrl.load(run).policy.vocab_size == 5000


def test_defaults_are_those_of_the_algorithm():
    usual = OracleSequences(algorithm="scratchgan")
    assert (usual.batch_size, usual.discriminator, usual.discount, usual.pretrain) == (512, "recurrent", 0.23, 0)
    assert OracleSequences(algorithm="seqgan", steps=100).pretrain == 50
    assert OracleSequences(algorithm="seqgan", steps=100, pretrain=7, batch_size=3).pretrain == 7
    assert OracleSequences(algorithm="seqgan", init=Path("x")).pretrain == 0
    plain = Text(corpus=Path("x"))
    assert (plain.batch_size, plain.steps, plain.ema, plain.lr, plain.width) == (64, 2000, 0.99, 2e-3, 256)
    for algorithm in ALGORITHMS:
        OracleSequences(algorithm=algorithm).validate()
        Text(corpus=Path("x"), algorithm=algorithm).validate()
    assert temperatures("2:0.5") == (2.0, 0.5) and temperatures("0.7") == (0.7, 0.7)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--algorithm", "seqgan", "--pretrain", "30"], "leave none of --steps 8"),
        (["--algorithm", "constant", "--warmup", "2"], "has no judge"),
        (["--algorithm", "embedding", "--kl", "1"], "--algorithm embedding has no likelihood"),
        (["--algorithm", "embedding", "--discriminator", "recurrent"], "needs --discriminator cnn or cnn-small"),
        (["--entropy", "1"], "--algorithm mle has no game"),
        (["--algorithm", "scratchgan", "--discriminator", "cnn"], "needs --discriminator recurrent"),
        (["--algorithm", "bsgan", "--group", "5"], "a multiple of --group 5"),
        (["--algorithm", "gumbel", "--temperature", "1:0:3"], "FIRST:LAST"),
        (["--algorithm", "seqgan", "--objective", "wasserstein-gp"], "tokens have none"),
        (["--algorithm", "seqgan", "--reward", "logd"], "did you mean 'log-d'"),
        (["--algorithm", "seqgan", "--baseline", "lo"], "did you mean 'loo'"),
        (["--algorithm", "actor-critic", "--objective", "relativistic"], "compares whole sequences"),
        (["--kind", "hmm", "--oracle", "x.npz"], "--kind must be lstm"),
        (["--sequences", "3"], "at least a batch of 16"),
        (["--init", "LIKELY", "--oracle-seed", "3"], "has --oracle-seed 0, this run has 3"),
        (["--init", "LIKELY", "--policy", "gru"], "has --policy lstm, this run has gru"),
        (["--init", "LIKELY", "--algorithm", "embedding"], "was trained by mle, this run by embedding"),
        (["--init", "nowhere"], "nowhere is no run folder"),
    ],
)
def test_bad_input_is_one_sentence(arguments, sentence, likely, capsys, tmp_path):
    given = [str(likely) if word == "LIKELY" else word for word in arguments]
    assert main(["train", "oracle", *ORACLE, *TINY, "--steps", "8", "--out", str(tmp_path / "never"), *given]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "never").exists()


def test_a_vocabulary_that_does_not_match_is_refused(corpus, likely, tmp_path, capsys):
    first = trained(tmp_path / "first", "--corpus", str(corpus), "--steps", "2", recipe="text")
    other = tmp_path / "other.txt"
    other.write_text("\n".join(line.replace("rain", "snow") for line in LINES) + "\n")
    common = ["train", "text", *TINY, "--steps", "2", "--out", str(tmp_path / "never"), "--corpus", str(other)]
    assert main([*common, "--init", str(first)]) == 2
    said = capsys.readouterr().err
    assert "does not match that of --init" in said and "'red'" in said and "'rain'" in said
    assert main([*common, "--init", str(likely)]) == 2
    assert "is a run of oracle, not of text" in capsys.readouterr().err
