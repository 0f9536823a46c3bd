r"""Gradients of a two-player game: what every dynamics asks of it, on one rank or on many.

Player x minimises the first loss, player y the second: F = (d loss_x / dx, d loss_y / dy) is the game's vector field.
A player's parameters are a tuple of tensors. Under ``torchrun`` every gradient is the mean over the ranks, also inside
derivatives of gradients, so that each rank takes the step of one rank with the joined batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from advrl.agents.dynamics_rules import Params
from advrl.distributed import mean, world_size

Losses = Callable[[Any, Any], tuple[Tensor, Tensor]]


class Field:
    """Gradients of ``losses(x, y) -> (loss_x, loss_y)``, scalars.

    Where ``losses`` has methods ``loss_x(x, y)`` and ``loss_y(x, y)`` they are called when one loss will do.
    """

    def __init__(self, losses: Losses) -> None:
        self.losses = losses

    def both(self, x: Params, y: Params, again: bool = False) -> tuple[Params, Params]:
        """Each player's gradient in its own parameters; with ``again`` they can be differentiated again."""
        loss_x, loss_y = self.losses(x, y)
        towards_x = gradient(loss_x, x, again, retain=True)
        return towards_x, gradient(loss_y, y, again)

    def of(self, player: str, x: Params, y: Params, again: bool = False, retain: bool = False) -> Params:
        """One player's gradient, ``player`` being "x" or "y"."""
        own = getattr(self.losses, f"loss_{player}", None)
        loss: Tensor = self.losses(x, y)["xy".index(player)] if own is None else own(x, y)
        return gradient(loss, x if player == "x" else y, again, retain)


def gradient(loss: Tensor, params: Params, again: bool = False, retain: bool = False) -> Params:
    """d loss / d params, zero where there is no dependence, averaged over the ranks.

    Raises:
        ValueError: for a loss that is no scalar, or depends on no parameter in a way that can be differentiated.
    """
    if loss.dim():
        raise ValueError(f"a player's loss must be a scalar, got shape {tuple(loss.shape)}: reduce it with .mean()")
    if not loss.requires_grad:
        raise ValueError("a player's loss cannot be differentiated: it depends on no parameter, or was detached")
    found = torch.autograd.grad(
        loss, params, create_graph=again, retain_graph=again or retain, allow_unused=True, materialize_grads=True
    )
    return averaged(found)


def derivative(of: Params, at: Params, along: Params, again: bool = False) -> Params | None:
    """(d of / d at)^T along, zero where there is no dependence, averaged over the ranks; None if there is none at all.

    The graph is kept.
    """
    pairs = [(f, v) for f, v in zip(of, along, strict=True) if f.requires_grad]
    if not pairs:
        return None
    outputs, weights = zip(*pairs, strict=True)
    found = torch.autograd.grad(outputs, at, weights, retain_graph=True, create_graph=again, allow_unused=True)
    if all(g is None for g in found):
        return None
    return averaged(tuple(torch.zeros_like(p) if g is None else g for g, p in zip(found, at, strict=True)))


def averaged(tensors: Params) -> Params:
    """The mean over the ranks, differentiable to any order; the tensors themselves with one rank."""
    if world_size() == 1:
        return tensors
    flat: Tensor = _RankMean.apply(torch.cat([t.flatten() for t in tensors]))  # type: ignore[no-untyped-call]
    parts = flat.split([t.numel() for t in tensors])
    return tuple(part.view_as(t) for part, t in zip(parts, tensors, strict=True))


class _RankMean(torch.autograd.Function):
    """The mean over the ranks of a vector that each has.

    What is made of it is averaged again before it is used, so what flows back is the mean of what reaches each rank.
    """

    @staticmethod
    def forward(ctx: Any, vector: Tensor) -> Tensor:
        return mean(vector)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        out: Tensor = _RankMean.apply(gradients[0])  # type: ignore[no-untyped-call]
        return out


def leaves(params: Params) -> Params:
    """The same values, from which gradients are taken."""
    return tuple(p.detach().requires_grad_() for p in params)


def detached(params: Params) -> Params:
    """The same values, without a graph."""
    return tuple(p.detach() for p in params)
