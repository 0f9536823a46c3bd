r"""What a discriminator's second opinion adds to the game: a class and codes to be guessed, labels to be learnt.

    AC-GAN      both losses gain  -E log q(y | x),  of real pairs and fakes            Odena et al. (2017)
    InfoGAN     the same of fakes alone: a lower bound of the mutual information,
                I(y; x) >= H(y) + E log q(y | x)                                       Chen et al. (2016), eq. 5
    K + 1       the discriminator's loss gains  -E log p(y | x, real)  of labelled x   Salimans et al. (2016), section 5

The generator pays per sample, so the score function serves as well as the gradient through the samples.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from advrl.agents.stabiliser import Stabiliser
from advrl.checks import integer, number
from advrl.nn import AuxiliaryDiscriminator, ClassDiscriminator
from advrl.objectives import labelled_loss

if TYPE_CHECKING:
    from advrl.agents.adversarial import AdversarialTrainer


class Guessing(Stabiliser):
    """Both players are paid for y being guessed from x, by an :class:`AuxiliaryDiscriminator`.

    Logged are ``information_class``, H(class) + E log q in nats, at most log(classes); with codes, each uniform in
    [-1, 1], ``information_codes`` in the same way; and on real pairs ``guess_error``, the loss there.

    Args:
        weight: of -log q beside the game.
        real: whether real pairs hold a true y to learn from (AC-GAN), or none (InfoGAN).

    Raises:
        ValueError, TypeError: for a negative weight; when attached, for another discriminator.
    """

    name: ClassVar[str] = "guessing"

    def __init__(self, weight: float = 1.0, real: bool = True) -> None:
        super().__init__()
        self.weight, self.real = number("weight", weight, 0.0), real
        self._net: list[AuxiliaryDiscriminator] = []

    def attach(self, trainer: AdversarialTrainer, sample: Tensor) -> None:
        """Find the heads."""
        if not isinstance(trainer.discriminator, AuxiliaryDiscriminator):
            raise ValueError(f"{self.name} needs an AuxiliaryDiscriminator, got {type(trainer.discriminator).__name__}")
        self._net = [trainer.discriminator]

    def lesson(self, real: Tensor, fake: Tensor, metrics: dict[str, Tensor]) -> Tensor:
        """() of fakes, and of real pairs where they have a y."""
        (net,) = self._net
        classes, codes = (surprise.mean() for surprise in net.surprise(fake))
        metrics["information_class"] = math.log(net.classes) - classes.detach()
        loss = classes
        if net.codes:
            metrics["information_codes"] = net.codes * math.log(2) - codes.detach()
            loss = loss + codes
        if self.real:
            known = sum(surprise.mean() for surprise in net.surprise(real))
            metrics["guess_error"] = torch.as_tensor(known).detach()
            loss = loss + known
        return self.weight * loss

    def charge(self, fake: Tensor) -> Tensor:
        """(n,) what each sample costs by how badly its y is guessed."""
        classes, codes = self._net[0].surprise(fake)
        return self.weight * (classes + codes)


class Labelled(Stabiliser):
    """A few labelled samples that a :class:`ClassDiscriminator` learns the classes from, beside the game.

    Args:
        samples: (L, *event) as the discriminator sees them.
        labels: (L,) their classes.
        weight: of the class loss beside the game's.
        batch_size: labelled samples of a step, drawn with replacement.

    Raises:
        ValueError, TypeError: for labels of another length, or numbers out of range; when attached, for another
            discriminator.
    """

    name: ClassVar[str] = "labelled"
    samples: Tensor
    labels: Tensor

    def __init__(self, samples: Tensor, labels: Tensor, weight: float = 1.0, batch_size: int = 64) -> None:
        super().__init__()
        if len(samples) == 0 or labels.shape != samples.shape[:1]:
            raise ValueError(f"need one label per sample, got {tuple(samples.shape)} and {tuple(labels.shape)}")
        self.weight, self.batch_size = number("weight", weight, 0.0), integer("batch_size", batch_size)
        self.register_buffer("samples", samples, persistent=False)
        self.register_buffer("labels", labels, persistent=False)
        self._net: list[Any] = []

    def attach(self, trainer: AdversarialTrainer, sample: Tensor) -> None:
        """Find the classes."""
        if not isinstance(trainer.discriminator, ClassDiscriminator):
            raise ValueError(f"{self.name} needs a ClassDiscriminator, got {type(trainer.discriminator).__name__}")
        self._net = [trainer.discriminator]

    def lesson(self, real: Tensor, fake: Tensor, metrics: dict[str, Tensor]) -> Tensor:
        """() the mean class loss of a batch of labelled samples."""
        rows = torch.randint(len(self.samples), (self.batch_size,), device=self.samples.device)
        loss = labelled_loss(self._net[0].classes(self.samples[rows]), self.labels[rows]).mean()
        metrics["class_loss"] = loss.detach()
        return self.weight * loss
