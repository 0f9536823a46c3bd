"""Costs beside networks: what each pair of them found, and how far either moves it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from advrl.plots.style import MUTED, PALETTE, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Cell = tuple[str, str]
"""An objective and a network."""


def spread_plot(
    found: Mapping[Cell, Sequence[tuple[float, float]]],
    spreads: Mapping[str, Sequence[float]],
    figures: Sequence[str],
    title: str,
) -> Figure:
    """A row for each figure: left every network's value, a line for each objective; right both spreads.

    Args:
        found: by objective and network, (mean, standard error) of each figure; what is not finite is left out.
        spreads: by what is varied, the standard deviation of each figure, all else held.
        figures: what they are called.
        title: of the whole.
    """
    from matplotlib.figure import Figure

    objectives = list(dict.fromkeys(objective for objective, _ in found))
    networks = list(dict.fromkeys(network for _, network in found))
    with style():
        page = Figure(figsize=(7.2, 0.5 + 2.1 * len(figures)))
        panels = page.subplots(len(figures), 2, squeeze=False, width_ratios=(2.2, 1))
        for row, (name, (left, right)) in enumerate(zip(figures, panels, strict=True)):
            for k, objective in enumerate(objectives):
                shift = 0.06 * (k - (len(objectives) - 1) / 2)  # side by side, so that equal ones can be told apart
                points = [
                    (at + shift, *found[objective, network][row])
                    for at, network in enumerate(networks)
                    if (objective, network) in found and math.isfinite(found[objective, network][row][0])
                ]
                if points:
                    where, means, errors = zip(*points, strict=True)
                    bars = [0.0 if math.isnan(e) else e for e in errors]
                    colour = PALETTE[k % len(PALETTE)]
                    left.errorbar(
                        where, means, bars, marker="o", markersize=4, capsize=2, color=colour, label=objective
                    )
            left.set_xticks(range(len(networks)), networks)
            left.set(ylabel=name, xlim=(-0.4, len(networks) - 0.6))
            left.set_ylim(bottom=0)
            heights = [values[row] for values in spreads.values()]
            drawn = [height if math.isfinite(height) else 0.0 for height in heights]
            labels = ["" if math.isfinite(height) else "∞" for height in heights]
            right.bar_label(right.bar(list(spreads), drawn, color=MUTED, width=0.5), labels)
            right.set(ylabel=f"spread of {name}")
        panels[0][0].legend(fontsize=7)
        panels[0][1].set_title("spread between")
        panels[0][0].set_title(title)
    return page
