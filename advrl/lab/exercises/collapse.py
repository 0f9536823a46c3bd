r"""Exercise 4: min max is not max min. Which player answers the other decides whether modes are dropped.

Goodfellow (2016), section 5.1.1: min_G max_D V has all of the data for its solution; max_D min_G V asks the generator
to put every sample where the discriminator, as it is now, is fooled best. Alternating gradient steps play neither.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from advrl.checks import integer, number
from advrl.games import density_step, finite_gan, gan_gap, max_min_play, total_variation
from advrl.lab.exercises.sheet import EXACT, Common, Sheet
from advrl.plots.style import BLUE, GREEN, INK, VERMILION, style
from advrl.tabular import optimal_logit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Min max is not max min: mode collapse"
PROBLEM = """
A generator is any distribution q on eight outcomes. Against the best discriminator it takes gradient steps
(min max); or the discriminator takes gradient steps against the best generator (max min).
What is the best generator against a fixed discriminator? Where does each order of play lead?
"""


@dataclass(frozen=True)
class Options(Common):
    """Both orders of play on eight outcomes: one comes to the data, the other hops from mode to mode."""

    steps: int = 4000
    """Of the discriminator against the best generator."""
    rate: float = 0.02
    """Of the discriminator's ascent."""


def solve(options: Options, sheet: Sheet) -> Figure:
    """Both orders, exactly."""
    integer("--steps", options.steps, 100)
    number("--rate", options.rate, 0, exclusive=True)
    p = torch.tensor([0.25, 0.2, 0.15, 0.12, 0.1, 0.08, 0.06, 0.04], **EXACT)
    spread, found = _min_max(sheet, p)
    held = _max_min(options, sheet, p)

    sheet.step("Step 4. The value is the same, -log 4: what differs is where the generator ends.")
    zero = torch.zeros(8, **EXACT)
    value = finite_gan(p, generator=lambda q: q)
    spike = torch.eye(8, **EXACT)[0]
    sheet.near("against D = 1/2 a single outcome is as good as the data, V", value(spike, zero)[0], -math.log(4), 1e-12)
    sheet.near("but no equilibrium: the duality gap at the data is", gan_gap(p, p, zero), 0, 1e-12)
    top = float(value(spike, optimal_logit(p, spike))[0]) + math.log(4)
    sheet.near("and at the single outcome what a best answer would gain", gan_gap(p, spike, zero), top, 1e-12)
    return _draw(p, spread, found, held)


def _min_max(sheet: Sheet, p: Tensor) -> tuple[Tensor, Tensor]:
    sheet.step("Step 1. Min max. Against D* a mirror-descent step in q is q <- (p + q)/2: it always moves to the data.")
    q = torch.eye(8, **EXACT)[0]
    spread = [q]
    for _ in range(40):
        spread.append(density_step(p, spread[-1]))
    path = torch.stack(spread)
    distance = total_variation(p, path)
    sheet.table(
        ["step", "total variation", "times 2^step"],
        [[str(k), float(distance[k]), float(distance[k] * 2**k)] for k in (0, 1, 2, 5, 10)],
    )
    sheet.near(
        "the total variation halves, largest deviation in 20 steps",
        (distance[:21] * 2.0 ** torch.arange(21, **EXACT) - distance[0]).abs().max(),
        0,
        1e-8,
    )
    sheet.below("after 40 steps it is", distance[-1], 1e-11)
    return path, distance


def _max_min(options: Options, sheet: Sheet, p: Tensor) -> Tensor:
    sheet.step(
        "Step 2. Max min. V is linear in q: the best answer to a fixed D is one outcome, that of the largest logit."
    )
    logit = torch.randn(8, **EXACT)
    value = finite_gan(p, generator=lambda q: q)
    corner = float(value(torch.eye(8, **EXACT)[logit.argmax()], logit)[0])
    others = torch.randn(1000, 8, **EXACT).mul(3).softmax(-1)
    best = min(float(value(q, logit)[0]) for q in others)
    sheet.above("of 1000 random q none pays less than that corner, margin", best - corner, 0)

    sheet.step(f"Step 3. {options.steps} steps of D against it: D lowers where q is, q hops to the next mode.")
    play = max_min_play(p, options.steps, options.rate)
    held = torch.eye(8, **EXACT)[play.outcomes]
    late = held[options.steps // 4 :]
    hops = int((play.outcomes[1:] != play.outcomes[:-1]).sum())
    sheet.say(f"  first outcomes: {' '.join(str(k) for k in play.outcomes[:24].tolist())} ...; {hops} hops in all")
    sheet.near(
        "at no time is q nearer to the data than 1 - max p, least total variation",
        total_variation(p, held).min(),
        1 - 0.25,
        1e-12,
    )
    sheet.above(
        "it never settles: hops in the last quarter",
        int((play.outcomes[-options.steps // 4 :].diff() != 0).sum()),
        options.steps / 40,
    )
    sheet.below(
        "only the mean over time is the data, total variation",
        total_variation(p, late.mean(0)),
        0.02 + 16 / options.steps,
    )
    return held


def _draw(p: Tensor, path: Tensor, distance: Tensor, held: Tensor) -> Figure:
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(9.6, 3.2))
        left, middle, right = figure.subplots(1, 3)
        left.imshow(path[:12].T.numpy(), aspect="auto", cmap="Blues", vmin=0, vmax=0.3, origin="lower")
        left.set(title="min max: q at every step", xlabel="step", ylabel="outcome")
        last = held[-120:]
        middle.imshow(
            last.T.numpy(),
            aspect="auto",
            cmap="Blues",
            vmin=0,
            vmax=1,
            origin="lower",
            extent=(len(held) - 120, len(held), -0.5, 7.5),
        )
        middle.set(title="max min: q at every step", xlabel="step", ylabel="outcome")
        for axis in (left, middle):
            axis.grid(visible=False)
        count = torch.arange(1, len(held) + 1, **EXACT)
        mean = total_variation(p, held.cumsum(0) / count[:, None])
        right.plot(range(1, len(distance) + 1), distance, color=BLUE, label="min max")
        right.plot(count, total_variation(p, held), color=VERMILION, lw=0.5, label="max min")
        right.plot(count, mean, color=GREEN, lw=0.7, label="max min, mean over time")
        right.axhline(1 - float(p.max()), color=INK, ls=":", lw=1)
        right.annotate("1 − max p", (len(held), 1 - float(p.max())), va="top", ha="right", fontsize=7)
        right.set(xscale="log", yscale="log", ylim=(1e-4, 2), xlabel="step + 1", title="total variation to the data")
        right.legend(loc=(0.42, 0.6), fontsize=7)
    return figure
