"""A folder of pictures: which there are, which class each is of, and how any of them becomes numbers.

Pictures lie in the folder itself, or in one sub-folder for each class; hidden files and other kinds are passed over.
Shapes: N pictures of C channels, S x S pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from advrl.data.sizes import check_size, fitting_size

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
GREY = ("1", "L", "LA", "I;16", "I;16B", "I;16L")


class PictureError(ValueError):
    """A file that is no picture, or a damaged one; names it."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """What is known of a folder's pictures before they are decoded. It can be sent to other processes.

    Args:
        folder: where they lie.
        paths: N files, in the order of their names.
        labels: (N,) int64 classes from 0, in the order of the sub-folders' names, or None.
        channels: 1 if all are grey, else 3.
        size: S, to which each is cropped and resized.
    """

    folder: Path
    paths: tuple[str, ...]
    labels: Tensor | None
    channels: int
    size: int

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, indices: Sequence[int]) -> Tensor:
        """The pictures at ``indices``, (len(indices), C, S, S) uint8.

        Raises:
            PictureError: for a file that cannot be decoded.
        """
        images = np.stack([_decode(self.folder / self.paths[i], self.channels, self.size) for i in indices])
        return torch.from_numpy(images)


def find_pictures(folder: Path, size: int | None = None) -> Pictures:
    """Look through a folder: every picture's header is read, none is decoded.

    Args:
        folder: with pictures, or with sub-folders of pictures, one for each class.
        size: the side to bring them to. By default their own, if they have one in common.

    Raises:
        PictureError: for a file whose header cannot be read.
        ValueError: if there are no pictures, some in sub-folders and some not, or pictures of several sizes although
            ``size`` is not given.
    """
    here = _pictures_in(folder)
    classes = {sub.name: _pictures_in(sub) for sub in sorted(folder.iterdir()) if sub.is_dir() and _shown(sub)}
    classes = {name: found for name, found in classes.items() if found}
    if not here and not classes:
        raise ValueError(f"{folder} holds no pictures, nor do its sub-folders ({', '.join(SUFFIXES)} are looked for)")
    if here and classes:
        raise ValueError(
            f"{folder} holds pictures both in itself ({here[0].name}) and in sub-folders ({next(iter(classes))}); "
            "put each into the sub-folder of its class, or all into one folder"
        )
    paths = here or [path for found in classes.values() for path in found]
    labels = None
    if len(classes) > 1:  # one class tells nothing apart
        lonely = [name for name, found in classes.items() if len(found) < 2]
        if lonely:
            raise ValueError(f"{folder / lonely[0]} holds a single picture; every class needs one for each half")
        labels = torch.cat([torch.full((len(f),), i, device="cpu") for i, f in enumerate(classes.values())])
    modes, sides = zip(*map(_header, paths), strict=True)
    if size is None:
        other = next((i for i, side in enumerate(sides) if side != sides[0]), None)
        if other is not None:
            (w, h), (v, g) = sides[0], sides[other]
            raise ValueError(
                f"pictures must have one size, but {paths[0]} is {w} x {h} and {paths[other]} is {v} x {g}; "
                f"give --size, as --size {fitting_size(h, w)}, and all are cropped and resized to it"
            )
        size = fitting_size(*sides[0])
    channels = 1 if all(mode in GREY for mode in modes) else 3
    names = tuple(str(path.relative_to(folder)) for path in paths)
    return Pictures(folder, names, labels, channels, check_size(size))


def _shown(path: Path) -> bool:
    return not path.name.startswith(".")


def _pictures_in(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and _shown(p) and p.is_file())


def _header(path: Path) -> tuple[str, tuple[int, int]]:
    """A picture's mode and (width, height)."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return picture.mode, picture.size
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise PictureError(f"{path} cannot be read as a picture: {_reason(error)}") from error


def _decode(path: Path, channels: int, size: int) -> np.ndarray:
    """(C, S, S) bytes: the middle square, resized; what is transparent lies on white."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file)
            if picture.mode.startswith("I;16"):
                picture = Image.fromarray((np.asarray(picture).astype(np.uint16) >> 8).astype(np.uint8))
            elif picture.mode in ("I", "F"):
                raise ValueError(f"its pixels (mode {picture.mode}) have no known range; save it with 8 or 16 bits")
            if picture.has_transparency_data:
                picture = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
            picture = picture.convert("L" if channels == 1 else "RGB")
            if picture.size != (size, size):
                picture = ImageOps.fit(picture, (size, size), Image.Resampling.BILINEAR)
            pixels = np.asarray(picture)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise PictureError(f"{path} cannot be read as a picture: {_reason(error)}") from error
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _reason(error: BaseException) -> str:
    """What Pillow says, without the path that it repeats."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return "it is no picture that Pillow knows" if "cannot identify" in text else text
