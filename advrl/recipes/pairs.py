"""What recipes on pairs of image and class share: what goes with them, and pictures with a row for each class."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from advrl.nn import ConditionalPolicy, unpaired
from advrl.plots import sample_sheet
from advrl.recipes.config import AdversarialConfig, flag
from advrl.recipes.images import ImageParts
from advrl.recipes.stabilising import STABILISERS

COLUMNS = 8  # samples of a class in a picture
ROWS = 20  # classes in it, of those that there are
ALLOWED = ("spectral_norm", "historical_averaging", "history_pool")  # stabilisers that leave pairs as they are


def check_pairs(config: AdversarialConfig, name: str, also: Collection[str] = ()) -> None:
    """Raise a ``ValueError`` for an option that would mix an image with its class, or cannot be here.

    Args:
        config: the options.
        name: what the message calls the recipe.
        also: options that this one can do besides :data:`ALLOWED`.
    """
    plain = type(config)()
    for field in (*STABILISERS, "instance_noise", "dynamics", "compile", "precision"):
        if field not in ALLOWED and field not in also and getattr(config, field) != getattr(plain, field):
            raise ValueError(f"{flag(field)} does not go with {name}, whose discriminator judges pairs")


@dataclass(frozen=True)
class PairParts(ImageParts):
    """The parts of a run on pairs, as ``real`` and ``shown`` are, (N, C + P, H, W).

    ``labels`` (N,) are their classes, ``unseen`` some held-out pairs, where either is known; the configuration says how
    they are drawn.
    """

    labels: Tensor | None
    unseen: Tensor | None
    config: Any

    pictured: ClassVar[str] = "a row for each class: real images, samples"

    def sheet(self, policy: Any, title: str) -> Any:
        """As the configuration draws it."""
        return self.config.sheet(policy, unpaired(self.shown, policy.sides)[0], self.labels, title)

    @property
    def halves(self) -> tuple[Tensor, Tensor] | None:
        """Pairs; none where no class is known."""
        return None if self.unseen is None else (self.shown, self.unseen)


def class_sheet(policy: ConditionalPolicy, real: Tensor, labels: Tensor, title: str, kind: str = "class") -> Any:
    """Real images and samples, a row for each class, up to 20, and the policy's mean with one z for each column."""
    classes = min(policy.classes, ROWS)
    turn = torch.arange(COLUMNS * classes, device=real.device) % classes
    z = policy.noise(len(turn))
    z = z[:COLUMNS].repeat_interleave(classes, 0)  # of a column all have one z
    z = policy.ask(turn, z)
    panels = {
        "real": real_rows(real, labels, classes),
        f"samples, a row for each {kind}": policy.sample(len(z), z),
        "the policy's mean: a z for each column": policy.mean(z),
    }
    panels = {name: rows_by_class(images.clamp(-1, 1), turn, classes)[0] for name, images in panels.items()}
    return sample_sheet(panels, title=title, columns=COLUMNS)


def rows_by_class(images: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, int]:
    """Images (n, C, H, W) with a row for each class, filled up with paper, and how many are in a row."""
    rows = [images[labels == label] for label in range(classes)]
    columns = max(map(len, rows))
    paper = images.new_full((columns, *images.shape[1:]), -1.0)
    return torch.cat([torch.cat([row, paper[len(row) :]]) for row in rows]), columns


def real_rows(real: Tensor, labels: Tensor, classes: int) -> Tensor:
    """``COLUMNS`` random real images of each class, classes in turn; of a class that has none, paper."""
    chosen = []
    for label in range(classes):
        rows = (labels == label).nonzero().flatten()
        if len(rows) == 0:
            chosen.append(real.new_full((COLUMNS, *real.shape[1:]), -1.0))
        else:
            chosen.append(real[rows[torch.randint(len(rows), (COLUMNS,), device=rows.device)]])
    return torch.stack(chosen, 1).flatten(0, 1)
