"""``advrl exercise``: each does its steps and holds its claims, also with other numbers; a false claim is told."""

from importlib import import_module

import pytest
import torch
from matplotlib.figure import Figure

from advrl.cli import main
from advrl.lab.exercises import EXERCISES, Sheet, bilinear, convexity, exercise, ratio, resolve, run
from advrl.seeding import isolated

FEW = {
    "discriminator": {"steps": 300, "inner": 200},
    "xy": {"steps": 60},
    "likelihood": {"steps": 60},
    "collapse": {"steps": 400},
    "ratio": {"points": 401},
    "sampling": {"samples": 2000},
    "untrained": {"starts": 4, "steps": 1000},
    "convexity": {"lines": 60, "steps": 200},
}


@pytest.mark.parametrize("name", EXERCISES)
def test_an_exercise_holds_what_it_claims(name, tmp_path, capsys):
    words = [word for key, value in FEW.get(name, {}).items() for word in (f"--{key}", str(value))]
    code = main(["exercise", name, "--out", str(tmp_path), *words])
    said = capsys.readouterr().out
    assert code == 0, said
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.png"]
    assert said.count("\n  ok ") >= 6 and "FAILED" not in said and "Step 1." in said
    assert max(len(line) for line in said.splitlines()) <= 160


@pytest.mark.parametrize(
    ("name", "options"),
    [("xy", {"eta": 0.4, "steps": 40}), ("xy", {"eta": 0.01}), ("kl", {"mu": 2.3, "sigma": 0.4}),
     ("kl", {"mu": 5.0, "sigma": 1.6}),
     ("likelihood", {"rate": 0.05, "steps": 40, "seed": 3}), ("collapse", {"rate": 0.3, "steps": 400, "seed": 1})],
)  # fmt: skip
def test_it_holds_with_other_numbers(name, options):
    sheet, module = Sheet(lambda text: None), exercise(name)
    chosen = module.Options(**{"steps": 60, **options} if name == "xy" else options)
    with isolated(chosen.seed):
        figure = module.solve(chosen, sheet)
    assert isinstance(figure, Figure) and not sheet.failed, sheet.failed


def test_a_false_claim_is_told_and_ends_with_1(tmp_path, monkeypatch):
    """The likelihood's share is a half: with another the claim fails, and the others stand."""
    real = ratio.ratio_value
    monkeypatch.setattr(ratio, "ratio_value", lambda *given: real(*given) * (1.01 if given[3] == "mle" else 1))
    said: list[str] = []
    assert run("ratio", ratio.Options(points=401, out=tmp_path), lambda: tmp_path, said.append) == 1
    assert sum(line.startswith("  FAILED") for line in said) == 2  # the value and its gradient
    assert any("7 of 9 claims hold" in line for line in said)


def test_a_wrong_rate_is_noticed(monkeypatch):
    real = bilinear.eigenvalues
    monkeypatch.setattr(bilinear, "eigenvalues", lambda rule, eta, **more: real(rule, eta * 1.0001, **more))
    sheet = Sheet(lambda text: None)
    bilinear.solve(bilinear.Options(steps=60), sheet)
    assert len([claim for claim in sheet.failed if "recurrence" in claim.what]) == len(bilinear.RULES)


def test_every_dynamics_has_its_rate():
    assert set(bilinear.RULES) == set(bilinear.DYNAMICS)


@pytest.mark.parametrize("step", ["near", "below", "above"])
def test_a_number_that_is_none_is_no_proof(step):
    sheet = Sheet(lambda text: None)
    getattr(sheet, step)("a claim", torch.tensor(float("nan")), *((0.0, 1.0) if step == "near" else (0.0,)))
    assert [claim.what for claim in sheet.failed] == ["a claim"]


def test_claims_at_their_bounds():
    sheet = Sheet(lambda text: None)
    sheet.near("within", 1.5, 1.0, 0.5)
    sheet.near("without", 1.6, 1.0, 0.5)
    sheet.below("at most", torch.tensor(2.0, requires_grad=True), 2.0)
    sheet.below("more", 2.1, 2.0)
    sheet.above("less", 1.9, 2.0)
    assert [claim.holds for claim in sheet.claims] == [True, False, True, False, False]


def test_names_and_numbers(capsys):
    assert [resolve(str(n)) for n in range(1, len(EXERCISES) + 1)] == list(EXERCISES)
    assert resolve("kl") == "kl"
    assert main(["exercise"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in EXERCISES)
    assert main(["exercise", "discrimnator"]) == 2
    assert "did you mean 'discriminator'?" in capsys.readouterr().err
    for word in ("0", str(len(EXERCISES) + 1), "-1", "1.0"):
        assert main(["exercise", word]) == 2
        assert f"its number, 1 to {len(EXERCISES)}" in capsys.readouterr().err


@pytest.mark.parametrize("name", EXERCISES)
def test_an_exercise_explains_itself(name, capsys):
    assert main(["exercise", name, "--help"]) == 0
    assert "--seed" in capsys.readouterr().out
    module = import_module(EXERCISES[name][0])
    assert module.TITLE and len(module.PROBLEM.split()) > 25


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [("xy", ["--eta", "0.9"], "--eta"), ("xy", ["--steps", "3"], "--steps"), ("kl", ["--mu", "0.1"], "--mu"),
     ("kl", ["--sigma", "-1"], "--sigma"), ("sampling", ["--samples", "10"], "--samples"),
     ("discriminator", ["--inner", "0"], "--inner"), ("likelihood", ["--rate", "0"], "--rate"),
     ("untrained", ["--starts", "1"], "--starts"), ("convexity", ["--lines", "2"], "--lines"),
     ("collapse", ["--rate", "nan"], "--rate"), ("ratio", ["--points", "20"], "--points")],
)  # fmt: skip
def test_numbers_out_of_range_are_refused(name, words, message, tmp_path, capsys):
    assert main(["exercise", name, "--out", str(tmp_path), *words]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_spike_is_a_density_with_its_mean():
    for t in (-1.9, 0.0, 0.51, 1.03):
        q = convexity.spike(torch.tensor(t, dtype=torch.float64))
        assert q.sum() == pytest.approx(1, abs=1e-12) and (q * convexity.PLACES).sum() == pytest.approx(t, abs=1e-12)
