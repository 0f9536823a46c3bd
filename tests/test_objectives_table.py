"""The table of objectives says what is played; the costs' figure and its command; names on the command line."""

import csv
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import expit, wrightomega
from torch.func import grad, vmap

from advrl import cli
from advrl.lab.bench_costs import PLOTTED, curve
from advrl.objectives import (
    BEGAN,
    FACTS,
    GAMES,
    NAMES,
    Game,
    Objective,
    facts_table,
    make_game,
    maximum_likelihood,
    minimax,
    non_saturating,
)
from advrl.objectives.facts import TOGETHER
from advrl.plots import cost_plot
from advrl.recipes import Digits, Ring
from advrl.recipes.parts import make_trainer

ROOT = Path(__file__).parents[1]
WORDS = {
    "softplus": lambda x: np.logaddexp(0, x),
    "sigmoid": expit,
    "exp": np.exp,
    "log": np.log,
    "sign": np.sign,
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "omega": wrightomega,
}
A = np.linspace(-12, 12, 241)


def say(formula: str, **values: object) -> np.ndarray:
    return np.asarray(eval(formula, {"__builtins__": {}}, {**WORDS, **values})) + 0 * A


def played(name: str) -> Objective:
    game = make_game(name)
    assert isinstance(game, Game)
    return game.objective


def test_every_name_has_its_row():
    assert set(NAMES) == (set(FACTS) | set(TOGETHER)) - {"catgan", "k+1"}


@pytest.mark.parametrize("name", FACTS)
def test_printed_formulas_are_what_is_played(name):
    facts, objective = FACTS[name], played(name)
    a, real = torch.from_numpy(A), torch.from_numpy(A[::-1].copy())
    numbers = {"a": A, "r": A[::-1], "f": A, "k": 0.0}

    def cost(a: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
        return objective.cost(a, r)

    np.testing.assert_allclose(objective.cost(a, real), say(facts.cost, **numbers), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(vmap(grad(cost))(a, real), say(facts.slope, **numbers), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(objective.d_loss(real, a), say(facts.d_loss, **numbers), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", FACTS)
def test_the_reward_s_range_sign_and_monotony_are_as_stated(name):
    facts, objective = FACTS[name], played(name)
    low, high = facts.reward
    a = torch.linspace(-60, 60, 12_001, dtype=torch.float64)
    a = a.clamp(min=0) if not objective.high_is_real else a  # energies are not negative
    reward = objective.reward(a, torch.zeros_like(a))
    assert reward.min() >= low - 1e-12 and reward.max() <= high + 1e-12
    near = reward[a.abs() <= 30]
    for bound, reached, before in ((low, reward.min(), near.min()), (high, reward.max(), near.max())):
        assert abs(reached - before) > 0.5 if math.isinf(bound) else abs(reached - bound) < 1e-5
    assert facts.sign == ("≥ 0" if low >= 0 else "≤ 0" if high <= 0 else "both")
    rises = bool((reward.diff() < -1e-12).any())
    assert rises == bool(facts.exception)
    place = re.search(r"least at a = (−?\d)", facts.exception)
    if place:
        assert a[reward.argmax()].item() == pytest.approx(float(place[1].replace("−", "-")), abs=0.02)


def test_the_page_holds_the_table():
    text = (ROOT / "docs" / "objectives.md").read_text(encoding="utf-8")
    begin, end = "<!-- table: advrl.objectives.facts_table -->\n", "\n<!-- end of table -->"
    assert text.split(begin)[1].split(end)[0].strip() == facts_table(), "write what facts_table() gives into the page"


def test_the_tutorial_s_three_curves_have_their_end_values():
    """Minimax falls without end at D = 1, -log D from infinity to 0; -e^a is -99 at .99, twice the slide's."""
    d = torch.tensor([1e-9, 0.5, 0.99, 1 - 1e-9], dtype=torch.float64)
    mm, ns, ml = (curve(objective, d)[0] for objective in (minimax, non_saturating, maximum_likelihood))
    assert mm[0].abs() < 1e-8 and mm[3] < -20
    assert ns[0] > 20 and ns[3].abs() < 1e-8
    assert ml[2].item() == pytest.approx(-99.0)
    for objective in (minimax, non_saturating, maximum_likelihood):
        slope, step = curve(objective, d[1:3])[1], 1e-7
        up, down = (curve(objective, d[1:3] + s)[0] for s in (step, -step))
        torch.testing.assert_close(slope, (up - down) / (2 * step), rtol=1e-5, atol=0)


def test_bench_costs_writes_its_table_and_figure(tmp_path, capsys):
    assert cli.main(["bench", "costs", "--out", str(tmp_path / "x"), "--points", "99"]) == 0
    rows = list(csv.DictReader((tmp_path / "x" / "costs.csv").read_text().splitlines()))
    assert [row["objective"] for row in rows] == list(PLOTTED)
    by_name = {row["objective"]: row for row in rows}
    assert float(by_name["maximum-likelihood"]["c(0.99)"]) == pytest.approx(-99)
    assert by_name["non-saturating"]["at D"] == "0.01" and by_name["minimax"]["at D"] == "0.99"
    assert by_name["total-variation"]["steepest"] == ""
    assert (tmp_path / "x" / "costs.png").stat().st_size > 10_000
    assert "advrl train ring --objective minimax" in capsys.readouterr().out
    for words, message in {
        ("--objectives", "hinge"): "hinge pays by an output that is no log-odds",
        ("--objectives", "minmax"): "did you mean 'minimax'",
        ("--points", "3"): "--points must be at least 9",
    }.items():
        assert cli.main(["bench", "costs", "--out", str(tmp_path / "y"), *words]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "y").exists()


def test_the_cost_plot_marks_the_steepest_point_of_each_curve():
    d = np.linspace(0.1, 0.9, 9)
    figure = cost_plot(d, {"one": (d, -d), "flat": (0 * d, 0 * d)})
    right = figure.axes[1]
    marks = [line for line in right.lines if line.get_marker() == "o"]
    assert [(m.get_xdata().item(), m.get_ydata().item()) for m in marks] == [(0.9, -0.9)]
    with pytest.raises(ValueError, match="need costs and slopes of the length of d"):
        cost_plot(d, {})
    with pytest.raises(ValueError, match="need costs and slopes of the length of d"):
        cost_plot(d, {"short": (d[1:], d[1:])})


def test_the_help_and_the_page_name_every_objective():
    source = (ROOT / "advrl" / "recipes" / "config.py").read_text(encoding="utf-8")
    row = next(
        line
        for line in (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| `--objective`")
    )
    told = source.split("objective: str")[1].split('"""')[1]
    assert re.findall(r"[a-z][a-z0-9-]+", told.split(":", 1)[1].split(", or FILE")[0]) == list(NAMES)
    assert re.findall(r"`([a-z0-9-]+)`", row.split("|")[3]) == list(NAMES)


SMALL = {"width": 8, "latent": 3, "batch_size": 4, "steps": 5}


def test_refusals_are_sentences():
    for config, words in (
        (Ring(objective="bs-gan", **SMALL), "weighs the samples of each z of a discrete policy"),
        (Digits(objective="bs-gan", estimator="loo", **SMALL), "leave --estimator and --baseline alone"),
        (Ring(objective="total-variation", **SMALL), "pays by steps"),
        (Digits(objective="relativistic-average", **SMALL), "couples the samples of a batch"),
        (Ring(objective="relativistic-average", probe_gradients="path", **SMALL), "needs a cost of each sample"),
        (Digits(objective="catgan", **SMALL), "an output per class"),
        (Digits(objective="k+1", **SMALL), "an output per class, and labels"),
        (Digits(objective="fgan", **SMALL), "unknown objective 'fgan'"),
    ):
        with pytest.raises(ValueError, match=words):
            config.validate() or config.build(torch.device("cpu"))


@pytest.mark.parametrize("name", NAMES)
def test_every_objective_trains_a_recipe(name):
    """A few steps on points (or on discrete ones, where the objective is for those): everything stays finite."""
    torch.manual_seed(0)
    discrete = name in ("bs-gan", "total-variation")
    config = (Digits if discrete else Ring)(objective=name, **SMALL)
    if discrete:
        from advrl.nn import FAMILIES, MLP, Policy

        policy = Policy(MLP(3, (1, 4, 4), (8,)), FAMILIES["binomial"], 3)
        trainer, batch = make_trainer(config, policy, MLP((1, 4, 4), (), (8,))), torch.zeros(4, 1, 4, 4)
    else:
        trainer, batch = config.build(torch.device("cpu")).trainer, torch.randn(4, 2)
    for _ in range(3):
        told = trainer.step(batch)
    assert all(bool(torch.isfinite(value)) for value in told.values())
    if name in GAMES and GAMES[name].penalties:
        assert {p.__name__ for _, p in GAMES[name].penalties} <= told.keys()
    assert isinstance(getattr(trainer, "controller", None), BEGAN) == (name == "began")


def test_r3gan_takes_its_weights_from_r1():
    trainer = Ring(objective="r3gan", r1=0.5, **SMALL).build(torch.device("cpu")).trainer
    scale = Ring().mixture().scale ** 2
    assert [(weight, p.__name__) for weight, p in trainer.penalties] == [
        (pytest.approx(0.25 * scale), "r1"),
        (pytest.approx(0.25 * scale), "r2"),
    ]
    assert trainer.penalty_every == 1
