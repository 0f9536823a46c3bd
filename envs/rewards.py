r"""What finished samples are paid: any function of a batch, a discriminator, or one of the named rewards.

A discriminator's logit a pays -c(a), minus the cost that its objective has for generators, so that what a policy is
paid and what a generator minimises cannot drift apart. Shapes: n samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from advrl.checks import choice
from advrl.envs.contexts import Reward
from advrl.objectives import Objective, non_saturating


@dataclass(frozen=True, eq=False)
class DiscriminatorScore:
    """Rewards -c(D(x)) from a discriminator, which may go on learning in between: each call asks it as it is then.

    It is asked in evaluation mode, without gradients, and left in the modes it was in.

    Args:
        discriminator: maps samples (n, *event), and contexts (n, C) if the environment gives them, to logits (n,)
            or (n, 1).
        objective: whose cost is turned into the reward; a high logit means real. ``non_saturating`` pays log D, never
            positive, ``minimax`` -log(1 - D), never negative, ``reverse_kl`` the logit, of either sign.

    Raises:
        ValueError: for an objective that compares each fake with a real sample, which an episode does not have; for
            logits of another shape.
    """

    discriminator: nn.Module
    objective: Objective = non_saturating

    def __post_init__(self) -> None:
        if self.objective.needs_real:
            raise ValueError(f"{self.objective.name} compares fakes with real samples, which an episode does not have")

    @property
    def device(self) -> torch.device | None:
        """Where the discriminator's first parameter is, or None without any."""
        return next((p.device for p in self.discriminator.parameters()), None)

    @torch.no_grad()
    def __call__(self, *given: Tensor) -> Tensor:
        """(n,) rewards."""
        training = [module for module in self.discriminator.modules() if module.training]
        self.discriminator.eval()
        try:
            logits = self.discriminator(*given)
        finally:
            for module in training:
                module.training = True
        if logits.shape == (len(given[0]), 1):
            logits = logits.squeeze(1)
        if tuple(logits.shape) != (len(given[0]),):
            raise ValueError(
                f"the discriminator must give logits ({len(given[0])},), one per sample, got {tuple(logits.shape)}"
            )
        return self.objective.reward(logits)


def checked(reward: Reward, *given: Tensor) -> Tensor:
    """(n,) floats: the rewards of samples (n, *event), asked for in one call, without gradients.

    Raises:
        TypeError: if the reward gives something other than a tensor.
        ValueError: for another shape or device, or a value that is not finite; names the samples.
    """
    x = given[0]
    with torch.no_grad():
        value = reward(*given)
    if not isinstance(value, Tensor):
        raise TypeError(f"a reward must return a tensor ({len(x)},), one number per sample, got {type(value).__name__}")
    if tuple(value.shape) != (len(x),):
        raise ValueError(
            f"a reward must map samples {tuple(x.shape)} to ({len(x)},), one number each, got {tuple(value.shape)}"
        )
    if value.device != x.device:
        raise ValueError(f"the rewards are on {value.device}, but the samples that were paid are on {x.device}")
    bad = ~torch.isfinite(value)
    if bool(bad.any()):
        which = bad.nonzero().squeeze(1).tolist()
        shown = ", ".join(map(str, which[:8])) + (", ..." if len(which) > 8 else "")
        raise ValueError(
            f"rewards must be finite, but those of samples {shown} ({len(which)} of {len(x)}) are not: sample "
            f"{which[0]} has {float(value[which[0]])} and is {x[which[0]].flatten()[:16].tolist()}"
        )
    return value if value.is_floating_point() else value.to(torch.float32)


def countdown(tokens: Tensor) -> Tensor:
    """(n,) which share of the places of ``tokens`` (n, L) after the first holds the token before it minus one.

    The default of ``advrl/Sequence-v0``. Neither an end of sequence nor what follows it ever counts.
    """
    if tokens.shape[1] == 1:
        return (tokens[:, 0] == 0).float()
    return (tokens[:, 1:] == tokens[:, :-1] - 1).float().mean(1)


def modes(centres: Sequence[Sequence[float]], std: float) -> Reward:
    """Log-density of equally likely Gaussians around ``centres`` (K, E), up to a constant: 0 on a lone centre."""

    def reward(x: Tensor) -> Tensor:
        at = torch.tensor(centres, dtype=x.dtype, device=x.device)
        if x.dim() != 2 or x.shape[1] != at.shape[1]:
            raise ValueError(f"this reward is for points (n, {at.shape[1]}), got samples {tuple(x.shape)}")
        return (-(x[:, None] - at).square().sum(-1) / (2 * std**2)).logsumexp(1)

    return reward


@cache
def _digits() -> Tensor:
    from advrl.data import digits

    return 2 * digits().train.flatten(1) - 1


def nearest_digit(images: Tensor) -> Tensor:
    """(n,) minus the mean squared difference of images (n, 1, 8, 8) in [-1, 1] to the nearest digit: at most 0."""
    if tuple(images.shape[1:]) != (1, 8, 8):
        raise ValueError(
            f"'nearest-digit' is for images (n, 1, 8, 8), got samples {tuple(images.shape)}: give a reward"
        )
    real = _digits().to(images)
    return -torch.cdist(images.flatten(1), real).amin(1).square() / real.shape[1]


_EIGHT = torch.arange(8, dtype=torch.float64, device="cpu") * torch.pi / 4
REWARDS: dict[str, Reward] = {
    "countdown": countdown,
    "nearest-digit": nearest_digit,
    "ring": modes((0.7 * torch.stack([_EIGHT.cos(), _EIGHT.sin()], 1)).tolist(), 0.1),
    "two-modes": modes([[-0.5], [0.5]], 0.1),
}
"""Rewards by name: an environment made with a name survives ``spec.to_json()``, one with a function does not."""


def find_reward(reward: str | Reward, device: torch.device) -> Reward:
    """The reward that was meant.

    Raises:
        TypeError: for what cannot be called.
        ValueError: for an unknown name, or a discriminator on another device.
    """
    if isinstance(reward, str):
        return REWARDS[choice("reward", reward, REWARDS, hint="; or any function of finished samples")]
    if not callable(reward):
        raise TypeError(f"reward must be a name or a function of finished samples, got {type(reward).__name__}")
    at = getattr(reward, "device", None)
    if isinstance(at, torch.device) and at != device:
        raise ValueError(
            f"the discriminator is on {at}, but the environment on {device}: make it with device={str(at)!r}"
        )
    return reward
