"""The table and figures of ``advrl bench modes``: means with standard errors, published rows beside them.

With several objectives and several networks there is a second question, which of the two matters more: the table then
says what each objective follows, and a figure shows the spread between costs beside that between networks.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from advrl.lab.published import PACGAN, PUBLISHED, SETTING, Published
from advrl.lab.study import standard_error
from advrl.objectives import FACTS

METHOD = ("task", "objective", "stabiliser", "network", "steps", "batch_size", "category", "data")
MODES = {"ring": 8, "grid": 25, "stacked": 1000}
SHOWN = ("modes", "high_quality", "reverse_kl", "kl")
DEFINITIONS = """\
modes         classes or Gaussians with at least one sample; on ring and grid one of high quality (within 3 standard
              deviations of the centre), on stacked digits of any. 2,500 samples (ring, grid), 26,000 (stacked)
high quality  ring, grid: share within 3 standard deviations; stacked: share of images of which a classifier of single
              digits is sure (.9) in all three channels
reverse KL    KL(h || u), from the samples' shares of the modes to equal ones: what the published tables print. Perfect
              samples have .001 (ring), .005 (grid), .019 (stacked), for frequencies scatter
KL            KL(u || h), the other way round: infinite if a mode is missed
±             standard error over seeds; all rows were trained without labels, and judged at their last step"""


def summary(rows: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """A row for each method: means over seeds, with standard errors (``*_se``, NaN for one seed)."""
    methods: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        methods.setdefault(tuple(row[k] for k in METHOD), []).append(row)
    table = []
    for method, found in methods.items():
        entry: dict[str, Any] = dict(zip(METHOD, method, strict=True)) | {"seeds": len(found)}
        for name in found[0]:
            if name in METHOD or name == "seed" or not found[0][name]:
                continue
            values = [float(row[name]) for row in found]
            entry[name] = statistics.fmean(values)
            entry[f"{name}_se"] = standard_error(values)
        entry["all_modes"] = sum(float(row["modes"]) >= MODES[row["task"]] for row in found)
        table.append(entry)
    return table


def report(table: Sequence[dict[str, Any]]) -> str:
    """The table as people read it, in Markdown: ours, then the published rows of the same tasks; then the spreads."""
    follows = len({row["objective"] for row in table}) > 1
    lines = ["| task | objective | stabiliser | network | seeds | modes | high quality | reverse KL | KL | s a run |",
             "| --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"]  # fmt: skip
    for row in sorted(table, key=lambda row: list(MODES).index(row["task"])):  # stable: in the order of playing within
        named = _following(row["objective"]) if follows else row["objective"]
        cells = [row["task"], named, row["stabiliser"], row["network"], str(row["seeds"])]
        cells += [_cell(row, "modes", 1), _cell(row, "high_quality", 1, 100.0, " %"), _cell(row, "reverse_kl", 3)]
        cells += [_cell(row, "kl", 3), f"{row['seconds']:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    tasks = [row["task"] for row in table]
    for published in (p for p in PUBLISHED if p.task in tasks):
        lines.append(_published(published))
    steps = ", ".join(sorted({f"{int(row['steps']):,} steps of {row['batch_size']}" for row in table}))
    parts = ["\n".join(lines), f"{DEFINITIONS}\nours          {steps}\npublished     {SETTING}", spreads(table)]
    return "\n\n".join(part for part in parts if part)


def spreads(table: Sequence[dict[str, Any]]) -> str:
    """How far costs are apart (networks held), beside how far networks are apart (costs held); '' without several.

    Spread is the standard deviation of the mean number of modes and of the reverse KL, averaged over what is held.
    """
    lines = []
    for task in MODES:
        rows = [row for row in table if row["task"] == task]
        found = [(what, _spread(rows, what)) for what in ("objective", "network", "stabiliser")]
        lines += [
            f"  {task:<8} between {what}s: {modes:.2f} modes, {kl:.3f} of reverse KL"
            for what, (modes, kl) in found
            if not math.isnan(modes)
        ]
    return "Spread (standard deviation), all else held:\n" + "\n".join(lines) if lines else ""


def _spread(rows: Sequence[dict[str, Any]], what: str) -> tuple[float, float]:
    held = [name for name in ("objective", "stabiliser", "network") if name != what]
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in held), []).append(row)
    several = [group for group in groups.values() if len(group) > 1]
    if not several:
        return math.nan, math.nan
    modes, kl = (
        statistics.fmean(_deviation([row[figure] for row in group]) for group in several)
        for figure in ("modes", "reverse_kl")
    )
    return modes, kl


def _following(name: str) -> str:
    """An objective with the divergence that its generator follows, if it is known: ``reverse-kl: KL(q‖p)``."""
    facts = FACTS.get(name)
    return f"{name}: {facts.follows}" if facts is not None and facts.follows else name


def _deviation(values: Sequence[float]) -> float:
    """Standard deviation; infinite if a value is, as a reverse KL without a single good sample."""
    return statistics.stdev(values) if all(map(math.isfinite, values)) else math.inf


def draw(table: Sequence[dict[str, Any]], out: Path) -> list[Path]:
    """A figure for each task: modes and reverse KL of every method, published rows as hollow marks.

    Of a task with several objectives and several networks there is another one, of their spreads.
    """
    from advrl.plots import save_figure
    from advrl.plots.modes import modes_plot

    paths = []
    for task in dict.fromkeys(row["task"] for row in table):
        rows = [row for row in table if row["task"] == task]
        varied = [k for k in ("objective", "stabiliser", "network") if len({row[k] for row in rows}) > 1]
        names = [", ".join(row[k] for k in varied) or row["stabiliser"] for row in rows]
        ours = {
            n: [(row[f], row[f"{f}_se"]) for f in ("modes", "reverse_kl")] for n, row in zip(names, rows, strict=True)
        }
        theirs = [p for p in PUBLISHED if p.task == task]
        known = {_short(p): [(p.modes, p.modes_error), (p.reverse_kl, math.nan)] for p in theirs}
        paths.append(save_figure(modes_plot(ours, known, task, MODES[task]), out / f"{task}.png"))
        if {"objective", "network"} <= set(varied):
            paths.append(save_figure(_spread_figure(rows, task), out / f"{task}-spread.png"))
    return paths


def _spread_figure(rows: Sequence[dict[str, Any]], task: str) -> Any:
    """Of the first stabiliser among the rows."""
    from advrl.plots.spread import spread_plot

    rows = [row for row in rows if row["stabiliser"] == rows[0]["stabiliser"]]
    found = {(row["objective"], row["network"]): [(row[f], row[f"{f}_se"]) for f in ("modes", "reverse_kl")]
             for row in rows}  # fmt: skip
    both = {f"{what}s": _spread(rows, what) for what in ("objective", "network")}
    figures = [f"modes of {MODES[task]:,}", "reverse KL, nats"]
    return spread_plot(found, both, figures, f"{task}, {rows[0]['stabiliser']}")


def _short(row: Published) -> str:
    """A published row's name in a figure."""
    where = row.source.removeprefix(PACGAN).lstrip(", ").split(":")[0]
    return f"{row.method} (PacGAN, {where}{', MNIST' * (row.task == 'stacked')})"


def _published(row: Published) -> str:
    error = "" if math.isnan(row.modes_error) else f" ± {row.modes_error:.1f}"
    quality = "" if math.isnan(row.high_quality) else f"{100 * row.high_quality:.1f} %"
    named = f"| {row.task} | *{row.method}* | *{row.source}* | | |"
    return f"{named} {row.modes:.1f}{error} | {quality} | {row.reverse_kl:.2f} | | |"


def _cell(row: dict[str, Any], name: str, digits: int, times: float = 1.0, unit: str = "") -> str:
    value, error = row[name] * times, row[f"{name}_se"] * times
    return f"{value:.{digits}f}{unit}" if math.isnan(error) else f"{value:.{digits}f} ± {error:.{digits}f}{unit}"
