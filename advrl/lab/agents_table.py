"""The table and figure of ``advrl bench agents``: interquartile means over seeds, with bootstrap intervals.

The interquartile mean leaves out the lowest and the highest quarter of the seeds, rounded down: of five, one each.
Intervals are percentiles of means over seeds drawn again with replacement: Agarwal et al. (2021), section 4.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from advrl.files import read_csv
from advrl.metrics import seed_summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES = {
    "nll": ("Oracle's NLL", "nats per token"),
    "divergence": ("KL(policy || oracle)", "nats per sequence"),
}
AXES = {"mark": "CPU-seconds, playing and learning", "sequences": "sequences"}
CLOSE = 5.0  # nats per sequence; what is asked is how soon the divergence falls below it
NAMES = {
    "reinforce": "REINFORCE", "actor-critic": "actor-critic", "ppo": "PPO", "gumbel-softmax": "Gumbel-softmax",
    "sb3-ppo": "SB3 PPO", "sb3-a2c": "SB3 A2C", "sb3-ppo-gru": "SB3 PPO, the GRU",
}  # fmt: skip


def read_rows(path: Path, task: Mapping[str, str]) -> list[dict[str, str]]:
    """The rows of an earlier part of the study, as text.

    Raises:
        ValueError: if the file is another table, or of another task.
    """
    rows = read_csv(path)
    for row in rows:
        for name, value in task.items():
            if row.get(name) != value:
                raise ValueError(f"{path} has {name} {row.get(name)}, and this study {value}: give another --out")
    return rows


def interquartile(values: Sequence[float]) -> tuple[float, float, float]:
    """Interquartile mean over seeds and the ends of its 95 % interval; NaN for one seed."""
    if len(values) < 2:
        return values[0], math.nan, math.nan
    found = seed_summary(torch.tensor(values, dtype=torch.float64, device="cpu"))
    return found.iqm, *found.iqm_bootstrap


def curves(rows: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """A row for each method and mark: every figure's interquartile mean and interval (``*_low``, ``*_high``)."""
    groups: dict[tuple[str, str], list[Mapping[str, str]]] = {}
    for row in rows:
        groups.setdefault((row["method"], row["mark"]), []).append(row)
    table = []
    for (method, mark), found in groups.items():
        entry: dict[str, Any] = {"method": method, "mark": float(mark), "seeds": len(found), "lr": found[0]["lr"]}
        entry |= {"parameters": found[0]["parameters"]}
        entry["sequences"] = statistics.median(float(row["sequences"]) for row in found)
        for name in FIGURES:
            values = [float(row[name]) for row in found]
            entry |= dict(zip((name, f"{name}_low", f"{name}_high"), interquartile(values), strict=True))
        table.append(entry)
    return table


def report(table: Sequence[Mapping[str, Any]], floor: float) -> str:
    """The last mark of every method, in Markdown, best divergence first."""
    last = {row["method"]: row for row in table}
    several = any(row["seeds"] > 1 for row in last.values())
    lines = [
        f"| method | parameters | sequences | oracle's NLL | KL(policy \\|\\| oracle) | CPU-s to KL {CLOSE:g} |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, row in sorted(last.items(), key=lambda item: float(item[1]["divergence"])):
        cells = [NAMES.get(name, name), f"{int(row['parameters']):,}", f"{int(row['sequences']):,}"]
        cells += [f"{row[f]:.3f}" + several * f" ({row[f + '_low']:.3f} to {row[f + '_high']:.3f})" for f in FIGURES]
        reached = [r["mark"] for r in table if r["method"] == name and r["divergence"] < CLOSE]
        cells.append(f"{min(reached):.1f}" if reached else "not")
        lines.append(f"| {' | '.join(cells)} |")
    seconds, seeds = max(row["mark"] for row in table), max(row["seeds"] for row in table)
    lines.append(
        f"\nAfter {seconds:g} CPU-seconds: interquartile means over {seeds} seeds, 95 % bootstrap intervals. Best "
        f"possible: NLL {floor:.3f}, the oracle's own entropy, at a divergence of 0; an NLL below it is likely words "
        "again and again."
    )
    return "\n".join(lines)


def draw(table: Sequence[Mapping[str, Any]], floor: float, path: Path) -> Path:
    """Write the curves: NLL and divergence over CPU-seconds and over sequences."""
    from advrl.plots import save_figure

    return save_figure(figure(table, floor), path)


def figure(table: Sequence[Mapping[str, Any]], floor: float) -> Figure:
    """NLL and divergence, a row each, over CPU-seconds and over sequences, a column each."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, LogLocator, ScalarFormatter

    from advrl.plots.style import INK, PALETTE, style

    with style():
        made = Figure(figsize=(8.2, 6.2))
        panels = made.subplots(len(FIGURES), len(AXES), sharey="row", squeeze=False)
        methods = list(dict.fromkeys(row["method"] for row in table))
        for (name, (title, unit)), line in zip(FIGURES.items(), panels, strict=True):
            for (x, label), axes in zip(AXES.items(), line, strict=True):
                for index, method in enumerate(methods):
                    rows = [row for row in table if row["method"] == method and row["mark"] > 0]
                    places = [row[x] for row in rows]
                    colour = PALETTE[index % len(PALETTE)]
                    style_ = "--" if method.startswith("sb3") else "-"
                    axes.plot(
                        places, [row[name] for row in rows], style_, color=colour, label=NAMES.get(method, method)
                    )
                    low, high = ([row[name + end] for row in rows] for end in ("_low", "_high"))
                    axes.fill_between(places, low, high, color=colour, alpha=0.16, lw=0)
                axes.set_xscale("log")
                axes.xaxis.set_major_formatter(EngFormatter(sep=""))
                if name == "nll":
                    axes.axhline(floor, color=INK, lw=1, ls=":")
                    axes.annotate("the oracle's entropy", (0.02, floor), xycoords=("axes fraction", "data"),
                                  xytext=(0, -9), textcoords="offset points", color=INK, fontsize=7.5)  # fmt: skip
                else:
                    axes.set_yscale("log")
                    axes.yaxis.set_major_formatter(ScalarFormatter())
                    axes.yaxis.set_minor_formatter(ScalarFormatter())
                    axes.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
                axes.set_xlabel(label if name == list(FIGURES)[-1] else "")
            line[0].set_title(title)
            line[0].set_ylabel(unit)
        handles, labels = panels[0][0].get_legend_handles_labels()
        legend = made.legend(handles, labels, loc="outside upper left", ncols=4, alignment="left",
                             title="interquartile mean over seeds and its 95 % bootstrap interval")  # fmt: skip
        legend.get_title().set_color("#666666")
    return made
