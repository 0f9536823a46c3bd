"""Modes found and evenness of several methods, with published figures beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from advrl.plots.style import BLUE, MUTED, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Figures = Mapping[str, Sequence[tuple[float, float]]]


def modes_plot(ours: Figures, published: Figures, task: str, modes: int) -> Figure:
    """Two panels of one row per method, with standard errors: modes beside their number, and reverse KL.

    Args:
        ours: by method, (mean, standard error) of modes and of reverse KL; an error may be NaN.
        published: likewise; drawn hollow, below.
        task: the title.
        modes: how many there are.
    """
    from matplotlib.figure import Figure

    with style():
        rows = [*((*item, True) for item in ours.items()), *((*item, False) for item in published.items())]
        figure = Figure(figsize=(7.2, 0.9 + 0.24 * len(rows)))
        left, right = figure.subplots(1, 2, sharey=True)
        for panel, axes in enumerate((left, right)):
            for at, (_, figures, mine) in enumerate(rows):
                mean, error = figures[panel]
                axes.errorbar(
                    mean, at, xerr=None if math.isnan(error) else error, fmt="o", markersize=4.5, capsize=2,
                    clip_on=False, color=BLUE if mine else MUTED, markerfacecolor=BLUE if mine else "white",
                )  # fmt: skip
        left.axvline(modes, color=MUTED, linewidth=0.8, linestyle=":")
        left.set_yticks(range(len(rows)), [name for name, *_ in rows])
        left.invert_yaxis()
        left.set(title=task, xlabel=f"modes of {modes:,}")
        right.set(xlabel="reverse KL, nats")
        right.set_xlim(left=0)
    return figure
