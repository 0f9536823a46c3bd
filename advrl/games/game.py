r"""A differentiable two-player game: two losses of two players' parameters, and the vector field that they make.

Player x lowers l_x(x, y) by moving x alone, player y lowers l_y(x, y) by moving y. Both following their gradients is
the flow w' = -F(w), with

    F(x, y) = (grad_x l_x, grad_y l_y),      J = F' = [[D_xx l_x, D_xy l_x], [D_yx l_y, D_yy l_y]].

J is no Hessian and not symmetric: in a zero-sum game, l_y = -l_x, its off-diagonal blocks are minus each other's
transpose, which is what rotates. Balduzzi et al. (2018), section 2; Mescheder, Nowozin & Geiger (2017), section 2.

Parameters are a tensor, a dictionary of tensors (``dict(module.named_parameters())`` for
``torch.func.functional_call``) or a tuple of tensors. Shapes: n numbers of x, m numbers of y.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.func import grad, jacrev, vjp

from advrl.checks import choice

Params = Any  # Tensor | dict[str, Tensor] | tuple[Tensor, ...], which torch.func takes and returns alike
Losses = Callable[[Params, Params], tuple[Tensor, Tensor]]
P = TypeVar("P")

BLOCKS = ("xx", "xy", "yx", "yy")


@dataclass(frozen=True)
class Game:
    """Two losses of two players, each () and pure: no state, no randomness, no change in place.

    A game is called like its function, so wherever a game is asked for, a plain function of (x, y) will do.
    Not to be taken for ``advrl.objectives.Game``, what a GAN's players pay for logits.

    Args:
        name: for tables and messages.
        losses: (x, y) to (loss of x, loss of y), both () and differentiable.
        zero_sum: whether the losses always sum to zero.
    """

    name: str
    losses: Losses
    zero_sum: bool = False

    def __call__(self, x: Params, y: Params) -> tuple[Tensor, Tensor]:
        return self.losses(x, y)


def zero_sum(value: Callable[[Params, Params], Tensor], name: str = "zero-sum") -> Game:
    """The game in which x minimises a value V(x, y) and y maximises it."""

    def losses(x: Params, y: Params) -> tuple[Tensor, Tensor]:
        v = value(x, y)
        return v, -v

    return Game(name, losses, zero_sum=True)


def leaves(params: Params) -> list[Tensor]:
    """The tensors of a player's parameters, in order.

    Raises:
        TypeError: for anything but a tensor, or a dictionary, tuple or list of at least one tensor.
    """
    if isinstance(params, Tensor):
        return [params]
    parts = list(params.values()) if isinstance(params, dict) else params
    if not isinstance(parts, (tuple, list)) or not parts or not all(isinstance(part, Tensor) for part in parts):
        raise TypeError(f"parameters are a tensor, or a dict or tuple of at least one, got {type(params).__name__}")
    return list(parts)


def like(params: P, tensors: list[Tensor]) -> P:
    """``tensors`` in the structure of ``params``: what :func:`leaves` took apart, put together again."""
    if isinstance(params, Tensor):
        return tensors[0]  # type: ignore[return-value]
    if isinstance(params, dict):
        return dict(zip(params, tensors, strict=True))  # type: ignore[return-value]
    return type(params)(tensors)  # type: ignore[call-arg]


def flatten(params: Params) -> Tensor:
    """(n,) all numbers of a player's parameters in one vector."""
    return torch.cat([part.reshape(-1) for part in leaves(params)])


def unflatten(vector: Tensor, params: P) -> P:
    """A vector (n,) in the structure and shapes of ``params``.

    Raises:
        ValueError: if the vector holds another count of numbers.
    """
    parts = leaves(params)
    sizes = [part.numel() for part in parts]
    if vector.dim() != 1 or len(vector) != sum(sizes):
        raise ValueError(f"need a vector of {sum(sizes)} numbers, got shape {tuple(vector.shape)}")
    pieces = [piece.view_as(part) for piece, part in zip(vector.split(sizes), parts, strict=True)]
    return like(params, pieces)


def vector_field(game: Losses, x: Params, y: Params) -> tuple[Params, Params]:
    """F(x, y): each player's gradient of its own loss, in the structure of its parameters.

    Differentiable itself, by autograd and by ``torch.func``.

    Raises:
        ValueError: if a loss is no scalar, since the gradient of a batch of losses would be that of their sum.
    """
    gx = grad(lambda x: _scalar(game, 0, x, y))(x)
    return gx, grad(lambda y: _scalar(game, 1, x, y))(y)


def jacobian(game: Losses, x: Params, y: Params) -> Tensor:
    """(n + m, n + m) the Jacobian J of the vector field, players' numbers in the order of :func:`flatten`.

    Dense, n + m backward passes of a backward pass: for games of up to some thousands of numbers.
    """
    with torch.no_grad():
        w, field = _flat_field(game, x, y)
        return jacrev(field)(w)


def jacobian_product(game: Losses, x: Params, y: Params, u: Params, v: Params) -> tuple[Params, Params]:
    """J (u, v), without J: the field's directional derivative, for the price of two gradients of each loss.

    The x half is grad_x of <grad_x l_x, u> + <grad_y l_x, v>: backward twice, as D_xy is D_yx transposed of one loss.
    """

    def along(player: int) -> Callable[[Params, Params], Tensor]:
        def slope(x: Params, y: Params) -> Tensor:
            gx, gy = grad(lambda x, y: _scalar(game, player, x, y), argnums=(0, 1))(x, y)
            return _inner(gx, u) + _inner(gy, v)

        return slope

    return grad(along(0), argnums=0)(x, y), grad(along(1), argnums=1)(x, y)


def jacobian_transpose_product(game: Losses, x: Params, y: Params, u: Params, v: Params) -> tuple[Params, Params]:
    """J^T (u, v), without J: at (u, v) = F it is the gradient of |F|^2 / 2, which consensus optimisation descends."""
    pull = vjp(lambda x, y: vector_field(game, x, y), x, y)[1]
    product: tuple[Params, Params] = pull((u, v))
    return product


def hessian_product(game: Losses, x: Params, y: Params, block: str, vector: Params) -> Params:
    """One block of J times a vector: ``"xy"`` is D_xy l_x v, v like y, the result like x.

    Args:
        game: the losses.
        x: parameters of the first player.
        y: parameters of the second.
        block: the player whose gradient moves, then the player in whose direction: xx, xy, yx or yy.
        vector: a direction, in the structure of the parameters of the block's second letter.
    """
    choice("block", block, BLOCKS)
    of, along = "xy".index(block[0]), "xy".index(block[1])

    def slope(x: Params, y: Params) -> Tensor:
        return _inner(grad(lambda x, y: _scalar(game, of, x, y), argnums=along)(x, y), vector)

    return grad(slope, argnums=of)(x, y)


def _scalar(game: Losses, player: int, x: Params, y: Params) -> Tensor:
    loss = game(x, y)[player]
    if loss.dim():
        raise ValueError(f"the loss of {'xy'[player]} must be a scalar, got shape {tuple(loss.shape)}: reduce it")
    return loss


def _inner(a: Params, b: Params) -> Tensor:
    return torch.stack([(p * q).sum() for p, q in zip(leaves(a), leaves(b), strict=True)]).sum()


def _flat_field(game: Losses, x: Params, y: Params) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The joint parameters as one vector (n + m,), and the field as a function of it."""
    a, b = flatten(x).detach(), flatten(y).detach()

    def field(w: Tensor) -> Tensor:
        first, second = w.split([len(a), len(b)])
        gx, gy = vector_field(game, unflatten(first, x), unflatten(second, y))
        return torch.cat([flatten(gx), flatten(gy)])

    return torch.cat([a, b]), field
