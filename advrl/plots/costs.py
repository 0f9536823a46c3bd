"""What the generator pays for a sample against how real it is judged: the costs, and how steeply they fall."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from advrl.plots.style import INK, MUTED, PALETTE, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DASHES = ("-", (0, (5, 1.6)), (0, (1.2, 1.2)))


def cost_plot(
    d: ArrayLike, costs: Mapping[str, tuple[ArrayLike, ArrayLike]], *, limits: tuple[float, float] = (-8.0, 6.0)
) -> Figure:
    """Costs against D, and beside them dc/dD on a symmetric log scale, with the steepest point of each curve marked.

    Args:
        d: (N,) increasing probabilities D of being real, inside (0, 1).
        costs: by name, (N,) costs and (N,) their derivatives in D.
        limits: of the cost's axis; a curve may leave it.

    Raises:
        ValueError: if there is nothing to draw, or the lengths differ.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    x = np.asarray(d, float)
    curves = {name: (np.asarray(c, float), np.asarray(s, float)) for name, (c, s) in costs.items()}
    if not curves or any(c.shape != x.shape or s.shape != x.shape for c, s in curves.values()):
        raise ValueError(f"need costs and slopes of the length of d, {x.shape}, for at least one objective")
    with style():
        figure = Figure(figsize=(9.4, 4.2))
        left, right = figure.subplots(1, 2)
        looks = ((colour, dash) for dash, colour in itertools.product(_DASHES, PALETTE))
        for (name, (cost, slope)), (colour, dash) in zip(curves.items(), itertools.cycle(looks), strict=False):
            left.plot(x, cost, color=colour, ls=dash, label=name)
            right.plot(x, slope, color=colour, ls=dash)
            if np.abs(slope).max() > 0:
                at = int(np.abs(slope).argmax())
                right.plot(x[at], slope[at], "o", color=colour, ms=5, mec="white", mew=0.8, zorder=3, clip_on=False)
        left.axvline(0.5, color=MUTED, lw=0.7, ls=":")
        right.axvline(0.5, color=MUTED, lw=0.7, ls=":")
        right.axhline(0, color=INK, lw=0.6)
        left.set_ylim(*limits)
        right.set_yscale("symlog", linthresh=1.0)
        right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}".replace("-", "−")))
        for axis in (left, right):
            axis.set_xlim(0, 1)
            axis.set_xlabel("D, how likely the sample is judged to be real")
        left.set_title("What the generator pays")
        right.set_title("dc/dD, with each curve's steepest point")
        figure.legend(loc="outside right center")
    return figure
