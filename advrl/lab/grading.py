"""``advrl grade LESSON FILE.py``: a reader's answers to a lesson's exercise, function by function, against the truth.

A check calls one function of the file and compares with what is known: closed forms, enumeration, the exact solvers.
It never compares with the lesson's own code, and takes any optimal policy for right. A function that is not written
yet, raises, or does not end in time costs its own points and no others.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import numpy as np
import tyro

from advrl.checks import choice, number
from advrl.files import execute


@dataclass(frozen=True)
class Check:
    """Points for one function, and what raises an AssertionError that says what is wrong with it."""

    name: str
    points: int
    look: Callable[[ModuleType], None]


@dataclass(frozen=True)
class Grade:
    """What one function earned, and why not more (empty if nothing is wrong)."""

    name: str
    earned: int
    points: int
    why: str = ""


CHECKS: dict[str, list[Check]] = {}
"""By lesson; filled by :mod:`advrl.lab.grades` and :mod:`advrl.lab.grades_learning`."""


def check(lesson: str, points: int) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Decorator: this is the check of the function of the same name, for so many points."""

    def register(look: Callable[[Any], None]) -> Callable[[Any], None]:
        CHECKS.setdefault(lesson, []).append(Check(look.__name__, points, look))
        return look

    return register


def expect(got: Any, right: Any, what: str, tol: float = 1e-6) -> None:
    """Raise AssertionError, in a sentence, unless a number or array is the right one to within ``tol``."""
    if got is None:
        raise AssertionError(f"{what} is None: does the function return it?")
    right = np.asarray(right)
    try:
        found = np.asarray(got.detach() if hasattr(got, "detach") else got, dtype=right.dtype)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{what} should be numbers of shape {right.shape}, got {got!r}") from error
    if found.shape != right.shape:
        raise AssertionError(f"{what} should have shape {right.shape}, got {found.shape}")
    wrong = ~np.isclose(found, right, rtol=tol, atol=tol)
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0]) if right.ndim else ()
        where = f", at {at[0] if len(at) == 1 else at}" if at else ""
        raise AssertionError(f"{what} should be {_short(right[at])}{where}, got {_short(found[at])}")


def expect_share(hits: float, n: int, share: float, what: str) -> None:
    """Raise AssertionError unless a share of n independent draws is the right one to within five standard errors."""
    error = (share * (1 - share) / n) ** 0.5
    if abs(hits / n - share) > 5 * error + 1e-12:
        raise AssertionError(f"{what} should happen in {share:.1%} of cases, it did in {hits / n:.1%} of {n:,}")


def _short(value: Any) -> str:
    return f"{float(value):.6g}" if np.issubdtype(np.asarray(value).dtype, np.number) else str(value)


class OutOfTime(BaseException):
    """A function ran for too long; no Exception, so that what catches all of those lets it through."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise OutOfTime inside after so many seconds, where the system can (not on Windows, nor in a thread)."""
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def trouble(work: Callable[[], object], seconds: float) -> str:
    """What goes wrong in a reader's code, in a sentence; empty if nothing does."""
    try:
        with limited(seconds):
            work()
    except KeyboardInterrupt:
        raise
    except OutOfTime:
        return f"not done after {seconds:g} s: does a loop never end?"
    except NotImplementedError as error:
        return str(error) or "not written yet"
    except AssertionError as error:
        return str(error) or "an assertion fails"
    except BaseException as error:  # a reader's file may raise anything, SystemExit too
        line = ""
        trace = error.__traceback__
        while trace is not None:  # the innermost line of the file itself
            if trace.tb_frame.f_globals.get("__name__") == _MODULE:
                line = f", line {trace.tb_lineno}"
            trace = trace.tb_next
        return f"raises {type(error).__name__}{line}: {error}"
    return ""


_MODULE = "advrl_answers"


def grade(lesson: str, path: str | Path, *, seconds: float = 20.0, only: str | None = None) -> list[Grade]:
    """Grades of every function of a lesson's exercise in a file, or of one.

    Args:
        lesson: its name.
        path: the file with the answers.
        seconds: for each function.
        only: the name of one function.

    Raises:
        ValueError: for an unknown lesson or function, or no file there.
    """
    checks = lessons()[choice("lesson", lesson, lessons())]
    if only is not None:
        choice("only", only, [c.name for c in checks])
        checks = [c for c in checks if c.name == only]
    number("seconds", seconds, 0.0)
    path = Path(path)
    if not path.is_file() or path.suffix != ".py":
        raise ValueError(f"there is no Python file {path}")
    loaded: list[ModuleType] = []
    broken = trouble(lambda: loaded.append(execute(path, _MODULE)), seconds)
    found = []
    for c in checks:
        why = f"{path.name} {broken}" if broken else ""
        if not broken:
            missing = not callable(getattr(loaded[0], c.name, None))
            why = f"{path.name} has no function {c.name}" if missing else _look(c, loaded[0], seconds)
        found.append(Grade(c.name, 0 if why else c.points, c.points, why))
    return found


def _look(c: Check, module: ModuleType, seconds: float) -> str:
    return trouble(lambda: c.look(module), seconds)


def lessons() -> dict[str, list[Check]]:
    """The checks of every lesson."""
    from advrl.lab import grades, grades_learning  # noqa: F401  each registers its checks

    return CHECKS


@dataclass(frozen=True)
class Options:
    """Grade the answers to a lesson's exercise: points for every function, and what is wrong with it."""

    lesson: tyro.conf.Positional[str]
    """loop, bandits, evaluation, iteration, walk, cliff, gradient or sequences."""
    file: tyro.conf.Positional[Path]
    """The file with the answers, such as examples/lessons/exercises/loop.py once it is filled in."""
    seconds: float = 20.0
    """Time limit of each function."""
    only: str | None = None
    """Look at this function alone."""
    json: bool = False
    """Print JSON in place of the text, for a program to read."""


def run(options: Options) -> int:
    """Grade and print; 0 if all is right, else 1."""
    found = grade(options.lesson, options.file, seconds=options.seconds, only=options.only)
    earned, points = sum(g.earned for g in found), sum(g.points for g in found)
    if options.json:
        rows = [{"function": g.name, "earned": g.earned, "points": g.points, "why": g.why} for g in found]
        print(json.dumps({"lesson": options.lesson, "earned": earned, "points": points, "functions": rows}, indent=2))
    else:
        wide = max(len(g.name) for g in found)
        for g in found:
            print(f"  {g.earned}/{g.points}  {g.name:<{wide}}  {g.why or 'right'}")
        print(f"\nPoints: {earned} of {points}")
    return 0 if earned == points else 1
