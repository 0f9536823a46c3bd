"""Grids of states, numbered row by row: values with arrows, action values as triangles, how often each is visited."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from advrl.plots.style import INK, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DIRECTIONS = {
    "left": (0, -1), "down": (1, 0), "right": (0, 1), "up": (-1, 0), "west": (0, -1), "south": (1, 0), "east": (0, 1),
    "north": (-1, 0), "down-left": (1, -1), "down-right": (1, 1), "up-right": (-1, 1), "up-left": (-1, -1),
    "stay": (0, 0),
}  # fmt: skip
"""(rows, columns) that an action of this name is meant to move."""

_LARGEST = 450  # cells in which numbers can still be read


def value_map(
    V: Tensor,
    shape: tuple[int, int],
    *,
    optimal_set: Tensor | None = None,
    action_labels: Sequence[str] | None = None,
    ended: Tensor | None = None,
    limits: tuple[float, float] | None = None,
    title: str = "Value of each state",
) -> Figure:
    """Heat map of values, with an arrow for every optimal action.

    Args:
        V: (S,) values.
        shape: (rows, columns) of the grid.
        optimal_set: (S, A) bool: actions to draw, where their label is a direction.
        action_labels: A of them, such as "left" or "up-right".
        ended: (S,) bool: states where nothing follows, left grey.
        limits: values at the ends of the colour scale; the least and the greatest if ``None``.

    Raises:
        ValueError: if the sizes do not fit.
    """
    values = _numbers("V", V, shape)
    grey = np.zeros(values.shape, dtype=bool) if ended is None else _array(ended).astype(bool).reshape(shape)
    with style():
        figure, axis = _figure(shape, title)
        colours = _cells(figure, axis, np.ma.array(values, mask=grey), limits=limits)
        small, digits = values.size <= _LARGEST, _decimals(values[~grey])
        for (r, c), value in np.ndenumerate(values):
            if not grey[r, c] and small:
                text = f"{value:.{digits}f}"
                axis.text(c, r, text, ha="center", va="center", fontsize=6.5, color=_ink(colours, value))
        if optimal_set is not None and small:
            chosen = _array(optimal_set).astype(bool)
            moves = _moves(action_labels, chosen.shape[-1])
            for s, a in np.argwhere(chosen.reshape(values.size, -1)):
                r, c = divmod(int(s), shape[1])
                if not grey[r, c] and moves[a] is not None:
                    _arrow(axis, r, c, moves[a], _ink(colours, values[r, c]))
    return figure


def q_triangles(
    Q: Tensor,
    shape: tuple[int, int],
    action_labels: Sequence[str],
    *,
    ended: Tensor | None = None,
    title: str = "Value of each action",
) -> Figure:
    """Every cell cut into four triangles, one for each direction, with the value of going there.

    Args:
        Q: (S, A) action values; -inf is left grey.
        action_labels: A of them; "left", "down", "right" and "up" (or west, south, ...) are drawn.

    Raises:
        ValueError: if the sizes do not fit, or no action is one of the four directions.
    """
    from matplotlib.collections import PolyCollection

    table = _array(Q).astype(float)
    _numbers("Q", Q[..., 0], shape)
    moves = _moves(action_labels, table.shape[1])
    straight = [a for a, move in enumerate(moves) if move is not None and abs(move[0]) + abs(move[1]) == 1]
    if not straight:
        raise ValueError(f"none of the actions {list(action_labels)} is a direction that a triangle could show")
    grey = np.zeros(len(table), dtype=bool) if ended is None else _array(ended).astype(bool)
    shown = [(s, a) for s in range(len(table)) for a in straight if not grey[s] and np.isfinite(table[s, a])]
    with style():
        figure, axis = _figure(shape, title)
        corners, values = [], []
        for s, a in shown:
            (dr, dc), (r, c) = moves[a] or (0, 0), divmod(s, shape[1])
            side = [(c + (dc - dr) / 2, r + (dr + dc) / 2), (c + (dc + dr) / 2, r + (dr - dc) / 2)]
            corners.append([(c, r), *side])
            values.append(table[s, a])
        triangles = PolyCollection(corners, array=np.array(values), cmap=_CMAP, edgecolors="white", linewidths=0.7)
        axis.add_collection(triangles)
        _bar(figure, axis, triangles)
        digits = _decimals(np.array(values), 2)
        if len(table) <= _LARGEST / 4:
            for (s, a), value in zip(shown, values, strict=True):
                (dr, dc), (r, c) = moves[a] or (0, 0), divmod(s, shape[1])
                best = value >= table[s][np.isfinite(table[s])].max() - 1e-9
                axis.text(
                    c + 0.33 * dc, r + 0.33 * dr, f"{value:.{digits}f}", ha="center", va="center", fontsize=5.5,
                    color=_ink(triangles, value), fontweight="bold" if best else "normal",
                )  # fmt: skip
    return figure


def occupancy_map(visits: Tensor, shape: tuple[int, int], *, title: str = "Expected visits of each state") -> Figure:
    """Heat map of how often each state is visited: (S,), or (S, A), which is added up over actions.

    Raises:
        ValueError: if the sizes do not fit.
    """
    total = visits.sum(-1) if visits.dim() == 2 else visits
    values = _numbers("visits", total, shape)
    with style():
        figure, axis = _figure(shape, title)
        colours, digits = _cells(figure, axis, np.ma.array(values, mask=values <= 0)), _decimals(values)
        if values.size <= _LARGEST:
            for (r, c), value in np.ndenumerate(values):
                if value > 0:
                    text = f"{value:.{digits}f}"
                    axis.text(c, r, text, ha="center", va="center", fontsize=6.5, color=_ink(colours, value))
    return figure


def action_map(
    policy: Tensor, shape: tuple[int, int], action_labels: Sequence[str] | None = None, *, title: str = "Policy"
) -> Figure:
    """Heat map of a deterministic policy (S,) whose actions are amounts rather than directions, each by its label.

    Raises:
        ValueError: if the sizes do not fit.
    """
    values = _numbers("policy", policy, shape).astype(int)
    with style():
        figure, axis = _figure(shape, title)
        colours = _cells(figure, axis, np.ma.array(values), bar=action_labels is None)
        if values.size <= 2 * _LARGEST:
            for (r, c), value in np.ndenumerate(values):
                label = str(value) if action_labels is None else action_labels[value]
                axis.text(c, r, label, ha="center", va="center", fontsize=5.5, color=_ink(colours, value))
    return figure


_CMAP = "YlGnBu"


def _figure(shape: tuple[int, int], title: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    rows, columns = shape
    cell = min(0.62, max(0.28, 9 / max(rows, columns)))
    figure = Figure(figsize=(max(3.2, cell * columns + 1.1), max(1.6, cell * rows + 0.7)))
    axis = figure.subplots()
    axis.grid(visible=False)
    axis.set_aspect("equal")
    axis.set_xlim(-0.5, columns - 0.5)
    axis.set_ylim(rows - 0.5, -0.5)
    axis.set_xticks(range(columns) if columns <= 25 else range(0, columns, 10))
    axis.set_yticks(range(rows) if rows <= 25 else range(0, rows, 10))
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set_facecolor("#D9D9D9")
    axis.set_title(title)
    return figure, axis


def _cells(
    figure: Figure, axis: Axes, values: np.ma.MaskedArray, bar: bool = True, limits: tuple[float, float] | None = None
) -> Any:
    rows, columns = values.shape
    x, y = np.arange(columns + 1) - 0.5, np.arange(rows + 1) - 0.5
    low, high = (None, None) if limits is None else limits
    colours = axis.pcolormesh(x, y, values, cmap=_CMAP, edgecolors="white", linewidth=0.7, vmin=low, vmax=high)
    if bar:
        _bar(figure, axis, colours)
    return colours


def _bar(figure: Figure, axis: Axes, colours: Any) -> None:
    bar = figure.colorbar(colours, ax=axis, fraction=0.04, pad=0.02)
    bar.outline.set_visible(False)


def _arrow(axis: Axes, r: int, c: int, move: tuple[int, int], colour: str) -> None:
    dr, dc = move
    if not (dr or dc):
        axis.plot([c], [r + 0.32], marker="o", ms=2, color=colour)
        return
    axis.annotate(
        "", xy=(c + 0.47 * dc, r + 0.47 * dr), xytext=(c + 0.24 * dc, r + 0.24 * dr),
        arrowprops={"arrowstyle": "-|>", "lw": 0.8, "color": colour, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 6},
    )  # fmt: skip


def _moves(labels: Sequence[str] | None, actions: int) -> list[tuple[int, int] | None]:
    if labels is None:
        return [None] * actions
    if len(labels) != actions:
        raise ValueError(f"action_labels must name all {actions} actions, got {len(labels)}")
    return [DIRECTIONS.get(label) for label in labels]


def _numbers(name: str, values: Tensor, shape: tuple[int, int]) -> np.ndarray:
    array = _array(values)
    if array.ndim != 1 or array.size != shape[0] * shape[1]:
        raise ValueError(f"{name} must hold the {shape[0] * shape[1]} states of a {shape} grid, got {array.shape}")
    return array.reshape(shape)


def _array(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()


def _ink(colours: Any, value: float) -> str:
    red, green, blue, _ = colours.cmap(colours.norm(value))
    return INK if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"


def _decimals(values: np.ndarray, most: int = 3) -> int:
    """Decimals for all numbers of a picture: none for whole numbers, else as many as the greatest leaves room for."""
    shown = np.abs(values[np.isfinite(values)])
    if not shown.size or np.abs(shown - shown.round()).max() < 1e-6:
        return 0
    return max(0, min(most, 2 - int(np.floor(np.log10(max(shown.max(), 0.1))))))
