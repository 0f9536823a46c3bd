"""Pictures of a game over points in the plane: samples, the density that they should have, and the discriminator.

A frame is what is kept of one step. Shapes: N samples, K centres, G points per side of the discriminator's grid.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from advrl.files import write_atomically
from advrl.plots.style import BLUE, INK, MUTED, VERMILION, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

STRIP = 8  # panels of an evolution
_ZOOM = 5.0  # standard deviations that the picture of one mode reaches
_MARGIN = 1.45  # the picture's reach over that of the centres


@dataclass(frozen=True, eq=False)
class Frame:
    """One step of a game in the plane.

    Args:
        step: of the run.
        samples: (N, 2) points of the policy.
        surface: (G, G) probability of being real that the discriminator gives, rows from low to high second
            coordinate, over a square around the origin of half width ``Frame.reach(centres)``.
    """

    step: int
    samples: np.ndarray
    surface: np.ndarray

    @staticmethod
    def reach(centres: Tensor) -> float:
        """Half the width of the square that is looked at."""
        return _MARGIN * float(centres.abs().max())


def save_frame(frame: Frame, path: str | Path) -> Path:
    """Write a frame to a ``.npz`` file, atomically and in half precision.

    Raises:
        OSError: if the file cannot be written.
    """
    buffer = io.BytesIO()
    arrays = {"samples": frame.samples.astype(np.float32), "surface": frame.surface.astype(np.float16)}
    np.savez_compressed(buffer, step=frame.step, **arrays)  # type: ignore[arg-type]
    return write_atomically(path, buffer.getvalue())


def read_frames(folder: str | Path) -> list[Frame]:
    """The frames of a folder by their steps.

    Raises:
        ValueError: if a file is no frame.
    """
    frames = []
    for path in sorted(Path(folder).glob("*.npz")):
        try:
            with np.load(path) as file:
                frames.append(Frame(int(file["step"]), file["samples"], file["surface"].astype(np.float32)))
        except (KeyError, zipfile.BadZipFile, ValueError) as error:
            raise ValueError(f"{path} is no frame of a run: {error}") from error
    return sorted(frames, key=lambda frame: frame.step)


def points_plot(samples: Tensor | np.ndarray, centres: Tensor, std: float, title: str | None = None) -> Figure:
    """Samples over the density of a mixture of Gaussians, beside all modes laid over each other.

    Args:
        samples: (N, 2) points.
        centres: (K, 2) means of the Gaussians.
        std: their standard deviation.
        title: heading of the figure.

    Raises:
        ValueError: if points or centres are not in the plane.
    """
    from matplotlib.figure import Figure

    points, means = _plane("samples", samples), _plane("centres", centres)
    with style():
        figure = Figure(figsize=(6.9, 3.75))
        whole, mode = figure.subplots(1, 2)
        _density(whole, points, means)
        _one_mode(mode, points, means, std)
        _heading(figure, title)
    return figure


def frame_plot(frame: Frame, centres: Tensor, std: float) -> Figure:
    """A step in three panels: samples over the density, all modes laid over each other, the discriminator's surface."""
    from matplotlib.figure import Figure

    means = _plane("centres", centres)
    with style():
        figure = Figure(figsize=(10.6, 3.75))
        whole, mode, surface = figure.subplots(1, 3)
        _density(whole, frame.samples, means)
        _one_mode(mode, frame.samples, means, std)
        image = _surface(surface, frame, Frame.reach(centres))
        surface.set_title("Discriminator: probability of being real")
        _colour_bar(figure, image, surface)
        _heading(figure, f"step {frame.step:,}")
    return figure


def evolution_plot(frames: Sequence[Frame], centres: Tensor) -> Figure:
    """A game as a strip of panels: at each step the samples over the discriminator's surface.

    Of many frames eight are shown, at steps that grow by a constant factor as far as there are such frames.

    Raises:
        ValueError: if there is no frame.
    """
    from matplotlib.figure import Figure

    if not frames:
        raise ValueError("frames is empty; give at least one")
    shown = _spread(frames)
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    with style():
        figure = Figure(figsize=(2.45 * columns + 0.7, 2.6 * rows))
        axes = figure.subplots(rows, columns, squeeze=False).flatten()
        for axis, frame in zip(axes, shown, strict=False):
            image = _surface(axis, frame, Frame.reach(centres))
            axis.set_title(f"step {frame.step:,}")
        for axis in axes[len(shown) :]:
            axis.remove()
        _colour_bar(figure, image, axes[: len(shown)].tolist())
    return figure


def _spread(frames: Sequence[Frame]) -> list[Frame]:
    """Up to STRIP frames whose steps grow by about a constant factor, with the first and the last."""
    if len(frames) <= STRIP:
        return list(frames)
    steps = np.log([max(frame.step, 1) for frame in frames])
    chosen: list[int] = []
    for place, target in enumerate(np.linspace(steps[0], steps[-1], STRIP)):
        free = range(chosen[-1] + 1 if chosen else 0, len(frames) - (STRIP - 1 - place))
        chosen.append(min(free, key=lambda i: abs(steps[i] - target)))
    return [frames[i] for i in chosen]


def _plane(name: str, points: Tensor | np.ndarray) -> np.ndarray:
    values = points.detach().cpu().numpy() if isinstance(points, Tensor) else points
    if values.ndim != 2 or values.shape[1] != 2:
        raise ValueError(f"{name} must be points in the plane, (number, 2), got {values.shape}")
    return values


def _density(axis: Axes, samples: np.ndarray, centres: np.ndarray) -> None:
    """Contours of the density, equally far apart (its own values would be specks); samples on them."""
    reach = _MARGIN * np.abs(centres).max()
    places = np.linspace(-reach, reach, 301)
    x, y = np.meshgrid(places, places)
    distance = np.sqrt(((x - centres[:, 0, None, None]) ** 2 + (y - centres[:, 1, None, None]) ** 2).min(0))
    axis.contourf(x, y, distance, levels=np.linspace(0, distance.max(), 19), cmap=_shades())
    axis.scatter(samples[:, 0], samples[:, 1], s=5, color=VERMILION, alpha=0.5, lw=0)
    axis.set_title("Samples, over contours of the density")
    _square(axis, reach)


def _one_mode(axis: Axes, samples: np.ndarray, centres: np.ndarray, std: float) -> None:
    """Every sample relative to its nearest centre, in standard deviations, with circles at one, two and three."""
    from matplotlib.patches import Circle

    offsets = samples[:, None] - centres
    nearest = (offsets**2).sum(2).argmin(1)
    points = offsets[np.arange(len(samples)), nearest] / std
    good = (points**2).sum(1) < 9
    for radius in (1, 2, 3):
        axis.add_patch(Circle((0, 0), radius, fill=False, ls="-" if radius == 3 else ":", lw=1, color=MUTED))
    for chosen, colour in ((good, BLUE), (~good, VERMILION)):
        axis.scatter(points[chosen, 0], points[chosen, 1], s=6, color=colour, alpha=0.45, lw=0)
    axis.set_title(f"All modes in one: {100 * good.mean():.1f} % within 3 std")
    _square(axis, _ZOOM)


def _surface(axis: Axes, frame: Frame, reach: float) -> Any:
    """The discriminator's probabilities as filled contours, the samples on them."""
    places = np.linspace(-reach, reach, len(frame.surface))
    image = axis.contourf(places, places, frame.surface, levels=np.linspace(0, 1, 21), cmap=_colours())
    axis.scatter(frame.samples[:, 0], frame.samples[:, 1], s=3, color=INK, alpha=0.5, lw=0)
    _square(axis, reach)
    return image


def _colours() -> Colormap:
    """Fake is vermilion, real is blue, and undecided is light."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list(
        "players", ["#8F2D00", VERMILION, "#F6D5BF", "#F7F5F2", "#C3DDEE", BLUE, "#003A5C"]
    )


def _shades() -> Colormap:
    """From the centres outwards, dark to paper."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list(
        "density", [(0, "#0B3C5D"), (0.12, BLUE), (0.4, "#A9CCE3"), (1, "#F7FAFC")]
    )


def _colour_bar(figure: Figure, image: Any, axes: Any) -> None:
    bar = figure.colorbar(image, ax=axes, ticks=[0, 0.5, 1], fraction=0.046, pad=0.03)
    bar.ax.set_yticklabels(["fake", "½", "real"])
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)


def _square(axis: Axes, reach: float) -> None:
    axis.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    axis.grid(visible=False)
    axis.set_xticks([]), axis.set_yticks([])
    axis.spines[:].set_visible(False)


def _heading(figure: Figure, title: str | None) -> None:
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
