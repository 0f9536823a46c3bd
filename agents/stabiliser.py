"""What a stabiliser may change in a step of the adversarial game; every hook here changes nothing.

A stabiliser is a module, so that what it remembers are buffers: part of a checkpoint, and each rank's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from torch import Tensor, nn

if TYPE_CHECKING:
    from advrl.agents.adversarial import AdversarialTrainer

Player = Literal["generator", "discriminator"]


class Stabiliser(nn.Module):
    """One of ``AdversarialTrainer(..., stabilisers=[...])``.

    Attributes:
        name: for tables and checkpoints; at most one stabiliser of a name in a trainer.
        couples: whether it makes the cost of one sample depend on the others, so that only estimators that
            differentiate the cost in the samples can use it.
        matches: whether :meth:`cost` takes the objective's place in the generator's step.
    """

    name: ClassVar[str] = ""
    couples: ClassVar[bool] = False
    matches: ClassVar[bool] = False

    def attach(self, trainer: AdversarialTrainer, sample: Tensor) -> None:
        """Look at the finished trainer, and at some of its samples (B, *event): their shape, dtype and device."""

    def show(self, x: Tensor) -> Tensor:
        """What the discriminator is shown in place of x (B, *event), real or not, in both players' steps."""
        return x

    def fakes(self, fresh: Tensor) -> Tensor:
        """What the discriminator learns from in place of fresh fakes (B, *event), without gradient."""
        return fresh

    def cost(self, fake: Tensor, real: Tensor) -> Tensor:
        """() what the generator minimises, of its samples (n, *event) and real ones (B, *event); see ``matches``."""
        raise NotImplementedError(f"{type(self).__name__} has no cost of its own")

    def lesson(self, real: Tensor, fake: Tensor, metrics: dict[str, Tensor]) -> Tensor | None:
        """() added to the discriminator's loss, of the real samples and fakes (B, *event) that it learns from."""
        return None

    def charge(self, fake: Tensor) -> Tensor | None:
        """(n,) added to what each of the generator's samples (n, *event) costs."""
        return None

    def penalty(self, player: Player) -> Tensor | None:
        """() added to a player's loss."""
        return None

    def after(self, steps: int) -> None:
        """At the end of the step that makes it ``steps``."""
