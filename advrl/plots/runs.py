r"""Runs and the experiments they are repetitions of: what is drawn as one curve with an interval.

Runs are repetitions when their folders are ``DIR/seed-0``, ``DIR/seed-1``, ... or when their configurations are equal
but for the seed. The interval around the mean of S repetitions is Student's (1908), right for normal values:

    mean +- t_{S-1, (1+level)/2} s / sqrt(S),    s the standard deviation with S - 1 degrees of freedom.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from advrl.plots.table import read_metrics

_NOT_THE_EXPERIMENT = {"seed", "seeds", "out", "resume", "device"}  # fields in which repetitions may differ


@dataclass(frozen=True)
class Run:
    """One run folder: its metrics, (rows,) lists by column, and the ``config`` of its config.json ({} without one)."""

    folder: Path
    metrics: dict[str, list[float]]
    config: dict[str, Any]


@dataclass(frozen=True)
class Experiment:
    """Runs that repeat one experiment with other seeds; a single run is an experiment with one member."""

    label: str
    runs: list[Run]


def load_runs(folders: Sequence[str | Path] | str | Path) -> list[Run]:
    """Read run folders, once each. A folder that holds ``seed-*`` runs stands for all of them.

    Raises:
        ValueError: if a folder is no run folder, or one of its files cannot be understood.
        OSError: if a file cannot be read.
    """
    given = [folders] if isinstance(folders, (str, Path)) else list(folders)
    if not given:
        raise ValueError("no run given; name at least one run folder")
    found: dict[Path, Path] = {}
    for folder in map(Path, given):
        repetitions = sorted(folder.glob("seed-*/metrics.csv"), key=lambda path: _natural(path.parent.name))
        members = [folder] if (folder / "metrics.csv").is_file() else [path.parent for path in repetitions]
        if not members:
            raise ValueError(f"{folder} is no run folder: it holds no metrics.csv; name one that `advrl train` wrote")
        found.update({member.resolve(): member for member in members if member.resolve() not in found})
    return [Run(folder, read_metrics(folder / "metrics.csv"), _config(folder)) for folder in found]


def group_runs(runs: Iterable[Run]) -> list[Experiment]:
    """Runs gathered into experiments, in the order of their first members.

    Two runs with one configuration and one seed are a run and its copy, not two draws: such a group is not averaged,
    its runs stay apart.
    """
    groups: dict[object, list[Run]] = {}
    for run in runs:
        groups.setdefault(_experiment(run), []).append(run)
    apart: list[list[Run]] = []
    for members in groups.values():
        seeds = [_seed(run) for run in members]
        apart += [members] if len(set(seeds)) == len(seeds) else [[run] for run in members]
    return [Experiment(label, members) for label, members in zip(_labels(apart), apart, strict=True)]


def t_interval(values: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean of S repetitions and Student's interval around it, per column.

    Args:
        values: (S, T), S >= 2 independent repetitions of T numbers.
        level: chance that the interval covers the true mean, in (0, 1).

    Returns:
        mean, lower and upper bound, (T,) each.

    Raises:
        ValueError: if there are fewer than two repetitions, or the level is not in (0, 1).
    """
    from scipy.special import stdtrit

    if values.ndim != 2 or len(values) < 2:
        raise ValueError(f"an interval needs (S, T) values of S >= 2 repetitions, got shape {values.shape}")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    count, mean = len(values), values.mean(0)
    half = stdtrit(count - 1, (1 + level) / 2) * values.std(0, ddof=1) / math.sqrt(count)
    return mean, mean - half, mean + half


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))["config"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} cannot be understood as a run's configuration ({error!r})") from error
    return config if isinstance(config, dict) else {}


def _experiment(run: Run) -> object:
    """What repetitions have in common: their parent folder, else all of the configuration but the seed."""
    if re.fullmatch(r"seed-\d+", run.folder.name):
        return run.folder.parent
    if not run.config:
        return run.folder
    return json.dumps({key: run.config[key] for key in run.config.keys() - _NOT_THE_EXPERIMENT}, sort_keys=True)


def _seed(run: Run) -> object:
    """The seed of the configuration; without one, the folder, which no other run has."""
    return run.config.get("seed", run.folder)


def _labels(groups: list[list[Run]]) -> list[str]:
    """A name for each group: its folder's last part, or as many parts as it takes to tell the groups apart."""
    paths = [_common_path([run.folder for run in members]) for members in groups]
    parts = 1
    while len({path.parts[-parts:] for path in paths}) < len(set(paths)):
        parts += 1
    names = ["/".join(path.parts[-parts:]) for path in paths]
    counts = [len(members) for members in groups]
    return [name if n == 1 else f"{name} ({n} seeds)" for name, n in zip(names, counts, strict=True)]


def _common_path(folders: list[Path]) -> Path:
    """The folder itself; ``DIR`` for ``DIR/seed-*``; for siblings ``loo-s0`` and ``loo-s1`` what their names share."""
    if len(folders) == 1:
        return folders[0]
    if all(re.fullmatch(r"seed-\d+", folder.name) for folder in folders):
        return folders[0].parent
    names = sorted(folder.name for folder in folders)
    prefix = "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(names[0], names[-1], strict=False)))
    shared = re.sub(r"([-_. ]+s(eed)?)?[-_. ]*$", "", prefix)
    return folders[0].with_name(shared) if shared else folders[0]


def _natural(name: str) -> tuple[int, str]:
    """Order in which seed-10 comes after seed-9."""
    digits = re.search(r"\d+$", name)
    return (int(digits.group()) if digits else -1, name)
