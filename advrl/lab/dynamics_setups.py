"""Set-ups of ``advrl bench dynamics``: networks, rates and noise that every contender shares, and the contenders.

**metz** is figure 2 of Metz et al. (2017): two hidden layers of 128 tanh units, z of 256, batches of 512, Adam with
1e-3 for the generator and 1e-4 for the discriminator, first beta 1/2, and nothing else. Within a minute of a CPU nobody
learns the grid so. **annealed** is small enough for seconds: two hidden layers of 64 units, z of 2, batches of 64, two
octaves of Fourier features in front of the discriminator, rates of 2e-3 and 4e-3 that fall over the second half of the
run, and noise on all that the discriminator is shown, from .4 of the data's scale to 0 at four fifths of it. Noise and
rates go by the share of the run's time that is spent, so that who takes few steps has all of them too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from advrl.agents import AdamRule, AdversarialTrainer, DynamicsTrainer, make_dynamics
from advrl.agents.dynamics import DYNAMICS
from advrl.data import Mixture, grid, ring
from advrl.nn import MLP, FourierFeatures
from advrl.objectives import r1

R1 = 0.04  # weight in units of the data's scale, as in the recipes

MIXTURES: dict[str, Callable[[], Mixture]] = {"ring": lambda: ring(2.0, 0.02), "grid": grid}
CONTENDERS = (
    *(name for name in DYNAMICS if not name.startswith("unrolled")),
    "unrolled-5", "unrolled-10", "unrolled-first-order-5", "unrolled-first-order-10", "alternating-r1",
)  # fmt: skip


@dataclass(frozen=True)
class Setup:
    """What all contenders of a study share.

    Args:
        latent, width, activation: of the perceptrons, which have two hidden layers.
        octaves: of Fourier features in front of the discriminator; 0 for none.
        rates, betas: of Adam, the generator's rate first.
        batch_size: real points of a step, and noise vectors.
        falling: let the rates fall linearly to 0 over the second half.
        noise: standard deviation at first, in units of the data's scale, of noise on what the discriminator is shown.
        noise_until: share of the run after which there is none.
    """

    latent: int
    width: int
    activation: str
    octaves: int
    rates: tuple[float, float]
    betas: tuple[float, float]
    batch_size: int
    falling: bool = False
    noise: float = 0.0
    noise_until: float = 1.0


SETUPS = {
    "annealed": Setup(2, 64, "relu", 2, (2e-3, 4e-3), (0.5, 0.99), 64, falling=True, noise=0.4, noise_until=0.8),
    "metz": Setup(256, 128, "tanh", 0, (1e-3, 1e-4), (0.5, 0.999), 512),
}


class Pace:
    """How far a run is, and what goes by it. The step count that trainers ask with plays no part.

    Args:
        setup: what falls, and how.
        scale: of the data.
    """

    def __init__(self, setup: Setup, scale: float) -> None:
        self.setup, self.scale, self.share = setup, scale, 0.0

    def rate(self, step: int) -> float:
        """Factor of both learning rates."""
        return min(1.0, 2 * max(1.0 - self.share, 1e-3)) if self.setup.falling else 1.0

    def noise(self, step: int) -> float:
        """Standard deviation of the noise."""
        return self.setup.noise * self.scale * max(0.0, 1.0 - self.share / self.setup.noise_until)


def make_contender(
    name: str, mixture: Mixture, device: torch.device, setup: Setup = SETUPS["annealed"], factor: float = 1.0
) -> tuple[AdversarialTrainer, Pace]:
    """A fresh trainer and the pace that it keeps to; ``alternating`` is the ordinary one.

    Args:
        name: of ``CONTENDERS``.
        mixture: what it learns.
        device: where.
        setup: what it shares with the others.
        factor: of both learning rates.
    """
    hidden = (setup.width, setup.width)
    seen = [FourierFeatures(2, setup.octaves, mixture.scale)] if setup.octaves else []
    inputs = seen[0].out_features if seen else 2
    generator = MLP(setup.latent, 2, hidden, setup.activation).to(device)
    discriminator = nn.Sequential(*seen, MLP(inputs, (), hidden, setup.activation)).to(device)
    pace, rates = Pace(setup, mixture.scale), [rate * factor for rate in setup.rates]
    shared: dict[str, Any] = {"latent": setup.latent, "ema": 1e-12, "schedule": pace.rate}  # the weights themselves
    if setup.noise:
        shared["instance_noise"] = pace.noise
    if name in ("alternating", "alternating-r1"):
        if name == "alternating-r1":
            shared |= {"penalties": [(R1 * mixture.scale**2 / 2, r1)], "penalty_every": 4}
        trainer = AdversarialTrainer(
            generator, discriminator, lr_generator=rates[0], lr_discriminator=rates[1], betas=setup.betas, **shared
        )
        return trainer, pace
    base, k = (name.rpartition("-")[0], int(name.rpartition("-")[2])) if name.startswith("unrolled") else (name, 5)
    x, y = (AdamRule(rate, setup.betas) for rate in rates)
    dynamics = make_dynamics(base, x, y, unroll_steps=k, first="y")
    return DynamicsTrainer(generator, discriminator, dynamics=dynamics, **shared), pace
