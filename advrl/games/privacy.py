r"""Representations that hide something: the reversed gradient, and a privacy game that is solved by hand.

An encoder wants its code to serve one task and to be of no use to an adversary with another: the domain it came from,
or a private attribute. Adversary and encoder play a zero-sum game on the adversary's loss; with the gradient reversed
between them one backward pass serves both: Ganin & Lempitsky (2015), eq. 8 and 9.

The smallest such game has inputs x = (u, s), u useful and s private, jointly Gaussian with unit variances and
correlation rho. The code is h = w.x + noise of variance tau, |w| = 1. Adversary and ally are the best linear readers of
s and of u. What h explains of a variable is then a squared correlation, and the encoder's value of w is

    U(w) = R^2(u) - weight R^2(s),    R^2(v) = (w.c_v)^2 / (w.C w + tau),    C = [[1, rho], [rho, 1]],

with c_u, c_s the columns of C: a ratio of quadratic forms, whose largest value is an eigenvalue.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from advrl.checks import number


class _Reverse(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.weight * gradient, None


def reverse_gradient(x: Tensor, weight: float = 1.0) -> Tensor:
    """x itself, whose gradient is turned round on its way back: what made x plays against what reads it.

    Args:
        x: any tensor.
        weight: of the reversed gradient, at least 0.
    """
    result: Tensor = _Reverse.apply(x, number("weight", weight, 0))  # type: ignore[no-untyped-call]
    return result


class PrivateCode(NamedTuple):
    """The encoder's best direction w (2,), what it is worth, and the shares of u and of s that its code explains."""

    direction: Tensor
    value: float
    useful: float
    private: float


def explained(w: Tensor, rho: float, tau: float) -> tuple[Tensor, Tensor]:
    """() and () the shares of the useful and of the private variable that h = w.x + noise explains; w (2,).

    Of |w| = 1 nothing is assumed: noise of variance tau |w|^2 makes the shares those of the direction.
    """
    number("rho", rho, -1, 1)
    number("tau", tau, 0, exclusive=True)
    covariance = w.new_ones(2, 2).fill_(rho).fill_diagonal_(1.0)
    common = covariance @ w
    first, second = (common**2 / (w @ common + tau * (w @ w))).unbind()
    return first, second


def private_code(rho: float, weight: float, tau: float = 0.1) -> PrivateCode:
    """The best code of the privacy game: the largest eigenvalue of M^-1/2 (c_u c_u' - weight c_s c_s') M^-1/2.

    M = C + tau I. With weight 0 it tells most of u; as the weight grows it turns to the direction (1, -rho), whose code
    says nothing about s and keeps a share (1 - rho^2)^2 / (1 - rho^2 + tau (1 + rho^2)) of u.

    Args:
        rho: correlation of useful and private, in [-1, 1].
        weight: of what the adversary learns, at least 0.
        tau: variance of the code's noise, positive.
    """
    number("weight", weight, 0)
    number("rho", rho, -1, 1)
    number("tau", tau, 0, exclusive=True)
    eye = torch.eye(2, dtype=torch.float64, device="cpu")
    c = eye + rho * eye.flip(0)
    useful, private = c.unbind(1)
    half = torch.linalg.inv(torch.linalg.cholesky(c + tau * eye))
    form = half @ (torch.outer(useful, useful) - weight * torch.outer(private, private)) @ half.mT
    values, vectors = torch.linalg.eigh(form)
    w = half.mT @ vectors[:, -1]
    w = w / w.norm()
    w = w * torch.where(w[0] < 0, -1.0, 1.0)
    share_u, share_s = explained(w, rho, tau)
    return PrivateCode(w, float(values[-1]), float(share_u), float(share_s))
