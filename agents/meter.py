"""Averages a run's metrics, and remembers the first step at which one was not finite.

A step's metrics wait on the device, in one small tensor; they come to the host together, when a trainer reads or checks
them, once per log interval. Sums are Python's floats in the order of the steps, whenever the readings are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from advrl.distributed import everyones

WAITING = 1000  # rows kept on the device at most


class DivergedError(RuntimeError):
    """A loss, a metric or a parameter became NaN or infinite."""


class Meter:
    """Means of named scalars between two readings."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, tuple[str, ...], Tensor]] = []
        self._sums: dict[str, tuple[float, int]] = {}
        self._first_bad: tuple[int, str] | None = None

    def add(self, step: int, metrics: Mapping[str, Tensor]) -> None:
        """Take in one step's detached scalars; waits for the device only once in a thousand calls without a reading."""
        self._waiting.append((step, tuple(metrics), torch.stack(list(metrics.values()))))
        if len(self._waiting) == WAITING:
            self._take_in()

    def _take_in(self) -> None:
        """Bring to the host what waits on the device, in one copy."""
        if not self._waiting:
            return
        values = iter(torch.cat([row for *_, row in self._waiting]).tolist())
        for step, names, _ in self._waiting:
            for name, value in zip(names, values, strict=False):
                total, count = self._sums.get(name, (0.0, 0))
                self._sums[name] = (total + value, count + 1)
                if not math.isfinite(value) and (self._first_bad is None or step < self._first_bad[0]):
                    self._first_bad = (step, name)  # the first term, in the order they were computed
        self._waiting.clear()

    def read(self) -> dict[str, float]:
        """The mean of each metric since the last reading, over all ranks, as floats."""
        self._take_in()
        sums: dict[str, tuple[float, int]] = {}
        for taken in everyones(self._sums):
            for name, (total, count) in taken.items():
                before, counted = sums.get(name, (0.0, 0))
                sums[name] = (before + total, counted + count)
        self._sums.clear()
        return {name: total / count for name, (total, count) in sums.items()}

    def check(self) -> None:
        """Raise a :class:`DivergedError` that names the first step and term that was not finite, if any."""
        self._take_in()
        bad, self._first_bad = self._first_bad, None
        if bad is not None:
            raise DivergedError(f"{bad[1]} was not finite at step {bad[0]}")

    def state_dict(self) -> dict[str, Any]:
        """What has been taken in since the last reading."""
        self._take_in()
        return {"sums": {name: list(sum_) for name, sum_ in self._sums.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state_dict` returned."""
        self._waiting, self._first_bad = [], None
        self._sums = {name: (float(total), int(count)) for name, (total, count) in state["sums"].items()}
