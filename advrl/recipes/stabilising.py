"""The stabilisers of a configuration: checked, put into the discriminator, and made for the trainer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from advrl.agents import AUGMENTATIONS, Augmentation, FeatureMatching, HistoricalAveraging, HistoryPool, Stabiliser
from advrl.checks import choice, integer, number, words
from advrl.nn import (
    MinibatchDiscrimination,
    MinibatchStdDev,
    Packing,
    before_output,
    spectrally_normalised,
    with_reference,
)

if TYPE_CHECKING:
    from advrl.recipes.config import AdversarialConfig

STABILISERS = ("packing", "minibatch_features", "minibatch_stddev", "spectral_norm", "feature_matching",
               "historical_averaging", "history_pool", "augment", "joint_batches")  # fmt: skip
"""The options of this module."""
NORMS = ("layer", "batch", "reference", "virtual")
REFERENCE = 64  # samples of a reference batch


def augmentations(config: AdversarialConfig) -> list[str]:
    """The names in ``--augment``."""
    return words(config.augment)


def check_stabilisers(config: AdversarialConfig) -> None:
    """Raise a ``ValueError`` or ``TypeError`` for the first option of a stabiliser that cannot be."""
    integer("--packing", config.packing)
    integer("--minibatch-features", config.minibatch_features, 0)
    integer("--minibatch-group", config.minibatch_group, 2)
    integer("--history-pool", config.history_pool, 0)
    number("--historical-averaging", config.historical_averaging, 0.0)
    for name in augmentations(config):
        choice("augmentation", name, AUGMENTATIONS)
    coupled = bool(config.minibatch_features or config.minibatch_stddev)
    together = config.packing * (config.minibatch_group if coupled else 1)
    if config.batch_size % together:
        raise ValueError(f"--batch-size {config.batch_size} does not divide into {together} samples judged together")
    if config.history_pool and config.history_pool < config.batch_size // 2:
        raise ValueError(
            f"--history-pool {config.history_pool} is less than half a batch of {config.batch_size}: give more"
        )
    if config.probe_gradients and (together > 1 or config.feature_matching):
        raise ValueError("--probe-gradients needs a cost of each sample by itself: no packing, minibatch or matching")


def stabilised(config: AdversarialConfig, discriminator: nn.Module) -> nn.Module:
    """The discriminator, for ``--packing`` samples side by side, with the configured layers in it."""
    like = next(discriminator.parameters())
    if config.minibatch_features:
        kernels = partial(MinibatchDiscrimination, kernels=config.minibatch_features, group=config.minibatch_group)
        discriminator = before_output(discriminator, kernels)
    if config.minibatch_stddev:
        discriminator = before_output(discriminator, lambda features: MinibatchStdDev(config.minibatch_group))
    if config.spectral_norm:
        discriminator = spectrally_normalised(discriminator)
    if config.packing > 1:
        discriminator = Packing(discriminator, config.packing)
    return discriminator.to(like.device, like.dtype)


def normalised(net: nn.Module, norm: str, reference: Callable[[int], Tensor]) -> nn.Module:
    """The network with another normalisation in the place of its own.

    Args:
        net: with layer norm or batch norm in it; changed in place.
        norm: one of :data:`NORMS`; ``layer`` leaves the network as it is.
        reference: gives so many of its inputs, for ``reference`` and ``virtual``.
    """
    if norm == "layer":
        return net
    for parent in list(net.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.LayerNorm):
                setattr(parent, name, nn.BatchNorm1d(child.normalized_shape[0], device=child.weight.device))
    return net if norm == "batch" else with_reference(net, reference(REFERENCE), virtual=norm == "virtual")


def check_norm(config: AdversarialConfig, option: str, norm: str, known: Sequence[str]) -> None:
    """Raise a ``ValueError`` if there is no such normalisation, or it does not go with the other options."""
    choice(option, norm, known)
    if norm in ("reference", "virtual") and (config.compile or config.dynamics != "alternating"):
        raise ValueError(
            f"{option} {norm} sends a reference batch through the network first, which --compile and --dynamics other "
            "than alternating cannot follow"
        )


def stabilisers(config: AdversarialConfig) -> list[Stabiliser]:
    """What the trainer is given."""
    found: list[Stabiliser] = []
    if config.feature_matching:
        found.append(FeatureMatching())
    if config.historical_averaging:
        found.append(HistoricalAveraging(config.historical_averaging))
    if config.history_pool:
        found.append(HistoryPool(config.history_pool))
    if augmentations(config):
        found.append(Augmentation(augmentations(config)))
    return found


def packed(config: AdversarialConfig, shape: tuple[int, ...]) -> torch.Size:
    """What the discriminator's network takes: ``--packing`` samples of ``shape`` side by side."""
    return torch.Size([config.packing * shape[0], *shape[1:]])
