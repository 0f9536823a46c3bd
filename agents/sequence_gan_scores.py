r"""How a writer of sequences learns from a discriminator by its own scores: policy gradients, one small class each.

    grad = -1/n sum_i sum_t (Q_it - b_it) grad log p(x_it | x_i,<t),    0 where a sequence has no step

They differ in Q, what a step is worth, and in the baseline b. Shapes: n sequences, T steps.
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from advrl.agents.sequence_gan_rewards import Baseline, Judge, LeaveOneOut, MovingAverage, NoBaseline, written
from advrl.agents.sequence_rollouts import rollout_values
from advrl.checks import integer, number
from advrl.distributed import mean
from advrl.estimators import gae, reward_to_go, score_function
from advrl.nn.sequence_discriminators import RecurrentDiscriminator
from advrl.objectives import boundary_weights, effective_sample_size, importance_weights


class Lesson(NamedTuple):
    """What a generator's step comes to.

    Args:
        loss: scalar to minimise; its gradient is the estimate.
        x: (n, T) ids that were written.
        told: detached scalars for the log.
        fit: scalar that the algorithm's own networks minimise, if it has any.
    """

    loss: Tensor
    x: Tensor
    told: dict[str, Tensor]
    fit: Tensor | None = None


class SequenceAlgorithm(nn.Module):
    """How the generator of a :class:`SequenceGANTrainer` learns; what it keeps is part of the checkpoint."""

    needs: ClassVar[str] = ""
    """``prefix`` or ``sentence``, what the discriminator has to give logits of; ``none`` for no discriminator."""

    def lesson(self, policy: Any, judge: Judge, n: int, step: int) -> Lesson:
        """n sequences and their surrogate, in step ``step``."""
        raise NotImplementedError

    def fakes(self, policy: Any, n: int, step: int) -> Tensor:
        """n sequences for the discriminator to learn from, without gradient."""
        x: Tensor = policy.sample(n)
        return x

    def shown(self, policy: Any, real: Tensor) -> Tensor:
        """What the discriminator sees of real ids (n, T)."""
        return real

    def follow(self, policy: nn.Module, *, begin: bool = False) -> None:
        """Take note of a policy that has moved; ``begin``: that begins its adversarial training now."""


class ScoreAlgorithm(SequenceAlgorithm):
    """Policy gradient with values (n, T) of the steps taken and a baseline.

    Args:
        baseline: of ``sequence_gan_rewards``; leave-one-out by default.
    """

    def __init__(self, baseline: Baseline | None = None) -> None:
        super().__init__()
        self.baseline = LeaveOneOut() if baseline is None else baseline

    def values(self, policy: Any, judge: Judge, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """What each step is worth (n, T), and the mean reward of a sequence, a scalar."""
        raise NotImplementedError

    def lesson(self, policy: Any, judge: Judge, n: int, step: int) -> Lesson:
        x = policy.sample(n)
        mask = written(x, policy.outcomes)
        values, reward = self.values(policy, judge, x, mask)
        taken_off = self.baseline(values, mask)
        log_probs = policy.log_probs(x)
        surrogate = score_function(log_probs, -values, -taken_off)
        return Lesson(
            torch.where(mask, surrogate, torch.zeros_like(surrogate)).sum(1).mean(),
            x,
            {
                "reward": reward,
                "advantage_std": spread(values - taken_off, mask),
                "entropy": -(log_probs.detach() * mask).sum() / mask.sum(),
            },
        )


class Reinforce(ScoreAlgorithm):
    """The reward of the finished sentence at each of its steps: Williams (1992). Unbiased."""

    needs = "sentence"

    def values(self, policy: Any, judge: Judge, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        reward = judge.sentence(x)
        return reward.unsqueeze(1) * mask, reward.mean()


class SeqGAN(ScoreAlgorithm):
    """Monte-Carlo rollouts value every prefix: Yu et al. (2017), eq. 4 to 8.

    The rollouts are written by a copy of the policy that lags, moved after each update to
    ``update_rate * copy + (1 - update_rate) * policy``. Biased by what the copy does otherwise than the policy; with
    ``update_rate`` 0 there is no copy, and no bias.

    Args:
        rollouts: of each prefix.
        update_rate: in [0, 1); the authors have 0.8.
        baseline: as of :class:`ScoreAlgorithm`; the authors have none.
    """

    needs = "sentence"

    def __init__(self, rollouts: int = 16, update_rate: float = 0.8, baseline: Baseline | None = None) -> None:
        super().__init__(baseline)
        self.rollouts = integer("rollouts", rollouts)
        self.update_rate = number("update_rate", update_rate, 0.0, 1.0 - 1e-9)
        self.writer: nn.Module | None = None

    def follow(self, policy: nn.Module, *, begin: bool = False) -> None:
        if not self.update_rate:
            return
        if self.writer is None:
            self.writer = copy.deepcopy(policy).requires_grad_(False)
        share = 1.0 if begin else 1 - self.update_rate
        with torch.no_grad():
            torch._foreach_lerp_(list(self.writer.parameters()), list(policy.parameters()), share)

    def values(self, policy: Any, judge: Judge, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        writer: Any = policy if self.writer is None else self.writer.eval()
        values = rollout_values(writer, x, judge.sentence, self.rollouts)
        return values, whole_value(values, mask).mean()


class ScratchGAN(ScoreAlgorithm):
    """A reward at every step, from a discriminator of prefixes: de Masson d'Autume et al. (2019).

    Q_t = sum_{u >= t} discount^(u - t) r_u. Unbiased for E sum_t r_t at discount 1; below, what comes late counts less
    than it should (the estimate is that of no objective: it lacks discount^t as well).

    Args:
        discount: in [0, 1].
        baseline: as of :class:`ScoreAlgorithm`; by default a moving average, as the authors'.
    """

    needs = "prefix"

    def __init__(self, discount: float = 0.23, baseline: Baseline | None = None) -> None:
        super().__init__(MovingAverage() if baseline is None else baseline)
        self.discount = number("discount", discount, 0.0, 1.0)

    def values(self, policy: Any, judge: Judge, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        rewards = judge.steps(x, mask)
        return reward_to_go(rewards, mask, self.discount), rewards.sum() / mask.sum()


class Constant(ScoreAlgorithm):
    """A control: every step is paid 1, by nobody, and no baseline is taken off.

    The expected gradient is 0. What such a run does is noise, which feeds on itself: what was written is made likelier.
    """

    needs = "none"

    def __init__(self) -> None:
        super().__init__(NoBaseline())

    def values(self, policy: Any, judge: Judge, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        ones = mask.to(policy.out.weight.dtype)
        return ones, ones.mean()


class ImportanceWeighted(ScoreAlgorithm):
    r"""Weighted likelihood of the writer's own sentences: MaliGAN and BS-GAN.

        grad = -sum_i (w_i - b / M) grad log p(x_i),    w = softmax(a) over M sentences,    e^a = D / (1 - D)

    With a perfect discriminator e^a is p_data / p, so that this is the gradient of maximum likelihood. MaliGAN (Che et
    al., 2017, eq. 4) normalises over the batch, discrete BS-GAN (Hjelm et al., 2018, eq. 9) over M samples of each
    context. Biased, by order 1/M: the normaliser is a sample mean, which the sentence itself is part of.

    Args:
        group: M, by which the batch must divide; ``None`` for all of the batch, or a rank's share of it.
        baseline: b, in [0, 1].
    """

    needs = "sentence"

    def __init__(self, group: int | None = None, baseline: float = 1.0) -> None:
        super().__init__(NoBaseline())
        self.group = None if group is None else integer("group", group, 2)
        self.taken_off = number("baseline", baseline, 0.0, 1.0)
        self.effective: Tensor | None = None

    def values(self, policy: Any, judge: Judge, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        size = len(x) if self.group is None else self.group
        if size < 2 or len(x) % size:
            raise ValueError(f"{len(x)} sentences cannot be weighed in groups of {size}: give a multiple of it")
        with torch.no_grad():
            logits = judge.logits(x)
            groups = logits.reshape(-1, size).T
            weighed = 1 - boundary_weights(-groups, x) - self.taken_off  # M w - b
            self.effective = effective_sample_size(importance_weights(groups)).mean()
        return weighed.T.reshape(-1, 1) * mask, judge.paid(logits).mean()

    def lesson(self, policy: Any, judge: Judge, n: int, step: int) -> Lesson:
        lesson = super().lesson(policy, judge, n, step)
        assert self.effective is not None
        return lesson._replace(told=lesson.told | {"effective_samples": self.effective})


class PrefixCritic(nn.Module):
    """V (n, T) of what was written before each step: a recurrent net over the prefixes, a number for the empty one.

    Args:
        vocab_size, eos: of the sequences.
        hidden: units.
    """

    def __init__(self, vocab_size: int, hidden: int = 64, *, eos: bool = False) -> None:
        super().__init__()
        self.net = RecurrentDiscriminator(vocab_size, hidden, hidden, eos=eos, dropout=0.0)
        self.first = nn.Parameter(torch.zeros((), device=self.net.out.weight.device))

    def forward(self, x: Tensor) -> Tensor:
        """Values (n, T) of ids (n, T)."""
        return torch.cat([self.first.expand(len(x), 1), self.net(x)[:, :-1]], 1)


class ActorCritic(SequenceAlgorithm):
    """A learned critic and generalised advantages: Schulman et al. (2016).

    Rewards come at every step from a discriminator of prefixes, at the end from one of sentences. Unbiased at lam = 1
    and discount 1, whatever the critic says; else biased by its errors.

    Args:
        critic: ids (n, T) to values (n, T), such as :class:`PrefixCritic`.
        discount, lam: both in [0, 1].
    """

    def __init__(self, critic: nn.Module, discount: float = 1.0, lam: float = 0.95) -> None:
        super().__init__()
        self.critic = critic
        self.discount, self.lam = number("discount", discount, 0.0, 1.0), number("lam", lam, 0.0, 1.0)

    def lesson(self, policy: Any, judge: Judge, n: int, step: int) -> Lesson:
        x = policy.sample(n)
        mask = written(x, policy.outcomes)
        rewards = self._rewards(judge, x, mask)
        values = self.critic(x)
        advantage = gae(rewards, values.detach(), mask, self.discount, self.lam)
        log_probs = policy.log_probs(x)
        missed = torch.where(mask, values - (advantage + values).detach(), torch.zeros_like(values))
        fit = missed.square().sum() / mean(mask.sum().to(values.dtype))  # ranks have other lengths
        return Lesson(
            score_function(log_probs, -advantage).sum(1).mean(),
            x,
            {
                "reward": rewards.sum(1).mean(),
                "advantage_std": spread(advantage, mask),
                "critic_loss": fit.detach(),
                "entropy": -(log_probs.detach() * mask).sum() / mask.sum(),
            },
            fit,
        )

    @torch.no_grad()
    def _rewards(self, judge: Judge, x: Tensor, mask: Tensor) -> Tensor:
        logits = judge.discriminator(x)
        paid = judge.paid(logits)
        if logits.dim() == 2:
            return torch.where(mask, paid, torch.zeros_like(paid))
        last = mask & (mask.sum(1, keepdim=True) == mask.cumsum(1))
        return paid.unsqueeze(1) * last


def whole_value(values: Tensor, mask: Tensor) -> Tensor:
    """(n,) the value of the finished sequence, the last of those of its steps (n, T)."""
    return values.gather(1, (mask.sum(1) - 1).unsqueeze(1)).squeeze(1)


def spread(values: Tensor, mask: Tensor) -> Tensor:
    """Standard deviation of the values (n, T) that the mask shows; nothing waits for the device."""
    count = mask.sum()
    values = torch.where(mask, values, torch.zeros_like(values))
    missed = torch.where(mask, values - values.sum() / count, torch.zeros_like(values))
    return (missed.square().sum() / count).sqrt()
