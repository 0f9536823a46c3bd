r"""What the batched agents share, and REINFORCE: whole episodes, in batches that never leave their device.

A step plays n whole episodes, has them paid in one call, and moves the policy:

    grad E[sum_t r_t] = E[sum_t A_t grad log pi(a_t | s_t)]        Sutton et al. (2000), theorem 1

with A_t the reward to go minus a baseline (Williams, 1992), generalised advantage estimates of a critic (Schulman et
al., 2016), or those within a clipped ratio (Schulman et al., 2017; both in :mod:`advrl.agents.ppo`). What differs
between the agents is one method. An episode ends with its sample, so gamma is 1 and nothing follows the end.

With ``entropy`` = beta each step is also paid -beta log pi(a_t | s_t), whose sum has the mean beta H(pi): the gradient
is that of E[r] + beta H, exactly, and for r = beta log p that of -beta KL(pi || p). Shapes: n episodes, T steps, S
samples for each of B contexts.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Adam, Optimizer

from advrl.agents.adversarial import backward
from advrl.agents.adversary import Adversary
from advrl.agents.parts import Parts, follow, set_rate
from advrl.agents.rollout import Episodes, actor_for, pay, play
from advrl.checks import integer, number
from advrl.distributed import mean, world_size
from advrl.envs.generation import Generation
from advrl.estimators import Critic, leave_one_out, reward_to_go, score_function
from advrl.estimators.baselines import AtContext
from advrl.estimators.score import Baseline


class PolicyGradientTrainer(Parts):
    """What the agents share: playing, being paid, an adversary, the average, the state; subclasses say how to learn.

    ``step(batch)`` plays ``samples * len(batch)`` episodes; the batch are real samples for the adversary, and without
    one only their number counts (see :class:`advrl.agents.Turns`). :func:`advrl.agents.fit` runs it.

    Args:
        policy: a generator; see :mod:`advrl.agents.rollout` for the three kinds.
        task: what it plays; its reward is any function of a batch, or a ``DiscriminatorScore``.
        adversary: trains the discriminator that pays, before it pays.
        samples: episodes for each context; without contexts, for each row of a batch.
        entropy: beta, the weight of the policy's entropy beside the reward.
        lr, betas: of Adam.
        schedule: factor of the policy's learning rate as a function of the step count.
        max_norm: gradients are scaled down to it.
        ema: decay of the exponential moving average of the policy (``trainer.average``); 0 turns it off.

    Raises:
        TypeError, ValueError: for numbers out of range, a policy that cannot play the task, an adversary that is not
            who pays.
    """

    observes = False  # whether episodes keep what was seen

    def __init__(
        self,
        policy: nn.Module,
        task: Generation,
        *,
        adversary: Adversary | None = None,
        samples: int = 1,
        entropy: float = 0.0,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        schedule: Callable[[int], float] | None = None,
        max_norm: float | None = None,
        ema: float = 0.0,
    ) -> None:
        self.generator, self.task, self.actor = policy, task, actor_for(policy, task)
        self.adversary = adversary
        if adversary is not None and task.reward is not adversary.score:
            raise ValueError(
                "the adversary trains a score that does not pay: give the environment reward=adversary.score"
            )
        self.samples = integer("samples", samples)
        self.entropy = number("entropy", entropy, 0.0)
        self.rate, self.schedule = number("lr", lr, 0.0), schedule
        self.max_norm = None if max_norm is None else number("max_norm", max_norm, 0.0, exclusive=True)
        self.g_opt = Adam(policy.parameters(), lr=lr, betas=betas)
        if self.device != task.device:
            raise ValueError(f"the policy is on {self.device}, but the task on {task.device}: make it with device=")
        self.ema = number("ema", ema, 0.0, 1.0)
        self.average = copy.deepcopy(policy).requires_grad_(False) if ema else policy
        self.steps = 0

    @property
    def device(self) -> torch.device:
        """Where the policy's parameters live."""
        return next(self.generator.parameters()).device

    @property
    def batches_per_step(self) -> int:
        """How many batches of real samples a step takes."""
        return 1 if self.adversary is None else self.adversary.updates

    def step(self, batch: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Play, train the adversary, be paid, learn.

        Args:
            batch: (k * B, *event) real samples, k = ``batches_per_step``; without an adversary, B rows of anything.
            context: (B, C) contexts to use instead of fresh ones.

        Returns:
            Detached scalars on the device.

        Raises:
            ValueError: for fewer than k rows.
        """
        size = len(batch) // self.batches_per_step
        if size < 1:
            raise ValueError(f"a step needs at least {self.batches_per_step} rows, got a batch of {len(batch)}")
        metrics: dict[str, Tensor] = {}
        if self.adversary is not None:
            for real in batch[: size * (self.adversary.updates - 1)].split(size):
                if len(real):
                    metrics |= self.adversary.learn(real, self.play(size, context, samples=1).sample)
        episodes = self.play(size, context)
        if self.adversary is not None:
            metrics |= self.adversary.learn(batch[-size:], episodes.sample[:size])
        reward = pay(self.task, episodes)
        if self.steps == 0:
            _warn_of_length(self.task, reward, episodes.mask)
        set_rate(self.g_opt, self.rate, self.schedule, self.steps)
        metrics |= self.learn(episodes, reward)
        metrics["reward"] = reward.sum(1).mean()
        metrics["length"] = episodes.mask.sum(1).to(reward.dtype).mean()
        self.steps += 1
        if self.ema:
            follow(self.average, self.generator, self.ema, self.steps)
        return metrics

    def play(self, size: int, context: Tensor | None = None, *, samples: int | None = None) -> Episodes:
        """``samples`` episodes for each of ``size`` contexts: the first ``size`` rows have one each, and so on."""
        samples = self.samples if samples is None else samples
        if self.task.contexts is not None:
            context = self.task.contexts.draw(size) if context is None else context
            context = context.repeat(samples, 1)
        return play(self.actor, self.task, size * samples, context, observe=self.observes)

    def learn(self, episodes: Episodes, reward: Tensor) -> dict[str, Tensor]:
        """Move the policy by episodes that it has just played and their rewards (n, T); detached scalars."""
        raise NotImplementedError

    def payment(self, reward: Tensor, log_prob: Tensor) -> Tensor:
        """(n, T) rewards with what entropy is worth, without gradient."""
        paid = reward.to(log_prob.dtype)
        return paid - self.entropy * log_prob.detach() if self.entropy else paid

    def move(self, optimiser: Optimizer, loss: Tensor) -> None:
        """One step on a scalar loss, with gradients averaged over the ranks and no longer than ``max_norm``."""
        backward(optimiser, loss)
        if self.max_norm is not None:
            clip_grad_norm_([p for group in optimiser.param_groups for p in group["params"]], self.max_norm)
        optimiser.step()

    def _parts(self) -> dict[str, Any]:
        parts: dict[str, Any] = {"generator": self.generator, "g_opt": self.g_opt}
        if self.ema:
            parts["average"] = self.average
        return parts if self.adversary is None else parts | self.adversary.parts()


class ReinforceTrainer(PolicyGradientTrainer):
    """REINFORCE with any baseline: Williams (1992).

    The whole return counts where it comes at the end; with dense rewards or entropy, each step's reward to go.

    Args:
        policy, task: see :class:`PolicyGradientTrainer`, and for the options too.
        baseline: of the cost, minus the return, shape (S, B): as ``advrl.estimators.Score`` has them. Without contexts
            all episodes are samples of one, (n, 1); for ``leave_one_out`` those of all ranks. Costs to go have a last
            dimension of T steps.
        lr_baseline: of Adam, for a :class:`advrl.estimators.Critic`, which needs contexts.
    """

    def __init__(
        self,
        policy: nn.Module,
        task: Generation,
        *,
        baseline: Baseline = None,
        lr_baseline: float = 1e-3,
        **options: Any,
    ) -> None:
        super().__init__(policy, task, **options)
        self.baseline = baseline
        self.togo = task.dense or self.entropy > 0
        self.b_opt: Adam | None = None
        like = next(policy.parameters())
        if isinstance(baseline, nn.Module):
            if isinstance(baseline, Critic):
                if task.contexts is None or self.togo:
                    raise ValueError("a Critic of contexts needs a task that has them, and rewards at the end alone")
                baseline.at(torch.zeros(1, task.contexts.size, device=like.device))
            baseline.to(like.device, like.dtype)
            learned = list(baseline.parameters())
            self.b_opt = Adam(learned, lr=number("lr_baseline", lr_baseline, 0.0)) if learned else None

    def learn(self, episodes: Episodes, reward: Tensor) -> dict[str, Tensor]:
        """One update on sum_t (cost to go - baseline) grad log pi."""
        groups = (-1, 1) if episodes.context is None else (self.samples, -1)
        log_prob = self.actor.log_prob(episodes)
        paid = self.payment(reward, log_prob)
        cost = -(reward_to_go(paid, episodes.mask) if self.togo else paid.sum(1))
        if not self.togo:
            log_prob = log_prob.sum(1)
        log_prob, cost = log_prob.unflatten(0, groups), cost.unflatten(0, groups)
        surrogate = score_function(log_prob, cost, self._baseline(cost, episodes))
        if self.togo:
            surrogate = (surrogate * episodes.mask.unflatten(0, groups)).sum(-1)
        self.move(self.g_opt, surrogate.mean())
        if self.b_opt is not None:
            self.move(self.b_opt, self.baseline.fit_loss)  # type: ignore[union-attr]
        return {"g_cost": -paid.sum(1).mean()}

    def _baseline(self, cost: Tensor, episodes: Episodes) -> Tensor | float:
        rule = self.baseline
        if rule is None or isinstance(rule, (int, float, Tensor)):
            return 0.0 if rule is None else rule
        if isinstance(rule, Critic):
            assert episodes.context is not None
            rule = AtContext(rule, episodes.context[: cost.shape[1]].to(cost.dtype))
        if rule is leave_one_out and episodes.context is None:
            return _of_the_others(cost)
        value: Tensor = rule(cost)
        return value

    def _parts(self) -> dict[str, Any]:
        parts = super()._parts()
        if isinstance(self.baseline, nn.Module):
            parts["baseline"] = self.baseline
        return parts if self.b_opt is None else parts | {"b_opt": self.b_opt}


def _of_the_others(cost: Tensor) -> Tensor:
    """:func:`leave_one_out` of costs (n, ...) where all episodes of all ranks are samples of one.

    With contexts the samples of each stay on their rank, and need nothing of the others.
    """
    if world_size() == 1:
        return leave_one_out(cost)
    others = world_size() * len(cost) - 1
    return (mean(cost.sum(0)) * world_size() - cost) / others


def _warn_of_length(task: Generation, reward: Tensor, mask: Tensor) -> None:
    if not task.dense or not getattr(task, "eos", None):
        return
    paid = reward[mask]
    low, high = float(paid.min()), float(paid.max())
    if low >= 0 < high or high <= 0 > low:
        sign, what = ("negative", "longer") if low >= 0 else ("positive", "shorter")
        warnings.warn(
            f"every step is paid, no reward is {sign}, and a sequence may end early: {what} sequences are then paid "
            "more, whatever is in them. Pay at the end (dense=False), or with rewards of both signs, such as "
            "reverse_kl's logit",
            stacklevel=3,
        )
