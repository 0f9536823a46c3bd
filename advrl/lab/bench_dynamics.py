"""``advrl bench dynamics``: what each two-player dynamics makes of a mixture of Gaussians in the same time.

The set-up is that of Metz et al. (2017), figure 2: perceptrons with two hidden layers of 128 tanh units, z of 256,
batches of 512, Adam with 1e-3 for the generator and 1e-4 for the discriminator, first beta 1/2, non-saturating costs,
and nothing else: no penalty, no noise on the samples, no average (``alternating-r1`` alone has the penalty). The ring
has radius 2 and standard deviation .02; the grid is PacGAN's, 5 by 5, two apart, of .05.

Time is that of this process on a CPU, the clock's on a GPU. Each run is looked at at equal distances of time: modes
captured and share of high quality as ``advrl.metrics.mode_coverage`` defines them, and the share of samples nearest to
each centre: turnover is how much of them changes between two looks, rotation how much of that goes round in one sense.
"""

from __future__ import annotations

import csv
import math
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from advrl.agents import AdamRule, AdversarialTrainer, DynamicsTrainer, make_dynamics
from advrl.agents.dynamics import DYNAMICS
from advrl.checks import choice, integer, number
from advrl.data import Mixture, grid, ring
from advrl.device import resolve_device
from advrl.metrics import ModeCoverage, mode_coverage, rotation_index
from advrl.nn import MLP
from advrl.objectives import r1
from advrl.seeding import isolated, seed_everything

LATENT, WIDTH, RATES, BETAS = 256, 128, (1e-3, 1e-4), (0.5, 0.999)
LOOKED_AT = 2_000  # samples
COLUMNS = 8
R1 = 0.04  # weight in units of the data's scale, as in the recipes

MIXTURES: dict[str, Callable[[], Mixture]] = {"ring": lambda: ring(2.0, 0.02), "grid": grid}
CONTENDERS = (
    *(name for name in DYNAMICS if not name.startswith("unrolled")),
    "unrolled-5", "unrolled-10", "unrolled-first-order-5", "unrolled-first-order-10", "alternating-r1",
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Train ring and grid with every two-player dynamics for the same time: modes, quality, seconds, oscillation.

    Writes runs.csv (a row for each run), looks.csv (the same over time), table.csv (means with standard errors), and
    figures: density columns over time beside the data, the modes' occupancy over time, modes and quality.
    """

    tasks: str = "ring,grid"
    """Mixtures, with commas between."""
    dynamics: str = ""
    """Which, with commas between; a number behind unrolled is that of its steps. Default: all."""
    seconds: float = 60.0
    """Time of a run."""
    steps: int | None = None
    """The same number of steps for all, instead of the same time."""
    batch_size: int = 512
    """Points of a batch, and noise vectors."""
    seeds: int = 10
    """Runs of each, with seeds 0, 1, ..."""
    looks: int = 60
    """How often a run is looked at; what is found in the second half tells whether it oscillates."""
    jobs: int = 1
    """Runs at a time, each a process with one thread."""
    device: str = "cpu"
    """cpu, cuda, cuda:N or mps."""
    out: Path | None = None
    """Folder of the study. Default: the next free runs/bench-dynamics-N."""


@dataclass(frozen=True)
class Played:
    """One run.

    Args:
        task, dynamics, seed: which.
        steps: how many it came to.
        seconds: how long they took.
        times: (L,) share of the run at each look, up to 1.
        modes, high_quality: (L,) at each look.
        shares: (L, K) of the samples nearest to each mode's centre, whatever their quality.
        columns: (C, N, 2) samples at ``COLUMNS`` of the looks, for the figure.
    """

    task: str
    dynamics: str
    seed: int
    steps: int
    seconds: float
    times: np.ndarray
    modes: np.ndarray
    high_quality: np.ndarray
    shares: np.ndarray
    columns: np.ndarray

    def figures(self) -> dict[str, float]:
        """What the table shows of it; rotation and turnover are those of the second half."""
        late = torch.from_numpy(self.shares[len(self.shares) // 2 :])
        turnover = 0.5 * late.diff(dim=0).abs().sum(1).mean()
        return {
            "modes": float(self.modes[-1]),
            "high_quality": float(self.high_quality[-1]),
            "most_modes": float(self.modes.max()),
            "turnover": float(turnover),
            "rotation": float(rotation_index(late)),
            "steps": float(self.steps),
            "ms_per_step": 1e3 * self.seconds / self.steps,
            "seconds": self.seconds,
        }


def make_contender(name: str, mixture: Mixture, device: torch.device) -> AdversarialTrainer:
    """A fresh trainer; ``alternating`` is the ordinary one."""
    generator = MLP(LATENT, 2, (WIDTH, WIDTH), "tanh").to(device)
    discriminator = nn.Sequential(MLP(2, (), (WIDTH, WIDTH), "tanh")).to(device)
    shared: dict[str, Any] = {"latent": LATENT, "ema": 1e-12}  # so short an average is the weights themselves
    if name in ("alternating", "alternating-r1"):
        if name == "alternating-r1":
            shared |= {"penalties": [(R1 * mixture.scale**2 / 2, r1)], "penalty_every": 4}
        return AdversarialTrainer(
            generator, discriminator, lr_generator=RATES[0], lr_discriminator=RATES[1], betas=BETAS, **shared
        )
    base, k = (name.rpartition("-")[0], int(name.rpartition("-")[2])) if name.startswith("unrolled") else (name, 5)
    rules = (AdamRule(rate, BETAS) for rate in RATES)
    return DynamicsTrainer(
        generator, discriminator, dynamics=make_dynamics(base, *rules, unroll_steps=k, first="y"), **shared
    )


def play(task: str, name: str, seed: int, options: Options) -> Played:
    """Train one contender on one mixture."""
    torch.set_num_threads(1)
    device = resolve_device(options.device)
    mixture = MIXTURES[task]().to(device)
    seed_everything(seed)
    trainer = make_contender(name, mixture, device)
    trainer.step(mixture.sample(options.batch_size))  # what the first step sets up is not counted
    spent, steps, limit, looks = 0.0, 0, options.seconds, list[ModeCoverage]()
    kept, shares = list[np.ndarray](), list[np.ndarray]()
    columns = {round(i * (options.looks - 1) / (COLUMNS - 1)) for i in range(COLUMNS)}
    for look in range(options.looks):
        until = (look + 1) / options.looks
        start = clock(device)
        while steps < until * options.steps if options.steps else spent + clock(device) - start < until * limit:
            trainer.step(mixture.sample(options.batch_size))
            steps += 1
        spent += clock(device) - start
        with isolated(seed), torch.no_grad():
            samples = trainer.average(trainer.noise(LOOKED_AT))
            nearest = torch.cdist(samples, mixture.centres).argmin(1)
            shares.append(nearest.bincount(minlength=mixture.modes).cpu().numpy() / LOOKED_AT)
            looks.append(mode_coverage(samples, mixture.centres, mixture.std))
        if look in columns:
            kept.append(samples.cpu().numpy())
    return Played(
        task, name, seed, steps, spent, (np.arange(options.looks) + 1) / options.looks,
        np.array([float(c.modes) for c in looks]), np.array([float(c.high_quality) for c in looks]),
        np.stack(shares), np.stack(kept),
    )  # fmt: skip


def clock(device: torch.device) -> float:
    """Seconds: of this process, or of the wall once the GPU is done."""
    if device.type == "cpu":
        return time.process_time()
    torch.accelerator.synchronize(device)
    return time.perf_counter()


def run(options: Options, folder: Callable[[], Path], say: Callable[[str], None] = print) -> None:
    """Play all of it, print the table, write it and the figures.

    Raises:
        ValueError, TypeError: for names that do not exist and numbers out of range, before anything is played.
    """
    tasks = [choice("task", name, MIXTURES) for name in _words(options.tasks)]
    names = [choice("dynamics", name, CONTENDERS) for name in _words(options.dynamics)] or list(CONTENDERS)
    number("--seconds", options.seconds, 0.0, exclusive=True)
    integer("--seeds", options.seeds), integer("--looks", options.looks, COLUMNS), integer("--jobs", options.jobs)
    integer("--batch-size", options.batch_size)
    if options.steps is not None:
        integer("--steps", options.steps, options.looks)
    resolve_device(options.device)
    out = options.out or folder()
    out.mkdir(parents=True, exist_ok=True)
    work = [(task, name, seed, options) for task in tasks for seed in range(options.seeds) for name in names]
    played: list[Played] = []
    for found in _all(work, options.jobs):
        played.append(found)
        _write(out / "runs.csv", [_named(run) | run.figures() for run in played])  # what is done is not lost
        say(f"{len(played)}/{len(work)} {found.task} {found.dynamics}, seed {found.seed}: {found.modes[-1]:.0f} modes, "
            f"{100 * found.high_quality[-1]:.0f} % of high quality after {found.steps:,} steps")  # fmt: skip
    table = summary(played)
    _write(out / "looks.csv", [row for run in played for row in _looks(run)])
    _write(out / "table.csv", table)
    say("\n" + markdown(table))
    figures = draw(played, out)
    written = [out / name for name in ("table.csv", "runs.csv", "looks.csv")] + figures
    say("\nWritten:\n" + "\n".join(f"  {path}" for path in written))


def _all(work: Sequence[tuple[str, str, int, Options]], jobs: int) -> Any:
    if jobs == 1:
        threads = torch.get_num_threads()
        try:
            yield from (play(*item) for item in work)
        finally:
            torch.set_num_threads(threads)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(play, *zip(*work, strict=True))


def summary(played: Sequence[Played]) -> list[dict[str, Any]]:
    """A row for each task and dynamics: means over seeds, with standard errors (``*_se``) if there are several."""
    rows = []
    for task, name in dict.fromkeys((run.task, run.dynamics) for run in played):
        found = [run.figures() for run in played if (run.task, run.dynamics) == (task, name)]
        row: dict[str, Any] = {"task": task, "dynamics": name, "seeds": len(found)}
        for figure in found[0]:
            values = [one[figure] for one in found]
            row[figure] = statistics.fmean(values)
            row[f"{figure}_se"] = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        rows.append(row)
    return rows


def markdown(table: Sequence[dict[str, Any]]) -> str:
    """The table as people read it."""
    lines = [
        "| task | dynamics | modes | high quality | turnover | rotation | steps | ms a step |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in table:
        cells = [
            f"{row['modes']:.1f} ± {row['modes_se']:.1f}",
            f"{100 * row['high_quality']:.0f} ± {100 * row['high_quality_se']:.0f} %",
            f"{row['turnover']:.3f}", f"{row['rotation']:.2f}", f"{row['steps']:,.0f}", f"{row['ms_per_step']:.1f}",
        ]  # fmt: skip
        lines.append(f"| {row['task']} | {row['dynamics']} | {' | '.join(cells)} |".replace(" ± nan", ""))
    return "\n".join(lines)


def draw(played: Sequence[Played], out: Path) -> list[Path]:
    """The figures of every task."""
    from advrl.plots import columns_plot, occupancy_plot, outcome_plot, save_figure

    paths = []
    for task in dict.fromkeys(run.task for run in played):
        runs = [run for run in played if run.task == task]
        first = {run.dynamics: run for run in runs if run.seed == 0}
        mixture = MIXTURES[task]()
        with isolated(0):
            data = mixture.sample(LOOKED_AT).cpu().numpy()
        outcomes = {
            name: [(run.modes[-1], run.high_quality[-1]) for run in runs if run.dynamics == name] for name in first
        }
        some = next(iter(first.values()))
        shown = [some.times[round(i * (len(some.times) - 1) / (COLUMNS - 1))] for i in range(COLUMNS)]
        for name, figure in (
            ("columns", columns_plot({name: run.columns for name, run in first.items()}, shown, data)),
            ("occupancy", occupancy_plot({name: run.shares for name, run in first.items()}, some.times)),
            ("outcome", outcome_plot(outcomes, mixture.modes)),
        ):
            paths.append(save_figure(figure, out / f"{task}-{name}.png"))
    return paths


def _named(run: Played) -> dict[str, Any]:
    return {"task": run.task, "dynamics": run.dynamics, "seed": run.seed}


def _looks(run: Played) -> list[dict[str, Any]]:
    """A row for each look; a mixture with fewer modes leaves the last shares empty."""
    most = max(make().modes for make in MIXTURES.values())
    return [
        _named(run) | {"time": time, "modes": modes, "high_quality": quality}
        | {f"share_{k}": shares[k] if k < len(shares) else "" for k in range(most)}
        for time, modes, quality, shares in zip(run.times, run.modes, run.high_quality, run.shares, strict=True)
    ]  # fmt: skip


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def _words(text: str) -> list[str]:
    return list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
