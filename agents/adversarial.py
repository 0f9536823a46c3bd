"""The adversarial game with the generator as a policy: one trainer for every estimator and objective.

Each step shows the discriminator real samples and the policy's own, then improves the policy on the cost that the
updated discriminator gives it. The generator runs once for both players: its graph is taken before the discriminator
moves and stays valid, since its own weights have not moved yet. Shapes: S samples per z, B batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.optim import Adam, Optimizer

from advrl.agents.forward import Precision, check_compiler, check_precision, twin
from advrl.agents.packs import Packs, packs_of, per_draw, unpacked
from advrl.agents.parts import Parts, follow, set_rate
from advrl.agents.stabiliser import Player, Stabiliser
from advrl.agents.switched import frozen
from advrl.checks import integer, number
from advrl.distributed import all_reduce_gradients
from advrl.distributions import Implicit
from advrl.estimators import Draw, Estimator, Score, fit_loss, fitting, make_estimator, modules_of
from advrl.nn import coupled_samples
from advrl.objectives import Game, Objective, Penalty, calibration, clip_weights, is_log_ratio, non_saturating


class AdversarialTrainer(Parts):
    """Alternates discriminator and generator steps; any estimator, any objective.

    Args:
        generator: a policy with ``distribution(z)`` (and optionally ``noise(n)``, ``decode(x)``, from its values to
            samples, and ``pair(samples, z)``, to what the discriminator sees of them), or any module z -> sample, which
            is taken as implicit.
        discriminator: maps samples (B, *event) to logits (B,) or (B, 1); high means real. One that judges g samples
            together (packing, minibatch features) pays a score-function estimator per g samples, drawn as one.
        estimator: of the policy's gradient; what fits the policy (``path`` or ``loo``) if ``None``.
        objective: the game's losses, as an ``Objective`` or a ``Game`` with its penalties.
        penalties: (weight, penalty) pairs added to the discriminator's loss.
        penalty_every: penalties are added every so many steps, with their weight times as much (lazy regularisation,
            Karras et al., 2020).
        latent: dimension of z ~ N(0, 1), for a generator without ``noise``.
        lr_generator, lr_discriminator, betas: of Adam (fused where the device has it).
        lr_estimator: of Adam, for what the estimator learns (critics, control variates).
        schedule: factor of both learning rates as a function of the step count.
        instance_noise: standard deviation, as a function of the step count, of Gaussian noise added to every sample
            that the discriminator is shown, real or not, so that data and policy overlap while they are far apart
            (Sønderby et al., 2017; Arjovsky & Bottou, 2017).
        stabilisers: what else changes a step, in this order; see :class:`Stabiliser`.
        separate_batches: show the discriminator real samples and fakes in two calls, so that batch norm takes the
            statistics of each alone; ``False`` for one call on both together.
        discriminator_steps, generator_steps: updates of each player per step; each discriminator update takes a
            batch of its own.
        ema: decay of the exponential moving average of the generator (``trainer.average``); 0 turns it off.
        precision: ``fp32``, or ``bf16``: the networks run in bfloat16, while parameters, their average, optimiser
            states, distributions, logits, losses and penalties stay float32.
        compile: run the networks through ``torch.compile``; on CUDA they are recorded as CUDA graphs. Penalties are
            left out: the compiler cannot differentiate twice.

    Raises:
        TypeError, ValueError: for numbers out of range, a generator without a source of noise, bf16 with parameters
            that are not float32, ``compile`` where nothing can be compiled, two stabilisers of one name, or a
            discriminator that judges samples together where the estimator cannot be paid for them together.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        *,
        estimator: Estimator | None = None,
        objective: Objective | Game = non_saturating,
        penalties: Sequence[tuple[float, Penalty]] = (),
        penalty_every: int = 1,
        latent: int | None = None,
        lr_generator: float = 2e-3,
        lr_discriminator: float = 2e-3,
        lr_estimator: float = 1e-3,
        betas: tuple[float, float] = (0.5, 0.99),
        schedule: Callable[[int], float] | None = None,
        instance_noise: Callable[[int], float] | None = None,
        stabilisers: Sequence[Stabiliser] = (),
        separate_batches: bool = True,
        discriminator_steps: int = 1,
        generator_steps: int = 1,
        ema: float = 0.999,
        precision: Precision = "fp32",
        compile: bool = False,
    ) -> None:
        game = objective if isinstance(objective, Game) else Game(objective)
        self.generator, self.discriminator = generator, discriminator
        self.game, self.objective, self.controller = game, game.objective, game.controller
        self.penalties = (*game.penalties, *((number("penalty weight", w, 0.0), p) for w, p in penalties))
        self.penalty_every = integer("penalty_every", penalty_every)
        self.discriminator_steps = integer("discriminator_steps", discriminator_steps)
        self.generator_steps = integer("generator_steps", generator_steps)
        self.ema = number("ema", ema, 0.0, 1.0)
        if latent is not None:
            integer("latent", latent)
        elif not hasattr(generator, "noise"):
            raise ValueError("give latent=, the dimension of z, or a generator with a method noise(n)")
        self.latent = latent
        self.average = copy.deepcopy(generator).requires_grad_(False) if ema else generator
        self._averaged: list[Tensor] = list(self.average.parameters())
        self.rates = (number("lr_generator", lr_generator, 0.0), number("lr_discriminator", lr_discriminator, 0.0))
        self.g_opt, self.d_opt = (
            Adam(net.parameters(), lr=rate, betas=betas, fused=self.device.type in ("cpu", "cuda"))
            for net, rate in zip((generator, discriminator), self.rates, strict=True)
        )
        self.schedule = schedule
        self.instance_noise = instance_noise
        self.steps = 0
        self._twins: dict[nn.Module, nn.Module] = {}
        with torch.no_grad():
            blank = torch.zeros_like(self.noise(2))  # like: the shapes, without a random number more
            probe = self.distribution(blank)
        if estimator is None:
            estimator = make_estimator(fitting(probe)) if game.advantage is None else Score(8, advantage=game.advantage)
        if game.advantage is not None and getattr(estimator, "advantage", None) is not game.advantage:
            raise ValueError("this objective weighs several samples of each z: leave the estimator to it")
        estimator.check(probe)
        self.estimator = estimator
        like = next(generator.parameters())
        for part in modules_of(estimator).values():
            part.to(device=like.device, dtype=like.dtype)
        learned = [p for part in modules_of(estimator).values() for p in part.parameters()]
        rate = number("lr_estimator", lr_estimator, 0.0)
        fused = self.device.type in ("cpu", "cuda")
        self.e_opt: Adam | None = Adam(learned, lr=rate, fused=fused) if learned else None
        check_precision(precision, generator, discriminator)
        if compile:
            check_compiler(self.device)
        self._graphs = compile and self.device.type == "cuda"
        if compile or precision != "fp32":
            self._twins = {net: twin(net, precision, compile, self.device) for net in (generator, discriminator)}
        self.separate_batches = separate_batches
        self.stabilisers: Any = nn.ModuleList(stabilisers)  # a module: the loop keeps the buffers of each rank
        if len({s.name for s in stabilisers}) < len(stabilisers):
            raise ValueError(f"one stabiliser of a name, got {', '.join(s.name for s in stabilisers)}")
        self.together = coupled_samples(discriminator)
        self.pack = packs_of(self.estimator, None if any(s.couples for s in stabilisers) else self.together)
        for stabiliser in stabilisers:
            with torch.no_grad():
                stabiliser.attach(self, self.decode(probe.mean, blank))
        self._matching = next((s for s in stabilisers if s.matches), None)

    @property
    def device(self) -> torch.device:
        """Where the generator's parameters live."""
        return next(self.generator.parameters()).device

    @property
    def batches_per_step(self) -> int:
        """How many batches of real samples a step takes."""
        return self.discriminator_steps

    def noise(self, n: int) -> Tensor:
        """(n, latent) noise for the generator."""
        if self.latent is None:
            noise: Tensor = self.generator.noise(n)  # type: ignore[operator]
            return noise
        like = next(self.generator.parameters())
        return torch.randn(n, self.latent, dtype=like.dtype, device=like.device)

    def distribution(self, z: Tensor) -> Distribution:
        """The policy's distribution given z (B, latent)."""
        generator = self._twins.get(self.generator, self.generator)
        if hasattr(generator, "distribution"):
            distribution: Distribution = generator.distribution(z)  # type: ignore[operator]
            return distribution
        sample = generator(z)
        return Implicit(sample, sample.dim() - 1)

    def decode(self, x: Tensor, z: Tensor) -> Tensor:
        """What the discriminator sees of values x (*, B, *event) of the distribution given z (B, latent)."""
        generator: Any = self.generator
        decoded: Tensor = generator.decode(x) if hasattr(generator, "decode") else x
        seen: Tensor = generator.pair(decoded, z) if hasattr(generator, "pair") else decoded
        return seen

    def step(self, batch: Tensor, z: Tensor | None = None) -> dict[str, Tensor]:
        """One step of the game.

        Args:
            batch: (discriminator_steps * B, *event) real samples.
            z: noise to use instead of fresh noise, (k * B, latent) with k = discriminator_steps + generator_steps - 1
                (the last discriminator update and the first generator update share theirs).

        Returns:
            Detached scalars on the device, so that nothing waits for it.
        """
        if self._graphs:
            torch.compiler.cudagraph_mark_step_begin()  # nothing of the step before is needed any more
        for optimiser, rate in zip((self.g_opt, self.d_opt), self.rates, strict=True):
            set_rate(optimiser, rate, self.schedule, self.steps)
        reals = batch.chunk(self.discriminator_steps)
        passes = self.discriminator_steps + self.generator_steps - 1
        noise = iter((self.noise(passes * len(reals[0])) if z is None else z).chunk(passes))
        metrics: dict[str, Tensor] = {}

        for i, real in enumerate(reals):
            given = next(noise)
            with torch.set_grad_enabled(i == self.discriminator_steps - 1):
                draw = self.draw(given)
            metrics |= self._discriminator_step(real, draw, given)

        with frozen(self.d_opt):  # its weight gradients are not needed in the generator's step
            metrics |= self._generator_step(real, draw, given)
            for given in noise:
                metrics |= self._generator_step(real, self.draw(given), given)

        self.steps += 1
        self._update_average()
        for stabiliser in self.stabilisers:
            stabiliser.after(self.steps)
        return metrics

    def draw(self, z: Tensor) -> Draw:
        """The estimator's draw given z (B, latent), of packs where the discriminator judges samples together."""
        distribution = self.distribution(z)
        return self.estimator.draw(distribution if self.pack == 1 else Packs(distribution, self.pack))

    def _discriminator_step(self, real: Tensor, draw: Draw, z: Tensor) -> dict[str, Tensor]:
        forget(self.d_opt)
        fake = self.decode(unpacked(draw.x.detach(), self.pack)[0], z)  # one sample per z: as many fakes as reals
        for stabiliser in self.stabilisers:
            fake = stabiliser.fakes(fake)
        if self.separate_batches:
            real_logits, fake_logits = self.logits(real), self.logits(fake)
        else:
            real_logits, fake_logits = self.logits(torch.cat([real, fake])).chunk(2)
        loss = game_loss = self.objective.d_loss(real_logits, fake_logits).mean()
        metrics = told_of_logits(self.objective, game_loss, real_logits, fake_logits)
        if self.steps % self.penalty_every == 0:
            for weight, penalty in self.penalties:
                value = penalty(self._exact_logits, real, fake).mean()
                loss = loss + weight * self.penalty_every * value
                metrics[penalty.__name__] = value.detach()
        for stabiliser in self.stabilisers:
            lesson = stabiliser.lesson(real, fake, metrics)
            loss = loss if lesson is None else loss + lesson
        loss = self._with_pulls("discriminator", loss, metrics)
        update(self.d_opt, loss)
        if self.game.clip is not None:
            clip_weights((p for group in self.d_opt.param_groups for p in group["params"]), self.game.clip)
        if self.controller is not None:
            metrics |= self.controller.update(real_logits, fake_logits)
        return metrics

    def _generator_step(self, real: Tensor, draw: Draw, z: Tensor) -> dict[str, Tensor]:
        forget(self.g_opt)
        real_logits = self.logits(real) if self.objective.needs_real else None

        def cost(x: Tensor) -> Tensor:
            fake = self.decode(unpacked(x, self.pack), z).flatten(0, 1)
            if self._matching is not None:
                return self._matching.cost(fake, real).expand(x.shape[:2])
            value = self.objective.cost(self.logits(fake).unflatten(0, (len(x), -1)), real_logits)
            for stabiliser in self.stabilisers:
                charge = stabiliser.charge(fake)
                value = value if charge is None else value + charge.unflatten(0, (len(x), -1))
            return per_draw(value, x.shape[1])

        loss = self.estimator.surrogate(draw, cost).mean()
        metrics = {"g_cost": loss.detach()}
        loss = self._with_pulls("generator", loss, metrics)
        learned = fit_loss(self.estimator)
        if learned is None or self.e_opt is None:
            update(self.g_opt, loss)
        else:  # both gradients first: a step changes what the other's graph saved
            backward(self.e_opt, learned, retain_graph=True)
            update(self.g_opt, loss)
            self.e_opt.step()
        return metrics

    def _with_pulls(self, player: Player, loss: Tensor, metrics: dict[str, Tensor]) -> Tensor:
        for stabiliser in self.stabilisers:
            value = stabiliser.penalty(player)
            if value is not None:
                loss = loss + value
                metrics[f"{stabiliser.name}_{player[0]}"] = value.detach()
        return loss

    def logits(self, x: Tensor) -> Tensor:
        """The discriminator's logits (B,) for samples (B, *event), as :meth:`shown`; of packs of m, (B / m,)."""
        return _one_each(self._twins.get(self.discriminator, self.discriminator)(self.shown(x)), x, self.together)

    def _exact_logits(self, x: Tensor) -> Tensor:
        """The same in full precision, not compiled: they can be differentiated twice."""
        return _one_each(self.discriminator(self.shown(x)), x, self.together)

    @torch.no_grad()
    def judge(self, x: Tensor) -> Tensor:
        """The discriminator's logits (B,) for samples (B, *event) as they are, each among copies of itself."""
        copies = self.together or 1
        return self.discriminator(x.repeat_interleave(copies, 0)).reshape(len(x), -1).mean(1)

    def shown(self, x: Tensor) -> Tensor:
        """What the discriminator sees of samples (B, *event): changed by stabilisers, under instance noise."""
        for stabiliser in self.stabilisers:
            x = stabiliser.show(x)
        std = 0.0 if self.instance_noise is None else self.instance_noise(self.steps)
        return x + std * torch.randn_like(x) if std else x

    def _update_average(self) -> None:
        if self.ema:
            live: list[Tensor] = [p for group in self.g_opt.param_groups for p in group["params"]]
            follow(self.average, self.generator, self.ema, self.steps, (self._averaged, live))

    def _parts(self) -> dict[str, Any]:
        parts: dict[str, Any] = {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "g_opt": self.g_opt,
            "d_opt": self.d_opt,
        }
        if self.ema:
            parts["average"] = self.average
        if self.controller is not None:
            parts["controller"] = self.controller
        if self.e_opt is not None:
            parts["e_opt"] = self.e_opt
        parts |= {f"stabiliser.{s.name}": s for s in self.stabilisers if s.state_dict()}
        return parts | {f"estimator.{name}": part for name, part in modules_of(self.estimator).items()}


def backward(optimiser: Optimizer, loss: Tensor, retain_graph: bool = False) -> None:
    """Gradients of a scalar loss for the optimiser's parameters alone, averaged over the ranks."""
    parameters = [p for group in optimiser.param_groups for p in group["params"] if p.requires_grad]
    forget(optimiser)
    loss.backward(inputs=parameters, retain_graph=retain_graph)
    all_reduce_gradients(parameters)


def update(optimiser: Optimizer, loss: Tensor) -> None:
    """One optimiser step on a scalar loss, with gradients averaged over the ranks."""
    backward(optimiser, loss)
    optimiser.step()


def forget(optimiser: Optimizer) -> None:
    """Let go of the last step's gradients: the next forward pass takes their memory, which is measurably quicker."""
    for group in optimiser.param_groups:
        for p in group["params"]:
            p.grad = None


def told_of_logits(objective: Objective, loss: Tensor, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """What is logged of the discriminator's loss and its logits."""
    real, fake = real.detach().flatten(), fake.detach().flatten()
    told = {"d_loss": loss.detach(), "logit_real": real.mean(), "logit_fake": fake.mean()}
    return told | calibration(real, fake) if is_log_ratio(objective) else told


def _one_each(logits: Tensor, x: Tensor, together: int | None = 1) -> Tensor:
    """Logits (B,) of samples x (B, *event) from a discriminator's output (B,) or (B, 1); of packs, fewer."""
    if logits.dim() == 2 and logits.shape[1] == 1:
        logits = logits.squeeze(1)
    packs = together != 1 and logits.dim() == 1 and len(logits) > 0 and len(x) % len(logits) == 0
    if logits.shape != (len(x),) and not packs:
        raise ValueError(
            f"the discriminator must give one logit per sample, shape ({len(x)},) or ({len(x)}, 1), "
            f"got {tuple(logits.shape)}"
        )
    return logits
