"""What studies share: a folder that says what the study is, so that it can be gone on with, and errors of means."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from advrl.files import write_atomically


def claim(
    out: Path, study: Mapping[str, Any], compared: Callable[[dict[str, Any]], Mapping[str, Any]] = lambda study: study
) -> None:
    """Make the folder of a study, or go on with one of the same options.

    Args:
        out: the folder.
        study: what is noted; what JSON has no word for becomes text.
        compared: which of it are options, by name, that cells of one study have in common.

    Raises:
        ValueError: if the folder holds a study with other options.
    """
    path, now = out / "study.json", json.loads(json.dumps(study, default=str))
    if not path.exists():
        write_atomically(path, json.dumps(now, indent=2).encode())
        return
    mine, theirs = compared(now), compared(json.loads(path.read_text()))
    other = [
        f"--{name.replace('_', '-')} {theirs.get(name)}, not {value}"
        for name, value in mine.items()
        if theirs.get(name) != value
    ]
    if other:
        raise ValueError(f"{out} has a study with {' and '.join(other)}: give another --out")


def standard_error(values: Sequence[float]) -> float:
    """Of the mean; not a number for one value, or where one is infinite."""
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return math.nan
    return statistics.stdev(values) / math.sqrt(len(values))
