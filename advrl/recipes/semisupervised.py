"""Digits from a few labels: a discriminator of K classes learns from all images, and is taught by some."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from advrl.agents import AdversarialTrainer, Labelled
from advrl.agents.checkpoint import load_checkpoint
from advrl.agents.evaluation_conditional import SemiSupervisedEvaluator
from advrl.checks import integer, number
from advrl.data import ImageData
from advrl.nn import FAMILIES, ClassDiscriminator, noisy_mlp, standardise
from advrl.recipes.config import flag
from advrl.recipes.digits import Digits
from advrl.recipes.images import ImageParts
from advrl.recipes.parts import make_policy, make_trainer

INITIAL = 500  # training images, without their labels, behind the discriminator's first weights


@dataclass(frozen=True)
class DigitsSemiSupervised(Digits):
    """Train a classifier of digits from a few labels, with a generator for help (semi-supervised).

    The discriminator has ten classes, and "none of them" for fakes; it learns classes from the labelled images and what
    a digit is from all. The generator matches its mean features. Salimans et al. (2016); their networks, narrower.
    """

    labels: int = 50
    """Labelled images, as many of each class as of the others, out of the training half; chosen by --seed."""
    label_weight: float = 1.0
    """Weight of the class loss beside the game's."""
    policy: str = "implicit"
    """What the generator's numbers mean: implicit (the deterministic G(z)) or gaussian (given z)."""
    feature_matching: bool = True
    """The generator matches the mean of what goes into the discriminator's last layer instead of its objective."""
    width: int = 500
    """Units of the hidden layers; the discriminator's second and third have half as many."""
    norm: str = "batch"
    """Normalisation in the generator: layer, batch (couples the samples of a batch), or by a reference batch:
    reference, virtual (Salimans et al., 2016)."""
    batch_size: int = 100
    """Noise vectors, and real samples, per update; and labelled ones."""
    lr_generator: float = 3e-3
    """Adam's learning rate for the generator; falls linearly over the second half of the run."""
    lr_discriminator: float = 1e-3
    """The same for the discriminator."""
    r1: float = 0.0
    """Weight of the R1 penalty (gamma); 0 turns it off."""
    steps: int = 2000
    """Steps to train for."""

    name: ClassVar[str] = "digits-semisupervised"

    def validate(self) -> None:
        """Raise a ``ValueError`` or ``TypeError`` for the first option that cannot be."""
        super().validate()
        integer("--labels", self.labels)
        number("--label-weight", self.label_weight, 0.0)
        for field, usual in (("packing", 1), ("minibatch_features", 0), ("minibatch_stddev", False),
                             ("spectral_norm", False), ("dynamics", "alternating"), ("compile", False),
                             ("precision", "fp32")):  # fmt: skip
            if getattr(self, field) != usual:
                raise ValueError(f"{flag(field)} does not go with {self.name}, whose discriminator has classes")
        if self.objective in ("ebgan", "began", "relativistic-average"):
            raise ValueError(f"--objective {self.objective} does not go with {self.name}: its discriminator has logits")

    def classifier(self, data: ImageData) -> ClassDiscriminator:
        """The untrained discriminator, with the data's classes; its units are standardised on training images.

        Raises:
            ValueError: if the data have no labels.
        """
        if data.classes is None:
            raise ValueError(f"--data {self.data} has no labels, and {self.name} needs some")
        channels, height, width = data.shape
        half = max(1, self.width // 2)
        net = noisy_mlp(channels * height * width, data.classes, (self.width, half, half))
        standardise(net, FAMILIES[self.policy].prepare(data.train[:INITIAL]))  # the rows are shuffled
        return ClassDiscriminator(net)

    def game(self, device: torch.device) -> tuple[ImageData, Tensor, AdversarialTrainer]:
        """The data, its training half as the discriminator sees it, and the trainer.

        Raises:
            ValueError: if the data have no labels, or too few of a class.
        """
        data = self.load_data()
        discriminator = self.classifier(data).to(device)
        policy = make_policy(self, lambda numbers: self.generator(data.shape, numbers)).to(device)
        prepare = policy.family.prepare
        real = prepare(data.train).to(device)
        rows = labelled_rows(data, self.labels, self.seed).to(device)
        assert data.train_labels is not None
        taught = Labelled(real[rows], data.train_labels.to(device)[rows], self.label_weight, self.batch_size)
        trainer = make_trainer(self, policy, discriminator, hooks=[taught])
        return data, real, trainer

    def build(self, device: torch.device) -> SemiSupervisedParts:
        """All parts of the run."""
        data, real, trainer = self.game(device)
        prepare: Any = trainer.generator.family.prepare  # type: ignore[union-attr]
        judge = SemiSupervisedEvaluator(data, prepare, device, discriminator=trainer.discriminator)
        return SemiSupervisedParts(data, real, real, (len(real), len(data.held_out)), trainer, judge)


def labelled_rows(data: ImageData, number: int, seed: int) -> Tensor:
    """Rows (number,) of the training half that keep their labels, as many of each class as of the others.

    Args:
        data: with labels.
        number: how many; classes divide it.
        seed: of the choice.

    Raises:
        ValueError: if the classes do not divide the number, or one has too few images.
    """
    assert data.train_labels is not None and data.classes is not None
    each, rest = divmod(number, data.classes)
    if rest or each == 0:
        raise ValueError(f"--labels must be a multiple of the {data.classes} classes, got {number}")
    generator = torch.Generator(device="cpu").manual_seed(seed)
    labels = data.train_labels.cpu()
    order = torch.randperm(len(labels), generator=generator, device="cpu")
    chosen = []
    for label in range(data.classes):
        rows = order[labels[order] == label]
        if len(rows) < each:
            raise ValueError(f"--labels {number} asks for {each} of class {label}, which has {len(rows)} images")
        chosen.append(rows[:each])
    return torch.cat(chosen)


@dataclass(frozen=True)
class SemiSupervisedParts(ImageParts):
    """An image run's parts; the evaluator also tells the discriminator's test error."""

    def remember(self, folder: Path) -> None:
        """Give the discriminator the last weights of a run."""
        state = load_checkpoint(folder / "checkpoint.pt", self.trainer.device)
        self.trainer.discriminator.load_state_dict(state["trainer"]["discriminator"])
