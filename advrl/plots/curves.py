"""Curves of one or many runs: a panel per metric, an experiment per colour.

A run by itself is a line. Repetitions of one experiment with other seeds are their mean, a band for the 95 % interval
of the mean (:func:`advrl.plots.runs.t_interval`) and thin lines for the members. The mean is drawn where every member
has a value, so that it never jumps because one of them ended early.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from advrl import checks
from advrl.plots.runs import Experiment, Run, group_runs, load_runs, t_interval
from advrl.plots.style import MUTED, PALETTE, save_figure, style
from advrl.plots.table import INDEX

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FEW_POINTS = 20  # up to here the points themselves are marked
_LOG_RATIO = 30.0  # values above zero that span more than this get a logarithmic axis


def curves(
    runs: Sequence[str | Path] | str | Path,
    metrics: Sequence[str] | None = None,
    out: str | Path | None = None,
    *,
    x: str = "step",
    smooth: float = 0.0,
) -> Figure:
    """Draw the metrics of runs against their steps, one panel per metric.

    Args:
        runs: run folders; a folder of ``seed-*`` runs stands for all of them.
        metrics: names of the metrics to draw, in this order; by default all that any of the runs measured.
        out: file to write the figure to as well.
        x: what runs along the axis: "step" or "seconds".
        smooth: weight of the past in an exponential moving average, in [0, 1); 0 draws the values as they are.
            The average starts without a bias to zero; of a single run the values stay visible behind it.

    Raises:
        ValueError: if a folder is no run folder, a metric is unknown, or nothing has been measured yet.
        OSError: if a file cannot be read, or ``out`` cannot be written.
    """
    checks.choice("x", x, INDEX)
    if not 0 <= smooth < 1:
        raise ValueError(f"smooth must be in [0, 1), got {smooth}")
    experiments = group_runs(load_runs(runs))
    members = [run for experiment in experiments for run in experiment.runs]
    measured = list(dict.fromkeys(name for run in members for name in run.metrics if _has_values(run, name)))
    if metrics is not None:
        known = dict.fromkeys(name for run in members for name in run.metrics if name not in INDEX)
        measured = [checks.choice("metric", name, known) for name in metrics]
    if not measured:
        raise ValueError(f"nothing to draw: {members[0].folder} has no metric with a value yet")
    with style():
        figure = _panels(experiments, measured, x, smooth)
    if out is not None:
        save_figure(figure, out)
    return figure


def progress_plot(run: str | Path, metrics: Sequence[str] | None = None) -> Path:
    """Draw the curves of one run into its own folder, ``plots/curves.png``, and return that path.

    Raises:
        ValueError: as :func:`curves`.
        OSError: if the file cannot be written.
    """
    path = Path(run) / "plots" / "curves.png"
    curves([run], metrics, path)
    return path


def _panels(experiments: list[Experiment], metrics: list[str], x: str, smooth: float) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import EngFormatter, MaxNLocator

    columns = {1: 1, 2: 2, 4: 2}.get(len(metrics), 3 if len(metrics) <= 9 else 4)
    rows = math.ceil(len(metrics) / columns)
    labels = [_plain(experiment.label) for experiment in experiments]
    width = max(3.2 * columns, 4.8)
    legend_columns = max(1, min(len(labels), int(width / (0.068 * max(map(len, labels)) + 0.5))))  # inches, roughly
    figure = Figure(figsize=(width, 2.2 * rows + 0.5 + 0.18 * (len(labels) / legend_columns)))
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis in axes[len(metrics) :]:
        axis.remove()
    axes = axes[: len(metrics)]
    for index, (axis, metric) in enumerate(zip(axes, metrics, strict=True)):
        _panel(axis, experiments, metric, x, smooth)
        axis.set_title(_plain(metric))
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))  # 20k, not 20000
        if index + columns >= len(metrics):  # the lowest panel of its column
            axis.set_xlabel(x)
    ends = np.array([axis.get_xlim() for axis in axes])
    for axis in axes:
        axis.set_xlim(ends[:, 0].min(), ends[:, 1].max())  # one scale, so that panels can be read across

    repeated = any(len(experiment.runs) > 1 for experiment in experiments)
    if len(experiments) == 1 and not repeated:
        figure.suptitle(labels[0], x=0.01, ha="left", fontsize=10.5, fontweight="bold")
        return figure
    legend = figure.legend(
        handles=[Line2D([], [], **_look(i), label=label) for i, label in enumerate(labels)],
        loc="outside upper left",
        ncols=legend_columns,
        title="mean and its 95 % interval over seeds (Student t), thin lines: the seeds" if repeated else None,
        alignment="left",
    )
    legend.get_title().set_color(MUTED)
    return figure


def _panel(axis: Axes, experiments: list[Experiment], metric: str, x: str, smooth: float) -> None:
    """One metric of all experiments; bands are drawn last and may widen the axis only so far."""
    bands, everything = [], []
    for index, experiment in enumerate(experiments):
        look = _look(index)
        points = [_points(run, metric, x) for run in experiment.runs]
        everything += [values for _, _, values in points]
        longest = max(len(values) for _, _, values in points)
        look |= {"marker": "o" if longest <= _FEW_POINTS else None, "ms": 3, "lw": 1.6 if longest <= 100 else 1.2}
        averaged = [_ema(values, smooth) for _, _, values in points]
        if len(points) == 1:
            if smooth:
                axis.plot(points[0][1], points[0][2], color=look["color"], lw=0.7, alpha=0.35)
            axis.plot(points[0][1], averaged[0], **look)
            continue
        for (_, places, _), values in zip(points, averaged, strict=True):
            axis.plot(places, values, color=look["color"], lw=0.7, alpha=0.4)
        places, values = _aligned(points, averaged)
        mean, low, high = t_interval(values)
        axis.plot(places, mean, **look)
        bands.append((places, low, high, look["color"]))

    drawn = np.concatenate(everything)
    logarithmic = bool(len(drawn) and drawn.min() > 0 and drawn.max() > max(1.0, _LOG_RATIO * drawn.min()))
    if logarithmic:  # shares, which end at 1, stay on a linear axis
        axis.set_yscale("log")
    bottom, top = axis.get_ylim()
    for places, low, high, colour in bands:
        if logarithmic:
            low = np.maximum(low, drawn.min())  # a normal interval may reach below zero
        axis.fill_between(places, low, high, color=colour, alpha=0.14, lw=0)
    if bands and not logarithmic:
        room = 0.3 * (top - bottom)  # with two seeds t is 12.7: such a band would flatten all curves
        seen_bottom, seen_top = axis.get_ylim()
        axis.set_ylim(max(seen_bottom, bottom - room), min(seen_top, top + room))


def _look(index: int) -> dict[str, Any]:
    """Colour of an experiment and, once the colours are used up, another dash pattern."""
    dashes = ("-", "--", ":", "-.")
    return {"color": PALETTE[index % len(PALETTE)], "linestyle": dashes[index // len(PALETTE) % len(dashes)]}


def _plain(name: str) -> str:
    """A name as matplotlib shows it letter by letter: no mathematics in $, no leading underscore (it hides)."""
    return name.replace("$", r"\$") if not name.startswith("_") else _plain(" " + name)


def _has_values(run: Run, metric: str) -> bool:
    return metric not in INDEX and any(map(math.isfinite, run.metrics[metric]))


def _points(run: Run, metric: str, x: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps, places on the axis and finite values of one metric, (points,) each."""
    nothing = [math.nan] * len(run.metrics["step"])
    columns = np.array([run.metrics["step"], run.metrics[x], run.metrics.get(metric, nothing)], float)
    steps, places, values = columns[:, np.isfinite(columns).all(0)]
    return steps, places, values


def _aligned(
    points: list[tuple[np.ndarray, np.ndarray, np.ndarray]], values: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean places (T,) and the members' values (S, T) at the T steps that all members have."""
    tables = [
        {step: pair for step, *pair in zip(steps, places, y, strict=True)}
        for (steps, places, _), y in zip(points, values, strict=True)
    ]
    common = [step for step in tables[0] if all(step in table for table in tables)]
    both = np.array([[table[step] for step in common] for table in tables], float).reshape(len(tables), -1, 2)
    return both[..., 0].mean(0), both[..., 1]


def _ema(values: np.ndarray, weight: float) -> np.ndarray:
    """Exponential moving average, (points,), each divided by the sum of its weights; weight 0 changes nothing."""
    smoothed, total, mass = np.empty_like(values), 0.0, 0.0
    for i, value in enumerate(values):
        total, mass = weight * total + value, weight * mass + 1.0
        smoothed[i] = total / mass
    return smoothed
