"""Lessons run, exercises are the lessons with blanks, and the grader tells right from wrong."""

import json
import runpy
import shutil
from pathlib import Path

import pytest

from advrl import cli
from advrl.lab.blanks import TURN, blank, write
from advrl.lab.grading import grade, lessons

ROOT = Path(__file__).parents[1]
LESSONS = sorted((ROOT / "examples" / "lessons").glob("*.py"))
SMALL = {  # arguments of main, where all of it takes longer than a second
    "loop": {"episodes": 60},
    "bandits": {"bandits": 20, "steps": 30, "study": 4},
    "walk": {"runs": 2, "agents": 60},
    "cliff": {"episodes": 30, "runs": 2, "many": 60},
    "gradient": {"samples": 1000},
}
each_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)


@each_lesson
def test_a_lesson_runs_and_draws(lesson, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(lesson))["main"](**SMALL.get(lesson.stem, {}))
    assert f"runs/lessons/{lesson.stem}.png" in capsys.readouterr().out
    assert (tmp_path / f"runs/lessons/{lesson.stem}.png").stat().st_size > 5000


@each_lesson
def test_an_exercise_is_its_lesson_with_blanks(lesson):
    exercise = lesson.parent / "exercises" / lesson.name
    right = blank(lesson.read_text(encoding="utf-8"))
    assert exercise.read_text(encoding="utf-8") == right, "run python -m advrl.lab.blanks examples/lessons"


def test_every_lesson_is_graded_and_nothing_else():
    assert set(lessons()) == {path.stem for path in LESSONS}
    assert {path.name for path in LESSONS} == {path.name for path in (LESSONS[0].parent / "exercises").glob("*.py")}
    for path in LESSONS:
        text = path.read_text(encoding="utf-8")
        assert text.count(TURN) == len(lessons()[path.stem]), "a blank without a check, or a check without a blank"


@each_lesson
def test_the_lesson_earns_all_points_and_the_blank_none(lesson):
    assert [g.why for g in grade(lesson.stem, lesson)] == [""] * len(lessons()[lesson.stem])
    for g in grade(lesson.stem, lesson.parent / "exercises" / lesson.name):
        assert g.earned == 0 < g.points
        assert g.why.startswith("your turn: ")


WRONG = [  # lesson, function, what stands in the lesson, what a beginner writes, what the grader says
    ("loop", "play", "terminated or truncated", "terminated", "after the episode was over"),
    ("loop", "returns", "gamma * total", "total", "should be 3, at 0, got 7"),
    ("loop", "mean_and_error", "ddof=1", "ddof=0", "should be 0.645497, got 0.559017"),
    ("bandits", "epsilon_greedy", "random_argmax(Q))", "Q.argmax(1))", "two arms alike"),
    ("bandits", "ucb", "torch.inf)", "0.0)", "never tried"),
    ("bandits", "thompson", "/ known.sqrt()", "* 0", "probability of being the best"),
    ("bandits", "update", "count[here] += 1", "pass", "the mean payments"),
    ("bandits", "gradient_step", "(one_hot - H.softmax(1))", "one_hot", "preferences"),
    ("evaluation", "sweep", "gamma * P_pi @ V", "P_pi @ V", "gamma = 0.5"),
    ("evaluation", "sweep_in_place", "for s in range(len(V)):", "for s in reversed(range(16)):", "one sweep in place"),
    ("evaluation", "evaluate", "return V, sweeps", "return V, sweeps - 1", "should be 173, got 172"),
    ("evaluation", "solve_exactly", "gamma * P_pi, R_pi", "P_pi, R_pi", "gamma = 0.9"),
    ("iteration", "best_actions", "Q.max(1, keepdims=True) - Q <= tol", "Q == Q.max(1, keepdims=True)", "should be T"),
    ("iteration", "value_iteration", ".max() < theta", ".max() < 1e-3", "the last values"),
    ("iteration", "improve", "Q[here, policy] + tol", "Q[here, policy]", "as good as the other"),
    ("iteration", "policy_iteration", "return policy, history", "return policy * 0, history", "not optimal"),
    ("walk", "walk", "< 0.5", "< 0.7", "should happen in 50.0% of cases"),
    ("walk", "td_update", "V[following] - V", "- V", "after a step from 4 to 5"),
    ("walk", "mc_update", "sum(rewards[t:])", "sum(rewards)", "after the rewards 1, 2, 4"),
    ("cliff", "choose", "rng.choice(np.flatnonzero(q == q.max()))", "q.argmax()", "values [1.0, 0.0, 1.0, -1.0]"),
    ("cliff", "q_learning_target", "Q[following].max())", "Q[following, next_action])", "should be 7, got 3"),
    ("cliff", "sarsa_target", "0.0 if ended else Q[following, n", "Q[following, n", "ended should be -1"),
    ("cliff", "learn", "total + reward", "reward", "SARSA should be paid more"),
    ("gradient", "scores", "- softmax(theta)", "", "finite differences"),
    ("gradient", "variance", "- ((pi @ g) ** 2).sum()", "", "with baseline 0"),
    ("gradient", "best_baseline", "weight @ reward / weight.sum()", "softmax(theta) @ reward", "the best baseline"),
    ("gradient", "reinforce", "(reward[actions] - baseline)", "reward[actions]", "the variance of"),
    ("gradient", "variance_of_sequences", "if to_go else", "if not to_go else", "three actions, to_go=False"),
    ("sequences", "best_values", ".amax(1)", ".mean(1)", "the values of layer 0"),
    ("sequences", "policy_values", "(p * layers[0]", "(p.detach() * layers[0]", "gradients do not flow"),
    ("sequences", "best_word", "i = i * vocab + letter", "i = letter", "the reward of"),
    ("sequences", "law", "reach[:, None] * p", "p", "the probability of a word"),
]  # fmt: skip


@pytest.mark.parametrize(("lesson", "name", "right", "wrong", "says"), WRONG, ids=lambda value: value[:18])
def test_a_wrong_answer_costs_its_points_and_is_told_why(lesson, name, right, wrong, says, tmp_path):
    text = (LESSONS[0].parent / f"{lesson}.py").read_text(encoding="utf-8")
    head, begin, rest = text.partition(f"def {name}(")
    about, turn, rest = rest.partition(TURN)  # the docstring stays
    begin, (hint, rest) = begin + about + turn, rest.split("\n", 1)
    begin += hint + "\n"
    assert right in rest
    answers = tmp_path / "mine.py"
    answers.write_text(head + begin + rest.replace(right, wrong, 1), encoding="utf-8")
    (found,) = grade(lesson, answers, only=name)
    assert found.earned == 0
    assert says in found.why


def test_any_optimal_policy_is_right(tmp_path):
    text = (LESSONS[0].parent / "iteration.py").read_text(encoding="utf-8")
    other = text.replace("Q.argmax(1), policy)", "Q.shape[1] - 1 - Q[:, ::-1].argmax(1), policy)")  # the last of ties
    assert other != text
    (tmp_path / "mine.py").write_text(other, encoding="utf-8")
    assert all(g.earned == g.points for g in grade("iteration", tmp_path / "mine.py"))


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        (
            "def returns(rewards, gamma):\n    while True:\n        pass\n",
            "not done after 0.3 s: does a loop never end?",
        ),
        ("def returns(rewards, gamma):\n    pass\n", "is None: does the function return it?"),
        ("def returns(rewards, gamma):\n    return 'x'\n", "should be numbers of shape (3,), got 'x'"),
        ("def returns(rewards, gamma):\n\n    return 1 / 0\n", "raises ZeroDivisionError, line 3: division by zero"),
        ("def returns(rewards, gamma):\n    exit()\n", "raises SystemExit, line 2: None"),
        ("def returns(rewards, gamma):\n    return [7, 4\n", "mine.py raises SyntaxError"),
        ("import no_such_module\n", "mine.py raises ModuleNotFoundError, line 1"),
        ("returns = 3\n", "mine.py has no function returns"),
    ],
)
def test_what_else_goes_wrong_is_told(answers, why, tmp_path):
    (tmp_path / "mine.py").write_text(answers, encoding="utf-8")
    found = {g.name: g for g in grade("loop", tmp_path / "mine.py", seconds=0.3)}["returns"]
    assert found.earned == 0 and why in found.why


def test_the_command_prints_for_readers_and_for_programs(tmp_path, capsys):
    mine = tmp_path / "mine.py"
    shutil.copy(LESSONS[0].parent / "loop.py", mine)
    assert cli.main(["grade", "loop", str(mine)]) == 0
    assert "  2/2  returns         right\n" in (told := capsys.readouterr().out) and "Points: 8 of 8" in told
    mine.write_text(blank(mine.read_text(encoding="utf-8")), encoding="utf-8")
    assert cli.main(["grade", "loop", str(mine), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["earned"], report["points"]) == (0, 8)
    assert report["functions"][1]["function"] == "returns"
    assert report["functions"][1]["why"].startswith("your turn: walk backwards")
    for arguments, says in ((["lop", str(mine)], "lesson"), (["loop", "none.py"], "there is no Python file none.py")):
        assert cli.main(["grade", *arguments]) == 2
        assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x\n    # your turn: a\n", "line 2: this solution is never done"),
        ("# done\n", "line 1: nothing has begun"),
        ("# your turn: a\n# your turn: b\n# done\n", "line 2: a solution begins before that of line 1 is done"),
    ],
)
def test_a_wrong_marker_is_named(text, says):
    with pytest.raises(ValueError, match=says):
        blank(text)


def test_what_is_not_marked_stays(tmp_path):
    lesson = 'def f(x):\n    # your turn: say "x"\n    return x\n    # done\n\n\ny = 1\n'
    (tmp_path / "f.py").write_text(lesson, encoding="utf-8")
    (path,) = write(tmp_path)
    assert path.read_text(encoding="utf-8") == (
        'def f(x):\n    raise NotImplementedError("your turn: say \\"x\\"")\n\n\ny = 1\n'
    )
