r"""Exercise 3: which cost of the discriminator's logit makes the generator maximise likelihood?

E_q[f] has the gradient E_q[f grad log q]. For it to be -E_p grad log q, f = -p/q, and with the best discriminator
p/q = e^a: Goodfellow (2014), "On distinguishability criteria"; Goodfellow (2016), exercise 3, whose cost is half of it.
f is a number that a sample is paid: differentiated as a function of q, as a discriminator that knows q would invite
to, it cancels the gradient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from advrl.checks import integer, number
from advrl.estimators import score_function
from advrl.lab.exercises.sheet import EXACT, Common, Sheet
from advrl.objectives import maximum_likelihood, minimax, non_saturating
from advrl.plots.style import BLUE, GREEN, MUTED, ORANGE, PURPLE, VERMILION, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Maximum likelihood as a generator's cost"
PROBLEM = """
The generator pays J(G) = E_gen f(x). Find f such that its gradient is that of the log-likelihood, -E_data log q(x),
given the best discriminator's logit a(x). Write it as a cost of a alone.
"""


@dataclass(frozen=True)
class Options(Common):
    """The cost -e^a: its gradient beside the likelihood's, its variance, and what happens without the stop-gradient."""

    steps: int = 400
    """Of gradient descent, for the figure."""
    rate: float = 0.5
    """Of gradient descent."""


def solve(options: Options, sheet: Sheet) -> Figure:
    """Six outcomes, a softmax for a generator, exact sums."""
    integer("--steps", options.steps)
    number("--rate", options.rate, 0, exclusive=True)
    p = torch.tensor([0.3, 0.25, 0.2, 0.15, 0.07, 0.03], **EXACT)
    theta = torch.randn(6, **EXACT).requires_grad_()
    q = theta.softmax(-1)
    a = (p.log() - q.log()).detach()

    sheet.step("Step 1. grad E_q f = sum_x f grad q = E_q[f grad log q], since grad q = q grad log q: f is held fixed.")
    sheet.step("Step 2. E_q[f grad log q] = -E_p grad log q needs f = -p/q = -e^a, for a = log p/q is the best logit.")
    rows = torch.stack([p, q.detach(), a, maximum_likelihood.cost(a)], 1).tolist()
    sheet.table(["x", "p", "q", "a", "-e^a"], [(str(k), *row) for k, row in enumerate(rows)])

    sheet.step("Step 3. Both gradients with respect to theta, of q = softmax(theta). The likelihood's is q - p.")
    likelihood = _gradient(-(p * q.log()).sum(), theta)
    frozen = _gradient((q * maximum_likelihood.cost(a)).sum(), theta)
    sheet.table(
        ["theta", "-E_p log q", "E_q[-e^a]", "half of it"],
        [(str(k), float(m), float(f), float(f / 2)) for k, (m, f) in enumerate(zip(likelihood, frozen, strict=True))],
    )
    sheet.near("the gradient is the likelihood's, largest difference", (frozen - likelihood).abs().max(), 0, 1e-10)
    sheet.near("and q - p", (likelihood - (q - p)).abs().max(), 0, 1e-12)
    half = _gradient((q * maximum_likelihood.cost(a) / 2).sum(), theta)
    sheet.near("the slide's cost, -e^a / 2, has half of it", (half - likelihood / 2).abs().max(), 0, 1e-10)

    sheet.step(
        "Step 4. The trap: let the gradient flow through the q inside a. Then E_q[-e^a] = -sum p = -1 whatever q."
    )
    live = p.log() - q.log()
    both = _gradient((q * maximum_likelihood.cost(live)).sum(), theta)
    inside = _gradient((q.detach() * maximum_likelihood.cost(live)).sum(), theta)
    sheet.table(
        ["theta", "through the sample", "through the copy", "counted twice"],
        [(str(k), float(f), float(i), float(b)) for k, (f, i, b) in enumerate(zip(frozen, inside, both, strict=True))],
    )
    sheet.near("the copy's gradient is minus the sample's", (inside + frozen).abs().max(), 0, 1e-10)
    sheet.near("so nothing is left", both.abs().max(), 0, 1e-10)
    surrogate = (q.detach() * score_function(q.log(), maximum_likelihood.cost(live))).sum()
    trapped = _gradient(surrogate, theta)
    sheet.near(
        "a score-function estimator falls for it too: it honours the cost's gradient", trapped.abs().max(), 0, 1e-10
    )

    sheet.step(
        "Step 5. What it costs: e^a has mean 1 under q, and the variance chi2(p | q), which a few samples decide."
    )
    mean, second = (q * a.exp()).sum().detach(), (q * (2 * a).exp()).sum().detach()
    chi2 = float(((p - q.detach()) ** 2 / q.detach()).sum())
    sheet.near("E_q e^a = 1: its baseline is known", mean, 1, 1e-12)
    sheet.near("Var_q e^a = chi2", second - mean**2, chi2, 1e-10)
    return _figure(options, sheet, p, theta.detach())


def _gradient(value: Tensor, theta: Tensor) -> Tensor:
    return torch.autograd.grad(value, theta, retain_graph=True)[0]


def _descend(options: Options, p: Tensor, start: Tensor, kind: str) -> list[float]:
    """KL(p | q) after each step of descent."""
    theta, found = start.clone().requires_grad_(), []
    for _ in range(options.steps):
        q = theta.softmax(-1)
        a = p.log() - q.log()
        found.append(float((p * a).sum().detach()))
        a = a if kind == "live" else a.detach()
        cost = -(p * q.log()).sum() if kind == "likelihood" else (q * maximum_likelihood.cost(a)).sum()
        (slope,) = torch.autograd.grad(cost / 2 if kind == "half" else cost, theta)
        theta = (theta - options.rate * slope).detach().requires_grad_()
    return found


def _figure(options: Options, sheet: Sheet, p: Tensor, start: Tensor) -> Figure:
    from matplotlib.figure import Figure

    paths = {kind: _descend(options, p, start, kind) for kind in ("likelihood", "frozen", "half", "live")}
    sheet.step(
        f"Step 6. Gradient descent, {options.steps} steps of {options.rate:g}: KL(p | q) from {paths['live'][0]:.4f}."
    )
    apart = max(abs(x - y) for x, y in zip(paths["likelihood"], paths["frozen"], strict=True))
    sheet.near("-e^a takes the likelihood's path, largest difference", apart, 0, 1e-8)
    sheet.near("counted twice, it never moves", paths["live"][-1], paths["live"][0], 1e-8)
    lag = abs(paths["half"][-1] - paths["frozen"][(options.steps - 1) // 2])
    sheet.below("with the half, it is where -e^a was at half time", lag / paths["live"][0], 0.02)
    with style():
        figure = Figure(figsize=(8.4, 3.3))
        left, right = figure.subplots(1, 2)
        d = torch.linspace(0.005, 0.995, 400, **EXACT)
        a = d.logit()
        left.plot(d, minimax.cost(a) / 2, color=BLUE, label="minimax: ½ log(1 − D)")
        left.plot(d, non_saturating.cost(a) / 2, color=GREEN, label="non-saturating: −½ log D")
        left.plot(d, maximum_likelihood.cost(a) / 2, color=VERMILION, label=r"likelihood: −½ $e^a$")
        left.set(xlabel="D(G(z)): fake to real", ylabel="cost, as on the slide", ylim=(-20, 5))
        left.set_title("What a sample pays")
        left.legend(loc="lower left")
        looks: dict[str, tuple[str, dict[str, Any]]] = {
            "likelihood": ("−E log q itself", {"color": MUTED, "lw": 4, "alpha": 0.5}),
            "frozen": (r"$-e^a$", {"color": VERMILION}),
            "half": (r"$-\frac{1}{2}e^a$", {"color": ORANGE, "ls": "--"}),
            "live": (r"$-e^a$, gradient through a", {"color": PURPLE}),
        }
        for kind, (label, look) in looks.items():
            right.plot(paths[kind], label=label, **look)
        low = max(min(paths["frozen"]) / 2, math.ulp(1.0))
        right.set(yscale="log", xlabel="steps of gradient descent", ylabel="KL(p | q)", ylim=(low, None))
        right.set_title("What the generator learns")
        right.legend(loc="lower left")
    return figure
