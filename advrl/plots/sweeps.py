"""What a planner does while it works: bounds that close, values that spread; and the gambler's two figures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from advrl.files import write_atomically
from advrl.plots.grids import value_map
from advrl.plots.style import BLUE, INK, MUTED, VERMILION, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAMED = 40  # states whose names still fit beneath their bars


def bounds_plot(
    lower: Tensor, upper: Tensor, truth: Tensor | None = None, *, title: str = "What is certain after each sweep"
) -> Figure:
    """Greatest distance between certified bounds after each sweep, beside the greatest true error, on a log scale.

    Args:
        lower, upper: (K, S) bounds after each of K sweeps.
        truth: (S,) the values themselves; the error drawn is that of the bounds' middle.

    Raises:
        ValueError: if the shapes differ, or there is nothing to draw.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    if lower.dim() != 2 or lower.shape != upper.shape or not len(lower):
        raise ValueError(f"bounds must be (sweeps, states), got {tuple(lower.shape)} and {tuple(upper.shape)}")
    width = (upper - lower).amax(-1).cpu().double().numpy() / 2
    sweeps = np.arange(1, len(width) + 1)
    with style():
        figure = Figure(figsize=(5.2, 3.2))
        axis = figure.subplots()
        axis.semilogy(sweeps, width, color=BLUE, lw=2.4, label="certified: half the distance of the bounds")
        if truth is not None:
            error = ((lower + upper) / 2 - truth).abs().amax(-1).cpu().double().numpy()
            error[error == 0] = np.nan
            axis.semilogy(sweeps, error, color=VERMILION, ls="--", label="true error of their middle")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_xlabel("sweeps")
        axis.set_title(title)
        axis.legend()
    return figure


def animate_values(
    history: Sequence[Tensor],
    shape: tuple[int, int],
    path: str | Path,
    *,
    optimal_sets: Sequence[Tensor] | None = None,
    action_labels: Sequence[str] | None = None,
    ended: Tensor | None = None,
    milliseconds: int = 400,
    frames: int = 30,
) -> Path:
    """Write a GIF of values (S,) sweep by sweep, at most ``frames`` of them, with arrows if sets of actions are given.

    Raises:
        ValueError: if there is nothing to show, the sizes do not fit, or the suffix is not ``.gif``.
        OSError: if the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    path = Path(path)
    if path.suffix != ".gif":
        raise ValueError(f"an animation is written as .gif, got {path.name!r}")
    if not history:
        raise ValueError("no values to show: solve with history=True")
    kept = sorted({round(i) for i in np.linspace(0, len(history) - 1, min(frames, len(history)))})
    pictures = []
    every = np.stack([values.detach().cpu().double().numpy() for values in history])
    if ended is not None:
        every = every[:, ~ended.cpu().numpy()]
    limits = (float(every.min()), float(every.max()))  # one scale for all frames, or nothing would seem to grow
    for k in kept:
        figure = value_map(
            history[k], shape, optimal_set=None if optimal_sets is None else optimal_sets[k],
            action_labels=action_labels, ended=ended, limits=limits,
            title=f"Values after sweep {k + 1}",
        )  # fmt: skip
        with style():
            canvas: Any = FigureCanvasAgg(figure)
            canvas.draw()
            pictures.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()))
    buffer = io.BytesIO()
    pace = [milliseconds] * (len(pictures) - 1) + [4 * milliseconds]
    pictures[0].save(buffer, "GIF", save_all=True, append_images=pictures[1:], duration=pace, loop=0)
    return write_atomically(path, buffer.getvalue())


def value_bars(V: Tensor, labels: Sequence[str] | None = None, *, title: str = "Value of each state") -> Figure:
    """Bars of the values (S,) of states that lie on no grid."""
    from matplotlib.figure import Figure

    values = V.detach().cpu().double().numpy()
    with style():
        figure = Figure(figsize=(min(12.0, max(4.0, 0.45 * len(values) + 1)), 3.0))
        axis = figure.subplots()
        axis.grid(axis="x", visible=False)
        axis.bar(np.arange(len(values)), values, width=0.7, color=BLUE)
        axis.axhline(0, color=INK, lw=0.8)
        if labels is not None and len(labels) <= _NAMED:
            axis.set_xticks(range(len(values)), labels, rotation=30 if max(map(len, labels)) > 4 else 0)
        axis.set_xlabel("" if labels is not None and len(labels) <= _NAMED else "state")
        axis.set_title(title)
    return figure


def gambler_plot(V: Tensor, optimal_set: Tensor) -> Figure:
    """Sutton & Barto (2018), figure 4.3: the chance to win against capital, and *every* best stake, not one tie-break.

    Args:
        V: (S,) values of capitals 0 .. S - 1.
        optimal_set: (S, A) bool, action a a stake of a.
    """
    from matplotlib.figure import Figure

    values, best = V.detach().cpu().double().numpy(), optimal_set.cpu().numpy().astype(bool)
    capital, stake = np.nonzero(best[1:-1])
    capital = capital + 1
    smallest = best[1:-1].argmax(1)
    with style():
        figure = Figure(figsize=(8.2, 3.2))
        left, right = figure.subplots(1, 2)
        inside = np.arange(1, len(values) - 1)
        left.plot(inside, values[1:-1], color=BLUE)
        left.set_xlabel("capital")
        left.set_title("Chance to reach the goal")
        right.scatter(capital, stake, s=5, color=MUTED, label="every best stake", lw=0)
        right.step(inside, smallest, where="mid", color=VERMILION, lw=1.2, label="the smallest")
        right.set_xlabel("capital")
        right.set_ylim(0, 1.22 * max(1, stake.max(initial=1)))
        right.set_title("Stake")
        right.legend(ncols=2, loc="upper left")
    return figure
