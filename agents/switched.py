"""Networks as they are for a while: in evaluation mode, without dropout, without gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from torch import nn
from torch.optim import Optimizer


@contextmanager
def in_mode(training: bool, *networks: nn.Module) -> Iterator[None]:
    """Inside, all of these networks are in training or in evaluation mode; afterwards each part is as it was."""
    before = [(part, part.training) for network in networks for part in network.modules()]
    try:
        for network in networks:
            network.train(training)
        yield
    finally:
        for part, was in before:
            part.training = was


def evaluating(*networks: nn.Module) -> AbstractContextManager[None]:
    """Evaluation mode inside: no running statistic moves, and no sample of a batch sees another."""
    return in_mode(False, *networks)


@contextmanager
def at_rest(net: nn.Module) -> Iterator[None]:
    """Without dropout inside; unlike ``eval()``, what cuDNN's recurrent layers do can still be differentiated."""
    layers = [layer for layer in net.modules() if isinstance(layer, (nn.Dropout, nn.RNNBase))]
    before = [layer.dropout if isinstance(layer, nn.RNNBase) else layer.p for layer in layers]
    try:
        for layer in layers:
            _drop(layer, 0.0)
        yield
    finally:
        for layer, share in zip(layers, before, strict=True):
            _drop(layer, share)


@contextmanager
def frozen(optimiser: Optimizer) -> Iterator[None]:
    """Its parameters take no gradient inside. An optimiser's list is at hand; a module's is gathered each time."""
    trainable = [p for group in optimiser.param_groups for p in group["params"] if p.requires_grad]
    for p in trainable:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trainable:
            p.requires_grad_(True)


def _drop(layer: Any, share: float) -> None:
    if isinstance(layer, nn.RNNBase):
        layer.dropout = share
    else:
        layer.p = share
