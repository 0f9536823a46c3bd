"""What ``advrl bench oracle`` and ``bench text`` share: cells that are trained once, swept, and kept.

A cell is an algorithm and a seed. Maximum likelihood comes first; every other algorithm begins with that run of its
seed and has its budget on top, so that what it gains is not what the baseline lacked. Cells go seed by seed: a study
that is ended early has all algorithms. Each is judged at every temperature, in rows of ``sweeps.csv``; a cell that is
there is not trained again, and one that was interrupted goes on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from advrl.agents import fit
from advrl.checks import choice, integer, number, words
from advrl.device import resolve_device
from advrl.files import as_text, read_csv, write_atomically, write_csv
from advrl.lab.study import claim
from advrl.metrics import Estimate, Tradeoff, mean_estimate, tradeoff_gap
from advrl.seeding import isolated

FIRST = "mle"
UNSWEPT = ("embedding",)  # has no temperature, and no likelihood to begin with
MEASURED = 3  # steps behind a budget's number of steps
GAME = ("lr_generator", "lr_discriminator", "discriminator", "discriminator_steps")  # options of the games alone
LOOKS = 6  # quick evaluations of a cell
JUDGED = {
    "best": "rows          of the checkpoint that is best by the quick evaluation; of games also the last step's: what "
    "the game did",
    "last": "rows          of the last step; games begin with the last step of maximum likelihood",
}

Rows = list[dict[str, str]]


@dataclass(frozen=True)
class SequenceOptions:
    """Options of both studies."""

    algorithms: str = "mle,scratchgan,reinforce,seqgan,constant"
    """Of --algorithm of advrl train, with commas between; mle is always among them."""
    seeds: int = 5
    """Runs of each, with seeds counted up from 0."""
    likelihood_steps: int = 1000
    """Steps of maximum likelihood, with which all others begin."""
    steps: int | None = None
    """Steps of each other algorithm. Default: as many as fit into --budget."""
    budget: float = 60.0
    """CPU-seconds of training for each other algorithm, by the time of its first steps."""
    batch_size: int = 64
    """Sequences per update, of all."""
    lr_generator: float | None = None
    """Adam's learning rate for the policy in the games. Default: the recipe's; SeqGAN's is 0.01."""
    lr_discriminator: float | None = None
    """The same for the discriminator; SeqGAN's is 0.0001."""
    discriminator: str | None = None
    """Of the games, as in advrl train. Default: the algorithm's."""
    discriminator_steps: int | None = None
    """Its updates per step of a game. Default: the algorithm's."""
    checkpoint: Literal["best", "last"] = "best"
    """Which one games begin with, of maximum likelihood, and which is judged, of all: best by the quick evaluations, or
    last, as in published schedules."""
    temperatures: str = "0.6:1.4:9"
    """At which each run is judged; 1 is added."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    out: Path | None = None
    """Folder of the study, begun or new. Default: the next free one in runs."""


@dataclass(frozen=True)
class Bench:
    """What one of the two studies brings.

    Args:
        config: of the recipe: what all its cells share.
        judge: figures of a run at each temperature: rows with the figures' names, 1 among the temperatures.
        axes: two figures, both losses: quality and diversity.
    """

    config: Any
    judge: Callable[[Any, Sequence[float]], list[dict[str, float]]]
    axes: tuple[str, str]


def check(options: SequenceOptions) -> list[str]:
    """The algorithms, maximum likelihood first.

    Raises:
        ValueError, TypeError: for names that do not exist, or numbers out of range.
    """
    from advrl.recipes.sequence_defaults import ALGORITHMS

    for name in ("seeds", "likelihood_steps", "batch_size"):
        integer("--" + name.replace("_", "-"), getattr(options, name))
    if options.steps is not None:
        integer("--steps", options.steps)
    number("--budget", options.budget, 0.0, exclusive=True)
    choice("checkpoint", options.checkpoint, ("best", "last"))
    named = [choice("algorithm", word, ALGORITHMS) for word in words(options.algorithms)]
    return list(dict.fromkeys([FIRST, *named]))


def heat(text: str) -> tuple[float, ...]:
    """Temperatures with 1 among them."""
    from advrl.recipes.sweep import temperatures

    return tuple(sorted({*temperatures(text), 1.0}))


def play(bench: Bench, options: SequenceOptions, out: Path, say: Callable[[str], None]) -> Rows:
    """Train and judge every cell that is not there yet; returns all rows of ``sweeps.csv``.

    Raises:
        ValueError: if the folder holds a study with other options.
    """
    from advrl.recipes import load

    algorithms, at = check(options), heat(options.temperatures)
    claim(out, described(bench, options), lambda study: study["options"] | {"temperatures": study["temperatures"]})
    path = out / "sweeps.csv"
    rows = read_csv(path)
    cells = [(algorithm, seed) for seed in range(options.seeds) for algorithm in algorithms]
    for number_, (algorithm, seed) in enumerate(cells, 1):
        if any(row["algorithm"] == algorithm and row["seed"] == str(seed) for row in rows):
            continue
        config = configured(bench, options, algorithm, seed, out)
        run, seconds = trained(config, options.checkpoint)
        swept = bench.judge(run, at if algorithm not in UNSWEPT else (1.0,))
        if algorithm != FIRST and options.checkpoint == "best":  # which may be from before the game did anything
            end = bench.judge(load(config.out, device=config.device, checkpoint="last"), (1.0,))[0]
            after = {f"last_{name}": value for name, value in end.items() if name != "temperature"}
            swept = [row | (after if row["temperature"] == 1.0 else {}) for row in swept]
        spent = seconds + sum(float(row["cpu_seconds"]) for row in rows if _key(row) == (FIRST, str(seed), "1"))
        about = {"algorithm": algorithm, "seed": seed, "steps": config.steps, "best_step": run.step,
                 "cpu_seconds": seconds, "cpu_seconds_in_all": spent}  # fmt: skip
        rows += [as_text(about | row, 6) for row in swept]
        write_csv(path, rows)
        one = next(row for row in swept if row["temperature"] == 1.0)
        told = ", ".join(f"{name} {one[name]:.3f}" for name in bench.axes if name in one)
        say(f"{number_}/{len(cells)} {algorithm}, seed {seed}: {config.steps:,} steps, {seconds:.0f} CPU s, {told}")
    wanted = {(algorithm, str(seed)) for algorithm, seed in cells}
    return [row for row in rows if (row["algorithm"], row["seed"]) in wanted]


def configured(bench: Bench, options: SequenceOptions, algorithm: str, seed: int, out: Path) -> Any:
    """The recipe's configuration of a cell; its number of steps is measured once, and kept."""
    from advrl.recipes.sequence_defaults import ALGORITHMS

    base = dict.fromkeys(("steps", "warmup", "pretrain", *ALGORITHMS[FIRST]._fields[1:]))
    common = base | {"algorithm": algorithm, "seed": seed, "out": out / "runs" / f"{algorithm}-{seed}",
                     "batch_size": options.batch_size, "quiet": True, "device": options.device}  # fmt: skip
    if algorithm == FIRST:
        steps = options.likelihood_steps
        config = replace(bench.config, **(common | {"steps": steps}))
    else:
        init = None if algorithm in UNSWEPT else out / "runs" / f"{FIRST}-{seed}"
        changes = common | {"init": init, "init_checkpoint": options.checkpoint, "pretrain": 0}
        changes |= {name: getattr(options, name) for name in GAME}
        steps = options.steps or within(
            options.budget, out / "steps.json", algorithm, lambda n: replace(bench.config, **(changes | {"steps": n}))
        )
        warmup = max(1, steps // 20) if ALGORITHMS[algorithm].warmup else 0
        config = replace(bench.config, **(changes | {"steps": steps, "warmup": warmup}))
    config = replace(config, picture_every=max(1, -(-steps // LOOKS)), log_every=max(1, steps // 50),
                     checkpoint_every=max(1, -(-steps // 3)))  # fmt: skip
    config.validate()
    return config


def within(budget: float, path: Path, algorithm: str, config: Callable[[int], Any]) -> int:
    """How many steps of an algorithm take so many CPU-seconds, by its first ones; the answer is kept in a file."""
    known: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
    if algorithm not in known:
        trial = config(1000)
        with isolated(0):
            parts = trial.build(resolve_device(trial.device))
            trainer = parts.trainer
            if hasattr(trainer, "warmup"):
                trainer.warmup = 0
            fit(trainer, parts.real, 1, batch_size=trial.batch_size, progress=False)
            start = time.process_time()
            fit(trainer, parts.real, 1 + MEASURED, batch_size=trial.batch_size, progress=False)
            seconds = (time.process_time() - start) / MEASURED
        known[algorithm] = max(2, int(budget / max(seconds, 1e-9)))
        write_atomically(path, json.dumps(known, indent=2).encode())
    return known[algorithm]


def trained(config: Any, checkpoint: str = "best") -> tuple[Any, float]:
    """The run of a configuration, trained, gone on with, or found; and its CPU-seconds, if gone on with since then."""
    from advrl.recipes import load
    from advrl.recipes.run import train

    report = config.out / "evaluation.json"
    if not report.exists():
        begun = (config.out / "checkpoint.pt").exists()
        train(replace(config, resume=config.out, out=None) if begun else config, say=lambda _: None)
    run = load(config.out, device=config.device, checkpoint=checkpoint)
    return run, float(json.loads(report.read_text())["cpu_seconds"])


def described(bench: Bench, options: SequenceOptions) -> dict[str, Any]:
    """What a study is: more algorithms and seeds can come to it."""
    from advrl.recipes.config import to_dict

    free = ("algorithms", "seeds", "device", "out", "temperatures")
    return {
        "options": {k: str(v) for k, v in vars(options).items() if k not in free},
        "temperatures": list(heat(options.temperatures)),
        "recipe": {k: v for k, v in to_dict(bench.config).items() if k not in ("out", "device", "resume")},
    }


def at_one(rows: Rows, algorithm: str) -> Rows:
    """Rows of an algorithm at temperature 1, a seed each."""
    return [row for row in rows if row["algorithm"] == algorithm and float(row["temperature"]) == 1.0]


def over_seeds(rows: Rows, name: str) -> Estimate | None:
    """Mean of a figure over rows, with Student's 95 % interval; None where a row has it not."""
    values = [float(row[name]) for row in rows if row.get(name)]
    if not values or len(values) < len(rows):
        return None
    if len(values) == 1:
        return Estimate(values[0], 0.0, values[0], values[0], 1)
    return mean_estimate(torch.tensor(values, dtype=torch.float64, device="cpu"))


def by_temperature(rows: Rows, algorithms: Sequence[str], figures: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each algorithm and temperature: means over seeds with the ends of their intervals."""
    found = []
    for algorithm in algorithms:
        mine = [row for row in rows if row["algorithm"] == algorithm]
        for temperature in dict.fromkeys(row["temperature"] for row in mine):
            here = [row for row in mine if row["temperature"] == temperature]
            entry: dict[str, Any] = {"algorithm": algorithm, "temperature": temperature, "seeds": len(here)}
            for name in figures:
                told = over_seeds(here, name)
                if told is not None:
                    entry |= {name: told.value, f"{name}_low": told.low, f"{name}_high": told.high}
            found.append(entry)
    return found


def cell(estimate: Estimate | None, digits: int = 3) -> str:
    """``value ± half of the interval``, or the value of one seed, or nothing."""
    if estimate is None:
        return ""
    half = (estimate.high - estimate.low) / 2
    return f"{estimate.value:.{digits}f}" + (f" ± {half:.{digits}f}" if estimate.count > 1 else "")


def line(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def table_lines(
    rows: Rows, algorithms: Sequence[str], head: Sequence[str], figures: Sequence[str], checkpoint: str
) -> list[str]:
    """The table that a report begins with: all algorithms at temperature 1, then maximum likelihood at the others.

    Where best checkpoints are judged, the last step of a game stands below it. ``head`` names the algorithm, its
    temperature, the seeds, and the figures.
    """
    lines = [line(head), line(["---", *["---:"] * (len(head) - 1)])]
    shown = [(algorithm, 1.0) for algorithm in algorithms]
    shown += [(FIRST, t) for t in dict.fromkeys(float(row["temperature"]) for row in rows) if t != 1.0]
    for algorithm, temperature in shown:
        mine = [row for row in rows if row["algorithm"] == algorithm and float(row["temperature"]) == temperature]
        if not mine:
            continue
        cells = [f"{temperature:g}", str(len(mine))]
        name = algorithm if temperature == 1.0 else f"{algorithm}, tempered"
        lines.append(line([name, *cells, *(cell(over_seeds(mine, figure)) for figure in figures)]))
        if algorithm != FIRST and checkpoint == "best":
            ends = [cell(over_seeds(mine, f"last_{figure}")) for figure in figures]
            lines.append(line([f"{algorithm}, last step", *cells, *ends]))
    return lines


def curves(rows: Rows, algorithm: str, axes: tuple[str, str]) -> dict[str, Tradeoff]:
    """The sweep of each seed."""
    found = {}
    for seed in dict.fromkeys(row["seed"] for row in rows if row["algorithm"] == algorithm):
        mine = [row for row in rows if row["algorithm"] == algorithm and row["seed"] == seed]
        if len(mine) > 1:
            columns = (torch.tensor([float(row[k]) for row in mine], dtype=torch.float64, device="cpu")
                       for k in ("temperature", *axes))  # fmt: skip
            found[seed] = Tradeoff(*columns)
    return found


def gaps(rows: Rows, algorithms: Sequence[str], axes: tuple[str, str]) -> str:
    """How far each algorithm's curve lies above that of maximum likelihood, seed by seed, at equal quality."""
    base = curves(rows, FIRST, axes)
    lines = [f"{axes[1]} above tempered maximum likelihood at equal {axes[0]} (mean over the quality that both sweeps "
             "have; below 0 is ahead):"]  # fmt: skip
    for algorithm in algorithms:
        if algorithm == FIRST:
            continue
        values = []
        for seed, curve in curves(rows, algorithm, axes).items():
            try:
                values.append(tradeoff_gap(curve, base[seed]))
            except ValueError:
                continue  # no quality that both have
        if values:
            told = mean_estimate(torch.tensor(values, dtype=torch.float64)) if len(values) > 1 else None
            found = (
                f"{values[0]:+.3f} (one seed)"
                if told is None
                else f"{told.value:+.3f} ± {(told.high - told.low) / 2:.3f}"
            )
            lines.append(f"  {algorithm:<14}{found}")
        else:
            lines.append(f"  {algorithm:<14}shares no quality with it")
    return "\n".join(lines)


def budgets(rows: Rows, algorithms: Sequence[str]) -> str:
    """What each algorithm had."""
    lines = ["budget, a run (CPU-seconds of training with its quick evaluations; games have those of mle besides):"]
    for algorithm in algorithms:
        mine = at_one(rows, algorithm)
        if mine:
            seconds, best = ([float(row[k]) for row in mine] for k in ("cpu_seconds", "best_step"))
            steps = ", ".join(dict.fromkeys(f"{int(row['steps']):,}" for row in mine))
            mean = sum(seconds) / len(seconds)
            lines.append(
                f"  {algorithm:<14}{mean:.0f} s, {steps} steps, best checkpoint at {sum(best) / len(best):,.0f}"
            )
    return "\n".join(lines)


def _key(row: Mapping[str, str]) -> tuple[str, str, str]:
    return row["algorithm"], row["seed"], row["temperature"]
