"""The command line as a user meets it: what it writes, what it says, and what it says no to."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import advrl
from advrl.agents.checkpoint import load_checkpoint, save_checkpoint
from advrl.cli import main
from advrl.plots import read_metrics

SMALL = ["--steps", "12", "--log-every", "4", "--picture-every", "6", "--checkpoint-every", "5", "--batch-size", "16",
         "--width", "16", "--latent", "4"]  # fmt: skip


def run(*argv: object) -> int:
    return main([str(a) for a in argv])


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """One small run that several tests look at."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    assert run("train", "digits", *SMALL, "--out", folder, "--quiet") == 0
    return folder


def test_help_teaches(capsys):
    assert run() == 0
    assert "advrl train digits" in capsys.readouterr().out
    assert run("train", "--help") == 0
    out = capsys.readouterr().out
    for word in ("digits", "binomial", "gumbel", "REINFORCE", "--estimator auto", "8 per z"):
        assert word in out
    for command in ("train digits", "sample", "evaluate", "plot"):
        assert run(*command.split(), "--help") == 0
        out = capsys.readouterr().out
        assert out.startswith(f"usage: advrl {command}")
    assert run("--version") == 0
    assert capsys.readouterr().out.strip() == f"advrl {advrl.__version__}"


def test_every_option_is_explained(capsys):
    run("train", "digits", "--help")
    out = capsys.readouterr().out
    for flag in ("policy", "estimator", "objective", "samples", "baseline", "temperature", "latent",
                 "discriminator-steps", "generator-steps", "r1", "ema", "lr-generator", "lr-discriminator",
                 "batch-size", "steps", "seed", "seeds", "deterministic", "device", "out", "resume",
                 "data"):  # fmt: skip
        assert re.search(rf"--{flag}\b", out), flag


def test_a_run_s_folder(trained):
    names = {p.relative_to(trained).as_posix() for p in trained.rglob("*") if p.is_file()}
    assert {"config.json", "metrics.csv", "checkpoint.pt", "best.pt", "generator.safetensors", "evaluation.json",
            "plots/curves.png", "plots/class_shares.png", "samples/step-000006.png",
            "samples/step-000012.png"} <= names  # fmt: skip
    assert any(name.startswith("tensorboard/events") for name in names)
    config = json.loads((trained / "config.json").read_text())
    assert config["recipe"] == "digits" and config["config"]["width"] == 16 and config["device"] == "cpu"
    assert config["command"][:3] == ["advrl", "train", "digits"] and config["versions"]["torch"] == torch.__version__
    metrics = read_metrics(trained / "metrics.csv")
    assert metrics["step"] == [4.0, 6.0, 8.0, 12.0]
    assert {"d_loss", "g_cost", "logit_real", "logit_fake", "r1", "frechet"} <= metrics.keys()
    report = json.loads((trained / "evaluation.json").read_text())
    assert report["n"] == 898 and {"generated", "real halves"} <= report["rows"].keys()


def test_the_report_says_what_was_written_and_what_is_next(tmp_path, capsys):
    assert run("train", "digits", *SMALL, "--out", tmp_path / "r", "--policy", "implicit") == 0
    out = capsys.readouterr().out
    for word in ("899 training images", "Path(n=1)", "Fréchet", "real halves", "Written:", "Next:", "advrl sample"):
        assert word in out
    for path in re.findall(r"^  (\S+/(?:samples|plots)\S*)", out, re.MULTILINE):
        assert Path(path).exists()


def test_sample_evaluate_and_plot(trained, tmp_path, capsys):
    assert run("sample", trained, "-n", 5, "--out", tmp_path / "s.png") == 0
    assert np.load(tmp_path / "s.npy").shape == (5, 1, 8, 8)
    assert run("sample", trained, "-n", 5) == 0
    np.testing.assert_array_equal(np.load(trained / "samples" / "sample-1.npy"), np.load(tmp_path / "s.npy"))
    assert run("evaluate", trained, "--splits", 2) == 0
    assert "2 draws of 898 samples" in capsys.readouterr().out.replace("\n", " ")
    assert run("plot", trained) == 0
    assert run("plot", trained, trained, "--out", tmp_path / "c.png", "--metrics", "d_loss", "g_cost") == 0
    assert (tmp_path / "c.png").stat().st_size > 1000


def test_load_in_python(trained):
    one = advrl.load(trained)
    before = torch.get_rng_state()
    images = one.sample(64)
    assert images.shape == (64, 1, 8, 8) and images.min() >= -1 and images.max() <= 1
    assert torch.equal(images, advrl.load(str(trained), checkpoint="best").sample(64))
    assert torch.equal(before, torch.get_rng_state())
    assert advrl.load(trained, checkpoint="last").step == 12


def test_resume_is_the_run_that_was_never_interrupted(tmp_path, capsys):
    """Killed in mid-run from outside, then resumed: parameters, optimisers, average, generators and metrics agree."""
    command = ["train", "digits", *SMALL, "--steps", "30", "--quiet"]
    assert run(*command, "--out", tmp_path / "a") == 0
    code = (
        "import os, signal, sys\nfrom advrl.agents.adversarial import AdversarialTrainer as T\nstep = T.step\n"
        "def dying(self, batch, z=None):\n    if self.steps == 23: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return step(self, batch, z)\nT.step = dying\nimport torch\ntorch.set_num_threads(1)\n"
        "from advrl.cli import main\nmain(sys.argv[1:])"
    )
    call = [sys.executable, "-c", code, *command, "--out", str(tmp_path / "b")]
    assert subprocess.run(call, cwd=Path(__file__).parents[1], check=False).returncode == -signal.SIGKILL
    assert load_checkpoint(tmp_path / "b" / "checkpoint.pt")["step"] == 20
    assert run("train", "digits", "--resume", tmp_path / "b", "--quiet") == 0
    a, b = (load_checkpoint(tmp_path / name / "checkpoint.pt") for name in "ab")
    for state in (a, b):
        del state["seconds"]
    assert_equal(a, b)
    one, other = (read_metrics(tmp_path / name / "metrics.csv") for name in "ab")
    for name in one.keys() - {"seconds"}:
        np.testing.assert_array_equal(one[name], other[name])
    assert run("train", "digits", "--resume", tmp_path / "b", "--steps", "32", "--out", tmp_path / "c", "--quiet") == 0
    assert load_checkpoint(tmp_path / "c" / "checkpoint.pt")["step"] == 32
    assert load_checkpoint(tmp_path / "b" / "checkpoint.pt")["step"] == 30
    assert run("train", "digits", "--resume", tmp_path / "b", "--policy", "gaussian", "--latent", "9") == 2
    err = capsys.readouterr().err
    assert "--policy is binomial in the run, gaussian was given" in err and "--latent is 4 in the run, 9" in err


def assert_equal(a, b):
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    else:
        assert a == b


def test_several_seeds(tmp_path, capsys):
    assert run("train", "digits", *SMALL, "--seeds", 2, "--seed", 3, "--out", tmp_path / "many") == 0
    out = capsys.readouterr().out
    assert "over 2 seeds" in out and f"advrl plot {tmp_path / 'many'}" in out
    assert {p.name for p in (tmp_path / "many").iterdir()} == {"seed-3", "seed-4"}
    one, other = (advrl.load(tmp_path / "many" / f"seed-{s}").sample(4) for s in (3, 4))
    assert not torch.equal(one, other)
    assert run("plot", tmp_path / "many", "--out", tmp_path / "many.png") == 0


USER_FILE = """
from dataclasses import dataclass
from typing import ClassVar
from advrl.estimators import Score, leave_one_out
from advrl.recipes import Digits

def cost(logits):
    return -logits.tanh()

def wrong(logits):
    return logits.mean()

number = 3
estimator = Score(2, leave_one_out)

@dataclass(frozen=True)
class Mine(Digits):
    "My digits."
    name: ClassVar[str] = "mine"
    latent: int = 3
"""


def test_extending_needs_no_edit_of_advrl(tmp_path, capsys):
    mine = tmp_path / "my.py"
    mine.write_text(USER_FILE)
    out = tmp_path / "run"
    assert run("train", f"{mine}:Mine", *SMALL[:-2], "--objective", f"{mine}:cost", "--estimator", f"{mine}:estimator",
               "--out", out) == 0  # fmt: skip
    assert "Score(n=2, baseline=leave_one_out)" in capsys.readouterr().out
    mine_loaded = advrl.load(out)
    assert mine_loaded.config.latent == 3 and mine_loaded.sample(2).shape == (2, 1, 8, 8)
    for spec, words in {
        f"{mine}:coat": "did you mean 'cost'",
        f"{tmp_path / 'none.py'}:cost": "no file",
        f"{mine}:number": "must be a function",
        f"{mine}:wrong": r"(3,) gave ()",
        "my:cost": "expected FILE.py:NAME",
    }.items():
        assert run("train", "digits", "--objective", spec, "--out", tmp_path / "x") == 2
        assert words in capsys.readouterr().err
    assert run("train", "digits", "--estimator", f"{mine}:cost", "--out", tmp_path / "x") == 2
    assert "Estimator" in capsys.readouterr().err
    assert not list(tmp_path.glob("x/*"))


def bad_files(folder: Path) -> dict[str, Path]:
    images = np.random.default_rng(0).random((30, 8, 8)).astype(np.float32)
    images_nan = images.copy()
    images_nan[2, 3, 4] = np.nan
    arrays = {"empty": images[:0], "shape": images[0, 0], "nan": images_nan, "range": images * 300}
    paths = {}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
        paths[name] = folder / f"{name}.npy"
    (folder / "text.npz").write_text("no archive")
    return paths | {"text": folder / "text.npz", "missing": folder / "missing.npy"}


def test_bad_input_is_one_sentence_and_exit_code_2(tmp_path, trained, capsys):
    files = bad_files(tmp_path)
    notrun, taken = tmp_path / "notrun", tmp_path / "taken"
    notrun.mkdir()
    taken.mkdir()
    (taken / "precious.txt").write_text("mine")
    cases: dict[tuple[object, ...], str] = {
        ("trian", "digits"): "did you mean 'train'",
        ("train", "digts"): "did you mean 'digits'",
        ("train", "digits", "--estimator", "gumble"): "did you mean 'gumbel'",
        ("train", "digits", "--objective", "hing"): "did you mean 'hinge'",
        ("train", "digits", "--policy", "binomal"): "did you mean 'binomial'",
        ("train", "digits", "--steps", "0"): "--steps must be at least 1, got 0",
        ("train", "digits", "--batch-size", "-3"): "--batch-size must be at least 1, got -3",
        ("train", "digits", "--samples", "0"): "--samples must be at least 1",
        ("train", "digits", "--samples", "1"): "n >= 2",
        ("train", "digits", "--lr-generator", "nan"): "--lr-generator must be finite",
        ("train", "digits", "--temperature", "0"): "--temperature",
        ("train", "digits", "--ema", "1"): "--ema must be below 1, got 1.0",
        ("train", "digits", "--seed", "-1"): "--seed",
        ("train", "digits", "--device", "cuda:99"): "does not exist here; there is cpu",
        ("train", "digits", "--device", "gpu"): "unknown device 'gpu'",
        ("train", "digits", "--policy", "implicit", "--estimator", "loo"): "use path",
        ("train", "digits", "--policy", "binomial", "--estimator", "path"): "use loo",
        ("train", "digits", "--policy", "gaussian", "--estimator", "st"): "use path",
        ("train", "digits", "--baseline", "constant"): "goes with --estimator score",
        ("train", "digits", "--out", trained): "already holds a run",
        ("train", "digits", "--out", taken): "not empty",
        ("train", "digits", "--out", "/proc/advrl"): "cannot be written",
        ("train", "digits", "--resume", notrun): "is no run folder",
        ("train", "digits", "--resume", trained, "--latent", "5"): "--latent is 4 in the run, 5 was given",
        ("train", "digits", "--resume", trained, "--out", taken / "precious.txt"): "not empty",
        ("train", f"{__file__}:SMALL"): "is no recipe",
        ("sample", notrun): "is no run folder",
        ("sample", trained, "--out", taken / "precious.txt" / "x.png"): "precious.txt",
        ("sample", trained.parent): "it holds the runs digits",
        ("sample", trained, "-n", "0"): "-n must be at least 1",
        ("evaluate", tmp_path / "nowhere"): "is no run folder",
        ("plot", notrun): "run",
    }
    cases |= {("train", "digits", "--data", path): str(path) for path in files.values()}
    for argv, words in cases.items():
        out = () if "--out" in argv or argv[0] != "train" else ("--out", tmp_path / "fresh")
        code = run(*argv, *out)
        captured = capsys.readouterr()
        assert code == 2, argv
        assert words in captured.err, (argv, captured.err)
        assert "Traceback" not in captured.err + captured.out
        assert captured.err.count("\n") <= 3, captured.err
    assert not (tmp_path / "fresh").exists()


def test_a_damaged_checkpoint_is_one_sentence(trained, tmp_path, capsys):
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "config.json").write_bytes((trained / "config.json").read_bytes())
    content = (trained / "checkpoint.pt").read_bytes()
    (damaged / "checkpoint.pt").write_bytes(content[: len(content) // 2])
    for argv in (("sample", damaged), ("train", "digits", "--resume", damaged)):
        assert run(*argv) == 2
        assert "truncated" in capsys.readouterr().err
    (damaged / "config.json").write_text("{")
    assert run("sample", damaged) == 2
    assert "not a run's configuration" in capsys.readouterr().err


def test_a_checkpoint_of_another_network_is_one_sentence(trained, tmp_path, capsys):
    other, wide = tmp_path / "other", [*SMALL, "--width", "8"]
    assert run("train", "digits", *wide, "--out", other, "--quiet") == 0
    (other / "checkpoint.pt").write_bytes((trained / "checkpoint.pt").read_bytes())
    assert run("train", "digits", "--resume", other, "--steps", "20") == 2
    err = capsys.readouterr().err
    assert "of another trainer" in err and "Traceback" not in err
    save_checkpoint(other / "checkpoint.pt", {"step": 3})
    for argv in (("sample", other, "--checkpoint", "last"), ("train", "digits", "--resume", other, "--steps", "20")):
        assert run(*argv) == 2
    torch.save(torch.nn.Linear(2, 2), other / "checkpoint.pt")
    assert run("sample", other, "--checkpoint", "last") == 2
    assert "more than tensors and plain values" in capsys.readouterr().err


def test_a_run_that_moved_goes_on_where_it_is(trained, tmp_path, capsys):
    before = (trained / "checkpoint.pt").read_bytes()
    moved = tmp_path / "moved"
    shutil.copytree(trained, moved)
    assert run("train", "digits", "--resume", moved, "--steps", "14", "--quiet") == 0
    assert load_checkpoint(moved / "checkpoint.pt")["step"] == 14
    assert (trained / "checkpoint.pt").read_bytes() == before
    assert run("train", "digits", "--resume", moved, "--steps", "13") == 2
    assert "has 14 steps already" in capsys.readouterr().err


def test_refused_options_leave_no_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("train", "digits", "--estimator", "path") == 2
    assert run("train", "digits", "--data", "missing.npz") == 2
    assert not list(tmp_path.glob("runs/*"))
    capsys.readouterr()


@pytest.mark.parametrize("policy", ["binomial", "categorical", "gaussian"])
def test_divergence_ends_the_run_with_one_sentence(policy, tmp_path, capsys):
    code = run(
        "train", "digits", *SMALL, "--policy", policy, "--lr-generator", "1e30", "--out", tmp_path / "x", "--quiet"
    )
    err = capsys.readouterr().err
    assert code == 1 and "not finite" in err and "checkpoint.pt of step" in err and "Traceback" not in err
    state = load_checkpoint(tmp_path / "x" / "checkpoint.pt")
    assert all(bool(torch.isfinite(p).all()) for p in state["trainer"]["generator"].values())


def child(argv: list[str], before: str = "") -> subprocess.Popen:
    code = (
        f"import sys, torch\ntorch.set_num_threads(1)\n{before}\nimport advrl.cli as c; sys.exit(c.main(sys.argv[1:]))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, *argv], cwd=Path(__file__).parents[1], stderr=subprocess.PIPE, text=True
    )


def test_a_disk_that_fills_ends_the_run_with_one_sentence(tmp_path):
    """A limit on file sizes stands for the disk: checkpoints fit, then one file too many or too long does not."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))"
    argv = ["train", "digits", *SMALL, "--steps", "100000", "--log-every", "1", "--picture-every", "100000",
            "--checkpoint-every", "100", "--quiet", "--out", str(tmp_path / "x")]  # fmt: skip
    process = child(argv, limit)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "cannot write to" in err and "is whole" in err and "Traceback" not in err
    assert load_checkpoint(tmp_path / "x" / "checkpoint.pt")["step"] >= 0


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path):
    argv = ["train", "digits", *SMALL, "--steps", "1000000", "--out", str(tmp_path / "x"), "--quiet"]
    process = child(argv)
    deadline = time.monotonic() + 120
    while not (tmp_path / "x" / "metrics.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted at step" in err and f"train digits --resume {tmp_path / 'x'}" in err and "Traceback" not in err
    assert load_checkpoint(tmp_path / "x" / "checkpoint.pt")["step"] > 0
