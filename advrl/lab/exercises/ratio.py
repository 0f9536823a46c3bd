r"""Exercise 6: NCE, maximum likelihood and GAN are one game on the ratio of two densities; they differ in who learns.

Goodfellow (2014), "On distinguishability criteria for estimating generative models", table 1. A discriminator with the
logit a = log p_c - log q tells the data from q. Here everything is a Gaussian on a line, by quadrature.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributions import Normal

from advrl.checks import integer
from advrl.games import ratio_value
from advrl.lab.exercises.sheet import EXACT, Common, Sheet
from advrl.plots.style import BLUE, GREEN, INK, MUTED, VERMILION, style
from advrl.tabular import jensen_shannon

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "NCE, maximum likelihood and GAN as one game"
PROBLEM = """
V = E_data log D + E_q log(1 - D) with D = p_c / (p_c + q). Three methods play it:
  NCE      learns p_c, which need not be normalised, against a fixed noise q
  MLE      learns p_c, against a copy of itself for q
  GAN      learns q, against any p_c that maximises V
Which constant does NCE find? What is the gradient of V against a copy? What does the GAN minimise?
"""
MEAN, STD = 1.0, 0.7


@dataclass(frozen=True)
class Options(Common):
    """One game for three methods: a normalisation recovered, half a gradient, and a divergence descended."""

    points: int = 1501
    """Of the quadrature."""
    steps: int = 250
    """Of gradient descent of the likelihood's and the GAN's model."""


def solve(options: Options, sheet: Sheet) -> Figure:
    """The three modes, one after the other."""
    integer("--points", options.points, 300)
    integer("--steps", options.steps, 150)
    x = torch.linspace(-12, 12, options.points, **EXACT)
    width = math.log(float(x[1] - x[0]))
    data = (_at(MEAN, STD).log_prob(x) + width).exp()
    history = _nce(sheet, x, width, data)
    likelihood = _mle(options, sheet, x, width, data)
    gan = _gan(options, sheet, x, width, data)
    return _draw(x, width, data, history, likelihood, gan)


def _at(mean: float, std: float) -> Normal:
    return Normal(torch.tensor(mean, **EXACT), torch.tensor(std, **EXACT))


def _energy(numbers: Sequence[Tensor], x: Tensor) -> Tensor:
    """-(x - m)^2 / (2 s^2), normalised by nothing; numbers are m and log s."""
    return -((x - numbers[0]) ** 2) / (2 * (2 * numbers[1]).exp())


def _nce(sheet: Sheet, x: Tensor, width: float, data: Tensor) -> list[list[float]]:
    sheet.step("Step 1. NCE: log p_c = -(x - m)^2 / (2 s^2) + c, with c free, against the noise N(0, 2^2).")
    noise = _at(0.0, 2.0).log_prob(x) + width
    numbers = [torch.zeros((), **EXACT, requires_grad=True) for _ in range(3)]
    search = torch.optim.LBFGS(
        numbers, max_iter=1, tolerance_grad=1e-13, tolerance_change=0, line_search_fn="strong_wolfe"
    )
    history = []

    def closure() -> Tensor:
        search.zero_grad()
        value = -ratio_value(data, _energy(numbers, x) + numbers[2] + width, noise, "nce")
        value.backward()
        return value

    for _ in range(60):
        history.append([float(n.detach()) for n in numbers])
        search.step(closure)
    m, log_s, c = (float(n.detach()) for n in numbers)
    log_z = math.log(STD * math.sqrt(2 * math.pi))
    sheet.table(
        ["", "m", "s", "c"], [["start", 0.0, 1.0, 0.0], ["NCE", m, math.exp(log_s), c], ["true", MEAN, STD, -log_z]]
    )
    sheet.near("NCE finds the mean", m, MEAN, 1e-6)
    sheet.near("and the standard deviation", math.exp(log_s), STD, 1e-6)
    sheet.near("c is minus log Z, of a Z that nobody computed", c, -log_z, 1e-6)
    sheet.say("  The likelihood cannot: with a free c it would grow without bound.")
    return history


def _normal(numbers: Sequence[Tensor], x: Tensor, width: float) -> Tensor:
    """log of the density times the width of a cell, normalised on the grid."""
    return (_energy(numbers, x) + width).log_softmax(-1)


def _mle(options: Options, sheet: Sheet, x: Tensor, width: float, data: Tensor) -> list[float]:
    sheet.step("Step 2. MLE: against a copy of the model, made anew for every step, D = 1/2 and V = -log 4 throughout.")
    numbers = [torch.tensor(v, **EXACT, requires_grad=True) for v in (-1.5, 0.4)]
    model = _normal(numbers, x, width)
    value = ratio_value(data, model, None, "mle")
    copied = torch.stack(torch.autograd.grad(value, numbers, retain_graph=True))
    exact = torch.stack(torch.autograd.grad((data * model).sum(), numbers, retain_graph=True))
    sheet.table(
        ["slope in", "V against a copy", "E_data log p_c"],
        [[name, float(a), float(b)] for name, a, b in zip(("m", "log s"), copied, exact, strict=True)],
    )
    sheet.near("V is -log 4", value, -math.log(4), 1e-10)
    sheet.near(
        "its gradient is half of the likelihood's, largest difference", (copied - exact / 2).abs().max(), 0, 1e-10
    )
    both = data * torch.full_like(model, 0.5).log() + model.exp() * torch.full_like(model, 0.5).log()
    live = torch.stack(torch.autograd.grad(both.sum(), numbers))
    sheet.near("if the copy moved along, D = 1/2 would not change: gradient", live.abs().max(), 0, 1e-10)
    return _descend(options, x, width, data, "mle")


def _gan(options: Options, sheet: Sheet, x: Tensor, width: float, data: Tensor) -> list[float]:
    sheet.step("Step 3. GAN: q = N(m, s^2) learns, p_c is whatever maximises V: p_c = the data, so V = -log 4 + 2 JS.")
    numbers = [torch.tensor(v, **EXACT, requires_grad=True) for v in (-1.5, 0.4)]
    q = _normal(numbers, x, width)
    value = ratio_value(data, data.log(), q, "gan")
    js = jensen_shannon(data / data.sum(), q.exp())
    slope = torch.stack(torch.autograd.grad(value, numbers, retain_graph=True))
    exact = torch.stack(torch.autograd.grad(2 * js, numbers))
    sheet.near("V = -log 4 + 2 JS, difference", value - (2 * js - math.log(4)), 0, 1e-10)
    sheet.near("and its gradient is that of 2 JS, largest difference", (slope - exact).abs().max(), 0, 1e-8)
    path = _descend(options, x, width, data, "gan")
    sheet.below("descended, KL(data | q) after by before", path[-1] / path[0], 1e-3)
    return path


def _descend(options: Options, x: Tensor, width: float, data: Tensor, learner: str) -> list[float]:
    """KL(data | model) over steps of gradient descent, 0.1 of what the likelihood would take at full gradient."""
    numbers = [torch.tensor(v, **EXACT, requires_grad=True) for v in (-1.5, 0.4)]
    path = []
    for _ in range(options.steps):
        model = _normal(numbers, x, width)
        path.append(float((data * (data.log() - model)).sum().detach()))
        if learner == "mle":
            value = -ratio_value(data, model, None, "mle")
        else:
            value = ratio_value(data, data.log(), model, "gan")
        slopes = torch.autograd.grad(value, numbers)
        numbers = [(n - 0.2 * s).detach().requires_grad_() for n, s in zip(numbers, slopes, strict=True)]
    return path


def _draw(
    x: Tensor, width: float, data: Tensor, history: list[list[float]], likelihood: list[float], gan: list[float]
) -> Figure:
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(9.6, 3))
        left, middle, right = figure.subplots(1, 3)
        left.plot(x, data / math.exp(width), color=INK, label="data")
        left.plot(x, _at(0.0, 2.0).log_prob(x).exp(), ":", color=MUTED, label="noise q, fixed")
        m, log_s, c = history[-1]
        numbers = [torch.tensor(m, **EXACT), torch.tensor(log_s, **EXACT)]
        left.plot(x, (_energy(numbers, x) + c).exp(), "--", color=GREEN, label=r"$p_c$, never normalised")
        left.plot(x, _energy([torch.tensor(0.0, **EXACT)] * 2, x).exp(), color=GREEN, lw=0.6, label="its start")
        left.set(title="NCE: the model", xlabel="x", xlim=(-5, 5), ylim=(0, 1.45))
        left.legend(fontsize=7, loc="upper left")
        middle.plot([row[2] for row in history], color=GREEN, label="c")
        middle.axhline(-math.log(STD * math.sqrt(2 * math.pi)), color=INK, ls=":", label="−log Z")
        middle.set(title="NCE: the free constant", xlabel="step of L-BFGS", xlim=(-1, 30))
        middle.legend()
        right.plot(likelihood, color=BLUE, label="MLE: against its copy")
        right.plot(gan, "--", color=VERMILION, label="GAN: against the best D")
        right.set(title="KL(data | model)", yscale="log", ylim=(1e-14, 10), xlabel="step of gradient descent")
        right.legend()
    return figure
