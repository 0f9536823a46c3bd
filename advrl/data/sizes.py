"""Square images of a side that the convolutional networks take.

Shapes: N images of C channels, H rows and W columns; S the side of a square one.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from advrl.checks import integer
from advrl.data.images import ImageData

LEAST, MOST = 8, 64  # sides that are kept by default; a larger one is asked for by name


def check_size(size: int) -> int:
    """``size`` if a network can have it, else an error that says what can.

    Raises:
        ValueError, TypeError: if it is below 8.
    """
    return integer("--size", size, minimum=LEAST)


def fitting_size(height: int, width: int) -> int:
    """The default side for images of H x W: the shorter one, or the nearest from 8 to 64."""
    return min(MOST, max(LEAST, min(height, width)))


def square(images: Tensor, size: int) -> Tensor:
    """The middle square of (N, C, H, W) images in [0, 1], brought to (N, C, S, S); what has that shape is untouched."""
    height, width = images.shape[2:]
    if height == width == size:
        return images
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    middle = images[:, :, top : top + side, left : left + side]
    parts = [F.interpolate(part, (size, size), mode="bilinear", antialias=True) for part in middle.split(1_000)]
    return torch.cat(parts).clamp(0, 1)


def resized(data: ImageData, size: int | None) -> ImageData:
    """The data with images of ``size``, or of the default side for what they are."""
    size = fitting_size(*data.shape[1:]) if size is None else check_size(size)
    return replace(data, train=square(data.train, size), held_out=square(data.held_out, size))
