"""Images of a user's own, by a convolutional pair of networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from advrl.agents.evaluation import Evaluator
from advrl.agents.evaluation_conditional import ConditionalEvaluator
from advrl.checks import integer
from advrl.data import ImageData, PictureBatches, open_images
from advrl.data.sizes import check_size
from advrl.nn import (
    FAMILIES,
    ConditionalPolicy,
    DCGANDiscriminator,
    DCGANGenerator,
    Policy,
    ProjectionDiscriminator,
    class_rows,
    paired,
)
from advrl.recipes.clusters import Clusters
from advrl.recipes.config import AdversarialConfig, flag
from advrl.recipes.images import JUDGED, ImageParts, image_parts
from advrl.recipes.pairs import PairParts, check_pairs, class_sheet
from advrl.recipes.parts import make_policy, make_trainer
from advrl.recipes.stabilising import NORMS, check_norm, normalised, packed

Pair = Callable[[Tensor, Tensor], Tensor]
DATA = "a .npz or .npy array, an IDX file, or a folder of pictures"


@dataclass(frozen=True)
class Images(AdversarialConfig):
    """Train a generator on images of your own: --data with an array, an IDX file or a folder of pictures.

    The generator is the implicit policy G(z), which gets the discriminator's gradient by the chain rule, and both
    networks are convolutional (DCGAN); any other policy and estimator is one flag away. The defaults were chosen on
    MNIST, 28 x 28, for ten minutes of one CPU core. Of a few thousand images of several kinds better samples come
    with --augment affine --r1 0.2, and with --classes or, without labels, --clusters.
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
    classes: int = 0
    """A conditional game: the generator is asked for one of so many classes, and the discriminator knows the labels, by
    projection. 0 leaves labels to the judge."""
    clusters: int = 0
    """The same without labels, for so many clusters of the training images (k-means on principal components)."""

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
        for name in ("classes", "clusters"):
            if integer(flag(name), getattr(self, name), minimum=0) == 1:
                raise ValueError(f"{flag(name)} must be 0, or at least 2, got 1")
        if self.classes and self.clusters:
            raise ValueError("--classes and --clusters are two ways to say what an image is: give one")
        if self.sides:
            name = "images " + flag("classes" if self.classes else "clusters")
            check_pairs(self, name, ("augment", "joint_batches", "dynamics", "compile", "precision"))

    @property
    def sides(self) -> int:
        """K, the classes or clusters that the game is told; 0 if none."""
        return self.classes or self.clusters

    def generator(self, shape: tuple[int, int, int], numbers: int) -> nn.Module:
        """z (B, latent + K) to (B, numbers * C, S, S)."""
        net = DCGANGenerator(self.latent + self.sides, numbers * shape[0], shape[1], self.width)

        def reference(n: int) -> Tensor:
            z = torch.randn(n, self.latent, device="cpu")
            if not self.sides:
                return z
            return torch.cat([z, class_rows(torch.arange(n, device="cpu") % self.sides, self.sides)], 1)

        return normalised(net, self.norm, reference)

    def policy_for(self, shape: tuple[int, int, int]) -> Policy:
        """The untrained policy for images of ``shape`` (C, S, S): what :func:`advrl.load` fills with weights."""
        if not self.sides:
            return make_policy(self, lambda numbers: self.generator(shape, numbers))
        return self.conditional(shape, torch.full((self.sides,), 1 / self.sides, device="cpu"))

    def conditional(self, shape: tuple[int, int, int], shares: Tensor) -> ConditionalPolicy:
        """The untrained policy of a conditional game; ``shares`` (K,) of the classes or clusters."""
        family = FAMILIES[self.policy]
        net = self.generator(shape, family.numbers)
        return ConditionalPolicy(net, family, self.latent, self.sides, shares=shares)

    def discriminator(self, data: ImageData) -> nn.Module:
        """Images (B, C, S, S) to logits (B,); of packs of m, (B / m, m C, S, S); of pairs, (B, C + P, S, S)."""
        shape, norm = packed(self, data.shape), self.discriminator_norm
        net = DCGANDiscriminator(shape[0], shape[1], self.width, batch_norm=norm != "none")
        if self.sides:
            return ProjectionDiscriminator(self._normalised(net.trunk(), shape, data), net.features, self.sides)
        return self._normalised(net, shape, data)

    def _normalised(self, net: nn.Module, shape: torch.Size, data: ImageData) -> nn.Module:
        """A network on images of ``shape`` with ``--discriminator-norm`` in it."""
        if self.discriminator_norm in ("none", "batch"):
            return net
        prepare = FAMILIES[self.policy].prepare

        def reference(n: int) -> Tensor:
            """The first training images, as often as it takes."""
            rows = torch.arange(n * self.packing, device="cpu") % len(data.train)
            return prepare(data.train.cpu()[rows]).reshape(n, *shape)

        return normalised(net, self.discriminator_norm, reference)

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
        parts: ImageParts
        pair: Pair | None = None
        if self.sides:
            labels = source.train_labels if isinstance(source, ImageData) else source.pictures.labels
            parts, pair = self.pairs(data, labels, discriminator, device)
        else:
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
            pair=pair,
        )
        return replace(parts, real=batches, sizes=(number, len(source.held_out)))

    def pairs(
        self, data: ImageData, labels: Tensor | None, discriminator: nn.Module, device: torch.device
    ) -> tuple[PairParts, Pair]:
        """The parts of a conditional game, and how a batch of the images that ``labels`` (N,) are of becomes pairs.

        Raises:
            ValueError: if the data have no labels, or other than ``--classes`` of them; for more clusters than images.
        """
        prepare, rows = FAMILIES[self.policy].prepare, torch.eye(self.sides, device=device)
        real, unseen = prepare(data.train).to(device), prepare(data.held_out[:JUDGED]).to(device)
        if self.clusters:
            clusters = Clusters(real, self.clusters)
            shares, seen_labels, unseen_labels = clusters.shares, clusters.of(real), clusters.of(unseen)
        else:
            if labels is None or data.train_labels is None or data.held_out_labels is None:
                raise ValueError(f"--classes needs labels, and {self.data} has none: give --clusters 20 instead")
            known = labels.to(device)
            counts = torch.bincount(known)
            if len(counts) != self.classes:
                raise ValueError(f"--classes is {self.classes}, and {self.data} has {len(counts)}")
            shares = counts / counts.sum()
            seen_labels, unseen_labels = (
                part.to(device) for part in (data.train_labels, data.held_out_labels[:JUDGED])
            )

        def pair(images: Tensor, numbers: Tensor) -> Tensor:
            return paired(images, rows[clusters.of(images) if self.clusters else known[numbers]])

        policy = self.conditional(data.shape, shares).to(device)
        if self.clusters:
            judge = Evaluator(data, prepare, device)
        else:
            judge = ConditionalEvaluator(data, prepare, device, classes=self.classes, asked=policy.asked)
        trainer = make_trainer(self, policy, discriminator.to(device))
        pairs, sizes = paired(real, rows[seen_labels]), (len(data.train), len(data.held_out))
        held_out = paired(unseen, rows[unseen_labels])
        return PairParts(data, pairs, pairs, sizes, trainer, judge, seen_labels, held_out, self), pair

    def sheet(self, policy: ConditionalPolicy, real: Tensor, labels: Tensor, title: str) -> Any:
        """As :func:`advrl.recipes.pairs.class_sheet`."""
        return class_sheet(policy, real, labels, title, "cluster" if self.clusters else "class")
