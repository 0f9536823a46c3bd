"""``advrl bench dynamics``: what each two-player dynamics makes of a mixture of Gaussians in the same time.

Networks, rates and noise are those of a set-up that all share (:mod:`advrl.lab.dynamics_setups`), costs are
non-saturating, and there is no penalty and no average (``alternating-r1`` alone has the penalty). The ring is that of
Metz et al. (2017), of radius 2 and standard deviation .02; the grid is PacGAN's, 5 by 5, two apart, of .05.

Time is that of this process on a CPU, the clock's on a GPU. Each run is looked at at equal distances of time: modes
captured and share of high quality as ``advrl.metrics.mode_coverage`` defines them, and the share of samples nearest to
each centre: turnover is how much of them changes between two looks, rotation how much of that goes round in one sense.
Each run is a file of its own; a study begun goes on from there.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from advrl.checks import choice, integer, number, words
from advrl.device import clock, one_thread, resolve_device
from advrl.files import write_atomically, write_csv
from advrl.lab.dynamics_setups import CONTENDERS, MIXTURES, SETUPS, make_contender
from advrl.lab.study import claim, standard_error
from advrl.metrics import ModeCoverage, mode_coverage, rotation_index
from advrl.seeding import isolated, seed_everything

LOOKED_AT = 2_000  # samples
COLUMNS = 8
SHARED = ("setup", "seconds", "steps", "rate", "batch_size", "looks", "device")  # what runs of one study have in common


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
    setup: str = "annealed"
    """Networks, rates and noise of all: annealed (learns within seconds) or metz (figure 2 of Metz et al.)."""
    seconds: float = 6.0
    """Time of a run."""
    steps: int | None = None
    """The same number of steps for all, instead of the same time."""
    rate: float = 1.0
    """Factor of the set-up's learning rates."""
    batch_size: int | None = None
    """Points of a batch, and noise vectors. Default: the set-up's."""
    seeds: int = 10
    """Runs of each, with seeds 0, 1, ..."""
    looks: int = 40
    """How often a run is looked at; what is found in the second half tells whether it oscillates."""
    jobs: int = 1
    """Runs at a time, each a process with one thread."""
    device: str = "cpu"
    """cpu, cuda, cuda:N or mps."""
    out: Path | None = None
    """Folder of the study, begun or new. Default: the next free runs/bench-dynamics-N."""


@dataclass(frozen=True)
class Played:
    """One run.

    Args:
        task, dynamics, seed: which.
        steps: how many it came to.
        seconds: how long they took.
        times: (L,) share of the run at each look, up to 1.
        modes, high_quality, divergence: (L,) at each look.
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
    divergence: np.ndarray
    shares: np.ndarray
    columns: np.ndarray

    def figures(self) -> dict[str, float]:
        """What the table shows of it; rotation and turnover are those of the second half."""
        late = torch.from_numpy(self.shares[len(self.shares) // 2 :])
        turnover = 0.5 * late.diff(dim=0).abs().sum(1).mean()
        return {
            "modes": float(self.modes[-1]),
            "high_quality": float(self.high_quality[-1]),
            "divergence": float(self.divergence[-1]),
            "most_modes": float(self.modes.max()),
            "turnover": float(turnover),
            "rotation": float(rotation_index(late)),
            "steps": float(self.steps),
            "ms_per_step": 1e3 * self.seconds / self.steps,
            "seconds": self.seconds,
        }


def play(task: str, name: str, seed: int, options: Options) -> Played:
    """Train one contender on one mixture."""
    torch.set_num_threads(1)
    device, setup = resolve_device(options.device), SETUPS[options.setup]
    mixture, batch = MIXTURES[task]().to(device), options.batch_size or setup.batch_size
    seed_everything(seed)
    trainer, pace = make_contender(name, mixture, device, setup, options.rate)
    trainer.step(mixture.sample(batch))  # what the first step sets up is not counted
    spent, steps, looks = 0.0, 0, list[ModeCoverage]()
    kept, shares = list[np.ndarray](), list[np.ndarray]()
    columns = {round(i * (options.looks - 1) / (COLUMNS - 1)) for i in range(COLUMNS)}
    for look in range(options.looks):
        until, start = (look + 1) / options.looks, clock(device)
        while True:
            seconds = spent + clock(device) - start
            pace.share = steps / options.steps if options.steps else seconds / options.seconds
            if pace.share >= until:
                break
            trainer.step(mixture.sample(batch))
            steps += 1
        spent = seconds
        with isolated(seed), torch.no_grad():
            samples = trainer.average(trainer.noise(LOOKED_AT))
            nearest = torch.cdist(samples, mixture.centres).argmin(1)
            shares.append(nearest.bincount(minlength=mixture.modes).cpu().numpy() / LOOKED_AT)
            looks.append(mode_coverage(samples, mixture.centres, mixture.std))
        if look in columns:
            kept.append(samples.cpu().numpy())
    modes, quality, far = (
        np.array([float(getattr(c, of)) for c in looks]) for of in ("modes", "high_quality", "divergence")
    )
    times = (np.arange(options.looks) + 1) / options.looks
    return Played(task, name, seed, steps, spent, times, modes, quality, far, np.stack(shares), np.stack(kept))


def run(options: Options, folder: Callable[[], Path], say: Callable[[str], None] = print) -> None:
    """Play all of it, print the table, write it and the figures.

    Raises:
        ValueError, TypeError: for names that do not exist and numbers out of range, before anything is played.
    """
    tasks = [choice("task", name, MIXTURES) for name in words(options.tasks)]
    names = [choice("dynamics", name, CONTENDERS) for name in words(options.dynamics)] or list(CONTENDERS)
    number("--seconds", options.seconds, 0.0, exclusive=True)
    integer("--seeds", options.seeds), integer("--looks", options.looks, COLUMNS), integer("--jobs", options.jobs)
    choice("--setup", options.setup, SETUPS), number("--rate", options.rate, 0.0, exclusive=True)
    if options.batch_size is not None:
        integer("--batch-size", options.batch_size)
    if options.steps is not None:
        integer("--steps", options.steps, options.looks)
    resolve_device(options.device)
    out = options.out or folder()
    claim(out, {name: getattr(options, name) for name in SHARED})
    work = [(task, name, seed) for seed in range(options.seeds) for task in tasks for name in names]
    runs = {item: _read(_cell(out, *item)) for item in work if _cell(out, *item).exists()}
    for found in _all([item for item in work if item not in runs], options):
        runs[found.task, found.dynamics, found.seed] = found
        _keep(found, out)
        say(f"{len(runs)}/{len(work)} {found.task} {found.dynamics}, seed {found.seed}: {found.modes[-1]:.0f} modes, "
            f"{100 * found.high_quality[-1]:.0f} % of high quality after {found.steps:,} steps")  # fmt: skip
    played = [runs[task, name, seed] for task in tasks for name in names for seed in range(options.seeds)]
    table = summary(played)
    write_csv(out / "runs.csv", [_named(run) | run.figures() for run in played])
    write_csv(out / "looks.csv", [row for run in played for row in _looks(run)])
    write_csv(out / "table.csv", table)
    say("\n" + markdown(table))
    figures = draw(played, out)
    written = [out / name for name in ("table.csv", "runs.csv", "looks.csv")] + figures
    say("\nWritten:\n" + "\n".join(f"  {path}" for path in written))


def _all(work: Sequence[tuple[str, str, int]], options: Options) -> Iterator[Played]:
    if options.jobs == 1:
        with one_thread():
            yield from (play(*item, options) for item in work)
        return
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(play, *zip(*((*item, options) for item in work), strict=True))


def _cell(out: Path, task: str, dynamics: str, seed: int) -> Path:
    return out / "cells" / f"{task}-{dynamics}-{seed}.npz"


def _keep(run: Played, out: Path) -> None:
    file, arrays = BytesIO(), {name: np.asarray(value) for name, value in vars(run).items()}
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    write_atomically(_cell(out, run.task, run.dynamics, run.seed), file.getvalue())


def _read(path: Path) -> Played:
    with np.load(path) as file:
        return Played(**{k: file[k] if file[k].ndim else file[k].item() for k in file.files})


def summary(played: Sequence[Played]) -> list[dict[str, Any]]:
    """A row for each task and dynamics: means over seeds, with standard errors (``*_se``) if there are several."""
    rows = []
    for task, name in dict.fromkeys((run.task, run.dynamics) for run in played):
        found = [run.figures() for run in played if (run.task, run.dynamics) == (task, name)]
        row: dict[str, Any] = {"task": task, "dynamics": name, "seeds": len(found)}
        for figure in found[0]:
            values = [one[figure] for one in found]
            row[figure] = statistics.fmean(values)
            row[f"{figure}_se"] = standard_error(values)
        rows.append(row)
    return rows


def markdown(table: Sequence[dict[str, Any]]) -> str:
    """The table as people read it."""
    lines = [
        "| task | dynamics | modes | high quality | divergence | turnover | rotation | steps | ms a step |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in table:
        cells = [
            f"{row['modes']:.1f} ± {row['modes_se']:.1f}",
            f"{100 * row['high_quality']:.0f} ± {100 * row['high_quality_se']:.0f} %",
            f"{row['divergence']:.2f} ± {row['divergence_se']:.2f}",
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
        _named(run) | {"time": time, "modes": modes, "high_quality": quality, "divergence": far}
        | {f"share_{k}": shares[k] if k < len(shares) else "" for k in range(most)}
        for time, modes, quality, far, shares in zip(
            run.times, run.modes, run.high_quality, run.divergence, run.shares, strict=True
        )
    ]  # fmt: skip
