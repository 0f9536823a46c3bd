"""Quality against diversity: each model's temperature sweep as a curve, other models as points, the floor as lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from torch import Tensor

from advrl.plots.style import INK, MUTED, PALETTE, save_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "sD^vP*X"  # of models that are points
_TOP = 4.0  # what is further beyond the others than this many times their spread is left outside


class Sweep(Protocol):
    """What is drawn as a curve: ``advrl.metrics.Tradeoff`` is one. Both axes are losses."""

    @property
    def temperature(self) -> Tensor: ...  # (K,) increasing
    @property
    def quality(self) -> Tensor: ...  # (K,)
    @property
    def diversity(self) -> Tensor: ...  # (K,)


def tradeoff_plot(
    sweeps: Mapping[str, Sweep | Sequence[Sweep]],
    points: Mapping[str, tuple[float, float]] | None = None,
    floor: tuple[float | None, float | None] | float | None = None,
    out: str | Path | None = None,
    *,
    quality: str = "NLL_oracle, nats per token",
    diversity: str = "NLL_test, nats per token",
    title: str = "Quality and diversity over temperatures",
) -> Figure:
    """Draw sweeps of temperature; the good corner is below on the left.

    Temperatures stand beside the ends of each curve, as far as it is in the picture, and 1 is a ring. Several sweeps
    of one name are seeds: thin lines behind their mean at equal temperature.

    Args:
        sweeps: name to a sweep, or to one sweep per seed, all over the same temperatures.
        points: name to (quality, diversity) of models that were not swept.
        floor: what a perfect model has, drawn as lines, or told beside the axis if it is far off: (quality, diversity),
            one of which may be None, or one number for both. Samples better than the first, shaded, are so by lost
            diversity alone.
        out: file to write the figure to as well.
        quality: what the horizontal axis is.
        diversity: what the vertical axis is.
        title: of the figure.

    Raises:
        ValueError: if there is nothing to draw, or seeds of one name have other temperatures than each other.
        OSError: if ``out`` cannot be written.
    """
    from matplotlib.figure import Figure

    groups = {name: _group(name, given) for name, given in sweeps.items()}
    others = dict(points or {})
    if not groups and not others:
        raise ValueError("nothing to draw: give at least one sweep or point")
    both = floor if isinstance(floor, tuple) else (floor, floor)
    with style():
        figure = Figure(figsize=(5.6, 3.9))
        axis = figure.subplots()
        for index, (name, (temperature, members)) in enumerate(groups.items()):
            _curve(axis, name, temperature, members, PALETTE[index % len(PALETTE)])
        for index, (name, place) in enumerate(others.items()):
            color = PALETTE[(len(groups) + index) % len(PALETTE)]
            axis.plot(*place, MARKERS[index % len(MARKERS)], color=color, ms=6, mec="white", mew=0.8, label=name)
        means = [members.mean(0) for _, members in groups.values()]
        _limits(axis, means, [np.asarray(place, float) for place in others.values()])
        for index, ((temperature, _), mean) in enumerate(zip(groups.values(), means, strict=True)):
            _label(axis, temperature, mean, PALETTE[index % len(PALETTE)])
        axis.set_xlabel(f"{quality}   (← better)")
        axis.set_ylabel(f"{diversity}   (↓ better)")
        _floor(axis, both)
        figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
        handles, labels = axis.get_legend_handles_labels()
        columns = max(1, min(3, int(5.6 / (0.068 * max(map(len, labels)) + 0.5))))  # inches, roughly
        figure.legend(handles, labels, loc="outside lower left", ncols=columns, labelcolor=MUTED)
    if out is not None:
        save_figure(figure, out)
    return figure


def _group(name: str, given: Sweep | Sequence[Sweep]) -> tuple[np.ndarray, np.ndarray]:
    """Temperatures (K,) and (seeds, 2, K) of quality and diversity."""
    members = list(given) if isinstance(given, Sequence) else [given]
    if not members:
        raise ValueError(f"{name!r} has no sweep")
    temperatures = [np.asarray(member.temperature.detach().cpu().double()) for member in members]
    if any(t.shape != temperatures[0].shape or not np.allclose(t, temperatures[0]) for t in temperatures):
        raise ValueError(f"the seeds of {name!r} were swept over different temperatures; sweep all over the same")
    pairs = [[m.quality.detach().cpu().double().numpy(), m.diversity.detach().cpu().double().numpy()] for m in members]
    return temperatures[0], np.asarray(pairs)


def _curve(axis: Axes, name: str, temperature: np.ndarray, members: np.ndarray, color: str) -> None:
    if len(members) > 1:
        name = f"{name} ({len(members)} seeds)"
        for quality, diversity in members:
            axis.plot(quality, diversity, color=color, lw=0.7, alpha=0.4)
    quality, diversity = members.mean(0)
    axis.plot(quality, diversity, color=color, marker="o", ms=3, label=name)
    one = np.flatnonzero(np.isclose(temperature, 1.0))
    if len(one):
        axis.plot(quality[one], diversity[one], "o", ms=8, mfc="none", mec=color, mew=1.2)


def _limits(axis: Axes, curves: list[np.ndarray], points: list[np.ndarray]) -> None:
    """Leave out what of the curves is far above the rest: at a low temperature, lost diversity has no bound."""
    axis.margins(x=0.09)
    diversity = np.concatenate([*(curve[1] for curve in curves), *(point[1:] for point in points)])
    low, middle = diversity.min(), np.median(diversity)
    top = max([middle + _TOP * max(middle - low, 1e-12), *(float(point[1]) for point in points)])
    if diversity.max() > top:
        axis.set_ylim(low - 0.08 * (top - low), top + 0.03 * (top - low))


def _label(axis: Axes, temperature: np.ndarray, curve: np.ndarray, color: str) -> None:
    """Write the temperature beside the first and the last place of a curve that are in the picture."""
    low, high = axis.get_ylim()
    visible = np.flatnonzero((curve[1] >= low) & (curve[1] <= high))
    for place in {int(visible[0]), int(visible[-1])} if len(visible) else ():
        text, where = f"T={temperature[place]:.3g}", (curve[0, place], curve[1, place])
        axis.annotate(text, where, (5, 4), textcoords="offset points", fontsize=7, color=color)


def _floor(axis: Axes, floor: tuple[float | None, float | None]) -> None:
    """Lines, where they leave the curves two thirds of the picture; else a word."""
    quality, diversity = floor
    line: dict[str, Any] = {"color": INK, "lw": 1, "ls": (0, (4, 2)), "zorder": 1}
    (left, right), (low, high) = axis.get_xlim(), axis.get_ylim()
    if quality is not None and left - quality <= (right - left) / 2:
        left = min(left, quality - 0.02 * abs(quality))
        axis.set_xlim(left)
        axis.axvspan(left, quality, color="#000000", alpha=0.05, lw=0)
        axis.axvline(quality, **line, label="floor")
    elif quality is not None:
        axis.set_xlabel(f"{axis.get_xlabel()}; floor {quality:.2f}")
    if diversity is not None and low - diversity <= (high - low) / 2:
        axis.set_ylim(min(low, diversity - 0.02 * abs(diversity)))
        axis.axhline(diversity, **line, label="_" if "floor" in axis.get_legend_handles_labels()[1] else "floor")
    elif diversity is not None:
        axis.set_ylabel(f"{axis.get_ylabel()}; floor {diversity:.2f}")
