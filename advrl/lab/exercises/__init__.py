"""Exercises by name and number, for ``advrl exercise``: each states a problem, does it in numbers, and checks itself.

An exercise is a module with ``TITLE`` and ``PROBLEM``, a dataclass ``Options`` (its docstring and fields are the help),
and ``solve(options, sheet)``, which says every step and every claim to the sheet and returns the figure.
"""

from __future__ import annotations

from advrl.lab.exercises.command import EXERCISES, exercise, overview, resolve, run
from advrl.lab.exercises.sheet import Claim, Sheet

__all__ = ["EXERCISES", "Claim", "Sheet", "exercise", "overview", "resolve", "run"]
