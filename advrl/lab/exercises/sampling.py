r"""Exercise 7: everything that is drawn begins with u ~ U(0, 1). Devroye (1986), section II.2.

If F is a cumulative distribution function, F^-1(u) = min {x: F(x) >= u} has the distribution F, for
P(F^-1(u) <= x) = P(u <= F(x)) = F(x). A table is the same with a staircase for F, and a coin is a table of two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from advrl.checks import integer
from advrl.distributions import inverse_transform
from advrl.lab.exercises.sheet import EXACT, Common, Sheet
from advrl.plots.style import BLUE, GREEN, INK, VERMILION, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Inverse-transform sampling"
PROBLEM = """
You have u ~ U(0, 1) and nothing else. Draw a coin that shows 1 with probability theta, one of K categories with
probabilities p, and a real number with the cumulative distribution function F. Prove that it is right; test it.
"""
FALSE_ALARM = 1e-6  # chance that a right sampler fails one test, over the choice of seed
THETA = 0.3
CONTINUOUS: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "expon": ("-log(1 - u)", lambda u: -torch.log1p(-u)),
    "logistic": ("log u - log(1 - u)", lambda u: u.logit()),
    "laplace": ("-sign(u - 1/2) log(1 - 2|u - 1/2|)", lambda u: -(u - 0.5).sign() * torch.log1p(-2 * (u - 0.5).abs())),
    "cauchy": ("tan(pi (u - 1/2))", lambda u: torch.tan(torch.pi * (u - 0.5))),
    "norm": ("sqrt(2) erfinv(2u - 1)", lambda u: 2**0.5 * torch.erfinv(2 * u - 1)),
}
"""Name in scipy.stats, the formula, and the formula."""


@dataclass(frozen=True)
class Options(Common):
    """A coin, a table and five densities from uniform numbers, held against their laws by chi-squared and KS tests."""

    samples: int = 20_000
    """Of each."""


def solve(options: Options, sheet: Sheet) -> Figure:
    """Coin, table, densities; then samplers that are wrong, which the tests must find."""
    from scipy.stats import chisquare, kstest

    n = integer("--samples", options.samples, 2000)
    sheet.say(f"\n  A right sampler has p-values evenly in (0, 1): below {FALSE_ALARM:g} once in a million seeds.")
    sheet.step("Step 1. A coin: 1 if u < theta, 0 otherwise (the 0 if u > theta of the slide). P(u < theta) = theta.")
    u = torch.rand(n, **EXACT)
    coin = (u < THETA).double()
    expected = [n * (1 - THETA), n * THETA]
    counts = [n - float(coin.sum()), float(coin.sum())]
    sheet.table(["", "0", "1"], [["drawn", *counts], ["expected", *expected]])
    sheet.above("chi-squared test, p-value", chisquare(counts, expected).pvalue, FALSE_ALARM)

    sheet.step("Step 2. A table: the first k whose cumulative probability is above u; an entry of 0 is never drawn.")
    p = torch.tensor([0.05, 0.3, 0.0, 0.15, 0.4, 0.1], **EXACT)
    drawn = inverse_transform(p, n)
    by_hand = (u[:, None] >= p.cumsum(0)).sum(1)
    pairs = {"inverse_transform": drawn, "sum of u >= F(k)": by_hand}
    seen = {name: torch.bincount(outcomes, minlength=6).to(**EXACT) for name, outcomes in pairs.items()}
    rows = [[name, *found.tolist()] for name, found in {**seen, "expected": n * p}.items()]
    sheet.table(["", *map(str, range(6))], rows)
    possible = p > 0
    for name, found in seen.items():
        sheet.near(f"{name}: never the impossible one, drawn", found[~possible].sum(), 0, 0)
        fit = chisquare(found[possible].numpy(), (n * p)[possible].numpy())
        sheet.above(f"{name}: chi-squared test, p-value", fit.pvalue, FALSE_ALARM)

    sheet.step("Step 3. A density: x = F^-1(u). Kolmogorov and Smirnov: the largest distance of two curves F.")
    samples = {name: inverse(torch.rand(n, **EXACT)) for name, (_, inverse) in CONTINUOUS.items()}
    tests = {name: kstest(x.numpy(), name) for name, x in samples.items()}
    sheet.table(
        ["density", "F^-1(u)", "distance", "times sqrt n"],
        [[name, CONTINUOUS[name][0], float(t.statistic), float(t.statistic) * n**0.5] for name, t in tests.items()],
    )
    for name, test in tests.items():
        sheet.above(f"{name}: KS test, p-value", test.pvalue, FALSE_ALARM)

    sheet.step("Step 4. Does a test find what is wrong? Three mistakes that are often made.")
    turned = float((u > THETA).sum())
    sheet.below("1 if u > theta: p-value", chisquare([n - turned, turned], expected).pvalue, FALSE_ALARM)
    fast, narrow = (-torch.log1p(-u) / 1.5).numpy(), torch.erfinv(2 * u - 1).numpy()
    sheet.below("-log(1 - u) / 1.5 for a rate of 1: p-value", kstest(fast, "expon").pvalue, FALSE_ALARM)
    sheet.below("erfinv(2u - 1) without the root of 2: p-value", kstest(narrow, "norm").pvalue, FALSE_ALARM)
    return _draw(p, samples["logistic"])


def _draw(p: Tensor, samples: Tensor) -> Figure:
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(9.6, 3))
        left, middle, right = figure.subplots(1, 3)
        _stairs(left, torch.tensor([1 - THETA, THETA], **EXACT), [0.2, 0.55, 0.8])
        left.set(title="a coin", xlabel="outcome", ylabel="u", xticks=[0, 1])
        _stairs(middle, p, [0.03, 0.25, 0.45, 0.7, 0.95])
        middle.set(title="a table (2 has probability 0)", xlabel="outcome", xticks=range(6))
        x = torch.linspace(-6, 6, 300, **EXACT)
        right.hist(samples.numpy(), bins=60, range=(-6, 6), density=True, color=BLUE, alpha=0.35, label="samples")
        cdf = x.sigmoid()
        right.plot(x, cdf, color=INK, label="F")
        right.plot(x, cdf * (1 - cdf), color=GREEN, label="F′")
        for u in (0.1, 0.5, 0.8):
            _arrow(right, u, float(torch.tensor(u, **EXACT).logit()), -6)
        right.set(title="a density: logistic", xlabel="x", xlim=(-6, 6))
        right.legend(loc="upper left", fontsize=7)
    return figure


def _stairs(axis: Axes, p: Tensor, draws: list[float]) -> None:
    cdf = p.cumsum(0)
    edges = [-1.0, *(float(k) for k in range(len(p))), float(len(p))]
    axis.step(edges, [0.0, *cdf.tolist(), 1.0], where="post", color=INK)
    for u in draws:
        _arrow(axis, u, float((u >= cdf).sum()), -1)
    axis.set(xlim=(-1, len(p)), ylim=(-0.02, 1.05))


def _arrow(axis: Axes, u: float, x: float, start: float) -> None:
    look = {"arrowstyle": "->", "color": VERMILION, "lw": 1}
    axis.plot([start, x], [u, u], color=VERMILION, lw=0.8)
    axis.annotate("", (x, 0), (x, u), arrowprops=look)
