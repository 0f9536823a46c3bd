"""``advrl exercise``: the exercises' names, which one a word means, and doing it."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from advrl.checks import choice
from advrl.lab.exercises.sheet import Sheet
from advrl.plots import save_figure
from advrl.seeding import isolated

_HOME = "advrl.lab.exercises"
EXERCISES: dict[str, tuple[str, str]] = {
    "discriminator": (f"{_HOME}.discriminator", "the best discriminator, on a table and by a network, in four stages"),
    "xy": (f"{_HOME}.bilinear", "V(x, y) = xy: the orbit, the spiral, and every way to play"),
    "likelihood": (f"{_HOME}.likelihood", "maximum likelihood as a generator's cost, and the double-counting trap"),
    "collapse": (f"{_HOME}.collapse", "min max is not max min: why modes are dropped"),
    "kl": (f"{_HOME}.divergences", "KL covers, reverse KL picks: one Gaussian for two humps"),
    "ratio": (f"{_HOME}.ratio", "NCE, maximum likelihood and GAN as one game"),
    "sampling": (f"{_HOME}.sampling", "inverse-transform sampling: a coin, a table, a density"),
    "untrained": (f"{_HOME}.untrained", "what a discriminator says where nobody ever trained it"),
    "convexity": (f"{_HOME}.convexity", "convex in densities, not in parameters"),
}
"""Name to (module, one line for the help); its place is its number, from 1."""


def resolve(word: str) -> str:
    """The name of the exercise that a number or a name means.

    Raises:
        ValueError: for an unknown one (the close match is given).
    """
    names = list(EXERCISES)
    if word.isdecimal() and 1 <= int(word) <= len(names):
        return names[int(word) - 1]
    return choice("exercise", word, EXERCISES, hint=f", or its number, 1 to {len(names)}")


def exercise(name: str) -> ModuleType:
    """The module of an exercise, loaded when it is asked for."""
    return import_module(EXERCISES[name][0])


def overview() -> str:
    """Numbers, names and a line about each."""
    return "\n".join(f"  {n}  {name:<14} {about}" for n, (name, (_, about)) in enumerate(EXERCISES.items(), 1))


def run(name: str, options: Any, folder: Callable[[], Path], say: Callable[[str], None] = print) -> int:
    """Do an exercise, leave its figure, and return the exit code: 0, or 1 if a claim does not hold.

    Args:
        name: of the exercise.
        options: its ``Options``.
        folder: names the next free folder, where the user gave none.
        say: where a line goes.
    """
    module, sheet = exercise(name), Sheet(say)
    say(f"Exercise {list(EXERCISES).index(name) + 1}. {module.TITLE}\n")
    say(textwrap.dedent(module.PROBLEM).strip())
    with isolated(options.seed):
        figure = module.solve(options, sheet)
    path = save_figure(figure, (options.out or folder()) / f"{name}.png")
    held = len(sheet.claims) - len(sheet.failed)
    say(f"\n{held} of {len(sheet.claims)} claims hold." + "".join(f"\n  not: {claim.what}" for claim in sheet.failed))
    say(f"Written:\n  {path}")
    return 1 if sheet.failed else 0
