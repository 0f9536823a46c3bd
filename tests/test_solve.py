"""``advrl solve`` as a user meets it: what it says, what it draws, what it says no to."""

import json
from pathlib import Path

import gymnasium as gym
import pytest
from PIL import Image

from advrl.cli import main
from advrl.solve import toy_text
from advrl.tabular import from_gymnasium, solve
from advrl.tabular.problems import PROBLEMS, cliff, special_grid


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_list_names_everything(capsys):
    assert main(["solve", "--list"]) == 0
    out = capsys.readouterr().out
    for name in [*PROBLEMS, "FrozenLake-v1", "CliffWalking-v1", "Taxi-v4", "advrl/GridWorld-v0"]:
        assert f"  {name}" in out
    assert main(["solve"]) == 2
    assert main(["solve", "--help"]) == 0
    assert "--gamma" in capsys.readouterr().out


@pytest.mark.parametrize("name", [name for name in PROBLEMS if name != "car-rental"])
def test_every_problem_is_solved(name, capsys):
    assert main(["solve", name, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["V"] == pytest.approx(solve(PROBLEMS[name]()).V.tolist())
    assert found["status"] == "converged" and found["states"] == len(found["V"]) == len(found["optimal_actions"])


@pytest.mark.parametrize("name", [name for name in toy_text() if "Taxi" not in name])
def test_every_environment_is_solved(name, capsys):
    assert main(["solve", name, "--gamma", "0.9", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["V"] == pytest.approx(
        solve(from_gymnasium(gym.make(name), 0.9)).V.tolist()
    )


@pytest.mark.parametrize(
    "method", ["value-iteration", "policy-iteration", "modified-policy-iteration", "linear-program"]
)
def test_methods_agree(method, capsys):
    assert main(["solve", "special-grid", "--method", method, "--tol", "1e-7", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["V"] == pytest.approx(solve(special_grid()).V.tolist(), abs=1e-7) and found["error_bound"] <= 1e-7
    assert all(low <= v <= high for low, v, high in zip(found["lower"], found["V"], found["upper"], strict=True))
    assert found["optimal_actions"][1] == [0, 1, 2, 3]


def test_text_says_value_ties_and_what_is_next(capsys):
    assert main(["solve", "cliff"]) == 0
    out = capsys.readouterr().out
    for part in (
        "48 states, 4 actions, gamma 1",
        "→↓ →↓",
        "Value of the start: -13.000000",
        "the same with --plot draws",
    ):
        assert part in out
    assert not Path("runs").exists()
    assert main(["solve", "cliff", "--slippery", "True"]) == 0
    start = float((cliff(slippery=True).p0 * solve(cliff(slippery=True)).V).sum())
    assert f"Value of the start: {start:.6f}" in capsys.readouterr().out


def test_the_lake_in_pictures(capsys):
    assert main(["solve", "FrozenLake-v1", "--map", "4x4", "--gamma", "0.9", "--plot"]) == 0
    out = capsys.readouterr().out
    assert "Value of the start: 0.068891" in out
    folder = Path("runs/solve-FrozenLake-v1")
    names = {"values.png", "q.png", "occupancy.png", "bounds.png", "sweeps.gif", "solution.json"}
    assert {path.name for path in folder.iterdir()} == names
    for name in names:
        assert str(folder / name) in out
    with Image.open(folder / "sweeps.gif") as film:
        assert 2 < film.n_frames <= 20
    assert json.loads((folder / "solution.json").read_text())["shape"] == [4, 4]


@pytest.mark.parametrize(
    ("name", "pictures"),
    [("gambler", {"gambler.png"}), ("student", {"values.png"}), ("garnet", {"values.png", "bounds.png"})],
)
def test_what_has_no_grid_has_its_own_pictures(name, pictures, tmp_path):
    assert main(["solve", name, "--plot", "--out", "here"]) == 0
    assert {path.name for path in (tmp_path / "here").iterdir()} == pictures | {"solution.json"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("clif", "unknown problem 'clif'; did you mean 'cliff'? (advrl solve --list shows all)"),
        ("frozenlake-v1", "did you mean 'FrozenLake-v1'?"),
        ("Blackjack-v1", "BlackjackEnv has no table P[s][a] of transitions"),
        ("CartPole-v1", "CartPoleEnv has no table P[s][a] of transitions"),
        ("cliff --gamma 1.5", "gamma must be in [0, 1], got 1.5"),
        ("cliff --gamma nan", "gamma must be in [0, 1], got nan"),
        ("cliff --tol -1", "--tol must be finite and at least 0"),
        ("student --map 4x4", "student takes no --map"),
        ("student --slippery True", "student takes no --slippery"),
        ("gambler --gamma 0.9", "gambler takes no --gamma"),
        ("FrozenLake-v1 --map 9x9", "FrozenLake-v1 cannot be made with map_name='9x9'"),
        ("advrl/GridWorld-v0 --map attic", "unknown map 'attic'"),
    ],
)  # fmt: skip
def test_bad_input_ends_with_one_sentence(words, message, capsys):
    assert main(["solve", *words.split()]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1 and not captured.out


def test_unknown_methods_are_refused(capsys):
    assert main(["solve", "cliff", "--method", "guess"]) == 2
    assert "policy-iteration" in capsys.readouterr().err
