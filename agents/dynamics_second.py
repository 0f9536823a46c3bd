r"""Dynamics that use the curvature of the game: J = dF / dw, the Jacobian of its vector field F, in products alone.

On V(x, y) = x y with step size eta, per step:

    consensus, gamma            |lambda|^2 = (1 - eta gamma)^2 + eta^2
    symplectic, lambda          the same with gamma = lambda, as J is antisymmetric there
    competitive                 1 / (1 + eta^2), that of the implicit step
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from advrl.agents.dynamics_field import Field, derivative, detached, gradient, leaves
from advrl.agents.dynamics_first import Moved, Ruled
from advrl.agents.dynamics_rules import Params, State, added
from advrl.checks import integer, number

_FLAT = (
    "needs second derivatives of the losses, and their gradients cannot be differentiated again (a surrogate with a "
    "detached cost, or losses linear in everything?): use extragradient, optimistic or lookahead"
)


@dataclass(frozen=True)
class _Adjusted(Ruled):
    """Of second order: something of this ``weight`` is added to the field."""

    weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        number("weight", self.weight, 0.0)

    @property
    def curvature(self) -> bool:
        return True


@dataclass(frozen=True)
class Consensus(_Adjusted):
    """Each player also descends the size of the field: along F + weight * d(|F|^2 / 2)/dw = F + weight * J^T F.

    Mescheder, Nowozin & Geiger (2017), "The numerics of GANs", algorithm 2. It is drawn to every critical point,
    maxima included.

    Args:
        weight: gamma.

    Raises:
        ValueError: in a step, where the gradients cannot be differentiated again.
    """

    def step(self, field: Field, x: Params, y: Params, state: State, rate: float = 1.0) -> Moved:
        x, y = leaves(x), leaves(y)
        towards = _joined(*field.both(x, y, again=True))
        slope = _transposed(towards, (*x, *y), detached(towards), "consensus")
        turned = added(detached(towards), tuple(torch._foreach_mul(slope, self.weight)))
        return self._along((turned[: len(x)], turned[len(x) :]), x, y, state, rate)


@dataclass(frozen=True)
class Symplectic(_Adjusted):
    """Symplectic gradient adjustment: along F + weight * A^T F, A = (J - J^T) / 2 what turns in the game.

    Balduzzi et al. (2018), "The mechanics of n-player differentiable games", algorithm 1. With ``align`` the weight has
    the sign of <F, J^T F> <A^T F, J^T F> / d + 1/10, d the number of parameters, so that the adjustment points towards
    stable fixed points and away from unstable ones.

    Args:
        weight: lambda.
        align: choose the sign so.

    Raises:
        ValueError: in a step, where the gradients cannot be differentiated again.
    """

    align: bool = True

    def step(self, field: Field, x: Params, y: Params, state: State, rate: float = 1.0) -> Moved:
        x, y = leaves(x), leaves(y)
        w = (*x, *y)
        towards = _joined(*field.both(x, y, again=True))
        plain = detached(towards)
        slope = _transposed(towards, w, plain, "symplectic gradient adjustment")
        turn = tuple(torch._foreach_mul(torch._foreach_sub(slope, _forward(towards, w, plain)), 0.5))
        if self.align:
            size = sum(p.numel() for p in w)
            sign = (_dot(plain, slope) * _dot(turn, slope) / size + 0.1).sign()
            turn = tuple(t * sign for t in turn)
        turned = added(plain, tuple(torch._foreach_mul(turn, self.weight)))
        return self._along((turned[: len(x)], turned[len(x) :]), x, y, state, rate)


@dataclass(frozen=True)
class Competitive(Ruled):
    r"""Competitive gradient descent: the Nash equilibrium of the local bilinear game, Schäfer & Anandkumar (2019).

        dx = -H_x (grad_x f + D_xy f dy),    dy = -H_y (grad_y g + D_yx g dx),

    f and g the players' losses, H the rules' step sizes: eta for ``SGDRule``, eta / (sqrt(v) + eps) for ``AdamRule``
    (their adaptive variant); momentum plays no part. Solved by conjugate gradients on the normal equations of
    (I + S B S) u = -S F, with S = sqrt(H), B the mixed derivatives and (dx, dy) = S u. In a zero-sum game B is
    antisymmetric and the matrix is I - (S B S)^2, their equation 4 for both players at once. No product forms a matrix.

    Args:
        iterations: of conjugate gradients, four products of a mixed derivative and a vector each; none waits for the
            device. Exact after as many as there are parameters.

    Raises:
        ValueError: in a step, where a loss has no mixed second derivative, so that there is no local game to solve.
    """

    iterations: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        integer("iterations", self.iterations)

    @property
    def curvature(self) -> bool:
        return True

    def step(self, field: Field, x: Params, y: Params, state: State, rate: float = 1.0) -> Moved:
        x, y = leaves(x), leaves(y)
        loss_x, loss_y = field.losses(x, y)
        f_x, f_y = gradient(loss_x, x, again=True), gradient(loss_x, y, again=True)
        g_x, g_y = gradient(loss_y, x, again=True), gradient(loss_y, y, again=True)
        step_x, own_x = self.rule_x.steps(detached(f_x), state["x"], rate)
        step_y, own_y = self.rule_y.steps(detached(g_y), state["y"], rate)
        roots, split = tuple(torch._foreach_sqrt((*step_x, *step_y))), len(x)

        def product(v: Params) -> Params:  # S B S v
            v = _times(roots, v)
            return _times(roots, (*_mixed(f_y, x, v[split:]), *_mixed(g_x, y, v[:split])))

        def transposed(v: Params) -> Params:
            v = _times(roots, v)
            return _times(roots, (*_mixed(g_y, x, v[split:]), *_mixed(f_x, y, v[:split])))

        right = tuple(torch._foreach_neg(_times(roots, detached((*f_x, *g_y)))))
        moved = _times(roots, _solve(product, transposed, right, self.iterations))
        x, y = added(detached(x), moved[:split]), added(detached(y), moved[split:])
        return x, y, {**state, "x": own_x, "y": own_y}


def _joined(x: Params, y: Params) -> Params:
    return (*x, *y)


def _transposed(towards: Params, w: Params, along: Params, who: str) -> Params:
    """J^T along."""
    found = derivative(towards, w, along)
    if found is None:
        raise ValueError(f"{who} {_FLAT}")
    return found


def _forward(towards: Params, w: Params, along: Params) -> Params:
    """J along: J^T u is linear in u, and its derivative in u, transposed, is J."""
    dummy = tuple(torch.zeros_like(t, requires_grad=True) for t in towards)
    back = derivative(towards, w, dummy, again=True)
    found = None if back is None else derivative(back, dummy, along)
    assert found is not None  # _transposed came first
    return found


def _mixed(of: Params, at: Params, along: Params) -> Params:
    found = derivative(of, at, along)
    if found is None:
        raise ValueError(
            "competitive gradient descent needs the mixed second derivatives of both losses, and one has none: its "
            "gradient for one player does not depend on the other's parameters in a way that can be differentiated; "
            "use extragradient, optimistic or lookahead"
        )
    return found


def _times(scale: Params, v: Params) -> Params:
    return tuple(torch._foreach_mul(scale, v))


def _dot(v: Params, w: Params) -> Tensor:
    return torch.stack([(a * b).sum() for a, b in zip(v, w, strict=True)]).sum()


def _solve(product: object, transposed: object, right: Params, iterations: int) -> Params:
    """u with (I + M) u = right, by conjugate gradients on (I + M)^T (I + M) u = (I + M)^T right."""
    assert callable(product) and callable(transposed)
    u = tuple(torch.zeros_like(r) for r in right)
    left = right  # what is left of right
    slope = added(left, transposed(left))
    along, size = slope, _dot(slope, slope)
    tiny = torch.finfo(size.dtype).tiny
    for _ in range(iterations):
        image = added(along, product(along))
        reach = size / _dot(image, image).clamp_min(tiny)  # 0 once all is solved
        u = tuple(a + reach * b for a, b in zip(u, along, strict=True))
        left = tuple(a - reach * b for a, b in zip(left, image, strict=True))
        slope = added(left, transposed(left))
        before, size = size, _dot(slope, slope)
        ratio = size / before.clamp_min(tiny)
        along = tuple(a + ratio * b for a, b in zip(slope, along, strict=True))
    return u
