r"""Exercise 9: the game is convex-concave in densities and in D, and the networks' parameters are neither.

V(q, a) is linear in q and concave in a: gradient steps in those spaces converge. Goodfellow (2016), section 5.1.2. With
a density that slides along a line for a generator and a slope for a discriminator, the same V goes round.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from advrl.checks import integer, number
from advrl.games import density_step, finite_gan, jacobian, total_variation, vector_field
from advrl.lab.exercises.sheet import EXACT, Common, Sheet
from advrl.plots.style import BLUE, GREEN, INK, VERMILION, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Convex in densities, not in parameters"
PROBLEM = """
"V is convex in the generator's density and concave in D, so GANs converge." What is right about that, and what is not?
Take V along straight lines: between densities, between logits, between parameters. Then play the game in both spaces.
"""
PLACES = torch.arange(-32, 33, **EXACT) / 16


@dataclass(frozen=True)
class Options(Common):
    """V along lines in both spaces; one game that converges in densities and goes round in parameters."""

    lines: int = 300
    """Random lines in each space."""
    steps: int = 600
    """Of the game in parameters."""
    eta: float = 0.1
    """Step size there."""


def spike(t: Tensor) -> Tensor:
    """(65,) a point mass that slides along the places, shared by the two next to it: its mean is t."""
    return (1 - 16 * (PLACES - t).abs()).clamp(min=0)


def solve(options: Options, sheet: Sheet) -> Figure:
    """Lines, then the game."""
    lines, steps = integer("--lines", options.lines, 50), integer("--steps", options.steps, 200)
    number("--eta", options.eta, 0, 0.5, exclusive=True)
    bends = _lines(sheet, lines)
    distance = _densities(sheet)
    path = _parameters(sheet, options.eta, steps)
    return _draw(bends, distance, path)


def _lines(sheet: Sheet, lines: int) -> dict[str, Tensor]:
    """The second difference of V at the middle of random lines, (lines,) for each space."""
    p = torch.tensor([0.4, 0.3, 0.2, 0.1], **EXACT)
    value = finite_gan(p, generator=lambda q: q)
    softmax = finite_gan(p)

    def bend(low: Tensor, middle: Tensor, high: Tensor) -> Tensor:
        return low - 2 * middle + high

    found: dict[str, list[Tensor]] = {"density": [], "logits": [], "parameters": []}
    for _ in range(lines):
        a, b, x, y = 2 * torch.randn(4, 4, **EXACT)
        q, end = x.softmax(-1), y.softmax(-1)
        found["density"].append(bend(*(value(at, a)[0] for at in (q, (q + end) / 2, end))))
        found["logits"].append(bend(*(softmax(x, at)[0] for at in (a, (a + b) / 2, b))))
        found["parameters"].append(bend(*(softmax(at, a)[0] for at in (x, (x + y) / 2, y))))
    bends = {name: torch.stack(values) for name, values in found.items()}
    sheet.step(
        f"Step 1. V at both ends minus twice the middle, on {lines} random lines: above 0 convex, below concave."
    )
    sheet.table(["along", "lowest", "highest"], [[name, float(v.min()), float(v.max())] for name, v in bends.items()])
    sheet.near("in the density V is linear, largest bend", bends["density"].abs().max(), 0, 1e-12)
    sheet.below("in the logits it is concave, highest bend", bends["logits"].max(), 0)
    sheet.below("in the generator's parameters it is not convex, lowest bend", bends["parameters"].min(), -1e-3)
    sheet.above("and not concave, highest bend", bends["parameters"].max(), 1e-3)
    return bends


def _densities(sheet: Sheet) -> Tensor:
    sheet.step(
        "Step 2. In densities: data at 0, the generator's mass at 0.51. Steps against the best D halve the distance."
    )
    p, q = spike(torch.zeros((), **EXACT)), spike(torch.tensor(0.51, **EXACT))
    found = [total_variation(p, q)]
    for _ in range(40):
        q = density_step(p, q)
        found.append(total_variation(p, q))
    sheet.near("total variation after 40 steps", found[-1], 0, 1e-12)
    return torch.stack(found)


def _parameters(sheet: Sheet, eta: float, steps: int) -> Tensor:
    """(steps + 1, 2) the place of the generator's mass and the discriminator's slope."""
    sheet.step(
        "Step 3. In parameters: the mass slides, x is its place; the discriminator is a slope y, its logit y s at s."
    )
    game = finite_gan(spike(torch.zeros((), **EXACT)), spike, lambda slope: slope * PLACES)
    at = torch.tensor(1e-9, **EXACT)
    x, y = torch.tensor(0.51, **EXACT), torch.zeros((), **EXACT)
    values = torch.linalg.eigvals(jacobian(game, at, torch.zeros((), **EXACT)))
    sheet.say(f"  At the solution J has the eigenvalues {', '.join(f'{z:.3f}' for z in values.tolist())}.")
    sheet.near("nothing attracts: largest real part", values.real.abs().max(), 0, 1e-8)
    path = [torch.stack([x, y])]
    for _ in range(steps):
        y = y - eta * vector_field(game, x, y)[1]
        x = x - eta * vector_field(game, x, y)[0]
        path.append(torch.stack([x, y]))
    found = torch.stack(path)
    radii = found.norm(dim=1)
    turns = float(torch.atan2(found[:, 1], found[:, 0]).diff().remainder(2 * math.pi).sum()) / (2 * math.pi)
    sheet.say(f"  {steps} steps in turn, {min(turns, steps - turns):.1f} turns.")
    sheet.above("it never comes nearer, smallest radius", radii.min(), 0.48)
    sheet.below("nor goes away, largest", radii.max(), 0.54)
    return found


def _draw(bends: dict[str, Tensor], distance: Tensor, path: Tensor) -> Figure:
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(9.6, 3))
        left, middle, right = figure.subplots(1, 3)
        looks = {"density": GREEN, "logits": BLUE, "parameters": VERMILION}
        for k, (name, values) in enumerate(bends.items()):
            left.plot(values, k + 0.6 * (torch.rand(len(values)) - 0.5), ".", ms=2, color=looks[name])
        left.axvline(0, color=INK, lw=0.8)
        left.set(title="V along lines: bend", xlabel="concave  ←  second difference  →  convex")
        left.set_yticks(range(3), ["density q", "logits of D", "softmax\nparameters"])
        middle.plot(distance.clamp(min=1e-17), color=GREEN, label="in densities")
        tv = (path[:, 0].abs() * 16).clamp(max=1)
        middle.plot(tv[:80], color=VERMILION, lw=0.8, label="in parameters")
        middle.set(title="total variation to the data", yscale="log", xlabel="step", ylim=(1e-14, 20))
        middle.legend(loc="lower right")
        right.plot(path[:, 0], path[:, 1], color=VERMILION, lw=0.8)
        right.plot(*path[0].tolist(), "o", color=INK, ms=3)
        right.plot(0, 0, "+", color=INK)
        right.set(title="in parameters", xlabel="x: where the mass is", ylabel="y: slope of D", aspect="equal")
    return figure
