"""What the image recipes share: data, pictures, the judge, and how a policy is put on a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from advrl.agents.adversarial import AdversarialTrainer
from advrl.agents.evaluation import Evaluator
from advrl.agents.fit import Every
from advrl.agents.switched import evaluating
from advrl.data import ImageData, PictureBatches
from advrl.plots import sample_sheet, save_png
from advrl.recipes.config import AdversarialConfig
from advrl.recipes.parts import make_policy, make_trainer, quick_evaluation
from advrl.seeding import isolated

MONITOR = "frechet"
PICTURED = 64
JUDGED = 500  # images of each half that the discriminator is asked about on the way
PICTURE_SEED = 1


@dataclass(frozen=True)
class ImageParts:
    """A run's parts: what it is judged by, what it is trained on, the trainer, and the judge.

    ``real`` and ``shown`` (N, C, H, W) are in [-1, 1] on the device and the same, unless ``real`` comes from a folder;
    ``sizes`` are the numbers of training and held-out images.
    """

    data: ImageData
    real: Tensor | PictureBatches
    shown: Tensor
    sizes: tuple[int, int]
    trainer: AdversarialTrainer
    evaluator: Evaluator

    monitor: ClassVar[str] = MONITOR
    chosen_by: ClassVar[str] = "Fréchet distance to the training half"
    pictured: ClassVar[str] = "real images, samples, the policy's mean"

    @property
    def about(self) -> str:
        """The data in a line."""
        train, held_out = self.sizes
        return f"{train:,} training images of shape {tuple(self.data.shape)}, {held_out:,} held out"

    def callbacks(self, folder: Path, every: int) -> list[Every]:
        """Pictures of fixed noise and the quick evaluation, every so many steps."""
        policy: Any = self.trainer.average

        def draw(step: int) -> None:
            with isolated(PICTURE_SEED), evaluating(policy):
                sheet = self.sheet(policy, f"step {step:,}")
            save_png(sheet, folder / "samples" / f"step-{step:06d}.png")

        return [quick_evaluation(self.evaluator, policy, every), Every(every, draw), Every(every, self.remembered)]

    @property
    def halves(self) -> tuple[Tensor, Tensor] | None:
        """Real samples that the discriminator learns from, and held-out ones, if it can be asked about them."""
        return self.evaluator.halves

    @torch.no_grad()
    def remembered(self, step: int) -> Mapping[str, float]:
        """The discriminator's mean logit of samples that it learns from, and of held-out ones.

        If the second is far below the first, it knows the training half by heart.
        """
        if self.halves is None:
            return {}
        with isolated(PICTURE_SEED), evaluating(self.trainer.discriminator):
            seen, unseen = (float(self.trainer.judge(half[:JUDGED]).mean()) for half in self.halves)
        return {"logit_seen": seen, "logit_held_out": unseen}

    def sheet(self, policy: Any, title: str) -> Any:
        """The picture of a run on its way: real images, samples, and the policy's mean images at the samples' z."""
        rows = torch.randperm(len(self.shown), device="cpu")[:PICTURED].to(self.shown.device)
        z = policy.noise(PICTURED)
        panels = {
            "real": self.shown[rows],
            "samples": policy.sample(PICTURED, z),
            "the policy's mean at the same z": policy.mean(z),
        }
        return sample_sheet({name: images.clamp(-1, 1) for name, images in panels.items()}, title=title)


def image_parts(
    config: AdversarialConfig,
    data: ImageData,
    generator: Callable[[int], nn.Module],
    discriminator: nn.Module,
    device: torch.device,
) -> ImageParts:
    """Put networks, data and judge on the device."""
    policy = make_policy(config, generator).to(device)
    prepare = policy.family.prepare
    trainer = make_trainer(config, policy, discriminator.to(device))
    real = prepare(data.train).to(device)
    sizes = len(data.train), len(data.held_out)
    return ImageParts(data, real, real, sizes, trainer, Evaluator(data, prepare, device))
