"""Images of a user's own, by a convolutional pair of networks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from advrl.checks import integer
from advrl.data import ImageData, PictureBatches, open_images
from advrl.data.sizes import check_size
from advrl.nn import FAMILIES, DCGANDiscriminator, DCGANGenerator, Policy
from advrl.recipes.config import AdversarialConfig
from advrl.recipes.images import ImageParts, image_parts
from advrl.recipes.parts import make_policy
from advrl.recipes.stabilising import NORMS, check_norm, normalised, packed

DATA = "a .npz or .npy array, an IDX file, or a folder of pictures"


@dataclass(frozen=True)
class Images(AdversarialConfig):
    """Train a generator on images of your own: --data with an array, an IDX file or a folder of pictures.

    The generator is the implicit policy G(z), which gets the discriminator's gradient by the chain rule, and both
    networks are convolutional (DCGAN); any other policy and estimator is one flag away. The defaults were chosen on
    MNIST, 28 x 28, for ten minutes of one CPU core.
    """

    name: ClassVar[str] = "images"

    data: Path | None = None
    """What to train on: .npz or .npy with images (N, H, W), (N, C, H, W) or (N, H, W, C), optionally labels; an IDX
    file, optionally .gz, with its labels beside it; or a folder of pictures, optionally a sub-folder for each class."""
    size: int | None = None
    """Side of the images, from 8: the middle square is resized to it. Default: the shorter side, or the nearest from 8
    to 64."""
    workers: int | None = None
    """Processes that decode a folder's pictures while the training goes on; 0 is the training's own. Default: a folder
    of up to 1 GiB is decoded beforehand, a larger one by 2."""
    policy: str = "implicit"
    """What the generator's numbers mean: implicit (the deterministic G(z)), gaussian (given z), binomial (sixteenths of
    ink), bernoulli (ink or none) or categorical (grey levels as classes)."""
    width: int = 32
    """Channels of the largest maps; both networks have twice as many in maps of half the side."""
    batch_size: int = 64
    """Noise vectors, and real samples, per update."""
    steps: int = 10000
    """Steps to train for."""
    r1: float = 1.5
    """Weight of the R1 penalty (gamma); 0 turns it off."""
    ema: float = 0.999
    """Decay of the generator's moving average, which is what is sampled and judged; 0 turns it off."""
    norm: str = "batch"
    """Normalisation in the generator: batch, or by a reference batch: reference, virtual (Salimans et al., 2016)."""
    discriminator_norm: str = "none"
    """The same in the discriminator, or none. Batch norm couples its samples, and needs --r1 0."""

    def validate(self) -> None:
        """Raise a ``ValueError`` or ``TypeError`` for the first option that cannot be."""
        super().validate()
        if self.data is None:
            raise ValueError(f"--data is missing: give {DATA}, as in advrl train images --data pictures/")
        if self.size is not None:
            check_size(self.size)
        if self.workers is not None:
            integer("--workers", self.workers, minimum=0)
        check_norm(self, "--norm", self.norm, NORMS[1:])
        check_norm(self, "--discriminator-norm", self.discriminator_norm, ("none", *NORMS[1:]))
        if self.discriminator_norm == "batch" and self.r1:
            raise ValueError(
                "--discriminator-norm batch couples the samples that the R1 penalty takes one by one: "
                "give --r1 0, or --discriminator-norm virtual"
            )

    def generator(self, shape: tuple[int, int, int], numbers: int) -> nn.Module:
        """z (B, latent) to (B, numbers * C, S, S)."""
        net = DCGANGenerator(self.latent, numbers * shape[0], shape[1], self.width)
        return normalised(net, self.norm, lambda n: torch.randn(n, self.latent, device="cpu"))

    def policy_for(self, shape: tuple[int, int, int]) -> Policy:
        """The untrained policy for images of ``shape`` (C, S, S): what :func:`advrl.load` fills with weights."""
        return make_policy(self, lambda numbers: self.generator(shape, numbers))

    def discriminator(self, data: ImageData) -> nn.Module:
        """Images (B, C, S, S) to logits (B,); of packs of m, (B / m, m C, S, S) to (B / m,)."""
        shape, norm = packed(self, data.shape), self.discriminator_norm
        net = DCGANDiscriminator(shape[0], shape[1], self.width, batch_norm=norm != "none")
        if norm in ("none", "batch"):
            return net
        prepare = FAMILIES[self.policy].prepare

        def reference(n: int) -> Tensor:
            """The first training images, as often as it takes."""
            rows = torch.arange(n * self.packing, device="cpu") % len(data.train)
            return prepare(data.train.cpu()[rows]).reshape(n, *shape)

        return normalised(net, norm, reference)

    def build(self, device: torch.device) -> ImageParts:
        """All parts of the run.

        Raises:
            ValueError: if the data cannot be used, or its training half is smaller than a batch.
        """
        assert self.data is not None
        source = open_images(self.data, self.size, stream=self.workers is not None)
        data = source if isinstance(source, ImageData) else source.sample
        number = len(source.train)
        if number < self.batch_size:
            raise ValueError(
                f"--batch-size {self.batch_size} is more than the {number} images of the training half of {self.data}; "
                f"give --batch-size {number} or less"
            )
        discriminator = self.discriminator(data)
        parts = image_parts(self, data, lambda numbers: self.generator(data.shape, numbers), discriminator, device)
        if isinstance(source, ImageData):
            return parts
        batches = PictureBatches(
            source.pictures,
            source.train,
            FAMILIES[self.policy].prepare,
            self.batch_size * self.discriminator_steps,
            self.seed,
            device,
            workers=2 if self.workers is None else self.workers,
        )
        return replace(parts, real=batches, sizes=(number, len(source.held_out)))
