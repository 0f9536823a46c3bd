r"""Exercise 8: what does a discriminator say of an outcome that neither the data nor the generator ever draws?

D* = p/(p + q) is 0/0 there. The gradient of V with respect to a table's logit is p (1 - D) - q D = 0, exactly: the
entry keeps the value that it was made with. A network's value there is made by what it was taught elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from advrl.checks import integer
from advrl.games import finite_gan, vector_field
from advrl.lab.exercises.sheet import EXACT, Common, Sheet
from advrl.nn import MLP
from advrl.plots.style import INK, MUTED, PALETTE, style
from advrl.tabular import optimal_discriminator

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Where nobody trained the discriminator"
PROBLEM = """
Two of seven outcomes are never drawn, by the data or by the generator. What does a trained discriminator say of them,
if it is a table, and if it is a network? What is the generator paid for the first sample that it puts there?
"""


@dataclass(frozen=True)
class Options(Common):
    """Tables and networks from several initialisations, trained to the end; two outcomes are never drawn."""

    starts: int = 10
    """Initialisations of the table, and of the network."""
    steps: int = 2000
    """Of gradient ascent."""


def solve(options: Options, sheet: Sheet) -> Figure:
    """The table's gradient, its end, and the network's."""
    starts, steps = integer("--starts", options.starts, 3), integer("--steps", options.steps, 200)
    p = torch.tensor([0.35, 0.25, 0.2, 0.0, 0.2, 0.0, 0.0], **EXACT)
    q = torch.tensor([0.05, 0.15, 0.2, 0.0, 0.4, 0.2, 0.0], **EXACT)
    never = p + q == 0
    sheet.step(
        "Step 1. The slope of V in a logit is p (1 - D) - q D. Where p = q = 0 that is 0, not nearly but exactly."
    )
    game, logits = finite_gan(p, generator=lambda x: x), 2 * torch.randn(starts, 7, **EXACT)
    slope = 0 - vector_field(game, q, logits[0])[1]
    best = optimal_discriminator(p, q)
    told = [float(d) if bool(seen) else "0/0" for d, seen in zip(best, ~never, strict=True)]
    sheet.table(
        ["x", "p", "q", "D*", "D at the start", "slope"],
        [[str(k), float(p[k]), float(q[k]), told[k], float(logits[0, k].sigmoid()), float(slope[k])] for k in range(7)],
    )
    sheet.near("slope at the two outcomes that nobody draws", slope[never].abs().max(), 0, 0)
    sheet.above("slope at the others, smallest", slope[~never].abs().min(), 1e-9)

    sheet.step(f"Step 2. {starts} tables, {steps} steps of ascent: where do they agree?")
    ends = logits.clone()
    for _ in range(steps):
        ends = torch.where(never, ends, ends + 4 * (p * (-ends).sigmoid() - q * ends.sigmoid()).clamp(-1, 1))
    trained = ends.sigmoid()
    finite = (p > 0) & (q > 0)
    sheet.near("where both draw, D is D*, largest difference", (trained - best)[:, finite].abs().max(), 0, 1e-6)
    one = (p == 0) & (q > 0)
    sheet.below("where the generator alone draws, D goes to 0 for ever; it is", trained[:, one].max(), 0.01)
    sheet.near(
        "where nobody draws, D is what it was, to the bit", (trained - logits.sigmoid())[:, never].abs().max(), 0, 0
    )
    sheet.above("so the tables disagree, standard deviation of D there", trained[:, never].std(0).min(), 0.05)
    networks = torch.stack([_network(p, q, steps // 4) for _ in range(starts)])

    sheet.step(f"Step 3. {starts} networks of x (one hidden layer of 32): the outcomes share their weights.")
    rows = [
        [
            str(k),
            told[k],
            *(
                float(v)
                for v in (trained[:, k].mean(), trained[:, k].std(), networks[:, k].mean(), networks[:, k].std())
            ),
        ]
        for k in range(7)
    ]
    sheet.table(["x", "D*", "table: mean", "std", "network: mean", "std"], rows)
    sheet.below(
        "where both draw, a network is near D*, largest mean difference",
        (networks.mean(0) - best)[finite].abs().max(),
        0.05,
    )
    spread = networks.std(0)
    sheet.above("between outcomes it guesses: std there by std where both draw", spread[3] / spread[finite].max(), 1)

    sheet.step(
        "Step 4. The generator is paid log D for its first sample there: noise, unless something holds D in place."
    )
    reward = trained[:, never].log()
    sheet.table(
        ["outcome", "lowest", "highest"],
        [
            [str(k), float(reward[:, i].min()), float(reward[:, i].max())]
            for i, k in enumerate(never.nonzero().flatten().tolist())
        ],
    )
    sheet.above("highest by lowest reward for one and the same sample, in nats", reward.max() - reward.min(), 0.5)
    return _draw(best, never, logits.sigmoid(), trained, networks)


def _network(p: Tensor, q: Tensor, steps: int) -> Tensor:
    """(7,) D of a network of one number, trained on the exact value."""
    net, x = MLP(1, (), (32,), activation="tanh").to(**EXACT), torch.linspace(-1.5, 1.5, 7, **EXACT)[:, None]
    game = finite_gan(p, generator=lambda q: q)
    search = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(steps):
        loss = game(q, net(x))[1]
        search.zero_grad()
        loss.backward()
        search.step()
    with torch.no_grad():
        return net(x).sigmoid()


def _draw(best: Tensor, never: Tensor, before: Tensor, table: Tensor, networks: Tensor) -> Figure:
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(9.6, 3))
        x = torch.arange(7)
        for axis, found, title in zip(
            figure.subplots(1, 3, sharey=True),
            (before, table, networks),
            ("a table before training", "a table after", "a network after"),
            strict=True,
        ):
            for k, row in enumerate(found):
                axis.plot(x + 0.03 * (k - len(found) / 2), row, "o", ms=3, color=PALETTE[k % 6])
            axis.plot(x[~never], best[~never], "_", color=INK, ms=22, label="D*")
            for k in x[never].tolist():
                axis.axvspan(k - 0.45, k + 0.45, color=MUTED, alpha=0.15, lw=0)
            axis.set(title=title, xlabel="outcome (grey: never drawn)", ylim=(-0.03, 1.03), xticks=x)
        figure.axes[0].set_ylabel("D")
        figure.axes[2].legend(loc="upper right")
    return figure
