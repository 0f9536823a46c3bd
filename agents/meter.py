"""Averages a run's metrics on the device, and remembers the first step at which one was not finite.

Nothing here waits for the device except :meth:`Meter.read` and :meth:`Meter.check`, which a trainer calls once per log
interval.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from advrl.distributed import everyones


class DivergedError(RuntimeError):
    """A loss, a metric or a parameter became NaN or infinite."""


class Meter:
    """Means of named scalars between two readings."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, ...], tuple[Tensor, int]] = {}  # by the names that came together
        self._first_bad: dict[tuple[str, ...], Tensor] = {}

    def add(self, step: int, metrics: Mapping[str, Tensor]) -> None:
        """Take in one step's detached scalars."""
        names = tuple(metrics)
        values = torch.stack(list(metrics.values()))
        bad = torch.where(torch.isfinite(values), torch.inf, float(step))
        if names in self._sums:
            total, count = self._sums[names]
            self._sums[names] = (total.add_(values), count + 1)
        else:
            self._sums[names] = (values, 1)
        seen = self._first_bad.get(names)
        self._first_bad[names] = bad if seen is None else torch.minimum(seen, bad)

    def read(self) -> dict[str, float]:
        """The mean of each metric since the last reading, over all ranks, as floats."""
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        taken = [(names, total.tolist(), count) for names, (total, count) in self._sums.items()]
        for names, total, count in itertools.chain(*everyones(taken)):
            for name, value in zip(names, total, strict=True):
                sums[name] = sums.get(name, 0.0) + value
                counts[name] = counts.get(name, 0) + count
        self._sums.clear()
        return {name: sums[name] / counts[name] for name in sums}

    def check(self) -> None:
        """Raise a :class:`DivergedError` that names the first step and term that was not finite, if any."""
        firsts = [
            (step, name)
            for names, steps in self._first_bad.items()
            for step, name in zip(steps.tolist(), names, strict=True)
            if step != float("inf")
        ]
        self._first_bad.clear()
        if firsts:
            step, name = min(
                firsts, key=lambda first: first[0]
            )  # the terms of one step in the order they were computed
            raise DivergedError(f"{name} was not finite at step {int(step)}")

    def state_dict(self) -> dict[str, Any]:
        """What has been taken in since the last reading."""
        return {"sums": [[list(names), total.clone(), count] for names, (total, count) in self._sums.items()]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state_dict` returned."""
        self._sums = {tuple(names): (total.clone(), int(count)) for names, total, count in state["sums"]}
        self._first_bad = {}
