"""``advrl bench modes``: how many modes a game finds, over seeds, for any objectives, stabilisers and networks.

Three tasks. **ring** and **grid** are PacGAN's mixtures of Gaussians, judged by 2,500 samples as there; **stacked** has
three 8 x 8 digits in the channels of an image, a thousand modes, judged by 26,000 samples and a classifier of single
digits that saw their training half. All games are played without labels, for one budget of steps, and judged are the
last averaged weights: no checkpoint is chosen. Each cell (task, objective, stabiliser, network, seed) is a row of
``cells.csv``; one that is there already is not played again.
"""

from __future__ import annotations

import csv
import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from advrl import metrics
from advrl.agents import fit
from advrl.agents.classifier import Classifier, cached_classifier
from advrl.checks import choice, integer, words
from advrl.data import Stacked, Stream, digits, load_images, stacked
from advrl.device import resolve_device
from advrl.files import as_text, write_csv
from advrl.lab.bench_stabilisers import DIGITS, RING
from advrl.lab.modes_table import draw, report, summary
from advrl.metrics import class_coverage, energy_distance, mmd, mode_coverage, precision_recall, sliced_wasserstein
from advrl.nn import DCGANDiscriminator, DCGANGenerator
from advrl.seeding import isolated, seed_everything

TASKS = ("ring", "grid", "stacked")
NETWORKS: dict[str, dict[str, Any]] = {
    "perceptron": {},
    "narrow": {"width": 32},
    "wide": {"width": 400},
    "fourier": {"octaves": 3},
    "convolutions": {"width": 32},
}
"""Two hidden layers of 128 units (digits: 256); of 32; of 400; Fourier features in front of D; the DCGAN pair."""
ONLY = {"fourier": ("ring", "grid"), "convolutions": ("stacked",)}
JUDGED = {"ring": 2_500, "grid": 2_500, "stacked": 26_000}  # samples, as in the sources
DISTANCES_OF = 2_500  # samples of each side behind distances and neighbours
BANDWIDTH = 1.0  # of MMD, in units of the data's scale
KEY = ("task", "objective", "stabiliser", "network", "seed", "steps", "data")
CATEGORY = "no labels"


@dataclass(frozen=True)
class Options:
    """How many modes a game finds on ring, grid and stacked digits, over seeds, beside the published rows.

    Writes cells.csv (a row for each run; the study goes on from there), table.csv (means with standard errors) and
    figures. With several networks it shows the spread between costs beside the spread between networks.
    """

    tasks: str = "ring,grid,stacked"
    """Which, with commas between."""
    objectives: str = "non-saturating"
    """Objectives as --objective of advrl train knows them, with commas between."""
    stabilisers: str = "plain,packing 2,packing 4,r1"
    """Rows of advrl bench stabilisers, with commas between; packing 2+r1 is both."""
    networks: str = "perceptron"
    """perceptron, narrow, wide, fourier (ring and grid) or convolutions (stacked), with commas between."""
    seeds: int = 10
    """Runs of each, with seeds counted up from 0."""
    steps: int = 20000
    """Steps of each run."""
    data: Path | None = None
    """Images with labels to stack instead of the digits (.npz as of MNIST): a benchmark of its own."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    out: Path | None = None
    """Folder of the study, begun or new. Default: the next free runs/bench-modes-N."""


@dataclass(frozen=True)
class Cell:
    """One run: what is played."""

    task: str
    objective: str
    stabiliser: str
    network: str
    seed: int
    steps: int
    data: str = "fresh points"


class Stacks(Stream):
    """Batches of stacked images in [-1, 1]."""

    def __init__(self, data: Stacked, batch_size: int, seed: int) -> None:
        self.data = data
        super().__init__(batch_size, seed, data.images.device)

    def draw(self, generator: torch.Generator) -> Tensor:
        """The next batch, (batch_size, 3, H, W)."""
        return 2 * self.data.sample(self.batch_size, generator) - 1


def run(options: Options, folder: Callable[[], Path], say: Callable[[str], None] = print) -> None:
    """Play what is not played yet, print the table, write it and the figures.

    Raises:
        ValueError, TypeError: for names that do not exist and numbers out of range, before anything is played.
    """
    cells = planned(options)
    device = resolve_device(options.device)
    out = options.out or folder()
    path = out / "cells.csv"
    rows = read_cells(path)
    done = {tuple(row[k] for k in KEY) for row in rows}
    left = [cell for cell in cells if tuple(str(vars(cell)[k]) for k in KEY) not in done]
    judge = Judge(options.data, device) if any(cell.task == "stacked" for cell in left) else None
    out.mkdir(parents=True, exist_ok=True)
    for number, cell in enumerate(left, len(cells) - len(left) + 1):
        found = play(cell, judge, device)
        rows.append(as_text(vars(cell) | found, 6))
        write_csv(path, rows)
        name = f"{cell.task}, {cell.objective}, {cell.stabiliser}, {cell.network}, seed {cell.seed}"
        result = f"{found['modes']:.0f} modes, reverse KL {found['reverse_kl']:.3f}, {found['seconds']:.0f} s"
        say(f"{number}/{len(cells)} {name}: {result}")
    wanted = {tuple(str(vars(cell)[k]) for k in KEY) for cell in cells}
    table = summary([row for row in rows if tuple(row[k] for k in KEY) in wanted])
    write_csv(out / "table.csv", table, 6)
    written = [out / "table.csv", path, *draw(table, out)]
    say(f"\n{report(table)}\n\nWritten:\n" + "\n".join(f"  {p}" for p in written))


def planned(options: Options) -> list[Cell]:
    """All runs of a study; a network that a task has not is left out of it.

    Raises:
        ValueError, TypeError: for names that do not exist, or numbers out of range.
    """
    from advrl.objectives import make_game

    integer("--seeds", options.seeds), integer("--steps", options.steps)
    tasks = [choice("task", name, TASKS) for name in words(options.tasks)]
    objectives = words(options.objectives)
    for name in objectives:
        make_game(name)
    networks = [choice("network", name, NETWORKS) for name in words(options.networks)]
    cells = [
        Cell(task, objective, stabiliser, network, seed, options.steps, _data(task, options))
        for task, seed, network, objective, stabiliser in itertools.product(
            tasks, range(options.seeds), networks, objectives, words(options.stabilisers)
        )
        if task in ONLY.get(network, TASKS)
    ]
    if not cells:
        raise ValueError("nothing to play: give at least one task, objective, stabiliser and a network that fits")
    for cell in cells:
        configured(cell).validate()
    return cells


def configured(cell: Cell) -> Any:
    """The recipe's configuration of a cell: the plain game (no penalty, no noise) with its changes."""
    from advrl.recipes import Digits, Grid, Ring

    bare: dict[str, Any] = {"r1": 0.0, "steps": cell.steps, "seed": cell.seed, "objective": cell.objective}
    if cell.task == "stacked":
        config: Any = Digits(policy="implicit", ema=0.999, **bare)
    else:
        config = (Ring if cell.task == "ring" else Grid)(instance_noise=0.0, octaves=0, **bare)
    changes = dict(NETWORKS[cell.network])
    known = DIGITS if cell.task == "stacked" else RING
    for name in cell.stabiliser.split("+"):
        name = choice("stabiliser", name.strip(), known)
        if name == "recipe":
            whole: Any = type(config)()
            changes |= {"r1": whole.r1, "instance_noise": whole.instance_noise, "octaves": whole.octaves}
        else:
            changes |= known[name]
    return replace(config, **changes)


def play(cell: Cell, judge: Judge | None, device: torch.device) -> dict[str, Any]:
    """Train one cell and judge what it learned: figures, steps and seconds of this process."""
    config = configured(cell)
    seed_everything(cell.seed)
    if judge is None or cell.task != "stacked":
        parts = config.build(device)
        trainer, stream = parts.trainer, parts.real
    else:
        trainer = stacked_trainer(config, cell.network, judge.data, device)
        stream = Stacks(judge.data, config.batch_size, cell.seed)
    started = time.process_time()
    fit(trainer, stream, cell.steps, seed=cell.seed, progress=False)
    seconds = time.process_time() - started
    trainer.average.eval()
    with isolated(0), torch.no_grad():
        if judge is None or cell.task != "stacked":
            found = plane_figures(trainer.average.sample(JUDGED[cell.task]), config.mixture().to(device))
        else:
            found = judge.figures(trainer.average.sample)
    return {"batch_size": config.batch_size, "category": CATEGORY, **found, "seconds": seconds}


def plane_figures(samples: Tensor, mixture: Any) -> dict[str, float]:
    """Modes, quality and distances of points (N, 2); distances in units of the data's scale, to N fresh points."""
    coverage = mode_coverage(samples, mixture.centres, mixture.std)
    real, fake = mixture.sample(len(samples)) / mixture.scale, samples / mixture.scale
    figures = {name: getattr(coverage, name) for name in ("modes", "high_quality", "kl", "reverse_kl")}
    return _numbers(figures | _distances(real, fake) | precision_recall(real, fake))


def stacked_trainer(config: Any, network: str, data: Stacked, device: torch.device) -> Any:
    """The image recipe's trainer, with three channels."""
    from advrl.nn import MLP
    from advrl.recipes.parts import make_policy, make_trainer
    from advrl.recipes.stabilising import packed

    shape = torch.Size(data.shape)
    together = packed(config, shape)
    hidden = (config.width, config.width)
    if network == "convolutions":
        net: nn.Module = DCGANGenerator(config.latent, shape[0], shape[-1], config.width)
        discriminator: nn.Module = DCGANDiscriminator(together[0], shape[-1], config.width, batch_norm=False)
    else:
        net = MLP(config.latent, shape, hidden, "silu", layer_norm=True)
        discriminator = MLP(together, (), hidden)
    return make_trainer(config, make_policy(config, lambda _: net).to(device), discriminator.to(device))


class Judge:
    """Sorts stacked images into their modes, channel by channel.

    Args:
        source: a file of images of one channel with labels; None is scikit-learn's digits.
        device: where samples are.
    """

    def __init__(self, source: Path | None, device: torch.device) -> None:
        images = digits() if source is None else load_images(source)
        self.classifier: Classifier = cached_classifier(images, lambda x: 2 * x - 1).to(device)
        self.data = stacked(images)
        self.data = replace(self.data, images=self.data.images.to(device), labels=self.data.labels.to(device))
        held_out = 2 * images.held_out.to(device) - 1
        assert images.held_out_labels is not None  # stacked() refuses images without
        right = self.labels(held_out) == images.held_out_labels.to(device)
        self.accuracy = float(right.double().mean())
        if self.accuracy < 0.98:
            raise ValueError(
                f"the classifier is right on {self.accuracy:.1%} of held-out images: too few to count modes"
            )

    def labels(self, images: Tensor) -> Tensor:
        """(N,) classes of images (N, 1, H, W) in [-1, 1]."""
        with torch.no_grad():
            return torch.cat([self.classifier(chunk).argmax(1) for chunk in images.split(4_000)])

    def figures(self, sample: Callable[[int], Tensor]) -> dict[str, float]:
        """What a sampler of (n, 3, H, W) in [-1, 1] reaches of the modes, and distances to as many real images.

        High quality is the share of images whose three channels are all of one class with probability .9.
        """
        images = torch.cat([sample(2_000) for _ in range(JUDGED["stacked"] // 2_000)])
        channels = images.flatten(0, 1).unsqueeze(1)
        with torch.no_grad():
            features = torch.cat([self.classifier.features(chunk) for chunk in channels.split(4_000)])
            sure, label = self.classifier.head(features).softmax(1).max(1)
            real = 2 * self.data.sample(DISTANCES_OF) - 1
            real_features = self.classifier.features(real.flatten(0, 1).unsqueeze(1)).reshape(DISTANCES_OF, -1)
        coverage = class_coverage(self.data.mode(label.reshape(-1, 3)), self.data.modes)
        fake_features = features.reshape(len(images), -1)[:DISTANCES_OF]
        scale = float(real_features.square().mean().sqrt())
        figures = coverage._asdict() | {
            "high_quality": (sure.reshape(-1, 3).amin(1) >= 0.9).double().mean(),
            "frechet": metrics.frechet_distance(real_features, fake_features),
        }
        near = _distances(real_features / scale, fake_features / scale)
        return _numbers(figures | near | precision_recall(real_features, fake_features))


def read_cells(path: Path) -> list[dict[str, str]]:
    """The rows of an earlier part of the study, as text.

    Raises:
        ValueError: if the file is another table.
    """
    if not path.exists():
        return []
    with open(path, newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
        missing = set(KEY) - set(reader.fieldnames or ())
    if missing:
        raise ValueError(f"{path} is no table of this study: it has no column {', '.join(sorted(missing))}")
    return rows


def _distances(real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    root = real.shape[1] ** 0.5  # a bandwidth per coordinate
    return {
        "mmd": mmd(real, fake, BANDWIDTH * root),
        "energy": energy_distance(real, fake),
        "sliced": sliced_wasserstein(real, fake),
    }


def _numbers(figures: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in figures.items()}


def _data(task: str, options: Options) -> str:
    if task != "stacked":
        return Cell.data
    return "digits" if options.data is None else options.data.name
