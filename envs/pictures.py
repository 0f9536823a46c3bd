"""Samples as small pictures (H, W, 3) uint8, for ``render_mode="rgb_array"``; without matplotlib."""

from __future__ import annotations

import colorsys

import numpy as np

SIDE = 192  # pixels of the longer side, about


def enlarge(picture: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 repeated to about SIDE pixels."""
    factor = max(1, SIDE // max(picture.shape[:2]))
    return picture.repeat(factor, 0).repeat(factor, 1)


def grey(values: np.ndarray) -> np.ndarray:
    """(H, W) in [-1, 1]: +1 is ink, black on white."""
    levels = ((1 - values.clip(-1, 1)) * 127.5).round().astype(np.uint8)
    return enlarge(np.repeat(levels[:, :, None], 3, 2))


def point(place: np.ndarray) -> np.ndarray:
    """One or two coordinates in [-1, 1] as a dot on axes, the second upwards."""
    x, y = (float(place[0]), float(place[1]) if len(place) > 1 else 0.0)
    picture = np.full((SIDE, SIDE, 3), 255, dtype=np.uint8)
    picture[SIDE // 2], picture[:, SIDE // 2] = 200, 200
    rows, columns = np.mgrid[:SIDE, :SIDE]
    margin = (SIDE - 1) / 2
    disc = np.hypot(columns - margin * (1 + 0.95 * x), rows - margin * (1 - 0.95 * y)) < 5
    picture[disc] = (0, 114, 178)
    return picture


def cells(tokens: np.ndarray, vocab: int) -> np.ndarray:
    """(L,) tokens as a row of squares: a hue for each token, black for the end, white for what is not written."""
    colours = [tuple(int(255 * v) for v in colorsys.hsv_to_rgb(k / vocab, 0.65, 0.9)) for k in range(vocab)]
    palette = np.array([*colours, (0, 0, 0), (255, 255, 255)], dtype=np.uint8)
    cell = max(4, 2 * SIDE // len(tokens))
    strip = palette[tokens].repeat(cell, 0)[None].repeat(cell, 0)
    strip[:, ::cell], strip[[0, -1]], strip[:, -1] = 160, 160, 160
    return strip
