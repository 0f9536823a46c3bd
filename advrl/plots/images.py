"""Samples as pictures: grids upscaled without blur, and sheets of titled grids side by side.

Images come in data space, (N, C, H, W) in [-1, 1]; values outside, as a Gaussian policy draws them, are clipped.
With one channel, +1 is ink: it is drawn black on white paper unless ``ink=False`` asks for light on dark.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from advrl import checks
from advrl.files import write_atomically

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

GAP_COLOUR = (222, 222, 226)  # darker than paper, lighter than ink
_TARGET = 48  # pixels that the longer side of a sample fills by default
_MARGIN = 24  # pixels around and between the panels of a sheet


def image_grid(
    images: Tensor, columns: int | None = None, scale: int | None = None, gap: int = 2, *, ink: bool | None = None
) -> np.ndarray:
    """A grid of samples, row by row, each pixel a ``scale`` x ``scale`` square, with a light gap around every sample.

    Sample ``i`` covers the rows from ``gap + (i // columns) * (H * scale + gap)`` and the columns from
    ``gap + (i % columns) * (W * scale + gap)``. Places left over in the last row are filled with the gap's colour.

    Args:
        images: (N, C, H, W) in [-1, 1], C = 1 (grey) or 3 (red, green, blue), on any device.
        columns: samples per row; by default the grid is about square.
        scale: how many pixels wide a pixel is drawn; by default samples get about 48 pixels wide.
        gap: pixels between samples and around the grid.
        ink: draw +1 black and -1 white; by default so for one channel, not for three.

    Returns:
        (height, width, 3) array of uint8.

    Raises:
        ValueError: if the shape is not that of images, or a value is not finite.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape:
        raise ValueError(f"images must be (N, C, H, W) with C = 1 or 3 and none empty, got {tuple(images.shape)}")
    n, channels, height, width = images.shape
    columns = math.ceil(math.sqrt(n)) if columns is None else checks.integer("columns", columns)
    columns = min(columns, n)
    scale = max(1, round(_TARGET / max(height, width))) if scale is None else checks.integer("scale", scale)
    checks.integer("gap", gap, minimum=0)
    values = checks.finite("images", images.detach().cpu().float()).clamp(-1, 1).numpy()

    values = -values if ink or (ink is None and channels == 1) else values
    pixels = np.rint((values + 1) * 127.5).astype(np.uint8).transpose(0, 2, 3, 1)
    pixels = pixels.repeat(scale, axis=1).repeat(scale, axis=2)  # grey spreads over the three colours below

    rows = math.ceil(n / columns)
    cell_height, cell_width = height * scale + gap, width * scale + gap
    cells = np.empty((rows * columns, cell_height, cell_width, 3), np.uint8)
    cells[:] = GAP_COLOUR
    cells[:n, gap:, gap:] = pixels
    sheet = cells.reshape(rows, columns, cell_height, cell_width, 3).swapaxes(1, 2)

    grid = np.empty((rows * cell_height + gap, columns * cell_width + gap, 3), np.uint8)
    grid[:] = GAP_COLOUR
    grid[: rows * cell_height, : columns * cell_width] = sheet.reshape(rows * cell_height, columns * cell_width, 3)
    return grid


def sample_sheet(
    panels: Mapping[str, Tensor],
    title: str | None = None,
    *,
    columns: int | None = None,
    scale: int | None = None,
    gap: int = 2,
    ink: bool | None = None,
) -> np.ndarray:
    """Titled grids side by side on white paper, such as real images, samples and the policy's mean.

    Args:
        panels: title of each panel, left to right, and its images, (N, C, H, W) in [-1, 1].
        title: a line above all panels.
        columns, scale, gap, ink: as in :func:`image_grid`, for every panel.

    Returns:
        (height, width, 3) array of uint8.

    Raises:
        ValueError: if there is no panel, or images are not as :func:`image_grid` wants them.
    """
    from PIL import Image, ImageDraw

    if not panels:
        raise ValueError("panels is empty; give at least one title with its images")
    grids = [image_grid(images, columns, scale, gap, ink=ink) for images in panels.values()]
    head, label = _font(20, bold=True), _font(16)
    widths = [max(grid.shape[1], math.ceil(label.getlength(name))) for name, grid in zip(panels, grids, strict=True)]
    top = _MARGIN + (40 if title else 0)
    label_height = 28
    height = top + label_height + max(len(grid) for grid in grids) + _MARGIN
    width = sum(widths) + _MARGIN * (len(grids) + 1)
    if title:
        width = max(width, math.ceil(head.getlength(title)) + 2 * _MARGIN)

    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((_MARGIN, _MARGIN), title, fill="#222222", font=head, anchor="lt")
    left = _MARGIN
    for name, grid, panel_width in zip(panels, grids, widths, strict=True):
        draw.text((left, top + label_height - 9), name, fill="#444444", font=label, anchor="ls")
        sheet.paste(Image.fromarray(grid), (left, top + label_height))
        left += panel_width + _MARGIN
    return np.asarray(sheet)


def save_png(array: np.ndarray, path: str | Path) -> Path:
    """Write a (height, width, 3) array of uint8 to a PNG file, atomically.

    Raises:
        ValueError: if the array is no picture.
        OSError: if the file cannot be written; what was there before is then still there.
    """
    from PIL import Image

    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        raise ValueError(f"need a (height, width, 3) array of uint8, got {array.shape} of {array.dtype}")
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "png", optimize=True)
    return write_atomically(path, buffer.getvalue())


def _font(size: int, bold: bool = False) -> FreeTypeFont:
    """DejaVu Sans from matplotlib's own files: the one font that is there wherever advrl is installed."""
    import matplotlib
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)), size)
