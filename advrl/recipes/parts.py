"""From an adversarial configuration to the parts that a run is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from advrl.agents.adversarial import AdversarialTrainer
from advrl.agents.coupled import CoupledTrainer
from advrl.agents.dynamics import make_dynamics
from advrl.agents.dynamics_first import Dynamics
from advrl.agents.dynamics_rules import AdamRule
from advrl.agents.dynamics_trainer import DynamicsTrainer
from advrl.agents.fit import Every
from advrl.agents.stabiliser import Stabiliser
from advrl.agents.switched import evaluating
from advrl.estimators import Estimator, Score, fitting, make_estimator
from advrl.lab import GradientProbe, SpectrumProbe
from advrl.nn import FAMILIES, MLP, Policy, ReconstructionEnergy
from advrl.objectives import CoupledGame, Game, Objective, from_cost, r1, smooth_labels
from advrl.objectives import make_game as named_game
from advrl.recipes.config import AdversarialConfig, flag, probed
from advrl.recipes.stabilising import STABILISERS, stabilised, stabilisers
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


@dataclass(frozen=True)
class NoiseDecay:
    """Standard deviation of the instance noise: ``start``, falling linearly to 0 over the first ``steps`` steps."""

    start: float
    steps: float

    def __call__(self, step: int) -> float:
        return self.start * max(0.0, 1.0 - step / self.steps)


def make_policy(config: AdversarialConfig, net: Callable[[int], nn.Module]) -> Policy:
    """The configured policy on ``net(numbers)``, a network from z to (B, numbers * C, H, W)."""
    family = FAMILIES[config.policy]
    return Policy(net(family.numbers), family, config.latent)


def make_game(config: AdversarialConfig) -> Game | CoupledGame:
    """The configured objective with its penalties.

    Raises:
        ValueError, TypeError: if a user's file gives something that is no objective.
    """
    if ":" not in config.objective:
        return named_game(config.objective)
    given = load_object(config.objective)
    if isinstance(given, (Game, CoupledGame)):
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


def smoothed(config: AdversarialConfig, game: Game | CoupledGame) -> Game | CoupledGame:
    """The game with the configured labels.

    Raises:
        ValueError: if a single sample has no label in it.
    """
    if config.real_label == 1 and config.fake_label == 0:
        return game
    if isinstance(game, CoupledGame) or game.controller is not None or not game.objective.high_is_real:
        raise ValueError(
            f"--real-label and --fake-label do not go with --objective {config.objective}: "
            "it asks for no probability that a single sample is real"
        )
    return replace(game, objective=smooth_labels(game.objective, config.real_label, config.fake_label))


def estimator_name(config: AdversarialConfig, policy: Policy) -> str:
    """The configured estimator, with ``auto`` resolved for the policy."""
    if config.estimator != "auto":
        return config.estimator
    with torch.no_grad():
        return fitting(policy.distribution(torch.zeros_like(policy.noise(2))))


def make_configured_estimator(config: AdversarialConfig, policy: Policy, game: Game | CoupledGame) -> Estimator:
    """The configured estimator; the constant baseline is the cost at D = 1/2.

    Raises:
        ValueError, TypeError: if it does not fit the other options, or a user's file gives no estimator.
    """
    name = estimator_name(config, policy)
    if isinstance(game, Game) and game.advantage is not None:
        if config.estimator != "auto" or config.baseline is not None or name == "path":
            raise ValueError(
                f"--objective {config.objective} weighs the samples of each z of a discrete policy, and is an "
                "estimator by itself: leave --estimator and --baseline alone, or use --objective boundary-seeking"
            )
        return Score(8 if config.samples is None else config.samples, advantage=game.advantage)
    if ":" in name:
        given = load_object(name)
        if not isinstance(given, Estimator):
            raise TypeError(f"{name} must be an instance of advrl.estimators.Estimator, got {type(given).__name__}")
        return given
    undecided, constant = torch.zeros(1, device="cpu"), 0.0
    if isinstance(game, Game):
        cost = game.objective.cost
        constant = (cost(undecided, undecided) if game.objective.needs_real else cost(undecided)).item()
    return make_estimator(
        name, n=config.samples, temperature=config.temperature, baseline=config.baseline, constant=constant
    )


def make_energy(config: AdversarialConfig, policy: Policy) -> nn.Module:
    """An autoencoder of two hidden layers around a narrow one: what an energy game needs for a discriminator."""
    with isolated(0), torch.no_grad():
        shape = policy.sample(2).shape[1:]
    narrow = max(1, min(config.width // 8, shape.numel() // 2))  # or it could pass everything on as it is
    net = MLP(shape, shape, (config.width, narrow, config.width))
    device = next(policy.parameters()).device
    return ReconstructionEnergy(net, power=1 if config.objective == "began" else 2).to(device)


def make_trainer(
    config: AdversarialConfig,
    policy: Policy,
    discriminator: nn.Module,
    *,
    instance_noise: Callable[[int], float] | None = None,
    hooks: Sequence[Stabiliser] = (),
) -> AdversarialTrainer:
    """The configured trainer; every mismatch between the options is found here, before the first step.

    ``instance_noise`` takes the place of the configured one, where that is in units of the data; ``hooks`` are a
    recipe's own, before the configured stabilisers.
    """
    if instance_noise is None and config.instance_noise:
        instance_noise = NoiseDecay(config.instance_noise, config.noise_until * config.steps)
    game = make_game(config)
    estimator = make_configured_estimator(config, policy, game)
    if game is named_game("total-variation") and estimator.needs_gradient:
        raise ValueError(
            "--objective total-variation pays by steps, whose gradient through a sample is 0: "
            "use a discrete policy with --estimator loo"
        )
    game = smoothed(config, game)
    slopes, every = [(config.r1 / 2, r1)] if config.r1 else [], R1_EVERY
    make: Callable[..., AdversarialTrainer] = AdversarialTrainer
    if isinstance(game, CoupledGame):
        make = CoupledTrainer
        if probed(config):
            raise ValueError(f"--probe-gradients needs a cost of each sample, and {game.name} couples the batch")
    elif game.penalties:
        every = 1
        if r1 in [penalty for _, penalty in game.penalties]:  # it has slopes of its own, with gamma 1
            game = replace(game, penalties=tuple((config.r1 * weight, penalty) for weight, penalty in game.penalties))
            slopes = []
    if isinstance(game, Game) and not game.objective.high_is_real:
        if hasattr(policy, "pair"):
            raise ValueError(f"--objective {config.objective} judges by an autoencoder, which has no place for a class")
        discriminator = make_energy(config, policy)
    shared: dict[str, Any] = {
        "estimator": estimator,
        "objective": game,
        "penalties": slopes,
        "penalty_every": every,
        "schedule": LinearDecay(config.steps),
        "instance_noise": instance_noise,
        "discriminator_steps": config.discriminator_steps,
        "generator_steps": config.generator_steps,
        "ema": config.ema,
    }
    if config.dynamics != "alternating":
        _refuse_beside_dynamics(config, game)
        return DynamicsTrainer(policy, discriminator, dynamics=configured_dynamics(config), **shared)
    return make(
        policy,
        stabilised(config, discriminator),
        stabilisers=[*hooks, *stabilisers(config)],
        separate_batches=not config.joint_batches,
        lr_generator=config.lr_generator,
        lr_discriminator=config.lr_discriminator,
        precision=config.precision,
        compile=config.compile,
        **shared,
    )


def _refuse_beside_dynamics(config: AdversarialConfig, game: Game | CoupledGame) -> None:
    """What belongs to the alternating step alone."""
    beside = f"--dynamics {config.dynamics} moves both players by their losses alone"
    if isinstance(game, CoupledGame) or game.clip is not None or game.controller is not None:
        raise ValueError(f"{beside}: --objective {config.objective} needs --dynamics alternating")
    changed = [name for name in STABILISERS if getattr(config, name) != getattr(AdversarialConfig, name)]
    if changed:
        raise ValueError(f"{beside}: {flag(changed[0])} needs --dynamics alternating")


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


def quick_evaluation(evaluator: Any, policy: Any, every: int) -> Every:
    """The evaluator's quick figures of a policy, in evaluation mode, every so many steps."""

    def judge(step: int) -> Mapping[str, float]:
        with evaluating(policy):
            found: Mapping[str, float] = evaluator.fast(policy.sample)
        return found

    return Every(every, judge)


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
