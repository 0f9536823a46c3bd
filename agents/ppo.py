"""Agents with a critic, for generators: actor-critic, and PPO, which uses its episodes several times.

A_t are generalised advantage estimates, Schulman et al. (2016), eq. 16, with gamma 1, since an episode ends with its
sample. Shapes: n episodes, T steps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam

from advrl.agents.policy_gradient import PolicyGradientTrainer
from advrl.agents.rollout import Episodes, as_numbers, flat
from advrl.agents.values import ValueNet
from advrl.checks import integer, number
from advrl.distributed import mean
from advrl.envs.generation import Generation
from advrl.estimators import gae, ppo_clip, score_function


class ActorCriticTrainer(PolicyGradientTrainer):
    """Actor-critic with generalised advantage estimates: Schulman et al. (2016), eq. 16, with gamma 1.

    Unbiased at lam = 1 with any critic, and with any lam where the critic is exact.

    Args:
        policy, task: see :class:`PolicyGradientTrainer`, and for the options too.
        critic: a module from observations (m, *observation) to values (m,); a :class:`advrl.agents.ValueNet` if None.
        lam: lambda, in [0, 1].
        lr_critic: of Adam.
        normalise: divide the advantages by their standard deviation and centre them, over all ranks: a step size that
            does not depend on the reward's scale, and a slight bias.
    """

    observes = True

    def __init__(
        self, policy: nn.Module, task: Generation, *, critic: nn.Module | None = None, lam: float = 0.95,
        lr_critic: float = 1e-3, normalise: bool = False, **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(policy, task, **options)
        like = next(policy.parameters())
        with self.device:
            self.critic = ValueNet(task) if critic is None else critic
        self.critic.to(like.device, like.dtype)
        self.lam, self.normalise = number("lam", lam, 0.0, 1.0), normalise
        self.c_opt = Adam(self.critic.parameters(), lr=number("lr_critic", lr_critic, 0.0))

    def learn(self, episodes: Episodes, reward: Tensor) -> dict[str, Tensor]:
        """One update of the actor on sum_t A_t grad log pi, and one of the critic."""
        log_prob = self.actor.log_prob(episodes)
        paid = self.payment(reward, log_prob)
        advantage, target, metrics = self.judge(episodes, paid)
        surrogate = score_function(log_prob, -advantage) * episodes.mask
        self.move(self.g_opt, surrogate.sum(1).mean())
        return metrics | self.teach(episodes, target)

    def values(self, episodes: Episodes) -> Tensor:
        """(n, T) the critic's values of the states in which each step was taken."""
        value: Tensor = self.critic(as_numbers(flat(episodes.observation), next(self.generator.parameters()).dtype))
        return value.reshape(episodes.mask.shape)

    @torch.no_grad()
    def judge(self, episodes: Episodes, paid: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Advantages and the critic's targets, (n, T) each."""
        value = self.values(episodes)
        mask = episodes.mask.to(value.dtype)
        advantage = gae(paid, value, mask, lam=self.lam)
        target = advantage + value
        if self.normalise:
            count = mean(mask.sum())
            centre = mean((advantage * mask).sum()) / count
            spread = (mean(((advantage - centre).square() * mask).sum()) / count).sqrt()
            advantage = (advantage - centre) / (spread + 1e-8)
        return advantage, target, {"g_cost": -paid.sum(1).mean(), "value": (value[:, 0]).mean()}

    def teach(self, episodes: Episodes, target: Tensor) -> dict[str, Tensor]:
        """One update of the critic by least squares."""
        error = (self.values(episodes) - target).square() * episodes.mask
        loss = error.mean()  # not over the steps that there are, whose number is each rank's own
        self.move(self.c_opt, loss)
        return {"critic_loss": loss.detach()}

    def _parts(self) -> dict[str, Any]:
        return super()._parts() | {"critic": self.critic, "c_opt": self.c_opt}


class PPOTrainer(ActorCriticTrainer):
    """Proximal policy optimisation with the clipped ratio: Schulman et al. (2017), eq. 7.

    The first gradient of a step is the actor-critic's; the later ones use the episodes again.

    Args:
        policy, task: see :class:`PolicyGradientTrainer`, and for the options too.
        critic, lam, lr_critic: see :class:`ActorCriticTrainer`.
        clip: > 0, how far a ratio pi / pi_old may go.
        epochs: times that the episodes are gone through.
        minibatches: parts of the episodes, each with an update of its own, that an epoch takes.
        normalise: see :class:`ActorCriticTrainer`.
    """

    def __init__(
        self, policy: nn.Module, task: Generation, *, clip: float = 0.2, epochs: int = 4, minibatches: int = 4,
        normalise: bool = True, **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(policy, task, normalise=normalise, **options)
        self.clip = number("clip", clip, 0.0, exclusive=True)
        self.epochs, self.minibatches = integer("epochs", epochs), integer("minibatches", minibatches)

    def learn(self, episodes: Episodes, reward: Tensor) -> dict[str, Tensor]:
        """``epochs`` times ``minibatches`` updates of actor and critic."""
        with torch.no_grad():
            old = self.actor.log_prob(episodes)
        paid = self.payment(reward, old)
        advantage, target, metrics = self.judge(episodes, paid)
        n = len(episodes)
        for _ in range(self.epochs):
            order = torch.randperm(n, device=old.device)
            for index in order.chunk(self.minibatches):
                part = episodes.rows(index)
                log_prob = self.actor.log_prob(part)
                surrogate = ppo_clip(log_prob, old[index], advantage[index], self.clip) * part.mask
                self.move(self.g_opt, surrogate.sum(1).mean())
                metrics |= self.teach(part, target[index])
        with torch.no_grad():
            moved = ((log_prob - old[index]).exp() - 1).abs() > self.clip
            metrics["clipped"] = (moved * part.mask).sum() / part.mask.sum()
            metrics["kl"] = (old[index] - log_prob.detach()).sum(1).mean()
        return metrics
