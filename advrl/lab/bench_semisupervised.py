"""``advrl bench semisupervised``: what a generator's help is worth to a classifier with a few labels, over seeds.

The same network, the same labelled images, as many steps, one optimiser: taught by the labels alone, or as the
(K + 1)-class discriminator of a game with feature matching on the whole training half. Salimans et al. (2016), table 1,
have on MNIST with 100 labels 93 +- 6.5 errors of 10,000, with 60,000 unlabelled images.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.optim import Adam

from advrl.agents import fit
from advrl.agents.evaluation_conditional import held_out_error
from advrl.agents.parts import set_rate
from advrl.checks import integer
from advrl.device import resolve_device
from advrl.files import write_csv
from advrl.lab.study import standard_error
from advrl.objectives import labelled_loss
from advrl.seeding import seed_everything

HEADER = ("data", "labels", "seed", "held out", "alone", "game", "steps", "CPU-seconds alone", "CPU-seconds game")


@dataclass(frozen=True)
class Options:
    """Test error of a classifier from a few labels, with a generator's help and without, over seeds."""

    data: Path | None = None
    """Images with labels: .npz, .npy or IDX. Default: the 8 x 8 digits."""
    labels: int = 50
    """Labelled images, as many of each class, chosen by the seed out of the training half."""
    seeds: int = 5
    """How many seeds."""
    seed: int = 0
    """The first of them."""
    steps: int = 2000
    """Steps of each of the two."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    out: Path | None = None
    """Folder of the table. Default: the next free runs/bench-semisupervised-N."""


def alone(config: Any, steps: int, device: torch.device) -> float:
    """Test error of the game's network, taught by its labelled images alone."""
    seed_everything(config.seed)
    data, _, trainer = config.game(device)
    (taught,) = (hook for hook in trainer.stabilisers if hook.name == "labelled")
    network = trainer.discriminator
    optimiser = Adam(network.parameters(), lr=config.lr_discriminator, betas=(0.5, 0.99))
    for step in range(steps):
        set_rate(optimiser, config.lr_discriminator, trainer.schedule, step)
        rows = torch.randint(len(taught.samples), (taught.batch_size,), device=device)
        loss = labelled_loss(network.classes(taught.samples[rows]), taught.labels[rows]).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    return _error(data, trainer, device)


def in_a_game(config: Any, steps: int, device: torch.device) -> float:
    """Test error of the discriminator."""
    seed_everything(config.seed)
    data, real, trainer = config.game(device)
    fit(trainer, real, steps, batch_size=config.batch_size, seed=config.seed, progress=False)
    return _error(data, trainer, device)


def _error(data: Any, trainer: Any, device: torch.device) -> float:
    images = trainer.generator.family.prepare(data.held_out).to(device)
    return float(held_out_error(trainer.discriminator, images, data.held_out_labels.to(device)))


def run(options: Options, folder: Callable[[], Path], say: Callable[[str], None] = print) -> None:
    """Train, score, print the table and write it.

    Raises:
        ValueError, TypeError: for numbers out of range, or data without enough labels.
    """
    from advrl.recipes import DigitsSemiSupervised

    integer("--seeds", options.seeds, 2), integer("--steps", options.steps)
    device = resolve_device(options.device)
    usual = DigitsSemiSupervised(data=options.data, labels=options.labels, steps=options.steps)
    usual.validate()
    data = usual.load_data()
    out = options.out or folder()
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"semisupervised-{data.name}.csv"
    rows: list[list[Any]] = []
    for seed in range(options.seed, options.seed + options.seeds):
        config = replace(usual, seed=seed)
        start = time.process_time()
        by_labels = alone(config, options.steps, device)
        middle = time.process_time()
        by_game = in_a_game(config, options.steps, device)
        times = middle - start, time.process_time() - middle
        rows.append([data.name, options.labels, seed, len(data.held_out), by_labels, by_game, options.steps, *times])
        say(f"seed {seed}: {100 * by_labels:.2f} % wrong by the labels alone, {100 * by_game:.2f} % in the game")
        write_csv(path, [dict(zip(HEADER, row, strict=True)) for row in rows], 6)  # each seed takes minutes
    gaps = [row[4] - row[5] for row in rows]
    say(
        f"\n{data.name}: {options.labels} labels of {len(data.train):,} training images, {len(data.held_out):,} held "
        f"out; {options.steps:,} steps, {options.seeds} seeds\n"
        f"  labels alone  {_told([row[4] for row in rows])} % wrong\n"
        f"  in the game   {_told([row[5] for row in rows])} % wrong\n"
        f"  the gap       {_told(gaps)}\n\nErrors are standard errors over seeds. Written:\n  {path}"
    )


def _told(values: list[float]) -> str:
    """Mean and standard error in per cent."""
    return f"{100 * statistics.mean(values):.2f} ± {100 * standard_error(values):.2f}"
