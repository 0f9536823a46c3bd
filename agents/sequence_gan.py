"""Sequence GANs: a writer of tokens against a discriminator, with one algorithm that says how the writer learns.

A step shows the discriminator real sequences and fresh ones of the writer, ``discriminator_steps`` times, and then
moves the writer once. The reference, which the writer may be held to, is the writer as it was when its adversarial
training began. Shapes: B sequences, T steps.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Adam

from advrl.agents.adversarial import backward, update
from advrl.agents.likelihood import likelihood_loss
from advrl.agents.parts import Parts, follow, set_rate
from advrl.agents.sequence_gan_losses import adam_variance, game_loss, masked_mean, pull, told_of_game
from advrl.agents.sequence_gan_rewards import REWARD_NAMES, Judge, written
from advrl.agents.sequence_gan_scores import SequenceAlgorithm
from advrl.agents.switched import at_rest, frozen
from advrl.checks import choice, integer, number
from advrl.objectives import Objective, Separable, non_saturating

ROWS = 4096  # sequences that are written at a time, for memory


class SequenceGANTrainer(Parts):
    """Trains a writer of sequences against a discriminator; :func:`advrl.agents.fit` runs it.

    Args:
        policy: of ``advrl.nn``, such as ``LSTMPolicy``; an ``EmbeddingGenerator`` with ``EmbeddingPath``.
        discriminator: of sequences, one logit each (B,) or one per prefix (B, T); ``None`` where nobody judges.
        algorithm: how the policy learns.
        objective: the game's losses; a reward of another name pays the policy something else.
        reward: ``d``, ``log-d``, ``logit``, ``2d-1``, or ``objective``.
        entropy, kl: weights of the policy's entropy, and of its divergence from what it was before.
        pretrain: steps of maximum likelihood before all others, on the first of each step's batches.
        warmup: steps after those in which the discriminator learns alone.
        discriminator_steps: updates of the discriminator per step, each on a batch of its own.
        lr_generator, lr_discriminator, betas: of Adam; ``lr_pretrain`` that of maximum likelihood.
        lr_algorithm: of Adam, for what the algorithm learns itself (a critic).
        schedule: factor of both players' learning rates as a function of the step count.
        max_norm: the policy's gradients are scaled down to it.
        ema: decay of the exponential moving average of the policy (``trainer.average``); 0 turns it off.

    Raises:
        ValueError, TypeError: for numbers out of range, a discriminator that the algorithm cannot use, or terms that
            need probabilities where the policy has none.
    """

    def __init__(
        self,
        policy: nn.Module,
        discriminator: nn.Module | None,
        algorithm: SequenceAlgorithm,
        *,
        objective: Objective = non_saturating,
        reward: str = "objective",
        entropy: float = 0.0,
        kl: float = 0.0,
        pretrain: int = 0,
        warmup: int = 0,
        discriminator_steps: int = 1,
        lr_generator: float = 1e-3,
        lr_discriminator: float = 1e-3,
        lr_pretrain: float = 1e-2,
        lr_algorithm: float = 1e-3,
        betas: tuple[float, float] = (0.5, 0.99),
        schedule: Callable[[int], float] | None = None,
        max_norm: float = 5.0,
        ema: float = 0.0,
    ) -> None:
        self.generator: Any = policy
        self.discriminator, self.algorithm = discriminator, algorithm
        self.objective, self.reward = objective, choice("reward", reward, REWARD_NAMES)
        self.entropy, self.kl = number("entropy", entropy, 0.0), number("kl", kl, 0.0)
        self.pretrain, self.warmup = integer("pretrain", pretrain, 0), integer("warmup", warmup, 0)
        self.discriminator_steps = integer("discriminator_steps", discriminator_steps)
        self.rates = (number("lr_generator", lr_generator, 0.0), number("lr_discriminator", lr_discriminator, 0.0))
        self.schedule = schedule
        self.max_norm, self.ema = number("max_norm", max_norm, 0.0, exclusive=True), number("ema", ema, 0.0, 1.0)
        self.per_prefix = self._check()
        self.steps = 0
        fused = self.device.type in ("cpu", "cuda")
        self.average: Any = copy.deepcopy(policy).requires_grad_(False) if ema else policy
        self.reference: Any = copy.deepcopy(policy).requires_grad_(False).eval() if kl else None
        self.g_opt = Adam(policy.parameters(), lr=lr_generator, betas=betas, fused=fused)
        self.d_opt = (
            None
            if discriminator is None
            else Adam(
                [p for p in discriminator.parameters() if p.requires_grad],
                lr=lr_discriminator,
                betas=betas,
                fused=fused,
            )
        )
        self.m_opt = Adam(policy.parameters(), lr=number("lr_pretrain", lr_pretrain, 0.0), fused=fused)
        like = next(policy.parameters())
        algorithm.to(device=like.device, dtype=like.dtype)
        learned = list(algorithm.parameters())
        self.a_opt = Adam(learned, lr=number("lr_algorithm", lr_algorithm, 0.0), fused=fused) if learned else None
        self._begin()

    @property
    def device(self) -> torch.device:
        """Where the policy's parameters live."""
        device: torch.device = next(self.generator.parameters()).device
        return device

    @property
    def batches_per_step(self) -> int:
        """How many batches of real sequences a step takes."""
        return self.discriminator_steps

    def step(self, batch: Tensor) -> dict[str, Tensor]:
        """One step on ids (discriminator_steps * B, T).

        Returns:
            Detached scalars on the device, so that nothing waits for it.
        """
        reals = batch.chunk(self.discriminator_steps)
        if self.steps < self.pretrain:
            told = self._likelihood_step(reals[0])
        else:
            for optimiser, rate in zip((self.g_opt, self.d_opt), self.rates, strict=True):
                set_rate(optimiser, rate, self.schedule, self.steps)
            told = self._discriminator_steps(reals)
            if self.steps >= self.pretrain + self.warmup:
                told |= self._generator_step(reals[-1])
        self.steps += 1
        if self.steps == self.pretrain:
            self._begin()
        if self.ema:
            follow(self.average, self.generator, self.ema, self.steps)
        return told

    def begin_with(self, policy: nn.Module) -> None:
        """Take over the weights of a policy of the same kind, for all that begins as a copy of it too."""
        for net in (self.generator, self.average):
            net.load_state_dict(policy.state_dict())
        self._begin()

    @torch.no_grad()
    def mean_logit(self, real: Tensor) -> Tensor:
        """What the discriminator says of real ids (N, T) on average: of those that it never saw, far below
        ``logit_real`` if it knows the others by heart. Not without a discriminator."""
        if self.discriminator is None:
            raise ValueError(f"{type(self.algorithm).__name__} has no discriminator")
        shown = self.algorithm.shown(self.generator, real)
        with at_rest(self.discriminator):
            logits = self.discriminator(shown)
        return masked_mean(logits, written(shown, self.generator.outcomes)) if self.per_prefix else logits.mean()

    def _begin(self) -> None:
        """The adversarial training begins with the policy as it is."""
        if self.reference is not None:
            self.reference.load_state_dict(self.generator.state_dict())
        self.algorithm.follow(self.generator, begin=True)

    def _likelihood_step(self, real: Tensor) -> dict[str, Tensor]:
        loss = likelihood_loss(self.generator, real)
        backward(self.m_opt, loss)
        clip_grad_norm_(self.generator.parameters(), self.max_norm)
        self.m_opt.step()
        return {"nll": loss.detach()}

    def _discriminator_steps(self, reals: tuple[Tensor, ...]) -> dict[str, Tensor]:
        if self.discriminator is None or self.d_opt is None:
            return {}
        step, total = self._adversarial_step, sum(map(len, reals))
        told: dict[str, Tensor] = {}
        with at_rest(self.generator):
            parts = [self.algorithm.fakes(self.generator, min(ROWS, total - i), step) for i in range(0, total, ROWS)]
        for real, fake in zip(reals, torch.cat(parts).split([len(r) for r in reals]), strict=True):
            shown = self.algorithm.shown(self.generator, real)
            a, b = self.discriminator(shown), self.discriminator(fake)
            outcomes = self.generator.outcomes
            masks = (written(shown, outcomes), written(fake, outcomes)) if self.per_prefix else None
            loss = game_loss(self.objective, a, b, masks)
            update(self.d_opt, loss)
            told = told_of_game(self.objective, loss, a, b, masks)
        return told

    def _generator_step(self, real: Tensor) -> dict[str, Tensor]:
        with self._judging(real) as judge, at_rest(self.generator):
            lesson = self.algorithm.lesson(self.generator, judge, len(real), self._adversarial_step)
            told = dict(lesson.told)
            loss = lesson.loss
            if self.entropy or self.kl:
                term, spoken = pull(self.generator, lesson.x, self.entropy, self.kl, self.reference)
                loss, told = loss + term, told | spoken
            if self.a_opt is not None and lesson.fit is not None:
                backward(self.a_opt, lesson.fit)
            backward(self.g_opt, loss)
        told["grad_norm"] = clip_grad_norm_(self.generator.parameters(), self.max_norm).detach()
        self.g_opt.step()
        if self.a_opt is not None:
            self.a_opt.step()
        told["grad_variance"] = adam_variance(self.g_opt)
        told["length"] = written(lesson.x, self.generator.outcomes).sum(1).to(loss.dtype).mean()
        self.algorithm.follow(self.generator)
        return told

    @contextmanager
    def _judging(self, real: Tensor) -> Iterator[Judge]:
        outcomes = self.generator.outcomes
        if self.discriminator is None or self.d_opt is None:
            yield Judge(_nobody, self.objective, outcomes)
            return
        with at_rest(self.discriminator), frozen(self.d_opt):
            logits = None
            if self.objective.needs_real:
                with torch.no_grad():
                    shown = self.algorithm.shown(self.generator, real)
                    logits = self.discriminator(shown)
            yield Judge(self.discriminator, self.objective, outcomes, self.reward, logits)

    @property
    def _adversarial_step(self) -> int:
        return self.steps - self.pretrain

    def _check(self) -> bool:
        """Whether the discriminator has a logit per prefix; raises a ``ValueError`` for one that cannot be used."""
        needs = self.algorithm.needs
        if (self.entropy or self.kl) and not hasattr(self.generator, "log_probs"):
            raise ValueError(
                f"entropy={self.entropy} and kl={self.kl} need a policy with probabilities; "
                f"{type(self.generator).__name__} has none: give 0"
            )
        if self.pretrain and not hasattr(self.generator, "log_probs"):
            raise ValueError(f"pretrain={self.pretrain} needs a likelihood; {type(self.generator).__name__} has none")
        if self.discriminator is None:
            if needs != "none":
                raise ValueError(f"{type(self.algorithm).__name__} needs a discriminator, got None")
            if self.warmup:
                raise ValueError(f"warmup={self.warmup} trains the discriminator alone, and there is none: give 0")
            return False
        ids = torch.zeros(2, self.generator.length, dtype=torch.int64, device=self.device)
        with torch.no_grad(), at_rest(self.discriminator):
            shape = tuple(self.discriminator(self.algorithm.shown(self.generator, ids)).shape)
        if shape not in ((2,), (2, self.generator.length)):
            raise ValueError(
                f"a discriminator gives logits (B,) or (B, {self.generator.length}), got {shape} of 2 rows"
            )
        per_prefix = len(shape) == 2
        if needs == "prefix" and not per_prefix:
            raise ValueError(
                f"{type(self.algorithm).__name__} is paid at every step: it needs a discriminator with a logit per "
                f"prefix, such as RecurrentDiscriminator, got {type(self.discriminator).__name__}"
            )
        if per_prefix and not isinstance(self.objective.d_loss, Separable):
            raise ValueError(
                f"objective {self.objective.name} compares whole sequences: with a logit per prefix, whose numbers "
                "differ, it has no pairs; take a discriminator of sentences, or another objective"
            )
        return per_prefix

    def _parts(self) -> dict[str, Any]:
        parts: dict[str, Any] = {"generator": self.generator, "g_opt": self.g_opt}
        if self.discriminator is not None:
            parts |= {"discriminator": self.discriminator, "d_opt": self.d_opt}
        if self.ema:
            parts["average"] = self.average
        if self.reference is not None:
            parts["reference"] = self.reference
        if self.pretrain:
            parts["m_opt"] = self.m_opt
        if self.algorithm.state_dict():
            parts["algorithm"] = self.algorithm
        return parts if self.a_opt is None else parts | {"a_opt": self.a_opt}


def _nobody(x: Tensor) -> Tensor:
    raise ValueError("this algorithm has no discriminator")
