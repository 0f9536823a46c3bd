"""Mixtures of Gaussians in the plane: the benchmarks of mode collapse, where everything can be counted and seen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from advrl.agents.adversarial import AdversarialTrainer
from advrl.agents.fit import Every
from advrl.agents.modes import ModeEvaluator
from advrl.agents.switched import evaluating
from advrl.checks import integer
from advrl.data import Draws, Mixture, grid, ring
from advrl.nn import MLP, POINT_FAMILIES, FourierFeatures, Policy, point_family
from advrl.plots import Frame, evolution_plot, frame_plot, points_plot, read_frames, save_figure, save_frame
from advrl.recipes.config import AdversarialConfig
from advrl.recipes.parts import NoiseDecay, make_trainer, quick_evaluation
from advrl.recipes.stabilising import augmentations, packed
from advrl.seeding import isolated

PICTURED = 2_000  # samples in a picture
RESOLUTION = 96  # points per side at which the discriminator is looked at
EARLY = 10  # frames kept before the first picture: what matters happens then


@dataclass(frozen=True)
class MixtureConfig(AdversarialConfig):
    """What recipes on mixtures share; subclasses say which mixture."""

    policy: str = "implicit"
    """What the generator's numbers mean: implicit (the deterministic G(z)) or gaussian (given z)."""
    latent: int = 4
    """Dimension of the noise z."""
    width: int = 128
    """Units of each of the two hidden layers, in both networks."""
    batch_size: int = 256
    """Noise vectors, and real points, per update."""
    steps: int = 20000
    """Steps to train for."""
    lr_generator: float = 1e-3
    """Adam's learning rate for the generator; falls linearly over the second half of the run."""
    r1: float = 0.04
    """Weight of the R1 penalty (gamma), in units of the data's scale; 0 turns it off."""
    ema: float = 0.999
    """Decay of the generator's moving average, which is what is sampled and judged; 0 turns it off."""
    octaves: int = 3
    """Octaves of Fourier features that the discriminator sees beside a point; 0 turns them off."""
    instance_noise: float = 0.3
    """Noise on what the discriminator sees at first, in units of the data's scale; it falls to 0 by --noise-until."""
    data: Path | None = None
    """Not here: points are drawn afresh, from no file."""

    name: ClassVar[str]

    def mixture(self) -> Mixture:
        """Where real points come from."""
        raise NotImplementedError

    def validate(self) -> None:
        """As for every recipe; and the policy must be one over points."""
        super().validate()
        if self.policy not in POINT_FAMILIES:
            raise ValueError(
                f"--policy {self.policy} draws pixels, but {self.name} needs points in the plane; "
                f"use --policy {' or '.join(POINT_FAMILIES)}"
            )
        if self.data is not None:
            raise ValueError(f"{self.name} draws its own points and takes no --data, got {self.data}")
        integer("--octaves", self.octaves, 0)
        if augmentations(self):
            raise ValueError(f"--augment {self.augment} moves and recolours images, and {self.name} draws points")
        self.mixture()

    def policy_for(self, shape: tuple[int, ...]) -> Policy:
        """The untrained policy for points of ``shape`` (E,): what :func:`advrl.load` fills with weights."""
        family = point_family(self.policy, self.mixture().scale)
        net = MLP(self.latent, family.numbers * shape[0], (self.width, self.width), "relu")
        return Policy(net, family, self.latent)

    def discriminator_for(self, mixture: Mixture) -> nn.Module:
        """A perceptron on Fourier features: points (B, E) to logits (B,)."""
        features = FourierFeatures(packed(self, mixture.shape)[0], self.octaves, mixture.scale)
        return nn.Sequential(features, MLP(features.out_features, (), (self.width, self.width)))

    def build(self, device: torch.device) -> MixtureParts:
        """All parts of the run."""
        mixture = self.mixture().to(device)
        trainer = make_trainer(
            replace(self, r1=self.r1 * mixture.scale**2),
            self.policy_for(mixture.shape).to(device),
            self.discriminator_for(mixture).to(device),
            instance_noise=NoiseDecay(self.instance_noise * mixture.scale, self.noise_until * self.steps),
        )
        real = Draws(mixture, self.batch_size * self.discriminator_steps, self.seed)
        return MixtureParts(mixture, real, trainer, ModeEvaluator(mixture), self.steps)

    def save_picture(self, samples: Tensor, path: Path) -> None:
        """Write a picture of points (n, 2) over the density."""
        save_figure(points_plot(samples, self.mixture().centres, self.mixture().std), path)


@dataclass(frozen=True)
class Ring(MixtureConfig):
    """Train a generator on eight narrow Gaussians on a circle, the classic test of mode collapse.

    PacGAN's ring: radius 1, standard deviation .01. The policy is implicit and follows the path derivative, which is an
    ordinary GAN. The discriminator sees Fourier features of a point, pays a little R1 penalty, and is shown everything
    through noise that fades out, so that mass can move between the modes while they still overlap.
    """

    name: ClassVar[str] = "ring"

    radius: float = 1.0
    """Of the circle (Metz et al. have 2)."""
    std: float = 0.01
    """Standard deviation of each Gaussian (Metz et al. have .02)."""

    def mixture(self) -> Mixture:
        """Eight Gaussians on a circle."""
        return ring(self.radius, self.std)


@dataclass(frozen=True)
class Grid(MixtureConfig):
    """Train a generator on 25 narrow Gaussians on a square grid.

    PacGAN's grid: centres at -4, -2, 0, 2 and 4 both ways, standard deviation .05. As the ring, but the noise fades
    more slowly: with more modes there is more mass to move before they part.
    """

    name: ClassVar[str] = "grid"

    lr_generator: float = 2e-3
    """Adam's learning rate for the generator; falls linearly over the second half of the run."""
    instance_noise: float = 0.25
    """Noise on what the discriminator sees at first, in units of the data's scale; it falls to 0 by --noise-until."""
    noise_until: float = 0.8
    """Share of the steps after which there is no instance noise any more."""

    spacing: float = 2.0
    """Distance between neighbours."""
    std: float = 0.05
    """Standard deviation of each Gaussian."""

    def mixture(self) -> Mixture:
        """Five times five Gaussians."""
        return grid(self.spacing, self.std)


@dataclass(frozen=True)
class MixtureParts:
    """A run's parts: the mixture on the device, batches of it, the trainer, and the judge."""

    data: Mixture
    real: Draws
    trainer: AdversarialTrainer
    evaluator: ModeEvaluator
    steps: int

    monitor: ClassVar[str] = "divergence"
    chosen_by: ClassVar[str] = "divergence of 10,000 samples' shares from a perfect sampler's"
    pictured: ClassVar[str] = "samples over the density, in one mode, and what the discriminator makes of them"

    @property
    def shown(self) -> Tensor:
        """Some real points, the same every time."""
        with isolated(0):
            return self.data.sample(64)

    @property
    def about(self) -> str:
        """The data in a line."""
        return f"{self.data.definition}; every batch is fresh"

    def callbacks(self, folder: Path, every: int) -> list[Every]:
        """The quick evaluation and a picture, every so many steps; frames from the start make the last one's strip."""
        policy: Any = self.trainer.average

        def keep(step: int) -> None:
            pictured = step % every == 0 or step == self.steps
            if step > every and not pictured:
                return
            frame = self.frame(step)
            save_frame(frame, folder / "frames" / f"step-{step:06d}.npz")
            if pictured:
                figure = frame_plot(frame, self.data.centres, self.data.std)
                save_figure(figure, folder / "samples" / f"step-{step:06d}.png")
            if step == self.steps:
                frames = [frame for frame in read_frames(folder / "frames") if frame.step <= step]
                save_figure(evolution_plot(frames, self.data.centres), folder / "plots" / "evolution.png")

        frames = Every(every // EARLY if every % EARLY == 0 else every, keep)
        return [quick_evaluation(self.evaluator, policy, every), frames]

    def frame(self, step: int) -> Frame:
        """Samples of the policy, and the discriminator's probability that a point is real, on a grid."""
        policy: Any = self.trainer.average
        reach = Frame.reach(self.data.centres)
        axis = torch.linspace(-reach, reach, RESOLUTION, device=self.data.centres.device)
        with evaluating(policy), torch.no_grad():
            samples = policy.sample(PICTURED)
            places = torch.cartesian_prod(axis, axis).to(samples)
            surface = self.trainer.judge(places).sigmoid().reshape(RESOLUTION, RESOLUTION).T
        return Frame(step, samples.cpu().numpy(), surface.cpu().numpy())
