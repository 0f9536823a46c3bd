r"""Exercise 1: the discriminator that answers best, D* = p / (p + q), and what the game is worth against it.

Goodfellow et al. (2014), proposition 1, theorem 1 and figure 1; Goodfellow (2016), exercise 1. The figure is that of
the paper, from a run: the generator is increasing in its noise, so that its density is known by the change of
variables, and every integral is taken over the noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, MixtureSameFamily, Normal
from torch.nn.functional import logsigmoid

from advrl.checks import integer
from advrl.games import finite_gan
from advrl.lab.exercises.sheet import EXACT, Common, Sheet
from advrl.nn import MLP
from advrl.objectives import non_saturating
from advrl.plots.style import BLUE, GREEN, INK, MUTED, style
from advrl.tabular import jensen_shannon, optimal_discriminator, optimal_logit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "The best discriminator"
PROBLEM = """
The discriminator maximises  V(D) = E_data log D(x) + E_gen log(1 - D(x)).
Where p is the density of the data and q the generator's: which D is best, and how much is V then?
What has to be assumed of p and q?
"""
HALVES = -math.log(4)
RATES = (2e-2, 5e-3)  # of Adam, generator and discriminator


@dataclass(frozen=True)
class Options(Common):
    """The best discriminator on a table and by a network, with the four stages of Goodfellow's figure from a run."""

    steps: int = 1000
    """Of the run, from the third stage to the fourth: each is one of the discriminator and one of the generator."""
    inner: int = 400
    """Steps of the discriminator alone, from the first stage to the second."""


class Increasing(nn.Module):
    """x = m + e^c v + sum_k e^w_k tanh(e^u_k v + b_k), v standard normal: increasing, with a slope in closed form."""

    def __init__(self, units: int = 8) -> None:
        super().__init__()
        self.m, self.c = nn.Parameter(torch.tensor(1.5, **EXACT)), nn.Parameter(torch.tensor(-0.6, **EXACT))
        self.w = nn.Parameter(torch.full((units,), -3.0, **EXACT))
        self.u = nn.Parameter(torch.full((units,), 0.5, **EXACT))
        self.b = nn.Parameter(torch.linspace(-2.5, 2.5, units, **EXACT))

    def forward(self, v: Tensor) -> Tensor:
        """(N,) to (N,)."""
        inside = self.u.exp() * v[:, None] + self.b
        x: Tensor = self.m + self.c.exp() * v + (self.w.exp() * inside.tanh()).sum(-1)
        return x

    def log_slope(self, v: Tensor) -> Tensor:
        """(N,) log dx/dv."""
        inside = self.u.exp() * v[:, None] + self.b
        return (self.c.exp() + (self.w.exp() * self.u.exp() * (1 - inside.tanh() ** 2)).sum(-1)).log()


class Stage(NamedTuple):
    """Curves over x (N,) of one moment: both densities, the network's D and the best one; where noise goes; numbers."""

    name: str
    x: Tensor
    p: Tensor
    q: Tensor
    d: Tensor
    best: Tensor
    moved: Tensor
    value: float
    divergence: float


def solve(options: Options, sheet: Sheet) -> Figure:
    """The table, then the run."""
    integer("--steps", options.steps, 300)
    integer("--inner", options.inner, 200)
    _table(sheet)
    stages = _run(options, sheet)
    return _draw(stages)


def _table(sheet: Sheet) -> None:
    p, q = torch.tensor([0.4, 0.3, 0.2, 0.1], **EXACT), torch.tensor([0.1, 0.2, 0.3, 0.4], **EXACT)
    best = optimal_discriminator(p, q)
    sheet.step("Step 1. One x at a time: p log D + q log(1 - D) has slope p/D - q/(1-D), zero at D* = p/(p+q).")
    slope, bend = p / best - q / (1 - best), -p / best**2 - q / (1 - best) ** 2
    rows = torch.stack([p, q, best, slope, bend], 1).tolist()
    sheet.table(["x", "p", "q", "D*", "slope", "second"], [(str(k), *row) for k, row in enumerate(rows)])
    sheet.near("the slope at D* is 0 everywhere", slope.abs().max(), 0, 1e-12)
    sheet.below("and the second derivative negative: a maximum", bend.max(), 0)
    sheet.say("  Assumed: p + q > 0. Where neither draws x, D* is 0/0 and training never sets it (exercise untrained).")

    sheet.step("Step 2. The value against D* is -log 4 + 2 JS(p, q), JS = KL(p | m)/2 + KL(q | m)/2, m = (p + q)/2.")
    value = (p * best.log() + q * (1 - best).log()).sum()
    middle = (p + q) / 2
    halves = [(w * (w / middle).log()).sum() / 2 for w in (p, q)]
    js = float(sum(halves))
    sheet.say(f"  V(D*) = {value:.12f}   JS = {js:.12f}   -log 4 + 2 JS = {HALVES + 2 * js:.12f}")
    sheet.near("V(D*) = -log 4 + 2 JS", value, HALVES + 2 * js, 1e-10)
    sheet.near("JS as entropies, H(m) - H(p)/2 - H(q)/2, is the same", jensen_shannon(p, q), js, 1e-12)
    even = finite_gan(p)(p.log(), torch.zeros(4, **EXACT))[0]
    sheet.near("with q = p nobody can tell: D* = 1/2, V = -log 4", even, HALVES, 1e-12)

    sheet.step("Step 3. Climbing V by gradients of the four logits gets there: V is concave in them.")
    game, logit = finite_gan(p), torch.zeros(4, **EXACT, requires_grad=True)
    for _ in range(200):
        (slope,) = torch.autograd.grad(game(q.log(), logit)[0], logit)
        logit = (logit + 4 * slope / (p + q)).detach().requires_grad_()
    sheet.near("the logits after 200 steps are log p/q", (logit - optimal_logit(p, q)).abs().max(), 0, 1e-9)


def _run(options: Options, sheet: Sheet) -> list[Stage]:
    sheet.step("Step 4. The same with networks: noise z from U(0, 1), x = G(z) increasing, so q(x) = 1 / G'(z).")
    data = MixtureSameFamily(
        Categorical(torch.tensor([0.65, 0.35], **EXACT)),
        Normal(torch.tensor([-1.0, 0.6], **EXACT), torch.tensor([0.45, 0.6], **EXACT)),
    )
    generator, net = Increasing(), MLP(1, (), (32, 32), activation="tanh").to(**EXACT)
    opt_g = torch.optim.Adam(generator.parameters(), lr=RATES[0], betas=(0.5, 0.99))
    opt_d = torch.optim.Adam(net.parameters(), lr=RATES[1], betas=(0.5, 0.99))

    def discriminate(steps: int) -> None:
        for _ in range(steps):
            real, fake = data.sample((256, 1)), generator(torch.randn(256, **EXACT)).detach()[:, None]
            loss = non_saturating.d_loss(net(real), net(fake)).mean()
            opt_d.zero_grad()
            loss.backward()
            opt_d.step()

    def generate(steps: int, along: bool) -> None:
        for _ in range(steps):
            if along:
                discriminate(1)
            cost = non_saturating.cost(net(generator(torch.randn(256, **EXACT))[:, None])).mean()
            opt_g.zero_grad()
            cost.backward()
            opt_g.step()

    discriminate(30)
    stages = [_stage("a  D partly trained", generator, net, data)]
    discriminate(options.inner)
    stages.append(_stage("b  D trained: D*", generator, net, data))
    generate(20, along=False)
    stages.append(_stage("c  G follows D", generator, net, data))
    for k in range(options.steps):  # smaller and smaller, so that both come to rest
        for search, rate in zip((opt_g, opt_d), RATES, strict=True):
            search.param_groups[0]["lr"] = rate * (1 - k / options.steps)
        generate(1, along=True)
    stages.append(_stage("d  at the end", generator, net, data))

    rows = [(s.name, s.divergence, s.value, HALVES + 2 * s.divergence, _gap(s)) for s in stages]
    sheet.table(["stage", "JS", "V(D)", "-log 4 + 2 JS", "E|D - D*|"], rows)
    for s in stages:
        sheet.below(f"{s.name[0]}: no network is above the bound, V(D) - V(D*)", s.value - HALVES - 2 * s.divergence, 0)
    a, b, c, d = stages
    sheet.below("b: trained alone, the network comes near it, V(D*) - V(D)", HALVES + 2 * b.divergence - b.value, 0.01)
    sheet.below("b: and so does D, E|D - D*| over data and generator", _gap(b), 0.05)
    sheet.below("c: following D brings the generator nearer, JS now by before", c.divergence / b.divergence, 1)
    sheet.below("d: at the end little is left of the divergence, JS by first", d.divergence / a.divergence, 0.05)
    sheet.below("d: and D is near 1/2, E|D - 1/2|", ((d.d - 0.5).abs() * _weights(d)).sum(), 0.1)
    return stages


@torch.no_grad()
def _stage(name: str, generator: Increasing, net: nn.Module, data: Distribution) -> Stage:
    """Everything by the trapezoidal rule over the noise: dx = x'(v) dv, q dx = phi(v) dv."""
    v = torch.linspace(-25, 25, 10_001, **EXACT)
    x, log_slope = generator(v), generator.log_slope(v)
    log_p, log_q = data.log_prob(x), -(v**2) / 2 - math.log(2 * math.pi) / 2 - log_slope
    a, best, step = net(x[:, None]), log_p - log_q, log_slope.exp() * (v[1] - v[0])
    value = ((log_p.exp() * logsigmoid(a) + log_q.exp() * logsigmoid(-a)) * step).sum()
    top = ((log_p.exp() * logsigmoid(best) + log_q.exp() * logsigmoid(-best)) * step).sum()
    moved = generator(torch.special.ndtri((torch.arange(20, **EXACT) + 0.5) / 20))
    seen = (x > -4) & (x < 4.5)
    p, q, d, star = (curve[seen] for curve in (log_p.exp(), log_q.exp(), a.sigmoid(), best.sigmoid()))
    return Stage(name, x[seen], p, q, d, star, moved, float(value), float(top - HALVES) / 2)


def _weights(s: Stage) -> Tensor:
    """(N,) of an average over data and generator alike."""
    weight = torch.gradient(s.x)[0] * (s.p + s.q)
    return weight / weight.sum()


def _gap(s: Stage) -> float:
    return float(((s.d - s.best).abs() * _weights(s)).sum())


def _draw(stages: list[Stage]) -> Figure:
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(10, 3.6))
        axes = figure.subplots(2, 4, sharex=True, gridspec_kw={"height_ratios": [3, 1], "hspace": 0})
        top = max(float(max(s.p.max(), s.q.max())) for s in stages)
        for column, s in enumerate(stages):
            _panel(axes[0, column], axes[1, column], s, max(top, 1) * 1.05)
        axes[0, 0].legend(loc="upper right", fontsize=7)
        axes[1, 0].set_ylabel("z → x")
    return figure


def _panel(axis: Axes, below: Axes, s: Stage, top: float) -> None:
    axis.plot(s.x, s.p, ":", color=INK, label="data p")
    axis.plot(s.x, s.q, color=GREEN, label="generator q")
    axis.plot(s.x, s.best, color=MUTED, lw=0.8, label="D*")
    axis.plot(s.x, s.d, "--", color=BLUE, label="D")
    axis.set(title=f"{s.name}\nJS {s.divergence:.3f}, V(D) {s.value:.3f}", ylim=(0, top), xlim=(-3.2, 3.8))
    for z, x in enumerate(s.moved.tolist()):
        start = -3 + 6.6 * (z + 0.5) / len(s.moved)
        below.annotate("", (x, 1), (start, 0), arrowprops={"arrowstyle": "->", "lw": 0.6, "color": GREEN})
    below.axhline(0, color=INK, lw=0.8)
    below.axhline(1, color=INK, lw=0.8)
    below.set(yticks=[0, 1], yticklabels=["z", "x"], ylim=(-0.1, 1.1), xlabel="x")
    below.grid(visible=False)
