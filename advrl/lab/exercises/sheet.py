"""The sheet that an exercise is written on: steps as lines and tables, claims with a number, a bound and a verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from advrl.columns import columns

EXACT: dict[str, Any] = {"dtype": torch.float64, "device": "cpu"}
"""How an exercise makes its tensors: small, and in double precision."""


@dataclass(frozen=True)
class Claim:
    """What was said, whether it holds, and the numbers that tell."""

    what: str
    holds: bool
    numbers: str


@dataclass(frozen=True)
class Common:
    """What every exercise can be told."""

    seed: int = 0
    """The same seed does the same exercise."""
    out: Path | None = None
    """Folder of the figure. Default: the next free runs/exercise-NAME-N."""


class Sheet:
    """Lines said one by one, and claims that are kept.

    Args:
        say: where a line goes.
    """

    def __init__(self, say: Callable[[str], None] = print) -> None:
        self.say = say
        self.claims: list[Claim] = []

    def step(self, title: str) -> None:
        """The heading of the next step of the derivation."""
        self.say(f"\n{title}")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str | float]]) -> None:
        """Columns under their heads, numbers with six digits."""
        lines = [list(head), *([cell if isinstance(cell, str) else f"{cell:.6g}" for cell in row] for row in rows)]
        for line in columns(lines):
            self.say(f"    {line}")

    def near(self, what: str, found: Any, expected: float, within: float) -> None:
        """Claim that ``found`` is ``expected``, but for ``within`` at most."""
        found = _float(found)
        gap = abs(found - expected)
        said = f"{found:.9g}, off by {gap:.1e}" if expected else f"{found:.1e}"
        self._claim(what, gap <= within, f"{said} (at most {within:g})")

    def below(self, what: str, found: Any, bound: float) -> None:
        """Claim that ``found`` is at most ``bound``."""
        self._claim(what, (value := _float(found)) <= bound, f"{value:.6g} (at most {bound:.6g})")

    def above(self, what: str, found: Any, bound: float) -> None:
        """Claim that ``found`` is at least ``bound``."""
        self._claim(what, (value := _float(found)) >= bound, f"{value:.6g} (at least {bound:.6g})")

    @property
    def failed(self) -> list[Claim]:
        """The claims that do not hold."""
        return [claim for claim in self.claims if not claim.holds]

    def _claim(self, what: str, holds: bool, numbers: str) -> None:
        self.claims.append(Claim(what, holds, numbers))
        self.say(f"  {'ok' if holds else 'FAILED':<6} {what}: {numbers}")


def _float(value: Any) -> float:
    return float(value.detach() if isinstance(value, torch.Tensor) else value)
