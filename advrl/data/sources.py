"""A user's images, whatever they come as: an array, an IDX file or a folder of pictures, in halves and of one size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from advrl.data.files import MINIMUM, from_arrays, load_images
from advrl.data.idx import is_idx, labels_beside, read_idx
from advrl.data.images import ImageData, halves
from advrl.data.pictures import Pictures, find_pictures
from advrl.data.sizes import resized

IN_MEMORY = 2**30  # bytes of a folder's images as floats; a constant, so that a run is resumed as it was begun
JUDGED = 10_000  # images of each half that a streamed folder is judged by
JUDGED_BYTES = 2**28  # of each half: fewer, if they are large


@dataclass(frozen=True, eq=False)
class Streamed:
    """A folder that stays on the disk.

    Args:
        pictures: all of it.
        train: (N,) indices of the training half.
        held_out: (M,) indices of the held-out half.
        sample: images of both halves, as many as fit memory, to judge samples by.
    """

    pictures: Pictures
    train: Tensor
    held_out: Tensor
    sample: ImageData


def open_images(path: str | Path, size: int | None = None, stream: bool = False) -> ImageData | Streamed:
    """Images to train on, divided into halves, as :func:`advrl.data.load_images` divides those of a file.

    Args:
        path: a ``.npz`` or ``.npy`` file (:mod:`advrl.data.files`), an IDX file (:mod:`advrl.data.idx`), or a folder
            of pictures (:mod:`advrl.data.pictures`).
        size: side of the images, from 8: the middle square is resized to it. By default the shorter side, or the
            nearest from 8 to 64.
        stream: leave a folder's images on the disk even if memory holds them.

    Returns:
        The images, or a :class:`Streamed` folder if they take more than a GiB, or if ``stream`` says so.

    Raises:
        FileNotFoundError: if there is nothing at ``path``.
        ValueError: if it cannot be read or holds something else; names the file and the fault.
    """
    path = Path(path)
    if path.is_dir():
        return _folder(path, size, stream)
    if stream:
        raise ValueError(f"--workers is for a folder of pictures, and {path} is not a folder")
    if not (path.is_file() and is_idx(path)):
        return resized(load_images(path), size)
    labels = labels_beside(path)
    named = None if labels is None else (labels, read_idx(labels))
    return resized(from_arrays(path, read_idx(path), named), size)


def _folder(folder: Path, size: int | None, stream: bool) -> ImageData | Streamed:
    pictures = find_pictures(folder, size)
    if len(pictures) < MINIMUM:
        raise ValueError(f"{folder} holds {len(pictures)} pictures; at least {MINIMUM} are needed")
    each = 4 * pictures.channels * pictures.size**2
    train, held_out = halves(len(pictures), pictures.labels)
    if not stream and each * len(pictures) <= IN_MEMORY:
        return _decoded(pictures, train, held_out)
    most = max(MINIMUM, min(JUDGED, JUDGED_BYTES // each))  # the halves are shuffled: their beginnings are fair
    return Streamed(pictures, train, held_out, _decoded(pictures, train[:most], held_out[:most]))


def _decoded(pictures: Pictures, train: Tensor, held_out: Tensor) -> ImageData:
    images = [
        torch.cat([pictures.read(part.tolist()).to(torch.float32).div_(255) for part in half.split(500)])
        for half in (train, held_out)
    ]
    labels = [None, None] if pictures.labels is None else [pictures.labels[half] for half in (train, held_out)]
    return ImageData(pictures.folder.resolve().name, *images, *labels)
