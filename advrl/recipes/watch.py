"""A run that is looked after: alarms are told when they begin, and logged as long as they ring."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from advrl.agents import Every
from advrl.metrics import Alarm, curve_alarms, quick_alarm
from advrl.plots import read_metrics
from advrl.recipes.alarms import told

ROWS = 8  # of the log, before a curve is judged
BEGUN = 0.25  # share of the steps before which nobody asks for all modes


class Watch:
    """Called every so many steps; reads the log so far and what the other callbacks have just found.

    An alarm is said once, when it begins. From then on the log has a column for it, 1 while it rings and 0 when not; a
    run without alarms has no such column. All of it follows from the log, so that a resumed run says and writes the
    same.

    Args:
        folder: of the run.
        steps: of the whole run.
        say: where an alarm goes.
        modes: how many there are to be found, if that is known.
        share: of the rarest class among real samples, if they have labels.
    """

    def __init__(
        self, folder: Path, steps: int, say: Callable[[str], None], modes: int | None, share: float | None
    ) -> None:
        self.folder, self.steps, self.say = folder, steps, say
        self.modes, self.share = modes, share
        self._quick: dict[str, float] = {}

    def beside(self, callback: Every) -> Every:
        """The same callback, whose numbers are heard here too."""

        def call(step: int) -> Mapping[str, float] | None:
            found = callback.call(step)
            self._quick |= found or {}
            return found

        return Every(callback.steps, call)

    def __call__(self, step: int) -> dict[str, float]:
        """What rings now, as columns of the log; tells what has begun."""
        curves = read_metrics(self.folder / "metrics.csv")
        rung = {name for name, cells in curves.items() if name.startswith("alarm_") and not all(map(math.isnan, cells))}
        found = {column(alarm): alarm for alarm in self._found(step, curves)}
        for name, alarm in found.items():
            if name not in rung:
                with tqdm.external_write_mode():  # the bar steps aside
                    self.say(told(f"ALARM from step {step:,}", alarm))
        return {name: float(name in found) for name in sorted(rung | found.keys())}

    def _found(self, step: int, curves: Mapping[str, list[float]]) -> list[Alarm]:
        found = curve_alarms(curves) if len(curves["step"]) >= ROWS else []
        if step >= BEGUN * self.steps:
            collapsed = quick_alarm(self._quick, self.modes, self.share)
            found += [] if collapsed is None else [collapsed]
        return found


def column(alarm: Alarm) -> str:
    """Of the log: ``alarm_discriminator_wins``."""
    return f"alarm_{alarm.name.replace(' ', '_')}"


def watch(folder: Path, config: Any, parts: Any, say: Callable[[str], None]) -> Watch:
    """What a recipe's run is watched by: its data tell how many modes there are, or how rare a class is."""
    labels = getattr(parts.data, "train_labels", None)
    share = None if labels is None else float(torch.bincount(labels).min()) / len(labels)
    return Watch(folder, config.steps, say, getattr(parts.data, "modes", None), share)
