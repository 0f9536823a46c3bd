"""The adversarial game where a sample has no cost of its own: average relativistic, CatGAN."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from advrl.agents.adversarial import AdversarialTrainer, update
from advrl.distributed import world_size
from advrl.estimators import Draw, Estimator, GumbelSoftmax, Path, ReinMax, StraightThrough
from advrl.objectives import CoupledGame

THROUGH = (Path, GumbelSoftmax, StraightThrough, ReinMax)


class CoupledTrainer(AdversarialTrainer):
    """As :class:`AdversarialTrainer`, for a :class:`CoupledGame`; the gradient comes through the samples.

    The score function is refused: it needs a cost per sample, and leave-one-out costs that do not depend on each other.

    Args:
        generator, discriminator: as there; the discriminator gives (B,) logits, or (B, K) where the game has K outputs.
        objective: the game.
        estimator: ``Path``, ``GumbelSoftmax``, ``StraightThrough`` or ``ReinMax``; ``Path`` if ``None``.
        options: as there.

    Raises:
        ValueError: for another estimator, stabilisers, or more than one process, whose batches the game would
            not see together.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        *,
        objective: CoupledGame,
        estimator: Estimator | None = None,
        **options: object,
    ) -> None:
        super().__init__(generator, discriminator, estimator=estimator, **options)  # type: ignore[arg-type]
        self.coupled = objective
        if not isinstance(self.estimator, THROUGH):
            raise ValueError(
                f"{objective.name} couples the samples of a batch, so that none has a cost of its own, which "
                f"{self.estimator!r} needs: take the gradient through the samples (path; of discrete ones st or gumbel)"
            )
        if self.stabilisers:
            raise ValueError(f"{objective.name} couples the samples of a batch by itself: play it without stabilisers")
        if world_size() > 1:
            raise ValueError(f"{objective.name} couples the samples of a batch: train it with one process")

    def _discriminator_step(self, real: Tensor, draw: Draw, z: Tensor) -> dict[str, Tensor]:
        fake = self.decode(draw.x.detach()[0], z)
        real_out, fake_out = self.logits(real), self.logits(fake)
        loss = game_loss = self.coupled.d_loss(real_out, fake_out)
        metrics = {"d_loss": game_loss.detach()}
        if self.coupled.outputs == 0:
            metrics |= {"logit_real": real_out.detach().mean(), "logit_fake": fake_out.detach().mean()}
        if self.steps % self.penalty_every == 0:
            for weight, penalty in self.penalties:
                value = penalty(self._exact_logits, real, fake).mean()
                loss = loss + weight * self.penalty_every * value
                metrics[penalty.__name__] = value.detach()
        update(self.d_opt, loss)
        return metrics

    def _generator_step(self, real: Tensor, draw: Draw, z: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            real_out = self.logits(real)

        def cost(x: Tensor) -> Tensor:
            together: Tensor = self.coupled.g_loss(self.logits(self.decode(x, z).flatten(0, 1)), real_out)
            return together.expand(x.shape[:2])  # the mean over the samples is then the loss itself

        loss = self.estimator.surrogate(draw, cost).mean()
        update(self.g_opt, loss)
        return {"g_cost": loss.detach()}

    def logits(self, x: Tensor) -> Tensor:
        """The discriminator's logits (B,), or outputs (B, K), for samples (B, *event)."""
        if self.coupled.outputs == 0:
            return super().logits(x)
        out: Tensor = self._twins.get(self.discriminator, self.discriminator)(self.shown(x))
        if out.shape != (len(x), self.coupled.outputs):
            raise ValueError(
                f"{self.coupled.name} needs {self.coupled.outputs} outputs per sample, "
                f"({len(x)}, {self.coupled.outputs}), got {tuple(out.shape)}"
            )
        return out
