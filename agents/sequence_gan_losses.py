r"""What the two players of a sequence GAN minimise beside the reward, and what is told of a step.

    writer           E sum_t [-r_t - entropy * H(p(. | x_<t)) + kl * KL(p(. | x_<t) || reference(. | x_<t))]
    discriminator    the game's own loss of a logit per sequence, or its mean over the prefixes that there are

The writer's two last terms have an exact inner sum over the next token, and the score function for what follows from
it. Shapes: n sequences, T steps, K outcomes; masks (n, T) are True on the steps that a sequence has.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from advrl.agents.sequence_gan_rewards import LeaveOneOut, written
from advrl.distributed import mean
from advrl.estimators import reward_to_go
from advrl.objectives import Objective, Separable

Masks = tuple[Tensor, Tensor]


def game_loss(objective: Objective, real: Tensor, fake: Tensor, masks: Masks | None = None) -> Tensor:
    """The discriminator's loss on logits (n,) of sequences, or on those (n, T) of prefixes with the masks of both."""
    if masks is None:
        loss: Tensor = objective.d_loss(real, fake).mean()
        return loss
    assert isinstance(objective.d_loss, Separable)
    counts = mean(torch.stack([mask.sum() for mask in masks]).to(real.dtype))  # ranks have other lengths
    of_real = _where(masks[0], objective.d_loss.real(real)).sum()
    return of_real / counts[0] + _where(masks[1], objective.d_loss.fake(fake)).sum() / counts[1]


def told_of_game(
    objective: Objective, loss: Tensor, real: Tensor, fake: Tensor, masks: Masks | None = None
) -> dict[str, Tensor]:
    """What is logged of the discriminator's update: its loss, its mean logits, and how often it is right."""
    real, fake = real.detach(), fake.detach()
    if masks is None:
        masks = (torch.ones_like(real, dtype=torch.bool), torch.ones_like(fake, dtype=torch.bool))
    middle = 0.0 if isinstance(objective.d_loss, Separable) else masked_mean(torch.cat([real, fake]), torch.cat(masks))
    right = masked_mean((real > middle).to(real), masks[0]) + masked_mean((fake < middle).to(fake), masks[1])
    return {
        "d_loss": loss.detach(),
        "d_accuracy": right / 2,
        "logit_real": masked_mean(real, masks[0]),
        "logit_fake": masked_mean(fake, masks[1]),
    }


def pull(policy: Any, x: Tensor, entropy: float, kl: float, reference: Any = None) -> tuple[Tensor, dict[str, Tensor]]:
    """The entropy of a policy and its divergence from a reference, on sequences that it wrote: loss, and both told.

    c_t = -entropy H_t + kl KL_t is exact in the token that comes next. That an earlier token leads to places where c is
    large is taught by the score function: sum_t [c_t + log p(x_t) stop(sum_{u > t} c_u - b_t)], with leave-one-out b.
    Unbiased.

    Args:
        policy: with ``logits`` and ``log_probs``.
        x: (n, T) ids of its own.
        entropy, kl: weights.
        reference: a policy; needed if ``kl`` is not 0.
    """
    mask = written(x, policy.outcomes)
    log_p = policy.logits(x).log_softmax(-1)
    p = log_p.exp()
    disorder = -_where(mask, (p * log_p).sum(-1))
    apart = torch.zeros_like(disorder)
    if kl:
        with torch.no_grad():
            log_q = reference.logits(x).log_softmax(-1)
        apart = _where(mask, (p * (log_p - log_q)).sum(-1))
    cost = kl * apart - entropy * disorder
    later = (reward_to_go(cost, mask) - cost).detach()
    later = _where(mask, later - LeaveOneOut()(later, mask)) if len(x) > 1 else later
    index = x.clamp(max=policy.outcomes - 1).unsqueeze(-1)
    chosen = _where(mask, log_p.gather(-1, index).squeeze(-1))
    steps = mask.sum()
    told = {"exact_entropy": disorder.detach().sum() / steps} | ({"kl": apart.detach().sum() / steps} if kl else {})
    return (cost + chosen * later).sum(1).mean(), told


@torch.no_grad()
def adam_variance(optimiser: Optimizer) -> Tensor:
    """Sum over the weights of Adam's second moment less the square of its first: how much its gradients vary, roughly.

    The two remember for different times, and what the gradients themselves have moved counts as well.
    """
    states = [state for state in optimiser.state.values() if state]
    first, second = optimiser.param_groups[0]["betas"]
    count = states[0]["step"]
    squares = torch.stack([state["exp_avg_sq"].sum() for state in states]).sum() / (1 - second**count)
    means = torch.stack([state["exp_avg"].square().sum() for state in states]).sum() / (1 - first**count) ** 2
    return (squares - means).clamp(min=0.0)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean () of values where the mask is True."""
    return _where(mask, values).sum() / mask.sum()


def _where(mask: Tensor, values: Tensor) -> Tensor:
    return torch.where(mask, values, torch.zeros_like(values))
