"""From an adversarial configuration to the parts that a run is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from advrl.agents.adversarial import AdversarialTrainer
from advrl.agents.dynamics import make_dynamics
from advrl.agents.dynamics_first import Dynamics
from advrl.agents.dynamics_rules import AdamRule
from advrl.agents.dynamics_trainer import DynamicsTrainer
from advrl.estimators import Estimator, fitting, make_estimator
from advrl.lab import GradientProbe, SpectrumProbe
from advrl.nn import FAMILIES, Policy
from advrl.objectives import GAMES, Game, Objective, from_cost, r1
from advrl.recipes.config import AdversarialConfig, probed
from advrl.recipes.userfile import load_object
from advrl.seeding import isolated

R1_EVERY = 4


@dataclass(frozen=True)
class LinearDecay:
    """Learning-rate factor: 1 for the first half of the run, then linearly down to ``floor``."""

    steps: int
    floor: float = 0.02

    def __call__(self, step: int) -> float:
        return max(self.floor, min(1.0, 2.0 * (1.0 - step / self.steps)))


def make_policy(config: AdversarialConfig, net: Callable[[int], nn.Module]) -> Policy:
    """The configured policy on ``net(numbers)``, a network from z to (B, numbers * C, H, W)."""
    family = FAMILIES[config.policy]
    return Policy(net(family.numbers), family, config.latent)


def make_game(config: AdversarialConfig) -> Game:
    """The configured objective with its penalties.

    Raises:
        ValueError, TypeError: if a user's file gives something that is no objective.
    """
    if config.objective in GAMES:
        return GAMES[config.objective]
    given = load_object(config.objective)
    if isinstance(given, Game):
        return given
    objective = given if isinstance(given, Objective) else None
    if objective is None:
        if not callable(given):
            raise TypeError(
                f"{config.objective} must be a function, an Objective or a Game, got {type(given).__name__}"
            )
        objective = from_cost(given, name=config.objective)
    logits = torch.zeros(3, device="cpu")
    cost = objective.cost(logits, logits) if objective.needs_real else objective.cost(logits)
    if not isinstance(cost, Tensor) or cost.shape != logits.shape:
        got = tuple(cost.shape) if isinstance(cost, Tensor) else type(cost).__name__
        raise ValueError(f"{config.objective} must map logits (batch,) to costs (batch,), but (3,) gave {got}")
    return Game(objective)


def estimator_name(config: AdversarialConfig, policy: Policy) -> str:
    """The configured estimator, with ``auto`` resolved for the policy."""
    if config.estimator != "auto":
        return config.estimator
    with torch.no_grad():
        return fitting(policy.distribution(torch.zeros_like(policy.noise(2))))


def make_configured_estimator(config: AdversarialConfig, policy: Policy, objective: Objective) -> Estimator:
    """The configured estimator; the constant baseline is the cost at D = 1/2.

    Raises:
        ValueError, TypeError: if it does not fit the other options, or a user's file gives no estimator.
    """
    name = estimator_name(config, policy)
    if ":" in name:
        given = load_object(name)
        if not isinstance(given, Estimator):
            raise TypeError(f"{name} must be an instance of advrl.estimators.Estimator, got {type(given).__name__}")
        return given
    undecided = torch.zeros(1, device="cpu")
    constant = objective.cost(undecided, undecided) if objective.needs_real else objective.cost(undecided)
    return make_estimator(
        name, n=config.samples, temperature=config.temperature, baseline=config.baseline, constant=constant.item()
    )


def make_trainer(
    config: AdversarialConfig,
    policy: Policy,
    discriminator: nn.Module,
    *,
    instance_noise: Callable[[int], float] | None = None,
) -> AdversarialTrainer:
    """The configured trainer; every mismatch between the options is found here, before the first step."""
    game = make_game(config)
    shared: dict[str, Any] = {
        "estimator": make_configured_estimator(config, policy, game.objective),
        "objective": game,
        "penalties": [(config.r1 / 2, r1)] if config.r1 else [],
        "penalty_every": 1 if game.penalties else R1_EVERY,
        "schedule": LinearDecay(config.steps),
        "instance_noise": instance_noise,
        "discriminator_steps": config.discriminator_steps,
        "generator_steps": config.generator_steps,
        "ema": config.ema,
    }
    if config.dynamics != "alternating":
        return DynamicsTrainer(policy, discriminator, dynamics=configured_dynamics(config), **shared)
    return AdversarialTrainer(
        policy,
        discriminator,
        lr_generator=config.lr_generator,
        lr_discriminator=config.lr_discriminator,
        precision=config.precision,
        compile=config.compile,
        **shared,
    )


def configured_dynamics(config: AdversarialConfig) -> Dynamics:
    """The configured dynamics, by Adam with the trainer's own numbers; the discriminator begins."""
    return make_dynamics(
        config.dynamics,
        AdamRule(config.lr_generator),
        AdamRule(config.lr_discriminator),
        unroll_steps=config.unroll_steps,
        lookahead_steps=config.lookahead_steps,
        adjustment=config.adjustment,
        first="y",
    )


def spectrum_probe(config: AdversarialConfig, parts: Any, folder: Path) -> SpectrumProbe | None:
    """What ``--probe-spectrum`` asks for."""
    return SpectrumProbe(parts.trainer, parts.shown, folder) if config.probe_spectrum else None


def gradient_probe(config: AdversarialConfig, parts: Any, folder: Path) -> GradientProbe | None:
    """What ``--probe-gradients`` asks for. The run's own estimator is probed as it has learned."""
    names = probed(config)
    if not names:
        return None
    trainer = parts.trainer
    with isolated(0):  # the policy is looked at, and the run must not notice
        own = estimator_name(config, trainer.generator)
    estimators = {
        name: trainer.estimator if name == own else make_estimator(name, temperature=config.temperature)
        for name in names
    }
    return GradientProbe(trainer, estimators, parts.shown, folder)
