"""Real images in two halves: one to train on, one that nothing but the final evaluation ever sees.

Shapes: N training and M held-out images of C channels, H rows and W columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from advrl import checks


@dataclass(frozen=True, eq=False)
class ImageData:
    """A set of images, already divided.

    Args:
        name: what to call the data in tables and file names.
        train: (N, C, H, W) floats in [0, 1].
        held_out: (M, C, H, W) floats in [0, 1], never trained on.
        train_labels: (N,) int64 classes counted from 0, or None.
        held_out_labels: (M,) int64, or None; both halves have labels or neither.

    Raises:
        ValueError: if a half has another shape, an entry outside [0, 1], or labels of another length.
    """

    name: str
    train: Tensor
    held_out: Tensor
    train_labels: Tensor | None = None
    held_out_labels: Tensor | None = None

    def __post_init__(self) -> None:
        for half, images in (("train", self.train), ("held_out", self.held_out)):
            if images.ndim != 4 or 0 in images.shape or not images.is_floating_point():
                raise ValueError(
                    f"{half} must be floats of shape (number, channels, height, width), "
                    f"got {images.dtype} of shape {tuple(images.shape)}"
                )
            low, high = checks.finite(half, images).aminmax()
            if low < 0 or high > 1:
                raise ValueError(f"{half} must be in [0, 1], got values from {low:g} to {high:g}")
        if self.train.shape[1:] != self.held_out.shape[1:]:
            raise ValueError(
                f"the halves must hold images of one shape, got {self.shape} and {self.held_out.shape[1:]}"
            )
        if (self.train_labels is None) != (self.held_out_labels is None):
            raise ValueError("labels are needed for both halves or for neither")
        for half, images, labels in (
            ("train", self.train, self.train_labels),
            ("held_out", self.held_out, self.held_out_labels),
        ):
            if labels is None:
                continue
            if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
                raise ValueError(
                    f"{half}_labels must be int64 of shape ({len(images)},), one per image, "
                    f"got {labels.dtype} of shape {tuple(labels.shape)}"
                )
            if labels.min() < 0:
                raise ValueError(f"{half}_labels must count from 0, got {labels.min()}")

    @classmethod
    def split(cls, images: Tensor, labels: Tensor | None = None, seed: int = 0, name: str = "images") -> ImageData:
        """Divide images into shuffled halves, each class too where there are labels; an odd one out is trained on.

        The division depends on ``seed`` alone, never on a global generator, so that two runs with different seeds of
        their own still hold out the same images.

        Args:
            images: (N, C, H, W) in [0, 1].
            labels: (N,) int64 classes from 0, or None.
            seed: of the division.
            name: of the result.

        Raises:
            ValueError: if a class has a single image, which cannot be in both halves, or labels have another length.
        """
        train, held_out = halves(len(images), labels, seed, images.device)
        if labels is None:
            return cls(name, images[train], images[held_out])
        return cls(name, images[train], images[held_out], labels[train], labels[held_out])

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        channels, height, width = self.train.shape[1:]
        return channels, height, width

    @property
    def classes(self) -> int | None:
        """The number of classes, or None without labels."""
        if self.train_labels is None or self.held_out_labels is None:
            return None
        return 1 + max(int(self.train_labels.max()), int(self.held_out_labels.max()))


def halves(
    number: int, labels: Tensor | None = None, seed: int = 0, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Indices of a training and a held-out half, as :meth:`ImageData.split` takes them.

    Args:
        number: of images.
        labels: (number,) int64 classes, or None.
        seed: of the division.
        device: of the indices.

    Raises:
        ValueError: if a class has a single image, which cannot be in both halves, or labels have another length.
    """
    if number < 2:
        raise ValueError(f"two halves need at least two images, got {number}")
    # RandomState: the one generator whose stream NumPy promises never to change.
    generator = np.random.RandomState(seed)

    def shuffled(index: Tensor) -> Tensor:
        return index[torch.from_numpy(generator.permutation(len(index))).to(index.device)]

    order = shuffled(torch.arange(number, device=device))
    if labels is not None:
        if labels.shape != (number,):
            raise ValueError(f"labels must have shape ({number},), one per image, got {tuple(labels.shape)}")
        values, counts = labels.unique(return_counts=True)
        if counts.min() < 2:
            lonely = values[counts.argmin()]
            raise ValueError(f"class {lonely} has a single image; every class needs one for each half")
        order = order[labels[order].argsort(stable=True)]  # grouped by class, random within
    # Every other image: of each class, and of the whole, the halves' counts differ by at most one.
    return shuffled(order[::2]), shuffled(order[1::2])


def digits() -> ImageData:
    """The 1,797 handwritten digits of 8x8 pixels that scikit-learn ships, 899 to train on and 898 held out.

    A pixel counts the ink in a block of 4x4, from 0 to 16, here divided by 16. Alpaydin and Kaynak (1998), Optical
    Recognition of Handwritten Digits, UCI Machine Learning Repository: its test set.
    """
    from sklearn.datasets import load_digits  # here, so that `import advrl` stays light

    raw = load_digits()
    images = torch.from_numpy(raw.images).to(torch.float32).div(16).unsqueeze(1)
    return ImageData.split(images, torch.from_numpy(raw.target).to(torch.int64), name="digits")
