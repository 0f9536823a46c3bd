"""What recipes on pairs of image and class share: what goes with them, and pictures with a row for each class."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from advrl.agents.evaluation_conditional import ConditionalEvaluator
from advrl.agents.switched import evaluating
from advrl.nn import ConditionalPolicy, class_rows, paired, unpaired
from advrl.plots import sample_sheet
from advrl.recipes.config import AdversarialConfig, flag
from advrl.recipes.images import JUDGED, PICTURE_SEED, ImageParts
from advrl.recipes.stabilising import STABILISERS
from advrl.seeding import isolated

COLUMNS = 8  # samples of a class in a picture
ALLOWED = ("spectral_norm", "historical_averaging", "history_pool")  # stabilisers that leave pairs as they are


def check_pairs(config: AdversarialConfig, name: str, also: Collection[str] = ()) -> None:
    """Raise a ``ValueError`` for an option that would mix an image with its class.

    Args:
        config: the options.
        name: what the message calls the recipe.
        also: options that this one can do besides :data:`ALLOWED`.
    """
    plain = type(config)()
    for field in (*STABILISERS, "instance_noise", "dynamics", "compile", "precision"):
        if field not in ALLOWED and field not in also and getattr(config, field) != getattr(plain, field):
            raise ValueError(f"{flag(field)} does not go with {name}, whose discriminator judges pairs")
    if config.objective in ("ebgan", "began", "relativistic-average"):
        raise ValueError(f"--objective {config.objective} does not go with {name}: its discriminator has logits")


@dataclass(frozen=True)
class PairParts(ImageParts):
    """The parts of a run on pairs, which ``real`` and ``shown`` are (N, C + K, H, W).

    ``labels`` (N,) are those of the pairs, if there are any; the configuration says how they are drawn.
    """

    labels: Tensor | None
    config: Any

    pictured: ClassVar[str] = "a row for each class: real images, samples"

    def sheet(self, policy: Any, title: str) -> Any:
        """As the configuration draws it."""
        return self.config.sheet(policy, unpaired(self.shown, policy.sides)[0], self.labels, title)

    @torch.no_grad()
    def remembered(self, step: int) -> Mapping[str, float]:
        """As of single images, each with its class; nothing where nobody told the discriminator the classes."""
        judge = self.evaluator
        if not isinstance(judge, ConditionalEvaluator) or judge.matched:
            return {}
        assert self.data.train_labels is not None and self.data.held_out_labels is not None
        told = {}
        with isolated(PICTURE_SEED), evaluating(self.trainer.discriminator):
            labels = self.data.train_labels, self.data.held_out_labels
            for name, images, known in zip(("seen", "held_out"), judge.halves, labels, strict=True):
                side = class_rows(known[:JUDGED], judge.classes).to(images.device)
                told[f"logit_{name}"] = float(self.trainer.judge(paired(images[:JUDGED], side)).mean())
        return told


def class_sheet(policy: ConditionalPolicy, real: Tensor, labels: Tensor, title: str) -> Any:
    """Real images and samples, a row for each class, and the policy's mean with one z for each column."""
    classes = policy.classes
    z = policy.in_turn(COLUMNS * classes)
    z = z[:COLUMNS].repeat_interleave(classes, 0)  # of a column all have one z
    z = policy.ask(torch.arange(len(z), device=z.device) % classes, z)
    panels = {
        "real": real_rows(real, labels, classes),
        "samples, a row for each class": policy.sample(len(z), z),
        "the policy's mean: a z for each column": policy.mean(z),
    }
    panels = {name: rows_by_class(images.clamp(-1, 1), classes)[0] for name, images in panels.items()}
    return sample_sheet(panels, title=title, columns=COLUMNS)


def rows_by_class(images: Tensor, classes: int) -> tuple[Tensor, int]:
    """Images (n, C, H, W) of classes in turn as rows of one class each, filled up with paper, and the row's length."""
    columns = -(-len(images) // classes)
    paper = images.new_full((columns * classes - len(images), *images.shape[1:]), -1.0)
    grid = torch.cat([images, paper]).unflatten(0, (columns, classes)).transpose(0, 1)
    return grid.flatten(0, 1), columns


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
