r"""Exercise 2: V(x, y) = x y, x to minimise and y to maximise. Where does gradient descent go?

Goodfellow (2016), exercise 2: the flow is an orbit. Steps are linear maps, of the players and of what a rule remembers.
A sequence made by a linear map obeys the recurrence whose characteristic polynomial has the map's eigenvalues for
roots, so a trajectory of any of the rules is held against ``advrl.games.eigenvalues`` to rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from advrl.agents.dynamics import DYNAMICS, GameOptimizer, make_dynamics
from advrl.agents.dynamics_rules import SGDRule
from advrl.checks import integer, number
from advrl.games import alternating_invariant, averaged_radius, bilinear, eigenvalues, jacobian, orbit, rate
from advrl.lab.exercises.sheet import EXACT, Common, Sheet
from advrl.plots.style import INK, MUTED, PALETTE, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "V(x, y) = xy"
PROBLEM = """
V(x, y) = x y. Player x minimises V, player y maximises it, each by gradient steps on its own number.
Where is the equilibrium? Solve the flow x' = -y, y' = x. What do steps of size eta do, at once or in turn?
Which of the ways to play goes to the equilibrium, and how fast?
"""
K, GAMMA = 5, 0.5
RULES: dict[str, tuple[str, dict[str, Any]]] = {
    "simultaneous": ("simultaneous", {}),
    "alternating": ("alternating", {}),
    "ttur": ("alternating", {"eta_y": 4.0}),
    "extragradient": ("extragradient", {}),
    "past-extragradient": ("past-extragradient", {}),
    "optimistic": ("optimistic", {}),
    "unrolled": ("unrolled", {"k": K}),
    "unrolled-first-order": ("unrolled", {"k": K, "first_order": True}),
    "consensus": ("consensus", {"gamma": GAMMA}),
    "symplectic": ("symplectic", {"gamma": GAMMA}),
    "competitive": ("competitive", {}),
    "lookahead": ("lookahead", {"k": K, "alpha": 0.5}),
    "negative-momentum": ("momentum", {"beta": -0.5}),
    "averaging": ("alternating", {}),
}
"""Each dynamics of ``advrl.agents``, and its eigenvalues' name and settings; ``eta_y`` in multiples of eta."""

SHOWN = (
    "simultaneous", "alternating", "negative-momentum", "optimistic", "lookahead", "unrolled-first-order", "unrolled",
)  # fmt: skip


@dataclass(frozen=True)
class Options(Common):
    """The orbit, the spiral, and the path of every dynamics beside its exact rate."""

    eta: float = 0.1
    """Step size of both players."""
    steps: int = 300
    """Of every dynamics."""


def solve(options: Options, sheet: Sheet) -> Figure:
    """From (1, 0)."""
    number("--eta", options.eta, 0, 0.45, exclusive=True)
    integer("--steps", options.steps, 40)
    eta, steps = options.eta, options.steps
    _flow(sheet)
    paths = {name: _path(name, eta, steps) for name in DYNAMICS}
    _spiral(sheet, eta, paths)

    sheet.step(
        f"Step 4. Every way to play, eta = {eta:g}: |lambda|^2 is the factor of x^2 + y^2 per step in the long run."
    )
    rows, last = [], []
    for name, path in paths.items():
        exact = _exact(name, eta) ** (1 / K if name == "lookahead" else 1)
        radius = float(path[-1].norm())
        rows.append([name, exact, exact ** (steps / 2), radius, DYNAMICS[name].gradients])
        last.append(_residual(name, eta, path))
    sheet.table(["dynamics", "|lambda|^2", f"|lambda|^{steps}", f"radius at {steps}", "gradients a step"], rows)
    for name, residual in zip(paths, last, strict=True):
        sheet.below(f"{name} obeys the recurrence of its eigenvalues, largest residual", residual, 1e-10)
    mean = paths["alternating"][1:].mean(0).norm()
    sheet.below("averaging: the path does not converge, its mean does, radius", mean, 2.5 / (eta * steps))
    return _draw(paths, options)


def _flow(sheet: Sheet) -> None:
    sheet.step("Step 1. Both slopes are 0 at (0, 0) alone: V is x times y, no bowl but a saddle.")
    field = jacobian(bilinear(), torch.tensor(0.0, **EXACT), torch.tensor(0.0, **EXACT))
    values = torch.linalg.eigvals(field)
    sheet.say(f"  J = {field.tolist()}, eigenvalues {', '.join(f'{z:.0f}' for z in values.tolist())}")
    sheet.near("nothing attracts: largest real part", values.real.abs().max(), 0, 1e-12)
    sheet.near("it only turns: imaginary part", values.imag.max(), 1, 1e-12)

    sheet.step("Step 2. x'' = -y' = -x: x = x0 cos t - y0 sin t, y = x0 sin t + y0 cos t, a circle.")
    time = torch.linspace(0, 2 * math.pi, 2001, **EXACT)
    x, y = orbit(time, 1.0, 0.0)
    sheet.table(
        ["t", "x", "y", "radius"], [[float(v[k]) for v in (time, x, y, x.hypot(y))] for k in range(0, 2001, 500)]
    )
    h = float(time[1])
    slope = ((x[2:] - x[:-2]) / (2 * h) + y[1:-1]).abs().max()
    sheet.near("x' = -y, by central differences", slope, 0, h**2)
    sheet.near("the radius never changes, largest change", (x.hypot(y) - 1).abs().max(), 0, 1e-12)
    mean = torch.trapezoid(x, time) ** 2 + torch.trapezoid(y, time) ** 2
    sheet.near(
        "but the mean over a turn is the equilibrium, distance", mean.sqrt(), float(averaged_radius(time[-1])), 1e-12
    )


def _spiral(sheet: Sheet, eta: float, paths: dict[str, Tensor]) -> None:
    sheet.step("Step 3. Steps. At once: r^2 is multiplied by 1 + eta^2. In turn: x^2 + y^2 - eta x y stays as it is.")
    outward, ellipse = paths["simultaneous"], paths["alternating"]
    growth = float(outward[-1].norm() ** 2)
    exact = (1 + eta**2) ** (len(outward) - 1)
    sheet.near(f"at once, r^2 after {len(outward) - 1} steps is (1 + eta^2)^n, quotient", growth / exact, 1, 1e-10)
    kept = alternating_invariant(ellipse[:, 0], ellipse[:, 1], eta)
    sheet.near("in turn, x^2 + y^2 - eta x y, largest change", (kept - kept[0]).abs().max(), 0, 1e-10)
    tilt = math.sqrt((1 + eta / 2) / (1 - eta / 2))
    radii = ellipse.norm(dim=1)
    sheet.below("an ellipse, neither in nor out: longest radius by shortest", radii.max() / radii.min(), tilt + 1e-10)


def _path(name: str, eta: float, steps: int) -> Tensor:
    """(steps + 1, 2) from (1, 0)."""
    dynamics = make_dynamics(name, SGDRule(eta), SGDRule(eta), unroll_steps=K, lookahead_steps=K, adjustment=GAMMA)
    players, game = GameOptimizer(dynamics, torch.tensor(1.0, **EXACT), torch.tensor(0.0, **EXACT)), bilinear()
    path = [torch.stack([players.x, players.y])]
    for _ in range(steps):
        players.step(game)
        path.append(torch.stack([players.x, players.y]))
    return torch.stack(path)


def _settings(name: str, eta: float) -> tuple[str, dict[str, Any]]:
    rule, settings = RULES[name]
    return rule, {key: eta * value if key == "eta_y" else value for key, value in settings.items()}


def _exact(name: str, eta: float) -> float:
    rule, settings = _settings(name, eta)
    return rate(rule, eta, **settings)


def _residual(name: str, eta: float, path: Tensor) -> float:
    """Largest |sum_k c_k w_(t+k)| / |w_t| with c the polynomial of the eigenvalues; the first steps fill the memory."""
    rule, settings = _settings(name, eta)
    at = path[:: K if name == "lookahead" else 1][2:]
    coefficients = torch.as_tensor(np.poly(eigenvalues(rule, eta, **settings)).real.copy(), **EXACT)
    order = len(coefficients) - 1
    windows = at.unfold(0, order + 1, 1)  # (time, 2, order + 1), the oldest first
    scale = windows.norm(dim=1).amax(1).clamp(min=1e-300)
    return float(((windows * coefficients.flip(0)).sum(-1).norm(dim=1) / scale).max())


def _draw(paths: dict[str, Tensor], options: Options) -> Figure:
    from matplotlib.figure import Figure

    eta, steps = options.eta, options.steps
    colours = dict(zip(SHOWN, PALETTE, strict=True))
    with style():
        figure = Figure(figsize=(11.5, 6))
        grid = figure.add_gridspec(3, 7)
        flow = torch.stack(orbit(torch.linspace(0, 2 * math.pi, 200, **EXACT), 1.0, 0.0), 1)
        for k, (name, path) in enumerate({"the flow": flow, **paths}.items()):
            axis = figure.add_subplot(grid[k // 5, k % 5])
            axis.plot(path[:, 0], path[:, 1], color=colours.get(name, MUTED), lw=0.8)
            if name == "averaging":
                mean = path.cumsum(0) / torch.arange(1, len(path) + 1, **EXACT)[:, None]
                axis.plot(mean[:, 0], mean[:, 1], color=INK, lw=0.8)
            axis.plot(1, 0, "o", color=INK, ms=2.5)
            axis.plot(0, 0, "+", color=INK, ms=5)
            reach = 1.15 * float(path.abs().max())
            axis.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
            axis.tick_params(labelsize=6)
            axis.set_title(name, fontsize=7.5)
        axis = figure.add_subplot(grid[:, 5:])
        for name, colour in colours.items():
            exact = _exact(name, eta) ** (0.5 / K if name == "lookahead" else 0.5)
            axis.plot(paths[name].norm(dim=1), color=colour, lw=1.2, label=name)
            axis.plot([0, steps], [1, exact**steps], ":", color=INK, lw=0.8)
        axis.set(yscale="log", ylim=(1e-4, 10), xlabel="step")
        axis.set_title(f"radius, η = {eta:g}; dotted: exact")
        axis.legend(loc="lower left", fontsize=7)
    return figure
