"""Handwritten digits, 8 x 8: a policy that writes sixteen drops of ink per pixel, paid by a discriminator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from advrl.data import ImageData, digits, load_images
from advrl.nn import MLP, Policy
from advrl.recipes.config import AdversarialConfig
from advrl.recipes.images import ImageParts, image_parts
from advrl.recipes.parts import make_policy
from advrl.recipes.stabilising import NORMS, check_norm, normalised, packed


@dataclass(frozen=True)
class Digits(AdversarialConfig):
    """Train a generator as a policy on scikit-learn's handwritten digits (8 x 8, nothing is downloaded).

    A pixel is a count of ink from 0 to 16, so the natural policy is Binomial(16, p(z)) per pixel: discrete, with no
    gradient through it. It learns by REINFORCE, each of 8 samples per z against the mean of the others, from a
    discriminator that learns beside it. Two multilayer perceptrons; about two minutes on two CPU cores.
    """

    name: ClassVar[str] = "digits"

    norm: str = "layer"
    """Normalisation in the generator: layer, batch (couples the samples of a batch), or by a reference batch:
    reference, virtual (Salimans et al., 2016)."""

    def validate(self) -> None:
        """Raise a ``ValueError`` or ``TypeError`` for the first option that cannot be."""
        super().validate()
        check_norm(self, "--norm", self.norm, NORMS)

    def load_data(self) -> ImageData:
        """The digits, or the images of ``--data``."""
        return digits() if self.data is None else load_images(self.data)

    def generator(self, shape: tuple[int, int, int], numbers: int) -> nn.Module:
        """z (B, latent) to (B, numbers * C, H, W)."""
        channels, height, width = shape
        hidden = (self.width, self.width)
        net = MLP(self.latent, (numbers * channels, height, width), hidden, "silu", layer_norm=True)
        return normalised(net, self.norm, lambda n: torch.randn(n, self.latent, device="cpu"))

    def policy_for(self, shape: tuple[int, int, int]) -> Policy:
        """The untrained policy for images of ``shape`` (C, H, W): what :func:`advrl.load` fills with weights."""
        return make_policy(self, lambda numbers: self.generator(shape, numbers))

    def build(self, device: torch.device) -> ImageParts:
        """All parts of the run."""
        data = self.load_data()
        discriminator = MLP(packed(self, data.shape), (), (self.width, self.width))
        return image_parts(self, data, lambda numbers: self.generator(data.shape, numbers), discriminator, device)
