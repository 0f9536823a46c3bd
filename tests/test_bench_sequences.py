"""``advrl bench oracle`` and ``text``: tiny studies, kept cells, refusals, and what the report says."""

import csv
import itertools
import shutil

import pytest
import torch

from advrl.cli import main
from advrl.lab import bench_sequences as bench
from advrl.recipes import load
from advrl.recipes import run as recipes_run
from advrl.recipes.oracles import OracleSequences

TINY = ["--seeds", "2", "--likelihood-steps", "12", "--batch-size", "16", "--temperatures", "0.7,1.3", "--width", "8",
        "--device", "cpu"]  # fmt: skip
ORACLE = [
    "bench",
    "oracle",
    *TINY,
    "--steps",
    "4",
    "--samples",
    "200",
    "--vocab",
    "6",
    "--length",
    "4",
    "--sequences",
    "100",
]


def cells(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "oracle"
    assert main([*ORACLE, "--algorithms", "reinforce,constant", "--out", str(out)]) == 0
    return out


def test_a_study_has_its_baseline_its_floor_and_the_published_rows(study):
    said = (study / "report.md").read_text()
    for part in ("| mle | 1 | 2 |", "| mle, tempered | 0.7 | 2 |", "| reinforce, last step |", "**floor", "8.736",
                 "4,680", "not the published one", "constant", "CPU-seconds"):  # fmt: skip
        assert part in said, part
    rows = cells(study / "sweeps.csv")
    assert len(rows) == 3 * 2 * 3  # algorithms, seeds, temperatures with 1
    assert [(row["algorithm"], row["seed"]) for row in rows[::3]] == [
        (algorithm, seed) for seed in "01" for algorithm in ("mle", "reinforce", "constant")
    ]
    assert (study / "tradeoff.png").stat().st_size > 5_000
    table = cells(study / "table.csv")
    one = next(row for row in table if row["algorithm"] == "mle" and row["temperature"] == "1")
    values = torch.tensor(
        [float(row["nll_test"]) for row in rows if row["algorithm"] == "mle" and row["temperature"] == "1"]
    )
    assert float(one["nll_test"]) == pytest.approx(float(values.mean()), rel=1e-5)
    assert float(one["nll_test_low"]) < float(values.min())  # Student's interval of two is wide


def test_games_can_begin_with_the_last_step_of_likelihood_as_in_published_schedules(tmp_path):
    out = tmp_path / "last"
    game = ["--discriminator", "cnn-small", "--discriminator-steps", "2", "--lr-discriminator", "1e-4"]
    command = [*ORACLE, "--checkpoint", "last", *game, "--lr-generator", "1e-12", "--out", str(out)]
    assert main([*command, "--algorithms", "mle", "--seeds", "2"]) == 0
    shutil.copy(out / "runs" / "mle-1" / "best.pt", out / "runs" / "mle-0" / "best.pt")  # not what is to be used
    assert main([*command, "--algorithms", "reinforce", "--seeds", "1"]) == 0
    rows, said = cells(out / "sweeps.csv"), (out / "report.md").read_text()
    assert {(row["algorithm"], row["best_step"]) for row in rows} == {("mle", "12"), ("reinforce", "4")}
    assert len(rows) == 3 * 3
    assert "of the last step" in said and ", last step |" not in said
    played = load(out / "runs" / "reinforce-0", device="cpu", checkpoint="last")
    assert (played.config.discriminator_steps, played.config.lr_discriminator) == (2, 1e-4)
    ends = [load(out / "runs" / "mle-0", device="cpu", checkpoint=which).policy for which in ("last", "best")]
    gaps = [max(float((a - b).detach().abs().max()) for a, b in zip(played.policy.parameters(), end.parameters(),
            strict=True)) for end in ends]  # fmt: skip
    assert gaps[0] < 1e-9 < 1e-4 < gaps[1]


def test_what_is_there_is_not_trained_again(study, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("trained again")

    before = (study / "sweeps.csv").read_bytes()
    monkeypatch.setattr(recipes_run, "train", refuse)
    assert main([*ORACLE, "--algorithms", "constant", "--out", str(study)]) == 0
    assert (study / "sweeps.csv").read_bytes() == before
    assert "reinforce" not in (study / "report.md").read_text().split("published")[0]


def test_another_study_in_the_folder_is_refused(study, capsys):
    other = [word if word != "12" else "13" for word in ORACLE]
    assert main([*other, "--out", str(study)]) == 2
    assert "--likelihood-steps 12" in capsys.readouterr().err


def test_a_cell_that_was_interrupted_goes_on(study, tmp_path, monkeypatch):
    """Its run is resumed, and ends with the weights of the run that was not."""
    calls = []
    real = recipes_run.train

    def interrupted(config, **options):
        calls.append(config.resume)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(config, **options)

    monkeypatch.setattr(recipes_run, "train", interrupted)
    out = tmp_path / "oracle"
    assert main([*ORACLE, "--algorithms", "constant", "--out", str(out)]) == 130
    assert len(cells(out / "sweeps.csv")) == 3  # the first cell is kept
    assert main([*ORACLE, "--algorithms", "constant", "--out", str(out)]) == 0
    mine, theirs = ([row["nll_oracle"] for row in cells(p / "sweeps.csv") if row["algorithm"] == "constant"]
                    for p in (out, study))  # fmt: skip
    assert mine == theirs


def test_a_budget_is_a_number_of_steps_that_is_measured_once(tmp_path):
    clock = iter([0.0, 6.0])

    def tiny(n):
        return OracleSequences(algorithm="constant", vocab=5, length=3, sequences=64, width=4, steps=n, pretrain=0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench.time, "process_time", lambda: next(clock, 6.0))
        assert bench.within(100.0, tmp_path / "steps.json", "constant", tiny) == 50  # 6 s for 3 steps
    assert bench.within(1.0, tmp_path / "steps.json", "constant", tiny) == 50


def test_text_beside_real_text_and_the_published_rows(tmp_path, capsys):
    who, does = ("a man", "a dog", "two cats", "one bird"), ("sees", "likes", "has", "paints")
    what = ("red hats.", "a boat.", "music.", "rain.")
    lines = [" ".join(words) for words in itertools.product(who, does, what)]
    (tmp_path / "lines.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "test.txt").write_text("a man sees a kite.\na dog likes music.\n")
    command = ["bench", "text", *TINY, "--seeds", "1", "--algorithms", "reinforce", "--steps", "3", "--samples", "40"]
    names = {"--corpus": "lines.txt", "--test": "test.txt", "--out": "out"}
    files = [word for flag, name in names.items() for word in (flag, str(tmp_path / name))]
    assert main([*command, *files]) == 0
    said = capsys.readouterr().out
    for part in ("**real text**", "reverse LM", "*LeakGAN*", "all lines of test.txt", "| mle, tempered | 1.3 |"):
        assert part in said, part
    rows = cells(tmp_path / "out" / "sweeps.csv")
    assert len(rows) == 6 and all(0 <= float(row["BLEU-2"]) <= 1 for row in rows)
    assert (tmp_path / "out" / "lines" / "mle-0.txt").read_text().count("\n") == 20


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["oracle", "--algorithms", "seqgam"], "seqgam"),
        (["oracle", "--budget", "0"], "--budget"),
        (["oracle", "--temperatures", "2,1"], "--temperatures"),
        (["text"], "--corpus is missing"),
    ],
)
def test_bad_options_end_with_a_sentence(options, sentence, tmp_path, capsys):
    assert main(["bench", *options, "--out", str(tmp_path / "none")]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
