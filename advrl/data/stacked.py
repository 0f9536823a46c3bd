"""Stacked digits: three handwritten digits in the colour channels of one image, a thousand modes that can be counted.

Stacked MNIST (Metz et al., 2017, section 3.3.1; Srivastava et al., 2017) puts three random digits into one image; which
three is the mode, 100 a + 10 b + c. The twin made of scikit-learn's digits of 8 x 8 needs no download, and its numbers
are another benchmark's than those of MNIST. Shapes: N images of H rows and W columns, of one channel before stacking.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from advrl import checks
from advrl.data.images import ImageData

CHANNELS = 3


@dataclass(frozen=True, eq=False)
class Stacked:
    """Endless images of three independent ones, side by side in the channels.

    Args:
        name: what to call it in tables and file names.
        images: (N, 1, H, W) that a channel is drawn from.
        labels: (N,) int64 classes from 0.
        classes: how many there are.

    Raises:
        ValueError: if images have not one channel, or labels are of another number.
    """

    name: str
    images: Tensor
    labels: Tensor
    classes: int = 10

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.shape[1] != 1:
            raise ValueError(
                f"images must have shape (number, 1, height, width), one channel each, got {tuple(self.images.shape)}"
            )
        if self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                f"labels must have shape ({len(self.images)},), one per image, got {tuple(self.labels.shape)}"
            )
        checks.integer("classes", self.classes, 2)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(3, H, W) of one image."""
        height, width = self.images.shape[2:]
        return CHANNELS, height, width

    @property
    def modes(self) -> int:
        """How many triples of classes there are: 1,000 of ten."""
        return self.classes**CHANNELS

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """(n, 3, H, W) fresh images, from a generator of its own if one is given."""
        index = torch.randint(len(self.images), (n, CHANNELS), generator=generator, device=self.images.device)
        return self.images[index].squeeze(2)

    def mode(self, labels: Tensor) -> Tensor:
        """Which mode, (n,), three channels' classes (n, 3) are."""
        first, second, third = labels.unbind(1)
        return (first * self.classes + second) * self.classes + third


def stacked(data: ImageData) -> Stacked:
    """The training half of labelled images of one channel, stacked by three.

    Raises:
        ValueError: without labels, or with several channels.
    """
    if data.train_labels is None or data.classes is None:
        raise ValueError(f"stacked images need labels to count modes by, and the data set {data.name!r} has none")
    return Stacked(f"stacked {data.name}", data.train, data.train_labels, data.classes)
