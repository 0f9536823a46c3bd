"""Differentiable augmentation: the discriminator sees every image, real or generated, moved, cut and recoloured.

Zhao et al. (2020), "Differentiable augmentation for data-efficient GAN training", section 4, with their numbers: shift
by up to 1/8 of the side, filled with zeros; cutout of a square of half the side; brightness +-0.5, saturation 0 to 2,
contrast 0.5 to 1.5. Small affine maps are after Karras et al. (2020), "Training generative adversarial networks with
limited data", appendix B. The generator's gradient flows through, and since both players see the same transformations,
the generator does not learn to draw them. Images (B, C, H, W); every image has random numbers of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, pad

from advrl.agents.stabiliser import Stabiliser
from advrl.checks import choice
from advrl.nn import paired, unpaired

if TYPE_CHECKING:
    from advrl.agents.adversarial import AdversarialTrainer


def shift(x: Tensor, share: float = 0.125) -> Tensor:
    """Each image moved by whole pixels, up to ``share`` of a side both ways; what comes in is 0."""
    n, _, height, width = x.shape
    reach = int(height * share + 0.5), int(width * share + 0.5)
    down, right = (torch.randint(-r, r + 1, (n, 1), device=x.device) for r in reach)
    rows = (torch.arange(height, device=x.device) + down).clamp(-1, height) + 1
    columns = (torch.arange(width, device=x.device) + right).clamp(-1, width) + 1
    framed = pad(x, (1, 1, 1, 1)).permute(0, 2, 3, 1)  # a frame of zeros to fetch from
    each = torch.arange(n, device=x.device)[:, None, None]
    return framed[each, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)


def affine(x: Tensor, share: float = 0.125) -> Tensor:
    """Each image turned, stretched, sheared and moved, by up to ``share`` of half a side; its edge goes on outside.

    x'(p) = x(p + E p + t) with positions p in [-1, 1]^2, entries of E and t uniform in +-share; bilinear. Made of
    gathers, since torch's grid_sample has no second derivative, which penalties of slopes need.
    """
    n, channels, height, width = x.shape
    maps = torch.eye(2, 3, dtype=x.dtype, device=x.device) + (2 * torch.rand_like(x[:, 0, :2, :3]) - 1) * share
    grid = affine_grid(maps, [n, channels, height, width], align_corners=False)
    value, flat = torch.zeros((), dtype=x.dtype, device=x.device), x.flatten(2)
    places = [((grid[..., axis] + 1) * side - 1).div(2).clamp(0, side - 1) for axis, side in enumerate((width, height))]
    left, top = (place.detach().floor().long() for place in places)
    for row, across_rows in ((top, 1 - (places[1] - top)), ((top + 1).clamp(max=height - 1), places[1] - top)):
        for column, across in ((left, 1 - (places[0] - left)), ((left + 1).clamp(max=width - 1), places[0] - left)):
            index = (row * width + column).flatten(1).unsqueeze(1).expand(-1, channels, -1)
            value = value + flat.gather(2, index).unflatten(2, (height, width)) * (across_rows * across).unsqueeze(1)
    return value


def cutout(x: Tensor, share: float = 0.5) -> Tensor:
    """Each image with a square of ``share`` of the side set to 0, its centre anywhere in the image."""
    n, _, height, width = x.shape
    inside = []
    for side in (height, width):
        size = int(side * share + 0.5)
        first = torch.randint(0, side + 1 - size % 2, (n, 1), device=x.device) - size // 2
        places = torch.arange(side, device=x.device)
        inside.append((places >= first) & (places < first + size))
    hole = inside[0][:, :, None] & inside[1][:, None]
    return x * (~hole[:, None]).to(x.dtype)


def colour(x: Tensor) -> Tensor:
    """Brightness, saturation (of colour images) and contrast of each image changed."""

    def uniform() -> Tensor:
        return torch.rand(len(x), 1, 1, 1, dtype=x.dtype, device=x.device)

    x = x + uniform() - 0.5
    if x.shape[1] > 1:
        grey = x.mean(1, keepdim=True)
        x = grey + (x - grey) * (2 * uniform())
    centre = x.mean((1, 2, 3), keepdim=True)
    return centre + (x - centre) * (uniform() + 0.5)


AUGMENTATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "colour": colour,
    "shift": shift,
    "affine": affine,
    "cutout": cutout,
}
"""Names of the transformations, in the order in which they are done."""

PUBLISHED = ("colour", "shift", "cutout")  # by Zhao et al. together


class Augmentation(Stabiliser):
    """Shows the discriminator transformed images only. Costs the transformations, of each image that it sees.

    What stands beside an image (a policy with ``sides``, :class:`advrl.nn.ConditionalPolicy`) stays as it is.

    Args:
        kinds: of ``colour``, ``shift``, ``affine`` and ``cutout``.

    Raises:
        ValueError: for an unknown name or none, and, when attached, for samples that are no images.
    """

    name = "augmentation"

    def __init__(self, kinds: Sequence[str] = PUBLISHED) -> None:
        super().__init__()
        if not kinds:
            raise ValueError(f"name at least one augmentation (of: {', '.join(AUGMENTATIONS)})")
        for kind in kinds:
            choice("augmentation", kind, AUGMENTATIONS)
        self.kinds = [kind for kind in AUGMENTATIONS if kind in kinds]
        self.sides = 0

    def attach(self, trainer: AdversarialTrainer, sample: Tensor) -> None:
        """See that they are images."""
        if sample.dim() != 4:
            raise ValueError(
                f"augmentation needs images (channels, height, width), got samples {tuple(sample.shape[1:])}"
            )
        self.sides = int(getattr(trainer.generator, "sides", 0))

    def show(self, x: Tensor) -> Tensor:
        """(B, C, H, W), transformed; of pairs, the image."""
        images, side = unpaired(x, self.sides) if self.sides else (x, None)
        for kind in self.kinds:
            images = AUGMENTATIONS[kind](images)
        return images if side is None else paired(images, side)
