"""Pictures of a comparison: variance against samples, the bias-variance plane, histograms of the estimates."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advrl.lab.table import Row, Table
from advrl.plots import read_metrics, save_figure, style
from advrl.plots.style import MUTED, PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "osD^vP*X"


def _look(index: int) -> dict[str, Any]:
    return {"color": PALETTE[index % len(PALETTE)], "marker": MARKERS[index % len(MARKERS)], "ms": 4}


def _series(table: Table) -> dict[str, list[Row]]:
    """Rows by name, in order of their samples."""
    found: dict[str, list[Row]] = {}
    for row in table.rows:
        found.setdefault(row.name, []).append(row)
    return {name: sorted(rows, key=lambda row: row.n) for name, rows in found.items()}


def _plain(text: str) -> str:
    return text.replace("$", r"\$")


def variance_plot(table: Table) -> Figure:
    """Variance of the estimate against its samples, ± 2 standard errors; the closed forms as lines."""
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(5.6, 3.8))
        axis = figure.subplots()
        drawn = False
        for index, (name, rows) in enumerate(_series(table).items()):
            rows = [row for row in rows if row.variance > 0]
            if not rows:
                continue
            look = _look(index)
            exact = [(row.n, row.closed_form) for row in rows if row.closed_form]
            axis.errorbar(
                [row.n for row in rows],
                [row.variance for row in rows],
                yerr=[
                    [min(2 * row.variance_error, 0.95 * row.variance) for row in rows],
                    [2 * row.variance_error for row in rows],
                ],
                label=_plain(name),
                linestyle="none" if exact else ":",
                lw=1,
                capsize=2,
                **look,
            )
            if exact:
                axis.plot(*zip(*exact, strict=True), color=look["color"], lw=1.1, zorder=1)
                drawn = True
        axis.set(xscale="log", yscale="log", xlabel="samples per estimate, n", ylabel="variance of the estimate")
        title = "points: measured ± 2 standard errors" + ("; lines: closed form" if drawn else "")
        axis.legend(title=title, alignment="left")
        axis.set_title(_plain(table.problem))
    return figure


def bias_variance_plot(table: Table) -> Figure:
    """Bias against standard deviation of every row; hollow where the bias is within its noise."""
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(5.6, 3.8))
        axis = figure.subplots()
        for index, (name, rows) in enumerate(_series(table).items()):
            look = _look(index)
            for i, row in enumerate(row for row in rows if row.bias is not None):
                noise = math.sqrt(row.variance / row.replicates)
                bias = abs(row.bias or 0.0)
                axis.plot(
                    max(bias, noise) or 1e-12,
                    math.sqrt(row.variance) or 1e-12,
                    markerfacecolor=look["color"] if row.biased else "white",
                    linestyle="none",
                    label=_plain(name) if i == 0 else None,
                    **{**look, "ms": 6},
                )
        axis.set(xscale="log", yscale="log", xlabel="|bias|", ylabel="standard deviation of one estimate")
        _equal_error(axis)
        figure.legend(
            loc="outside right upper", title="hollow: no bias seen,\nplaced at its noise", alignment="left"
        ).get_title().set_color(MUTED)
        axis.set_title(_plain(table.problem))
    return figure


def _equal_error(axis: Axes) -> None:
    """Where bias and standard deviation weigh the same in the mean squared error of one estimate."""
    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    low, high = max(left, bottom), min(right, top)
    if low < high:
        axis.plot([low, high], [low, high], color=MUTED, lw=0.8, ls="--", label="bias = deviation")
    axis.set(xlim=(left, right), ylim=(bottom, top))


def histogram_plot(table: Table) -> Figure:
    """Histograms of the estimates, one panel per row, and the exact gradient as a line.

    Of a series of more than three sizes the first and the last are drawn.

    Raises:
        ValueError: for a table that was read from a file, which holds no estimates.
    """
    import numpy as np
    from matplotlib.figure import Figure

    if not table.draws:
        raise ValueError("this table keeps no estimates to draw: it was read from a file")
    chosen = {id(row) for rows in _series(table).values() for row in (rows if len(rows) <= 3 else (rows[0], rows[-1]))}
    both = zip(table.rows, table.draws, strict=True)
    pairs = [(row, draws.numpy()) for row, draws in both if len(draws) and id(row) in chosen]
    columns = min(4, len(pairs), max(2, math.ceil(len(pairs) / 3)))
    names = list(_series(table))
    with style():
        figure = Figure(figsize=(2.3 * columns + 0.6, 1.7 * math.ceil(len(pairs) / columns) + 0.6))
        axes = np.atleast_1d(figure.subplots(math.ceil(len(pairs) / columns), columns)).flatten()
        for axis in axes[len(pairs) :]:
            axis.remove()
        for axis, (row, draws) in zip(axes, pairs, strict=False):
            low, high = np.quantile(draws, [0.005, 0.995])
            if high - low > 1e-9 * max(abs(low), abs(high)):
                axis.hist(draws, bins=40, range=(low, high), color=_look(names.index(row.name))["color"], alpha=0.8)
            else:
                axis.axvline(low, color=_look(names.index(row.name))["color"], lw=3)
            if table.exact is not None:
                axis.axvline(table.exact, color="black", lw=1)
            axis.set_title(_plain(f"{row.name}, n = {row.n:,}"))
            axis.set_yticks([])
        what = "estimates" if table.parameters == 1 else "estimates along the exact gradient"
        figure.supxlabel(f"{what}; black: the exact gradient; the outer 1 % is cut", fontsize=8.5, color=MUTED)
    return figure


def save_figures(table: Table, folder: str | Path) -> list[Path]:
    """Write every figure that the table has the numbers for into a folder, and return their paths."""
    folder = Path(folder)
    paths: list[Path] = []
    if len({row.n for row in table.rows}) > 1:
        paths.append(save_figure(variance_plot(table), folder / "variance.png"))
    if table.exact is not None:
        paths.append(save_figure(bias_variance_plot(table), folder / "bias-variance.png"))
    if table.draws:
        paths.append(save_figure(histogram_plot(table), folder / "histograms.png"))
    return paths


def probe_plot(run: str | Path) -> Path:
    """Draw ``probe.csv`` of a run into ``plots/probe.png`` and return that path.

    Raises:
        ValueError: if the file is no table of a probe.
        OSError: if it cannot be read, or the figure not written.
    """
    import numpy as np
    from matplotlib.figure import Figure

    run = Path(run)
    table = read_metrics(run / "probe.csv")
    names = [column.removesuffix("/bias") for column in table if column.endswith("/bias")]
    if not names:
        raise ValueError(f"{run / 'probe.csv'} holds no estimator's bias")
    steps = np.array(table["step"])
    floor = np.array(table["reference/error"])
    with style():
        figure = Figure(figsize=(9.6, 3.2))
        bias, variance, cosine = figure.subplots(1, 3)
        if floor.max() > 0:
            bias.plot(steps, floor, color=MUTED, lw=1, ls="--", label="the reference's error")
        for index, name in enumerate(names):
            look = {**_look(index), "ms": 3, "marker": _look(index)["marker"] if len(steps) <= 20 else None}
            seen = np.abs(np.array(table[f"{name}/z"])) > np.array(table["bound"])
            height = np.maximum(table[f"{name}/bias"], table[f"{name}/noise"])
            bias.plot(steps, height, color=look["color"], lw=0.8, label=_plain(name), marker=look["marker"], ms=3)
            for which, face in ((seen, look["color"]), (~seen, "white")):
                marks = {**look, "marker": _look(index)["marker"], "ms": 4, "linestyle": "none"}
                bias.plot(steps[which], height[which], markerfacecolor=face, **marks)
            variance.plot(steps, table[f"{name}/variance"], **look)
            cosine.plot(steps, table[f"{name}/cosine"], **look)
        variance.set_yscale("log")
        cosine.axhline(0, color=MUTED, lw=0.8)
        bias.set_yscale("log")
        for axis, title in (
            (bias, "|bias| / |gradient|"),
            (variance, "variance / |gradient|²"),
            (cosine, "cosine of one estimate"),
        ):
            axis.set_title(title)
            axis.set_xlabel("step")
        figure.legend(
            loc="outside upper left",
            ncols=len(names) + 1,
            title="bias: filled where it stands out of the noise, else hollow, at the noise",
            alignment="left",
        ).get_title().set_color(MUTED)
    return save_figure(figure, run / "plots" / "probe.png")
