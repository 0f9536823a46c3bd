"""A discriminator that learns beside an agent and pays it: the environment's reward moves with what it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.optim import Adam

from advrl.agents.adversarial import update
from advrl.checks import integer, number
from advrl.envs import DiscriminatorScore
from advrl.objectives import Game, Penalty


class Adversary:
    """Trains the discriminator of a reward; give both the environment and the agent the same ``score``.

    Args:
        score: the reward, whose objective also is the discriminator's loss.
        penalties: (weight, penalty) pairs added to that loss.
        lr, betas: of Adam.
        updates: of the discriminator per step of the agent, each on a batch of its own.

    Raises:
        TypeError, ValueError: for numbers out of range.
    """

    def __init__(
        self,
        score: DiscriminatorScore,
        *,
        penalties: Sequence[tuple[float, Penalty]] = (),
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.5, 0.99),
        updates: int = 1,
    ) -> None:
        self.score, self.updates = score, integer("updates", updates)
        self.game = Game(score.objective, tuple((number("penalty weight", w, 0.0), p) for w, p in penalties))
        self.optimiser = Adam(score.discriminator.parameters(), lr=number("lr", lr, 0.0), betas=betas)

    def learn(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """One update on as many real samples as fakes, (B, *event) each; detached scalars."""
        loss, metrics = self._loss(real, fake)
        update(self.optimiser, loss)
        return metrics

    def _loss(self, real: Tensor, fake: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        real_logits, fake_logits = self.logits(real), self.logits(fake)
        loss = self.game.objective.d_loss(real_logits, fake_logits).mean()
        metrics = {
            "d_loss": loss.detach(),
            "logit_real": real_logits.detach().mean(),
            "logit_fake": fake_logits.detach().mean(),
        }
        for weight, penalty in self.game.penalties:
            value = penalty(self.logits, real, fake).mean()
            loss = loss + weight * value
            metrics[penalty.__name__] = value.detach()
        return loss, metrics

    def logits(self, x: Tensor) -> Tensor:
        """(B,) logits of samples (B, *event).

        Raises:
            ValueError: if the discriminator gives another shape.
        """
        logits: Tensor = self.score.discriminator(x)
        if logits.shape == (len(x), 1):
            logits = logits.squeeze(1)
        if logits.shape != (len(x),):
            raise ValueError(
                f"the discriminator must give ({len(x)},) logits, one per sample, got {tuple(logits.shape)}"
            )
        return logits

    def parts(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"discriminator": self.score.discriminator, "d_opt": self.optimiser}
