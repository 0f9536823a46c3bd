"""Pictures of two-player dynamics side by side: what they generate over time, where the mass sits, what they end with.

Shapes: C columns, L looks, N samples, K modes.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from advrl.plots.style import BLUE, INK, MUTED, RULE, VERMILION, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BINS = 64  # of a density, per side
_LAST = 1.35  # reach of a picture over that of the data


def columns_plot(columns: Mapping[str, np.ndarray], times: Sequence[float], data: np.ndarray) -> Figure:
    """Density of the samples, a row for each method, a column for each time, the data last: Metz et al. (2017), fig. 2.

    Args:
        columns: by method, samples (C, N, 2).
        times: (C,) share of the run.
        data: (N, 2) real points.

    Raises:
        ValueError: if there is nothing to draw.
    """
    from matplotlib.figure import Figure

    if not columns:
        raise ValueError("columns is empty; give at least one method")
    reach = _LAST * np.abs(data).max()
    with style():
        figure = Figure(figsize=(0.86 * (len(times) + 1) + 1.5, 0.92 * len(columns) + 0.35))
        axes = figure.subplots(len(columns), len(times) + 1, squeeze=False)
        figure.set_layout_engine("constrained", w_pad=0.01, h_pad=0.01)
        for row, (name, samples) in zip(axes, columns.items(), strict=True):
            for axis, points in zip(row, [*samples, data], strict=True):
                axis.imshow(_density(points, reach), cmap="Greens" if points is data else "Blues", origin="lower")
                axis.set_xticks([]), axis.set_yticks([])
                axis.grid(visible=False)
                axis.spines[:].set_visible(False)
            label = "\n".join(textwrap.wrap(name, 14))
            row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
        for axis, time in zip(axes[0], times, strict=False):
            axis.set_title(f"{100 * time:.0f} %", fontsize=8, fontweight="normal", loc="center")
        axes[0][-1].set_title("data", fontsize=8, loc="center")
    return figure


def _density(points: np.ndarray, reach: float) -> np.ndarray:
    """A smoothed histogram, its root so that what is thin can be seen."""
    counts, _, _ = np.histogram2d(points[:, 1], points[:, 0], bins=_BINS, range=[[-reach, reach]] * 2)
    kernel = np.exp(-(np.arange(-4, 5) ** 2) / (2 * 1.3**2))
    for axis in (0, 1):
        counts = np.apply_along_axis(np.convolve, axis, counts, kernel / kernel.sum(), "same")
    root: np.ndarray = np.sqrt(counts)
    return root


def occupancy_plot(shares: Mapping[str, np.ndarray], times: np.ndarray) -> Figure:
    """Share of the samples nearest to each mode over time, stacked, a panel for each method.

    Args:
        shares: by method, (L, K).
        times: (L,) share of the run.

    Raises:
        ValueError: if there is nothing to draw.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    if not shares:
        raise ValueError("shares is empty; give at least one method")
    columns = min(3, len(shares))
    rows = -(-len(shares) // columns)
    with style():
        figure = Figure(figsize=(2.6 * columns, 1.35 * rows + 0.3))
        axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flatten()
        for axis, (name, found) in zip(axes, shares.items(), strict=False):
            colours = colormaps["twilight_shifted"](np.linspace(0.08, 0.92, found.shape[1]))
            axis.stackplot(100 * times, found.T, colors=colours, lw=0)
            axis.set(xlim=(100 * times[0], 100), ylim=(0, 1), yticks=[0, 0.5, 1], title=name)
            axis.grid(visible=False)
        for axis in axes[len(shares) :]:
            axis.remove()
        for axis in axes[max(0, len(shares) - columns) : len(shares)]:
            axis.set_xlabel("% of the run")
            axis.tick_params(labelbottom=True)
    return figure


def outcome_plot(outcomes: Mapping[str, Sequence[tuple[float, float]]], modes: int) -> Figure:
    """Modes and share of high quality at the end, every seed a dot, the mean with its standard error a bar.

    Args:
        outcomes: by method, (modes, share of high quality) of each seed.
        modes: how many there are.

    Raises:
        ValueError: if there is nothing to draw.
    """
    from matplotlib.figure import Figure

    if not outcomes:
        raise ValueError("outcomes is empty; give at least one method")
    names = list(outcomes)
    places = np.arange(len(names))[::-1]
    with style():
        figure = Figure(figsize=(6.9, 0.26 * len(names) + 0.8))
        axes = figure.subplots(1, 2, sharey=True)
        for column, (axis, title, scale, top) in enumerate(
            zip(axes, (f"modes of {modes}", "% within 3 std"), (1, 100), (modes, 100), strict=True)
        ):
            for place, name in zip(places, names, strict=True):
                values = scale * np.array([one[column] for one in outcomes[name]])
                colour = VERMILION if name.startswith("unrolled") else BLUE
                axis.plot(values, np.full(len(values), place), "o", color=colour, alpha=0.35, ms=3.5, mew=0)
                error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
                axis.errorbar(values.mean(), place, xerr=error, fmt="|", color=INK, ms=10, lw=1.6)
            axis.axvline(top, color=MUTED, lw=0.8, ls=":")
            axis.set(title=title, xlim=(-0.03 * top, 1.05 * top), ylim=(-0.7, len(names) - 0.3))
            axis.set_yticks(places, names)
            axis.grid(axis="y", color=RULE)
    return figure
