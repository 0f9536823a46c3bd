"""``advrl bench stabilisers``: what each stabiliser costs a step, beside what it gains, over seeds.

Every row is the same plain game with one thing changed, named by its own flags. On the ring the plain game is a hard
one: the recipe's networks with the target and the z of Metz et al. (2017), radius 2, standard deviation .02 and 256
numbers, without Fourier features, instance noise or penalty; the gain is modes found, share of good samples and
divergence of the shares. On the digits it is the image recipe's networks with the implicit policy and no penalty; the
gain is the Fréchet distance to the training half. Seconds per step are taken in turn, row after row, so that load hits
all of them, and divided by the plain row's of the same round: the median of the rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from advrl.agents import fit
from advrl.checks import choice, integer, words
from advrl.columns import columns
from advrl.device import resolve_device
from advrl.files import write_csv
from advrl.lab.stabiliser_rows import measured_rows
from advrl.lab.study import standard_error
from advrl.seeding import seed_everything

METZ: dict[str, Any] = {
    "radius": 2.0, "std": 0.02, "latent": 256, "lr_generator": 1e-3, "lr_discriminator": 1e-3,
    "batch_size": 128, "r1": 0.0, "instance_noise": 0.0, "octaves": 0, "ema": 0.99,
}  # fmt: skip
RING: dict[str, dict[str, Any]] = {
    "plain": {},
    "r1": {"r1": 0.04},
    "instance noise": {"instance_noise": 0.3},
    "label smoothing": {"real_label": 0.9},
    "packing 2": {"packing": 2},
    "packing 4": {"packing": 4},
    "minibatch features": {"minibatch_features": 16},
    "minibatch stddev": {"minibatch_stddev": True},
    "feature matching": {"feature_matching": True},
    "historical averaging": {"historical_averaging": 1e-3},
    "history pool": {"history_pool": 4096},
    "spectral norm": {"spectral_norm": True},
    "two rates": {"lr_discriminator": 4e-3},
    "fourier features": {"octaves": 3},
    "recipe": {"r1": 0.04, "instance_noise": 0.3, "octaves": 3},
}
DIGITS: dict[str, dict[str, Any]] = {
    "plain": {},
    "r1": {"r1": 4.0},
    "packing 2": {"packing": 2},
    "minibatch features": {"minibatch_features": 16},
    "minibatch stddev": {"minibatch_stddev": True},
    "feature matching": {"feature_matching": True},
    "historical averaging": {"historical_averaging": 1e-3},
    "history pool": {"history_pool": 2048},
    "spectral norm": {"spectral_norm": True},
    "label smoothing": {"real_label": 0.9},
    "batch norm": {"norm": "batch"},
    "reference norm": {"norm": "reference"},
    "virtual norm": {"norm": "virtual"},
    "augmentation": {"augment": "shift,cutout"},
    "two rates": {"lr_discriminator": 4e-3},
}
TIMED = 20  # steps of a round


@dataclass(frozen=True)
class Options:
    """What each stabiliser costs a step, beside what it gains on the ring or the digits, over seeds."""

    task: str = "ring"
    """ring, digits, or rows: batch norm's correlation, label smoothing, and semi-supervised classifiers."""
    methods: str = ""
    """Which rows, with commas between. Default: all."""
    seeds: int | None = None
    """Runs of each row, with seeds counted up from 0. Default: 5, and 10 of rows (an ensemble of ten)."""
    steps: int | None = None
    """Steps of each run. Default: 4000, and 500 of rows."""
    rounds: int = 11
    """Rounds of timing."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    out: Path | None = None
    """Folder of the table. Default: the next free runs/bench-stabilisers-N."""


def run(options: Options, folder: Callable[[], Path], say: Callable[[str], None] = print) -> None:
    """Train, score, time, print the table and write it.

    Raises:
        ValueError, TypeError: for an unknown task or row, or numbers out of range.
    """
    choice("task", options.task, ("ring", "digits", "rows"))
    seeds, steps = (10, 500) if options.task == "rows" else (5, 4000)
    seeds = seeds if options.seeds is None else integer("--seeds", options.seeds, 2)
    steps = steps if options.steps is None else integer("--steps", options.steps)
    integer("--rounds", options.rounds)
    device = resolve_device(options.device)
    if options.task == "rows":
        rows = measured_rows(seeds, steps, device, say)
    else:
        rows = _compared(options, seeds, steps, device, say)
    path = write_csv((options.out or folder()) / f"stabilisers-{options.task}.csv", rows, 6)
    say(f"\n{table(rows)}\n\nErrors are standard errors over {seeds} seeds. Written:\n  {path}")


def _compared(
    options: Options, seeds: int, steps: int, device: torch.device, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    known = RING if options.task == "ring" else DIGITS
    names = words(options.methods) or list(known)
    for name in names:
        choice("method", name, known)
    costs = relative_costs(options.task, ["plain", *(n for n in names if n != "plain")], options.rounds, device)
    rows = []
    for name in names:
        found: list[Mapping[str, float]] = []
        for seed in range(seeds):
            parts = build(options.task, known[name], steps, seed, device)
            config_batch = parts[1]
            trainer = parts[0].trainer
            fit(trainer, parts[0].real, steps, batch_size=config_batch, seed=seed, progress=False)
            trainer.average.eval()
            found.append(parts[0].evaluator.fast(trainer.average.sample))
        row: dict[str, Any] = {"method": name, "cost": costs[name][0], "cost_low": costs[name][1],
                               "cost_high": costs[name][2]}  # fmt: skip
        for figure in found[0]:
            values = [run[figure] for run in found]
            row[figure] = statistics.fmean(values)
            row[f"{figure}_error"] = standard_error(values)
        rows.append(row)
        say("  ".join(f"{k} {v:.3g}" if isinstance(v, float) else str(v) for k, v in row.items()))
    return rows


def build(task: str, changes: Mapping[str, Any], steps: int, seed: int, device: torch.device) -> tuple[Any, int]:
    """The parts of a run of the plain game with these changes, and its batch size."""
    from advrl.recipes import Digits, Ring

    config: Any
    if task == "ring":
        config = Ring(steps=steps, seed=seed, **METZ)
    else:
        config = Digits(steps=steps, r1=0.0, policy="implicit", seed=seed, ema=0.999)
    config = replace(config, **changes)
    config.validate()
    seed_everything(seed)
    return config.build(device), config.batch_size


def relative_costs(
    task: str, names: list[str], rounds: int, device: torch.device
) -> dict[str, tuple[float, float, float]]:
    """Seconds of a step over those of the first row's: median, second lowest and second highest of the rounds."""
    known = RING if task == "ring" else DIGITS
    games = {}
    for name in names:
        parts, size = build(task, known[name], 1000, 0, device)
        if isinstance(parts.real, torch.Tensor):
            batch = parts.real[:size]
        else:
            batch = next(parts.real)
        games[name] = (parts.trainer, batch)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        for name, (trainer, batch) in games.items():
            started = time.perf_counter()
            for _ in range(TIMED):
                metrics = trainer.step(batch)
            metrics["d_loss"].item()  # the device is done
            if turn:  # the first round warms up
                seconds[name].append(time.perf_counter() - started)
    found = {}
    for name in names:
        ratios = sorted(a / b for a, b in zip(seconds[name], seconds[names[0]], strict=True))
        edge = min(1, len(ratios) // 2)
        found[name] = (statistics.median(ratios), ratios[edge], ratios[-1 - edge])
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Rows with their errors beside the figures, as text."""
    shown = [k for k in rows[0] if not k.endswith("_error") and k not in ("cost_low", "cost_high")]
    lines = [shown]
    for row in rows:
        cells = []
        for key in shown:
            value, error = row[key], row.get(f"{key}_error")
            text = f"{value:.3g}" if isinstance(value, float) else str(value)
            cells.append(text if error is None else f"{text} ± {error:.2g}")
        lines.append(cells)
    return "\n".join(columns(lines, figures=False))
