"""``advrl bench costs``: every cost of the logit against D, where it is steep and where it is flat.

The comparison figure of Goodfellow's 2016 tutorial (figure 16: minimax, non-saturating, maximum likelihood), for all
objectives that a cross-entropy discriminator serves. Maximum likelihood is -e^a here; the tutorial has half of it.
Nothing is trained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.func import grad, vmap

from advrl.checks import choice, integer, words
from advrl.columns import columns
from advrl.files import write_csv
from advrl.objectives import GAMES, Objective, is_log_ratio

PLOTTED = tuple(
    name
    for name, game in GAMES.items()
    if is_log_ratio(game.objective) and name not in ("gail", "gail-log-d", "airl")  # the same three costs once more
)
READ = (0.01, 0.1, 0.5, 0.9, 0.99)


@dataclass(frozen=True)
class Options:
    """Draw what the generator pays against D, and how steeply that falls; no training."""

    objectives: str = ""
    """Which, by name, with commas between. Default: all that pay by D."""
    points: int = 981
    """Values of D at which the curves are evaluated, evenly from .01 to .99."""
    out: Path | None = None
    """Folder for the table and the figure. Default: the next free runs/bench-costs-N."""


def curve(objective: Objective, d: Tensor) -> tuple[Tensor, Tensor]:
    """The cost (N,) and dc/dD (N,) at probabilities D (N,), in D's precision: dc/dD = c'(a) / (D (1 - D))."""
    a = d.logit()
    return objective.cost(a), vmap(grad(objective.cost))(a) / (d * (1 - d))


def run(options: Options, folder: Callable[[], Path], say: Callable[[str], None] = print) -> None:
    """Print the table, write it as CSV, and draw the figure.

    Raises:
        ValueError, TypeError: for a name that is unknown or has no cost of D, and fewer than 9 points.
    """
    from advrl.plots import cost_plot, save_figure

    names = words(options.objectives) or list(PLOTTED)
    for name in names:
        if not is_log_ratio(GAMES[choice("objective", name, GAMES)].objective):
            raise ValueError(f"{name} pays by an output that is no log-odds of D: one of {', '.join(PLOTTED)}")
    points = integer("--points", options.points, 9)
    d = torch.linspace(READ[0], READ[-1], points, dtype=torch.float64, device="cpu")
    curves = {name: curve(GAMES[name].objective, d) for name in names}
    read = torch.tensor(READ, dtype=torch.float64, device="cpu")
    header = ["objective", *[f"c({x:g})" for x in READ], "dc/dD at .5", "steepest", "at D"]
    rows = [_row(name, *curves[name], d, read) for name in names]
    out = options.out or folder()
    for line in columns([header, *rows]):
        say(line)
    write_csv(out / "costs.csv", [dict(zip(header, row, strict=True)) for row in rows])
    numbers = {name: (cost.numpy(), slope.numpy()) for name, (cost, slope) in curves.items()}
    save_figure(cost_plot(d.numpy(), numbers), out / "costs.png")
    say(f"\nWritten:\n  {out / 'costs.csv'}\n  {out / 'costs.png'}\nNext:\n  advrl train ring --objective {names[0]}")


def _row(name: str, cost: Tensor, slope: Tensor, d: Tensor, read: Tensor) -> list[str]:
    """Costs at READ, the slope in the middle, and the steepest point of those drawn; a flat cost has none."""
    objective = GAMES[name].objective
    at = int(slope.abs().argmax())
    middle = curve(objective, d.new_full((1,), 0.5))[1]
    steepest = ["", ""] if not bool(slope.abs().max() > 0) else [f"{slope[at].item():.4g}", f"{d[at].item():.3g}"]
    costs = [f"{c + 0.0:.4g}" for c in objective.cost(read.logit()).tolist()]  # + 0: no minus at nought
    return [name, *costs, f"{middle.item():.4g}", *steepest]
