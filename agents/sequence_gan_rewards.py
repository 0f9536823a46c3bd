r"""What the discriminator's logits pay a writer of sequences, and the baselines that are taken off.

    D = sigmoid(a),    rewards  D,  log D,  a,  2 D - 1,  or minus the objective's own cost;    a high logit means real

A sentence has one reward, paid for all of it; a discriminator with a logit per prefix pays every step. A baseline that
does not depend on the sequence that it is taken off leaves the score function unbiased.
Shapes: n sequences, T steps; a mask (n, T) is True on the steps that a sequence has, its end among them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from advrl.checks import choice, number
from advrl.distributed import mean, world_size
from advrl.objectives import Objective

REWARDS: dict[str, Callable[[Tensor], Tensor]] = {
    "d": torch.sigmoid,
    "log-d": logsigmoid,
    "logit": lambda a: a,
    "2d-1": lambda a: (a / 2).tanh(),
}
"""Rewards of a logit by name; ``objective`` is minus the cost of the game's objective."""
REWARD_NAMES = (*REWARDS, "objective")


@dataclass(frozen=True)
class Judge:
    """A discriminator at rest, as the generator's step meets it.

    Args:
        discriminator: x to logits (m,), or (m, T) of prefixes; without dropout while this is in use.
        objective: of the game.
        outcomes: K, the outcomes of a step.
        reward: one of ``REWARD_NAMES``.
        real: (n,) logits of real sequences, for objectives that compare.

    Raises:
        ValueError: for a reward of another name.
    """

    discriminator: Callable[[Tensor], Tensor]
    objective: Objective
    outcomes: int
    reward: str = "objective"
    real: Tensor | None = None

    def __post_init__(self) -> None:
        choice("reward", self.reward, REWARD_NAMES)

    def logits(self, x: Tensor) -> Tensor:
        """(m,) logits of whole sequences: of one per prefix, that of the last step."""
        return whole(self.discriminator(x), written(x, self.outcomes))

    @torch.no_grad()
    def sentence(self, x: Tensor) -> Tensor:
        """(m,) the reward of whole sequences of ids (m, T)."""
        return self.paid(self.logits(x))

    @torch.no_grad()
    def steps(self, x: Tensor, mask: Tensor) -> Tensor:
        """(m, T) the reward of every prefix of ids (m, T), 0 on the padding."""
        paid = self.paid(self.discriminator(x))
        return torch.where(mask, paid, torch.zeros_like(paid))

    def paid(self, logits: Tensor) -> Tensor:
        """The reward of logits, entry by entry."""
        if self.reward != "objective":
            return REWARDS[self.reward](logits)
        return self.objective.reward(logits, self._beside(logits))

    def cost(self, x: Tensor) -> Tensor:
        """(m,) what the objective charges for sequences x, differentiable in them."""
        logits = self.logits(x)
        value: Tensor = self.objective.cost(logits, self._beside(logits))
        return value

    def _beside(self, logits: Tensor) -> Tensor | None:
        """A real logit beside each of (m,); the reals go round, since there may be many rollouts of each sequence."""
        if not self.objective.needs_real or self.real is None:
            return None
        return self.real[torch.arange(len(logits), device=logits.device) % len(self.real)]


def written(x: Tensor, outcomes: int) -> Tensor:
    """(m, T) the steps that sequences have, as ids (m, T) or as rows or vectors (m, T, E), which are 0 on the padding.

    Args:
        x: the sequences.
        outcomes: K, ids below which are no padding.
    """
    return x.detach().abs().sum(-1) > 0 if x.is_floating_point() else x < outcomes


def whole(logits: Tensor, mask: Tensor) -> Tensor:
    """Logits (m,) of whole sequences: as they are, or of those of prefixes (m, T) that of the last step there is."""
    if logits.dim() == 1:
        return logits
    return logits.gather(1, (mask.sum(1) - 1).clamp(min=0).unsqueeze(1)).squeeze(1)


class Baseline(nn.Module):
    """What is taken off the values (n, T) of the steps taken, itself (n, T) or a number."""

    def forward(self, value: Tensor, mask: Tensor) -> Tensor:
        raise NotImplementedError


class NoBaseline(Baseline):
    """Nothing is taken off."""

    def forward(self, value: Tensor, mask: Tensor) -> Tensor:
        return torch.zeros_like(value)


class LeaveOneOut(Baseline):
    """At each step the mean value of the *other* sequences that have it, on all ranks; 0 without any. Unbiased."""

    @torch.no_grad()
    def forward(self, value: Tensor, mask: Tensor) -> Tensor:
        here = mask.to(value.dtype)
        count, total = mean(torch.stack([here.sum(0), (value * here).sum(0)])) * world_size()
        others, total = count - here, total - value * here
        return torch.where(others > 0, total / others.clamp(min=1), torch.zeros_like(value))


class MovingAverage(Baseline):
    """One number: the exponential moving average of the values of *earlier* batches, over ranks and steps. Unbiased.

    ScratchGAN's has the batch at hand in it (de Masson d'Autume et al., 2019), with a decay of 0.08: nearly that
    batch's own mean, at a bias of order 1/n.

    Args:
        decay: weight of the past, in [0, 1).
    """

    average: Tensor

    def __init__(self, decay: float = 0.08) -> None:
        super().__init__()
        self.decay = number("decay", decay, 0.0, 1.0 - 1e-9)
        self.register_buffer("average", torch.zeros((), device="cpu"))

    @torch.no_grad()
    def forward(self, value: Tensor, mask: Tensor) -> Tensor:
        if self.average.device != value.device or self.average.dtype != value.dtype:
            self.average = self.average.to(device=value.device, dtype=value.dtype)
        before = self.average.clone()
        total = mean(torch.stack([(value * mask).sum(), mask.sum().to(value.dtype)]))
        self.average.lerp_(total[0] / total[1], 1 - self.decay)
        return before.expand_as(value)


BASELINES: dict[str, Callable[[], Baseline]] = {"none": NoBaseline, "loo": LeaveOneOut, "ewma": MovingAverage}


def make_baseline(name: str) -> Baseline:
    """The baseline of a name: ``none``, ``loo`` or ``ewma``.

    Raises:
        ValueError: for another name.
    """
    return BASELINES[choice("baseline", name, BASELINES)]()
