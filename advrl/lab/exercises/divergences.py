r"""Exercise 5: one Gaussian for two humps. KL(p | q) covers both, KL(q | p) picks one. Goodfellow (2016), figure 14."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, Normal

from advrl.checks import number
from advrl.games import GaussianFit, forward_kl_fit, reverse_kl_fit
from advrl.lab.exercises.sheet import EXACT, Common, Sheet
from advrl.plots.style import BLUE, GREEN, INK, VERMILION, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "KL covers, reverse KL picks"
PROBLEM = """
The data p is an even mixture of two Gaussians at -mu and +mu with standard deviation sigma. The model q is one
Gaussian. Which q minimises KL(p | q), that is, maximises likelihood? Which minimise KL(q | p)?
Is it the reverse KL that makes GANs drop modes?
"""


@dataclass(frozen=True)
class Options(Common):
    """One Gaussian fitted to two humps by both directions of the Kullback-Leibler divergence."""

    mu: float = 3.0
    """Half the distance of the humps."""
    sigma: float = 1.0
    """Standard deviation of each."""


def solve(options: Options, sheet: Sheet) -> Figure:
    """Moments, quadrature, and a scan of all Gaussians that knows neither."""
    sigma = number("--sigma", options.sigma, 0.1)
    mu = number("--mu", options.mu, 3 * sigma, 6 * sigma)
    p = MixtureSameFamily(
        Categorical(torch.tensor([0.5, 0.5], **EXACT)),
        Normal(torch.tensor([-mu, mu], **EXACT), torch.tensor([sigma, sigma], **EXACT)),
    )
    sheet.step(
        "Step 1. KL(p | q) = -H(p) - E_p log q. Its slopes in m and s are 0 where q has the mean and variance of p."
    )
    cover = forward_kl_fit(p)
    sheet.near("mean", cover.mean, 0, 1e-10)
    sheet.near("variance: within a hump and between, sigma^2 + mu^2", cover.std**2, sigma**2 + mu**2, 1e-9)

    sheet.step("Step 2. KL(q | p) = -H(q) - E_q log p: infinite price where p is 0, none for what q leaves out.")
    picks = [reverse_kl_fit(p.log_prob, side * mu, sigma) for side in (-1, 1)]
    left, right = picks
    sheet.near("it ends on the hump that it starts near; both are alike", left.mean + right.mean, 0, 1e-4)
    sheet.near("mean, by mu", right.mean / mu, 1, 0.02)
    sheet.near("standard deviation, by sigma", right.std / sigma, 1, 0.05)
    sheet.near("divergence: half of the data is left out, log 2", right.divergence, math.log(2), 0.01)

    sheet.step("Step 3. All Gaussians on a grid, both divergences by quadrature: is that all there is?")
    means = torch.linspace(-1.5 * mu, 1.5 * mu, 61, **EXACT)
    stds = torch.linspace(math.log(sigma / 3), math.log(3 * mu), 60, **EXACT).exp()
    forward, reverse = _landscape(p, means, stds, mu, sigma)
    row, column = divmod(int(forward.argmin()), 60)
    sheet.near("KL(p | q) has its least at mean", means[row], 0, float(means[1] - means[0]))
    sheet.near("and at log std of the fit", stds[column].log(), math.log(cover.std), float((stds[1] / stds[0]).log()))
    best = reverse.min(1).values
    inner = (best[1:-1] < best[:-2]) & (best[1:-1] < best[2:])
    sheet.above("KL(q | p), s best for each m, has one on each hump: local minima", int(inner.sum()), 2)
    sheet.above("no q on the grid is below the fit, KL(p | q)", float(forward.min()) - cover.divergence, -1e-6)
    sheet.above("nor KL(q | p)", float(reverse.min()) - right.divergence, -1e-6)

    sheet.step(
        "Step 4. GANs drop modes with the KL as well (a cost of -e^a): this is no explanation. See exercise collapse."
    )
    sheet.table(
        ["fit", "mean", "std", "KL(p|q)", "KL(q|p)"],
        [
            [name, fit.mean, fit.std, *(float(v) for v in _both(p, fit, mu, sigma))]
            for name, fit in zip(("KL", "reverse"), (cover, right), strict=True)
        ],
    )
    return _draw(p, cover, picks, means, forward.min(1).values, best, mu, sigma)


def _landscape(p: MixtureSameFamily, means: Tensor, stds: Tensor, mu: float, sigma: float) -> tuple[Tensor, Tensor]:
    """(M, S) KL(p | q) and KL(q | p) for q = N(m, s^2)."""
    near = torch.linspace(-mu - 12 * sigma, mu + 12 * sigma, 1501, **EXACT)
    q = Normal(means[:, None, None], stds[None, :, None])
    density = p.log_prob(near)
    forward = torch.trapezoid(density.exp() * (density - q.log_prob(near)), near)
    z = torch.linspace(-9, 9, 361, **EXACT)
    weights = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    at = means[:, None, None] + stds[None, :, None] * z
    reverse = (weights * (q.log_prob(at) - p.log_prob(at))).sum(-1)
    return forward, reverse


def _both(p: MixtureSameFamily, fit: GaussianFit, mu: float, sigma: float) -> tuple[Tensor, Tensor]:
    forward, reverse = _landscape(p, torch.tensor([fit.mean], **EXACT), torch.tensor([fit.std], **EXACT), mu, sigma)
    return forward[0, 0], reverse[0, 0]


def _draw(
    p: MixtureSameFamily, cover: GaussianFit, picks: list[GaussianFit], means: Tensor, forward: Tensor, reverse: Tensor,
    mu: float, sigma: float,
) -> Figure:  # fmt: skip
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(9.6, 3))
        left, middle, right = figure.subplots(1, 3)
        x = torch.linspace(-mu - 4 * sigma, mu + 4 * sigma, 500, **EXACT)
        for axis in (left, middle):
            axis.plot(x, p.log_prob(x).exp(), color=INK, label="data p")
            axis.set(xlabel="x", ylabel="density", ylim=(0, 0.6 / sigma))
        left.plot(x, Normal(cover.mean, cover.std).log_prob(x).exp(), "--", color=BLUE, label="q")
        left.set_title("argmin KL(p | q): covers")
        for k, fit in enumerate(picks):
            look = {"color": VERMILION if k else GREEN, "label": "q from the right" if k else "q from the left"}
            middle.plot(x, Normal(fit.mean, fit.std).log_prob(x).exp(), "--", **look)
        middle.set_title("argmin KL(q | p): picks")
        left.legend()
        middle.legend()
        right.plot(means, forward, color=BLUE, label="KL(p | q)")
        right.plot(means, reverse, color=VERMILION, label="KL(q | p)")
        right.axhline(math.log(2), color=INK, ls=":", lw=1)
        right.annotate("log 2", (float(means[0]), math.log(2)), va="bottom", fontsize=7)
        right.set(xlabel="mean of q", ylabel="divergence, best std", ylim=(0, None))
        right.set_title("All Gaussians")
        right.legend()
    return figure
