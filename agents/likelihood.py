r"""Maximum likelihood for policies that write sequences: what every sequence GAN has to be held against.

    minimise  -sum_n sum_t log p(x_t | x_<t) / number of tokens,    ends of sequences among them

Shapes: B sequences of T ids.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Adam

from advrl.agents.adversarial import backward
from advrl.agents.parts import Parts, follow, set_rate
from advrl.checks import number
from advrl.distributed import mean
from advrl.nn.sequences import WritingPolicy


class LikelihoodTrainer(Parts):
    """Moves a sequence policy towards the data, batch by batch; :func:`advrl.agents.fit` runs it.

    Args:
        policy: of ``advrl.nn``, such as ``LSTMPolicy``.
        lr: of Adam.
        schedule: factor of the learning rate as a function of the step count.
        max_norm: gradients are scaled down to it.
        ema: decay of the exponential moving average of the policy (``trainer.average``); 0 turns it off.

    Raises:
        ValueError, TypeError: for numbers out of range.
    """

    batches_per_step = 1

    def __init__(
        self,
        policy: WritingPolicy,
        *,
        lr: float = 1e-3,
        schedule: Callable[[int], float] | None = None,
        max_norm: float = 5.0,
        ema: float = 0.0,
    ) -> None:
        self.generator = policy
        self.lr, self.schedule = number("lr", lr, 0.0), schedule
        self.max_norm, self.ema = number("max_norm", max_norm, 0.0, exclusive=True), number("ema", ema, 0.0, 1.0)
        self.average = copy.deepcopy(policy).requires_grad_(False) if ema else policy
        self.g_opt = Adam(policy.parameters(), lr=lr, fused=self.device.type in ("cpu", "cuda"))
        self.steps = 0

    @property
    def device(self) -> torch.device:
        """Where the policy's parameters live."""
        return next(self.generator.parameters()).device

    def step(self, batch: Tensor) -> dict[str, Tensor]:
        """One update on sequences (B, T).

        Returns:
            ``nll``, nats per token before the update, detached.
        """
        set_rate(self.g_opt, self.lr, self.schedule, self.steps)
        loss = likelihood_loss(self.generator, batch)
        backward(self.g_opt, loss)
        clip_grad_norm_(self.generator.parameters(), self.max_norm)
        self.g_opt.step()
        self.steps += 1
        if self.ema:
            follow(self.average, self.generator, self.ema, self.steps)
        return {"nll": loss.detach()}

    def begin_with(self, policy: WritingPolicy) -> None:
        """Take over the weights of a policy of the same kind, for the average too."""
        for net in (self.generator, self.average):
            net.load_state_dict(policy.state_dict())

    def _parts(self) -> dict[str, Any]:
        parts: dict[str, Any] = {"generator": self.generator, "g_opt": self.g_opt}
        return parts | {"average": self.average} if self.ema else parts


def likelihood_loss(policy: WritingPolicy, batch: Tensor) -> Tensor:
    """Nats per token of sequences (B, T), differentiable.

    Over the ranks' mean number of tokens: gradients are averaged over them, and each may have other lengths.
    """
    tokens = (batch < policy.outcomes).sum()
    return -policy.log_probs(batch).sum() / mean(tokens.to(policy.out.weight.dtype))
