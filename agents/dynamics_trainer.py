"""The adversarial game moved by any two-player dynamics: the generator is player x, the discriminator player y.

The losses are those of ``AdversarialTrainer`` as a pure function of both networks' parameters on one batch and its
noise, so that a dynamics may evaluate and differentiate them anywhere. The samples of one generator serve all gradients
that are taken at the same weights of it. Shapes: S samples per z, B batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from advrl.agents.adversarial import AdversarialTrainer, told_of_logits
from advrl.agents.dynamics import check_state
from advrl.agents.dynamics_field import Field
from advrl.agents.dynamics_first import Dynamics
from advrl.agents.dynamics_rules import Params, State
from advrl.agents.parts import follow
from advrl.estimators import Draw, Estimator
from advrl.objectives import Game, Objective, Penalty, non_saturating

Losses = tuple[Tensor | None, Tensor | None]


class DynamicsTrainer(AdversarialTrainer):
    """One step of a dynamics per batch, on the losses of the two players.

    What :class:`AdversarialTrainer` has and this does not: learned control variates, bfloat16 and compilation. Where
    the policy or the discriminator draw random numbers beside z, every evaluation of the losses draws its own.

    Args:
        generator, discriminator, estimator, objective, penalties, penalty_every, latent, instance_noise, ema: as there.
        dynamics: with the two players' rules, x the generator's.
        schedule: factor of both learning rates as a function of the step count.
        discriminator_steps, generator_steps: of each player per step; one of each is the dynamics' step, and before it
            the discriminator, after it the generator, moves by its own rule against the other as it is. Each
            discriminator update takes a batch of its own.

    Raises:
        TypeError, ValueError: as there; for an estimator that learns; and for one without higher derivatives, if the
            dynamics needs them.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        *,
        dynamics: Dynamics,
        estimator: Estimator | None = None,
        objective: Objective | Game = non_saturating,
        penalties: Sequence[tuple[float, Penalty]] = (),
        penalty_every: int = 1,
        latent: int | None = None,
        schedule: Callable[[int], float] | None = None,
        instance_noise: Callable[[int], float] | None = None,
        discriminator_steps: int = 1,
        generator_steps: int = 1,
        ema: float = 0.999,
    ) -> None:
        if not isinstance(dynamics, Dynamics):
            raise TypeError(f"dynamics must be a Dynamics, as make_dynamics returns, got {type(dynamics).__name__}")
        super().__init__(
            generator, discriminator, estimator=estimator, objective=objective, penalties=penalties,
            penalty_every=penalty_every, latent=latent, schedule=schedule, instance_noise=instance_noise,
            discriminator_steps=discriminator_steps, generator_steps=generator_steps, ema=ema,
        )  # fmt: skip
        if self.game.clip is not None or self.controller is not None:
            raise ValueError(f"{self.objective.name} needs more than its losses: use AdversarialTrainer")
        name = type(self.estimator).__name__
        if self.e_opt is not None:
            raise ValueError(f"{name} learns along the way, which only the alternating trainer does: use loo or path")
        if dynamics.curvature and not self.estimator.higher_order:
            raise ValueError(
                f"{type(dynamics).__name__} needs second derivatives, and those of {name}'s surrogate are not "
                "estimates of the game's: use path or loo, or a dynamics of first order"
            )
        self.dynamics = dynamics
        self._networks = Networks(generator, discriminator)
        self._state: State = dynamics.init(*self._networks.copies())

    def step(self, batch: Tensor, z: Tensor | None = None) -> dict[str, Tensor]:
        """As :meth:`AdversarialTrainer.step`, with the dynamics' step in place of each player's last and first."""
        rate = 1.0 if self.schedule is None else self.schedule(self.steps)
        reals = batch.chunk(self.discriminator_steps)
        passes = self.discriminator_steps + self.generator_steps - 1
        noise = iter((self.noise(passes * len(reals[0])) if z is None else z).chunk(passes))
        x, y = (tuple(p.detach() for p in weights) for weights in self._networks.weights)
        metrics: dict[str, Tensor] = {}
        for real in reals[:-1]:
            sample = self._sample(real, next(noise))
            x, y, self._state = self.dynamics.alone("y", Field(sample), x, y, self._state, rate)
        sample = self._sample(reals[-1], next(noise))
        x, y, self._state = self.dynamics.step(Field(sample), x, y, self._state, rate)
        metrics |= sample.metrics
        for _ in range(self.generator_steps - 1):
            sample = self._sample(reals[-1], next(noise))
            x, y, self._state = self.dynamics.alone("x", Field(sample), x, y, self._state, rate)
        self._networks.put(x, y)
        self.steps += 1
        self._update_average()
        return metrics

    def _sample(self, real: Tensor, z: Tensor) -> Sample:
        every = self.penalty_every
        return Sample(
            self,
            self._networks,
            real,
            z,
            self.estimator,
            self.dynamics.curvature,
            every if self.steps % every == 0 else 0,
        )

    def step_sizes(self) -> tuple[Params, Params]:
        """The step size of every weight as it is now, momentum left out."""
        rate = 1.0 if self.schedule is None else self.schedule(self.steps)
        return self.dynamics.sizes(*self._networks.copies(), self._state, rate)

    @torch.no_grad()
    def _update_average(self) -> None:
        """The weights to evaluate are the dynamics' own averages, where it has some."""
        x, y = (tuple(p.detach() for p in weights) for weights in self._networks.weights)
        judged, _ = self.dynamics.judged(x, y, self._state)
        if judged is x or not self.ema:
            super()._update_average()
            return
        mine = dict(self.average.named_parameters())
        averaged: list[Tensor] = [mine[name.partition(".")[2]] for name in self._networks.names[0]]
        follow(self.average, self.generator, 0.0, self.steps, (averaged, list(judged)))  # takes the weights as they are

    def _parts(self) -> dict[str, Any]:
        return {name: part for name, part in super()._parts().items() if name not in ("g_opt", "d_opt")}

    def state_dict(self) -> dict[str, Any]:
        """Networks, average, the dynamics' state of both players, the estimator's, and the step count."""
        return {**super().state_dict(), "dynamics": self._state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state_dict` returned.

        Raises:
            ValueError: if it has other parts than this trainer, or is of another dynamics.
        """
        if "dynamics" not in state:
            raise ValueError(f"the state has parts {sorted(state.keys() - {'steps'})}, and none of a dynamics")
        check_state(state["dynamics"], self._state, "dynamics")
        super().load_state_dict({name: part for name, part in state.items() if name != "dynamics"})
        self._state = state["dynamics"]


class Networks(nn.Module):
    """Both networks in one module: whatever is done inside :meth:`at` sees the weights that it puts there.

    Args:
        generator, discriminator: their trainable parameters are the two players.
    """

    def __init__(self, generator: nn.Module, discriminator: nn.Module) -> None:
        super().__init__()
        self.generator, self.discriminator = generator, discriminator
        found = [
            [(f"{side}.{name}", p) for name, p in net.named_parameters() if p.requires_grad]
            for side, net in (("generator", generator), ("discriminator", discriminator))
        ]
        self.names = tuple([name for name, _ in side] for side in found)
        self.weights = tuple([p for _, p in side] for side in found)
        self._places: dict[str, tuple[dict[str, Any], str]] = {}
        for name in (name for side in self.names for name in side):
            owner, _, own = name.rpartition(".")
            self._places[name] = self.get_submodule(owner)._parameters, own

    @contextmanager
    def at(self, names: Sequence[str], values: Sequence[Tensor]) -> Iterator[None]:
        """Inside, the networks have these weights: ``torch.func.functional_call`` without its search for the names."""
        places = [self._places[name] for name in names]
        before = [own[name] for own, name in places]
        for (own, name), value in zip(places, values, strict=True):
            own[name] = value
        try:
            yield
        finally:
            for (own, name), parameter in zip(places, before, strict=True):
                own[name] = parameter

    def copies(self) -> tuple[Params, Params]:
        """Both players' parameters as they are now."""
        x, y = (tuple(p.detach().clone() for p in weights) for weights in self.weights)
        return x, y

    @torch.no_grad()
    def put(self, x: Params, y: Params) -> None:
        """Move the networks there."""
        for weights, values in zip(self.weights, (x, y), strict=True):
            torch._foreach_copy_([p.detach() for p in weights], list(values))


class Sample:
    """The game on one batch and its noise: two losses of both players' parameters.

    Args:
        trainer: whose objective, penalties and networks' use it is.
        networks: of that trainer.
        real: (B, *event) real samples.
        z: (B, latent) noise.
        estimator: of the policy's gradient.
        again: whether each loss needs its derivatives in both players.
        penalised: factor of the penalties' weights.
    """

    def __init__(
        self,
        trainer: AdversarialTrainer,
        networks: Networks,
        real: Tensor,
        z: Tensor,
        estimator: Estimator,
        again: bool,
        penalised: int,
    ) -> None:
        self.trainer, self.networks, self.real, self.z = trainer, networks, real, z
        self.estimator, self.again, self.penalised = estimator, again, penalised
        self.metrics: dict[str, Tensor] = {}
        self._drawn: tuple[Params, Draw] | None = None

    def __call__(self, x: Params, y: Params) -> tuple[Tensor, Tensor]:
        loss_x, loss_y = self._losses(x, y, "xy")
        assert loss_x is not None and loss_y is not None
        return loss_x, loss_y

    def loss_x(self, x: Params, y: Params) -> Tensor:
        """The generator's alone."""
        loss = self._losses(x, y, "x")[0]
        assert loss is not None
        return loss

    def loss_y(self, x: Params, y: Params) -> Tensor:
        """The discriminator's alone."""
        loss = self._losses(x, y, "y")[1]
        assert loss is not None
        return loss

    def _losses(self, x: Params, y: Params, whose: str) -> Losses:
        names, values = [*self.networks.names[0], *self.networks.names[1]], (*x, *y)
        if whose == "y" and self._drawn is not None and self._drawn[0] is x and not self.again:
            names, values = self.networks.names[1], y  # the generator has done its part
        with self.networks.at(names, values):
            return self._within(x, whose)

    def _within(self, x: Params, whose: str) -> Losses:
        trainer, objective = self.trainer, self.trainer.objective
        draw = self._draw(x)
        real_logits = trainer.logits(self.real) if "y" in whose or objective.needs_real else None
        seen: list[Tensor] = []

        def logits(values: Tensor) -> Tensor:
            found = trainer.logits(trainer.decode(values, self.z).flatten(0, 1)).unflatten(0, values.shape[:2])
            if values is draw.x:
                seen.append(found)
            return found

        loss_x: Tensor | None = None
        loss_y: Tensor | None = None
        if "x" in whose:
            loss_x = self.estimator.surrogate(draw, lambda v: objective.cost(logits(v), real_logits)).mean()
            self.metrics.setdefault("g_cost", loss_x.detach())
        if "y" in whose:
            assert real_logits is not None
            loss_y = self._judge(draw, real_logits, logits, seen)
        return loss_x, loss_y

    def _draw(self, x: Params) -> Draw:
        """The policy's samples at these weights, drawn once."""
        if self._drawn is None or self._drawn[0] is not x:
            self._drawn = x, self.estimator.draw(self.trainer.distribution(self.z))
        return self._drawn[1]

    def _judge(self, draw: Draw, real_logits: Tensor, logits: Callable[[Tensor], Tensor], seen: list[Tensor]) -> Tensor:
        """The discriminator's loss, with its derivatives in the generator if they are needed."""
        trainer, d_loss = self.trainer, self.trainer.objective.d_loss
        if self.again:
            loss = self.estimator.surrogate(draw, lambda v: d_loss(real_logits, logits(v))).mean()
            fake_logits = seen[-1]
        else:  # one sample for each z, and those judged for the generator will do
            fake_logits = seen[0][:1] if seen else logits(draw.x[:1].detach())
            loss = d_loss(real_logits, fake_logits).mean()
        first = "d_loss" not in self.metrics
        if first:
            self.metrics |= told_of_logits(trainer.objective, loss, real_logits, fake_logits)
        if self.penalised:
            fake = trainer.decode(draw.x.detach()[0], self.z)
            for weight, penalty in trainer.penalties:
                value = penalty(trainer._exact_logits, self.real, fake).mean()
                loss = loss + weight * self.penalised * value
                if first:
                    self.metrics[penalty.__name__] = value.detach()
        return loss
