r"""Layers that let a discriminator look at several samples at once, so that a collapsed batch gives itself away.

    minibatch features   M_i = T x_i in R^(K x D),  o_ik = sum_j exp(-|M_ik - M_jk|_1)     Salimans et al. (2016), 3.2
    standard deviation   one feature more: the mean over features of their std in a group  Karras et al. (2018), 3
    packing              one logit for m samples put side by side                          Lin et al. (2018), PacGAN

The sum over j takes i itself in, as the paper's does, which adds the constant 1: a collapsed group of g samples has
o = g. Every layer couples runs of ``group`` neighbouring samples and no others; ``None`` couples the whole batch. With
samples drawn by a score function a group is what is paid, so it must be given. Shapes: B batch, F features, g group.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from advrl.checks import integer


class MinibatchDiscrimination(nn.Module):
    """Appends to every sample how near the others of its group are, by K learned kernels.

    Args:
        features: F, of a sample.
        kernels: K, features that are appended.
        dimension: D, of the space in which the L1 distances are taken.
        group: samples that see each other, neighbours in the batch; ``None`` for the whole batch.

    Raises:
        ValueError, TypeError: for sizes below 1, and, when called, for another shape or a batch that groups do not
            divide.
    """

    def __init__(self, features: int, kernels: int = 16, dimension: int = 8, group: int | None = None) -> None:
        super().__init__()
        integer("features", features), integer("kernels", kernels), integer("dimension", dimension)
        self.kernels, self.dimension, self.group = kernels, dimension, _group(group)
        self.out_features = features + kernels
        self.project = nn.Linear(features, kernels * dimension, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, F) to (B, F + K)."""
        rows = self.project(_groups(x, self.group)).unflatten(-1, (self.kernels, self.dimension))  # (G, g, K, D)
        distance = (rows[:, :, None] - rows[:, None]).abs().sum(-1)  # (G, g, g, K)
        return torch.cat([x, distance.neg().exp().sum(2).flatten(0, 1)], 1)


class MinibatchStdDev(nn.Module):
    """Appends one number to every sample: the standard deviation in its group, averaged over the features.

    Of maps (B, C, H, W) it is one channel more, the same everywhere.

    Args:
        group: samples that see each other, neighbours in the batch; ``None`` for the whole batch.
    """

    def __init__(self, group: int | None = None) -> None:
        super().__init__()
        self.group = _group(group)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *places) to (B, C + 1, *places)."""
        groups = _groups(x.flatten(1), self.group)
        variance = groups.var(1, unbiased=False)
        spread = (variance + 1e-8).sqrt().mean(1)  # the root's slope at 0 would be infinite for a collapsed group
        column = spread[:, None].expand(groups.shape[:2]).reshape(-1, 1, *[1] * (x.dim() - 2))
        return torch.cat([x, column.expand(-1, 1, *x.shape[2:])], 1)


class Packing(nn.Module):
    """A discriminator that judges m samples together: (B, C, *places) to logits (B / m,). Lin et al. (2018), PacGAN.

    Args:
        net: from m samples side by side, (B / m, m C, *places), to (B / m,) or (B / m, 1).
        size: m.

    Raises:
        ValueError, TypeError: for m below 1, and, when called, for a batch that m does not divide.
    """

    def __init__(self, net: nn.Module, size: int) -> None:
        super().__init__()
        self.net, self.size = net, integer("size", size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *places) to (B / m,)."""
        if len(x) % self.size:
            raise ValueError(f"a batch of {len(x)} does not divide into packs of {self.size}")
        logits: Tensor = self.net(x.reshape(len(x) // self.size, self.size * x.shape[1], *x.shape[2:]))
        return logits


def before_output(net: nn.Module, layer: Callable[[int], MinibatchDiscrimination | MinibatchStdDev]) -> nn.Module:
    """Put a layer that couples samples in front of a discriminator's last layer, which is made anew, a little wider.

    Args:
        net: changed in place; its last ``nn.Linear``, or ``nn.Conv2d`` over whole maps, gives the logit.
        layer: makes the layer for F features.

    Returns:
        ``net``, on which it was.

    Raises:
        ValueError: if there is no such layer.
    """
    found = [(name, m) for name, m in net.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    if not found:
        raise ValueError(f"{type(net).__name__} has no nn.Linear or nn.Conv2d to put the layer in front of")
    name, last = found[-1]
    features = last.in_features if isinstance(last, nn.Linear) else last.in_channels * math.prod(last.kernel_size)
    outputs = last.out_features if isinstance(last, nn.Linear) else last.out_channels
    extra = layer(features)
    wide = nn.Linear(features + (extra.kernels if isinstance(extra, MinibatchDiscrimination) else 1), outputs)
    flat = [] if isinstance(last, nn.Linear) else [nn.Flatten()]
    parent, _, key = name.rpartition(".")
    setattr(net.get_submodule(parent), key, nn.Sequential(*flat, extra, wide).to(last.weight.device, last.weight.dtype))
    return net


def coupled_samples(net: nn.Module) -> int | None:
    """How many neighbouring samples of a batch a network judges together: 1 if each by itself, ``None`` if all.

    Found are the layers of this module and batch norm in training mode.
    """
    packs, groups = 1, 1
    for module in net.modules():
        if isinstance(module, Packing):
            packs *= module.size
        elif isinstance(module, (MinibatchDiscrimination, MinibatchStdDev)):
            if module.group is None:
                return None
            groups = math.lcm(groups, module.group)
        elif isinstance(module, _BatchNorm) and (module.training or not module.track_running_stats):
            return None
    return packs * groups  # groups inside a packed network are groups of packs


def _group(group: int | None) -> int | None:
    return None if group is None else integer("group", group)


def _groups(x: Tensor, group: int | None) -> Tensor:
    """(B, F) as (B / g, g, F)."""
    if x.dim() != 2:
        raise ValueError(f"need features (batch, features), got shape {tuple(x.shape)}; flatten them first")
    size = len(x) if group is None else group
    if len(x) % size:
        raise ValueError(f"a batch of {len(x)} does not divide into groups of {size}")
    return x.unflatten(0, (-1, size))
