"""Digits on demand: a class to be drawn (conditional), and codes that the game itself gives a meaning (InfoGAN)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from advrl.agents import Guessing, Stabiliser
from advrl.agents.evaluation_conditional import ConditionalEvaluator
from advrl.checks import choice, integer, number
from advrl.data import ImageData
from advrl.nn import (
    FAMILIES,
    MLP,
    AuxiliaryDiscriminator,
    ConcatDiscriminator,
    ConditionalPolicy,
    ProjectionDiscriminator,
    class_rows,
    paired,
)
from advrl.plots import sample_sheet
from advrl.recipes.digits import Digits
from advrl.recipes.images import JUDGED
from advrl.recipes.pairs import COLUMNS, PairParts, check_pairs, class_sheet, rows_by_class
from advrl.recipes.parts import make_trainer

Conditioning = Literal["projection", "concat", "auxiliary"]


@dataclass(frozen=True)
class PairConfig(Digits):
    """What recipes on pairs share: the noise has a class in it, and the discriminator is shown it."""

    classes: int = 10
    """Classes that the generator can be asked for."""

    name: ClassVar[str]
    codes: ClassVar[int] = 0

    def sheet(self, policy: ConditionalPolicy, real: Tensor, labels: Tensor | None, title: str) -> Any:
        """The picture of a run on its way: real images, and samples a row for each class."""
        raise NotImplementedError

    def validate(self) -> None:
        """As for every recipe; and nothing may be asked for that would mix an image with its class."""
        super().validate()
        integer("--classes", self.classes, 2)
        check_pairs(self, self.name)
        if self.norm != "layer":
            raise ValueError(f"--norm {self.norm} does not go with {self.name}, whose generator draws a class")

    def policy_for(self, shape: tuple[int, int, int]) -> ConditionalPolicy:
        """The untrained policy for images of ``shape`` (C, H, W): what :func:`advrl.load` fills with weights."""
        family, (channels, height, width) = FAMILIES[self.policy], shape
        inside, out = self.latent + self.classes + self.numbers, (family.numbers * channels, height, width)
        net = MLP(inside, out, (self.width, self.width), "silu", layer_norm=True)
        return ConditionalPolicy(net, family, self.latent, self.classes, self.numbers)

    @property
    def numbers(self) -> int:
        """Continuous numbers beside the class."""
        return 0

    def trunk(self, shape: tuple[int, int, int]) -> nn.Module:
        """phi: images (B, C, H, W) to features (B, width)."""
        return nn.Sequential(MLP(shape, self.width, (self.width,)), nn.LeakyReLU(0.2))

    def parts(
        self,
        data: ImageData,
        policy: ConditionalPolicy,
        discriminator: nn.Module,
        hooks: list[Stabiliser],
        side: Tensor,
        device: torch.device,
        matched: bool = False,
    ) -> PairParts:
        """Put the players, pairs and the judge together; ``side`` (N, K) stands beside the training images."""
        policy = policy.to(device)
        trainer = make_trainer(self, policy, discriminator.to(device), hooks=hooks)
        prepare = policy.family.prepare
        shown = prepare(data.train).to(device)
        judge = ConditionalEvaluator(data, prepare, device, classes=self.classes, matched=matched)
        real = paired(shown, side.to(device))
        labels = None if data.train_labels is None else data.train_labels.to(device)
        unseen = None
        if data.held_out_labels is not None and not matched:
            known = class_rows(data.held_out_labels[:JUDGED], self.classes)
            unseen = paired(prepare(data.held_out[:JUDGED]), known).to(device)
        return PairParts(data, real, real, (len(shown), len(data.held_out)), trainer, judge, labels, unseen, self)


@dataclass(frozen=True)
class DigitsConditional(PairConfig):
    """Train a generator that draws the digit that it is asked for.

    The discriminator judges pairs of image and class, by projection, by concatenation, or by an auxiliary classifier
    that both players are paid for (AC-GAN). Generator, policy and gradient are those of digits.
    """

    conditioning: Conditioning = "projection"
    """How the discriminator sees the class: projection, concat, or auxiliary (AC-GAN: it guesses it)."""
    auxiliary: float = 1.0
    """Weight of the class loss, with --conditioning auxiliary."""
    steps: int = 4000
    """Steps to train for."""

    name: ClassVar[str] = "digits-conditional"

    def validate(self) -> None:
        """Raise a ``ValueError`` or ``TypeError`` for the first option that cannot be."""
        super().validate()
        choice("conditioning", self.conditioning, get_args(Conditioning))
        number("--auxiliary", self.auxiliary, 0.0)

    def build(self, device: torch.device) -> PairParts:
        """All parts of the run.

        Raises:
            ValueError: if the data have no labels, or more classes than --classes.
        """
        data = self.load_data()
        if data.train_labels is None:
            raise ValueError(f"--data {self.data} has no labels, and {self.name} needs them")
        hooks: list[Stabiliser] = []
        if self.conditioning == "concat":
            channels, height, width = data.shape
            pair = (channels + self.classes, height, width)
            net: nn.Module = ConcatDiscriminator(MLP(pair, (), (self.width, self.width)), self.classes)
        elif self.conditioning == "projection":
            net = ProjectionDiscriminator(self.trunk(data.shape), self.width, self.classes)
        else:
            net = AuxiliaryDiscriminator(self.trunk(data.shape), self.width, self.classes)
            hooks = [Guessing(self.auxiliary)]
        side = class_rows(data.train_labels, self.classes)
        return self.parts(data, self.policy_for(data.shape), net, hooks, side, device)

    def sheet(self, policy: ConditionalPolicy, real: Tensor, labels: Tensor | None, title: str) -> Any:
        """As :func:`advrl.recipes.pairs.class_sheet`."""
        assert labels is not None
        return class_sheet(policy, real, labels, title)


@dataclass(frozen=True)
class DigitsInfoGAN(PairConfig):
    """Train a generator on digits whose codes come to mean something, without labels (InfoGAN).

    The noise holds a class of ten and two numbers in [-1, 1]; the discriminator guesses them from the image, and both
    players are paid for it, which is a lower bound of the mutual information of code and image. The labels serve the
    judge alone.
    """

    information: float = 0.05
    """Weight of the mutual information."""
    continuous: int = 2
    """Continuous codes beside the class."""
    steps: int = 4000
    """Steps to train for."""

    name: ClassVar[str] = "digits-infogan"

    @property
    def numbers(self) -> int:
        """Continuous numbers beside the class."""
        return self.continuous

    def validate(self) -> None:
        """Raise a ``ValueError`` or ``TypeError`` for the first option that cannot be."""
        super().validate()
        number("--information", self.information, 0.0)
        integer("--continuous", self.continuous, 0)

    def build(self, device: torch.device) -> PairParts:
        """All parts of the run.

        Raises:
            ValueError: if the data have no labels, by which codes are judged.
        """
        data = self.load_data()
        net = AuxiliaryDiscriminator(self.trunk(data.shape), self.width, self.classes, self.continuous)
        hooks: list[Stabiliser] = [Guessing(self.information, real=False)]
        side = data.train.new_zeros(len(data.train), self.classes + self.continuous)  # nobody knows theirs
        return self.parts(data, self.policy_for(data.shape), net, hooks, side, device, matched=True)

    def sheet(self, policy: ConditionalPolicy, real: Tensor, labels: Tensor | None, title: str) -> Any:
        """A row for each code's class: fresh z; then one z a row, with each continuous code going from -1 to 1."""
        turn = torch.arange(COLUMNS * self.classes, device=real.device)
        asked = turn % self.classes
        still = policy.ask(asked[: self.classes]).repeat(COLUMNS, 1)  # of a row all have one z
        z, codes = still[:, : self.latent], torch.zeros_like(still[:, : self.continuous])
        panels = {"samples, a row for each code": policy.sample(len(turn), policy.ask(asked))}
        for k in range(min(self.continuous, 2)):
            moved = codes.clone()
            moved[:, k] = torch.linspace(-1, 1, COLUMNS, device=real.device)[turn // self.classes]
            panels[f"number {k + 1} from -1 to 1, mean"] = policy.mean(policy.ask(asked, z, moved))
        panels = {name: rows_by_class(images.clamp(-1, 1), asked, self.classes)[0] for name, images in panels.items()}
        return sample_sheet(panels, title=title, columns=COLUMNS)
