"""How the generated samples divide among the classes, beside the real ones and beside equal shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from advrl.plots.style import BLUE, INK, MUTED, VERMILION, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def class_share_plot(
    shares: Sequence[float] | Tensor,
    real: Sequence[float] | Tensor | None = None,
    names: Sequence[str] | None = None,
    *,
    tolerance: float = 0.3,
    title: str = "Share of each class among the samples",
) -> Figure:
    """Bars of the generated shares, those outside the band marked, with the real shares as lines across them.

    Args:
        shares: (K,) shares of the K classes among generated samples.
        real: (K,) shares among real data.
        names: (K,) names of the classes, 0 to K - 1 by default.
        tolerance: half width of the band around the equal share 1 / K, relative to it: 0.3 is 7 % to 13 % of ten.
        title: heading of the figure.

    Raises:
        ValueError: if the lengths differ, or shares are negative or do not add up to one.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.ticker import PercentFormatter

    generated = _shares("shares", shares)
    count = len(generated)
    reference = None if real is None else _shares("real", real)
    labels = [str(k) for k in range(count)] if names is None else list(names)
    if len(labels) != count or (reference is not None and len(reference) != count):
        raise ValueError(
            f"shares, real and names must have one length, got {count}, "
            f"{'none' if reference is None else len(reference)} and {len(labels)}"
        )
    low, high = (1 - tolerance) / count, (1 + tolerance) / count
    outside = (generated < low) | (generated > high)
    with style():
        figure = Figure(figsize=(max(4.8, 0.52 * count + 1.2), 3.2))
        axis = figure.subplots()
        axis.grid(axis="x", visible=False)
        axis.axhspan(low, high, color="#000000", alpha=0.07, lw=0)
        places = np.arange(count)
        axis.bar(places, generated, width=0.62, color=np.where(outside, VERMILION, BLUE).tolist())
        if reference is not None:
            axis.hlines(reference, places - 0.4, places + 0.4, color=INK, lw=2)
        axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        axis.set_xticks(places, labels)
        axis.set_xlim(-0.6, count - 0.4)
        axis.set_ylim(0, 1.12 * max(generated.max(), high, 0 if reference is None else reference.max()))
        handles: list[Line2D | Patch] = [Patch(color=BLUE, label="generated")]
        if outside.any():
            handles.append(Patch(color=VERMILION, label="generated, outside the band"))
        if reference is not None:
            handles.append(Line2D([], [], color=INK, lw=2, label="real"))
        handles.append(Patch(color="#EDEDED", label=f"band {100 * low:.3g} % to {100 * high:.3g} %"))
        figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
        figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), labelcolor=MUTED)
    return figure


def _shares(name: str, shares: Sequence[float] | Tensor) -> np.ndarray:
    values = shares.detach().cpu().double().numpy() if isinstance(shares, Tensor) else np.asarray(shares, float)
    if values.ndim != 1 or not len(values) or not (values >= 0).all() or abs(values.sum() - 1) > 1e-3:
        raise ValueError(f"{name} must be (K,) shares, each at least 0 and adding up to 1, got {values.tolist()}")
    return values
