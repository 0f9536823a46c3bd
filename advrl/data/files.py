"""A user's own images, from a NumPy file; whatever is wrong with it is said before any work is done.

What is accepted: ``.npz`` with an array ``images`` (or a single array), optionally ``labels`` or ``y``; or ``.npy``.
Of shape (N, H, W), (N, C, H, W) or (N, H, W, C) with 1 or 3 channels; where both readings fit, channels come first.
Floats in [0, 1], or integers from 0 whose largest value says the scale: up to 1 as they are, up to 16 as sixteenths,
up to 255 as bytes.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from advrl.data.images import ImageData

Array = NDArray[Any]
MINIMUM = 20  # images; ten to a half are too few for anything but finding out that a file is the wrong one
CHANNELS = (1, 3)
SHAPES = "(N, H, W), (N, C, H, W) or (N, H, W, C) with 1 or 3 channels"
LABELS = ("labels", "y")


def load_images(path: str | Path) -> ImageData:
    """Read a ``.npz`` or ``.npy`` file of images and divide it into halves, by class where there are labels.

    Args:
        path: the file; its module's docstring says what it may hold. Labels are integers, one per image, and are
            renumbered from 0 in ascending order. Nothing is unpickled.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read or holds something else; names the file, the fault and what is accepted.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no data file {path}")
    if not path.is_file():
        raise ValueError(f"{path} is not a file; give a .npz or .npy file of images")
    raw, raw_labels = _read(path)
    return from_arrays(path, raw, None if raw_labels is None else (path, raw_labels))


def from_arrays(path: Path, raw: Array, labels: tuple[Path, Array] | None = None) -> ImageData:
    """Halves of the images in an array that came from ``path``, with labels and the file that they came from.

    Raises:
        ValueError: if the arrays are not what the module's docstring says; names the file and the fault.
    """
    images = _pixels(path, _channels_first(path, raw))
    return ImageData.split(images, None if labels is None else _labels(*labels, len(images)), name=path.stem)


def _read(path: Path) -> tuple[Array, Array | None]:
    """The array of images and that of labels, if any, as they are in the file."""
    try:
        with open(path, "rb") as file:
            content = np.load(file, allow_pickle=False)
            arrays = {"images": content} if isinstance(content, np.ndarray) else dict(content)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise ValueError(
            f"cannot read {path} as a .npz or .npy file of numbers ({error or type(error).__name__}); "
            "it may be truncated, pickled or of another kind"
        ) from error
    named = next((name for name in LABELS if name in arrays), None)
    labels = arrays.pop(named) if named else None
    if "images" not in arrays and len(arrays) != 1:
        held = ", ".join(map(repr, arrays)) or "none"
        raise ValueError(f"{path} must hold an array 'images' or a single array, got {held}")
    images = arrays["images"] if "images" in arrays else next(iter(arrays.values()))
    for what, array in (("images", images), ("labels", labels)):
        if array is not None and not isinstance(array, np.ndarray):  # a zip member that is no array comes as bytes
            raise ValueError(f"{path}: {what} are not an array")
    return images, labels


def _channels_first(path: Path, raw: Array) -> Array:
    """(N, C, H, W) from any accepted shape."""
    if raw.size == 0:
        raise ValueError(f"{path} is empty: its array has shape {raw.shape}")
    if raw.ndim == 3:
        images = raw[:, None]
    elif raw.ndim == 4 and raw.shape[1] in CHANNELS:
        images = raw
    elif raw.ndim == 4 and raw.shape[3] in CHANNELS:
        images = raw.transpose(0, 3, 1, 2)
    else:
        raise ValueError(f"{path}: images must have shape {SHAPES}, got {raw.shape} of {raw.dtype}")
    if len(images) < MINIMUM:
        raise ValueError(f"{path} holds {len(images)} images (shape {raw.shape}); at least {MINIMUM} are needed")
    return images


def _pixels(path: Path, images: Array) -> Tensor:
    """Float32 in [0, 1] from floats, integers or booleans; (N, C, H, W) in and out."""
    what = f"{path}: images of {images.dtype}, shape {images.shape},"
    if images.dtype.kind not in "fiub":
        raise ValueError(f"{what} are not numbers; floats in [0, 1] or integers from 0 to 255 are accepted")
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        bad = ~np.isfinite(images)
        where = tuple(np.argwhere(bad)[0].tolist())
        raise ValueError(
            f"{what} must be finite, but entry {where} (image, channel, row, column) is {images[where]} "
            f"({bad.sum()} entries are not finite)"
        )
    low, high = images.min().item(), images.max().item()
    if images.dtype.kind == "f":
        scale = 1
        if low < 0 or high > 1:
            hint = "map them by (x + 1) / 2" if low >= -1 and high <= 1 else "scale them"
            raise ValueError(f"{what} must be in [0, 1], got values from {low:g} to {high:g}; {hint} before saving")
    else:
        if low < 0 or high > 255:
            raise ValueError(
                f"{what} must be in 0..255, got values from {low} to {high}; save floats in [0, 1] instead"
            )
        scale = 1 if high <= 1 else 16 if high <= 16 else 255
    if (images == images[:1]).all():
        raise ValueError(f"{what} are all the same image; there is nothing to learn")
    return torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32)).div(scale)


def _labels(path: Path, labels: Array, number: int) -> Tensor:
    """(N,) int64 classes from 0."""
    if labels.shape != (number,) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{path}: labels must be {number} integers, one per image, got {labels.dtype} of shape {labels.shape}"
        )
    values, classes = np.unique(labels, return_inverse=True)
    counts = np.bincount(classes)
    if counts.min() < 2:
        raise ValueError(f"{path}: label {values[counts.argmin()]} has a single image; every class needs one per half")
    return torch.from_numpy(classes.astype(np.int64))
