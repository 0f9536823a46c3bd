r"""How fast each rule of play converges on V(x, y) = x y, exactly: eigenvalues of one step as a linear map.

With F = (y, -x), whose Jacobian has eigenvalues +-i, a step of a rule without memory multiplies w by a polynomial or a
rational function of i eta; one with memory has a characteristic polynomial. The square of the largest modulus,
``rate``, is the factor by which x^2 + y^2 shrinks in the long run, per step (lookahead: per cycle of k steps). All hold
for any eta > 0, past the point where eigenvalues turn real too. For V = x^T A y and a singular value s of A, put s eta
for eta, and s gamma for the weight of consensus or of symplectic adjustment.

The flow w' = -F itself is x0 cos t - y0 sin t, x0 sin t + y0 cos t: Goodfellow (2016), exercise 2. Simultaneous steps,
extragradient and optimistic steps: Korpelevich (1976), Daskalakis et al. (2018), Gidel et al. (2019a). Negative
momentum: Gidel et al. (2019b), section 4.2. Consensus: Mescheder et al. (2017). Competitive steps: Schafer & Anandkumar
(2019). Symplectic adjustment: Balduzzi et al. (2018). Lookahead: Chavdarova et al. (2021). Unrolling: Metz et al.
(2017).
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from advrl.checks import choice, integer, number


def simultaneous(eta: float, eta_y: float | None = None) -> list[complex]:
    """w - eta F, with a step of its own for y if one is given (two time scales): 1 +- i sqrt(eta eta_y)."""
    root = math.sqrt(eta * _second(eta, eta_y))
    return [1 + 1j * root, 1 - 1j * root]


def alternating(eta: float, eta_y: float | None = None) -> list[complex]:
    """x moves, then y against the new x: determinant 1, trace 2 - eta eta_y; on the unit circle if that is above -2."""
    return _pair(2 - eta * _second(eta, eta_y), 1.0)


def extragradient(eta: float) -> list[complex]:
    """w - eta F(w - eta F(w)): 1 - eta^2 -+ i eta; two gradients a step."""
    return [1 - eta**2 - 1j * eta, 1 - eta**2 + 1j * eta]


def optimistic(eta: float) -> list[complex]:
    """w - 2 eta F_t + eta F_(t-1), or extragradient from the past: (1 -+ 2 i eta +- sqrt(1 - 4 eta^2)) / 2."""
    root = cmath.sqrt(1 - 4 * eta**2)
    return [(1 + turn * 2j * eta + sign * root) / 2 for turn in (-1, 1) for sign in (-1, 1)]


def proximal(eta: float) -> list[complex]:
    """w_(t+1) = w_t - eta F(w_(t+1)), and competitive gradient descent alike: 1 / (1 +- i eta)."""
    return [1 / (1 + 1j * eta), 1 / (1 - 1j * eta)]


def consensus(eta: float, gamma: float) -> list[complex]:
    """w - eta (F + gamma J^T F): 1 - eta gamma -+ i eta; symplectic adjustment with weight gamma is the same here."""
    return [1 - eta * gamma - 1j * eta, 1 - eta * gamma + 1j * eta]


def unrolled(eta: float, k: int, first_order: bool = False, alternate: bool = False) -> list[complex]:
    """x looks k steps of y ahead at rate eta: its gradient is y + 2 k eta x; y + k eta x without second derivatives.

    The determinant is 1 - (2 k - 1) eta^2 for simultaneous steps, 1 - 2 k eta^2 if one follows the other.
    """
    own = integer("k", k) * (1 if first_order else 2) * eta**2
    return _pair(2 - own - eta**2, 1 - own) if alternate else _pair(2 - own, 1 - own + eta**2)


def momentum(eta: float, beta: float) -> list[complex]:
    """Alternating heavy-ball steps: the roots of (z - 1)^2 (z - beta)^2 + eta^2 z^3."""
    square = np.polymul([1, -1 - beta, beta], [1, -1 - beta, beta])
    return [complex(root) for root in np.roots(np.polyadd(square, [eta**2, 0, 0, 0]))]


def lookahead(eta: float, k: int, alpha: float, inner: str = "alternating") -> list[complex]:
    """w + alpha (w_k - w), w_k after k inner steps: 1 - alpha + alpha z^k for each eigenvalue z of the inner rule."""
    integer("k", k)
    number("alpha", alpha, 0, 1, exclusive=True)
    return [1 - alpha + alpha * z**k for z in eigenvalues(inner, eta)]


RULES: dict[str, Callable[..., list[complex]]] = {
    "simultaneous": simultaneous,
    "alternating": alternating,
    "extragradient": extragradient,
    "optimistic": optimistic,
    "past-extragradient": optimistic,
    "proximal": proximal,
    "competitive": proximal,
    "consensus": consensus,
    "symplectic": consensus,
    "unrolled": unrolled,
    "momentum": momentum,
    "lookahead": lookahead,
}


def eigenvalues(rule: str, eta: float, **settings: float | str) -> list[complex]:
    """Eigenvalues of one step of ``rule`` on V = x y.

    Args:
        rule: a name in ``RULES``.
        eta: the step, positive.
        settings: what else the rule needs, see its function: ``eta_y``, ``gamma``, ``k``, ``beta``, ``alpha``.
    """
    choice("rule", rule, RULES)
    number("eta", eta, 0, exclusive=True)
    return RULES[rule](eta, **settings)


def rate(rule: str, eta: float, **settings: float | str) -> float:
    """|z|^2 of the largest eigenvalue: the factor of x^2 + y^2 per step; below 1 the rule converges.

    ``rate("optimistic", 0.5)`` is 1/2, ``rate("extragradient", 0.5)`` 0.8125, ``rate("simultaneous", 0.5)`` 1.25.
    """
    return max(abs(z) for z in eigenvalues(rule, eta, **settings)) ** 2


def threshold(rule: str, **settings: float | str) -> float:
    """The step below which ``rule`` converges on V = x y: 0 if at none, infinite if at every one.

    From the eigenvalues, with the criterion of Jury for those of a 2 x 2 matrix: |determinant| < 1 and
    |trace| < 1 + determinant.

    Raises:
        ValueError: for momentum, and for lookahead but on alternating steps: their limit has no closed form.
    """
    eigenvalues(rule, 1.0, **settings)  # refuses settings that the rule does not have, or lacks
    if rule in ("simultaneous", "alternating"):
        return 0.0
    if rule in ("proximal", "competitive"):
        return math.inf
    if rule in ("optimistic", "past-extragradient"):
        return 1 / math.sqrt(3)
    if rule == "extragradient":
        return 1.0
    if rule in ("consensus", "symplectic"):
        gamma = number("gamma", settings["gamma"], 0)
        return 2 * gamma / (1 + gamma**2)
    if rule == "unrolled":
        own = integer("k", settings["k"]) * (1 if settings.get("first_order") else 2)
        if settings.get("alternate"):
            return 2 / math.sqrt(2 * own + 1)
        return 2 / math.sqrt(2 * own - 1) if own > 1 else 0.0
    if rule == "lookahead" and settings.get("inner", "alternating") == "alternating":
        return 2 * math.sin(math.pi / integer("k", settings["k"], 2))  # there k steps are a full turn
    raise ValueError(f"the limit of {rule} with {settings} has no closed form: scan rate() over eta")


def orbit(time: Tensor, x0: float | Tensor, y0: float | Tensor) -> tuple[Tensor, Tensor]:
    """The flow x' = -y, y' = x from (x0, y0) at each time: a turn by that angle, at constant radius."""
    cos, sin = time.cos(), time.sin()
    return x0 * cos - y0 * sin, x0 * sin + y0 * cos


def averaged_radius(time: Tensor, radius: float | Tensor = 1.0) -> Tensor:
    """Distance to 0 of the flow's mean over [0, time]: 2 r |sin(t / 2)| / t, so below 2 r / t."""
    return radius * torch.sinc(time / (2 * math.pi)).abs()


def alternating_invariant(x: Tensor, y: Tensor, eta: float) -> Tensor:
    """x^2 + y^2 - eta x y, which alternating steps keep, x first; with y first it is that of -eta."""
    return x**2 + y**2 - eta * x * y


def _second(eta: float, eta_y: float | None) -> float:
    return eta if eta_y is None else number("eta_y", eta_y, 0, exclusive=True)


def _pair(trace: float, determinant: float) -> list[complex]:
    """Both eigenvalues of a 2 x 2 matrix."""
    root = cmath.sqrt(trace**2 / 4 - determinant)
    return [trace / 2 + root, trace / 2 - root]
