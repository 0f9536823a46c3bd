"""One training step of a GAN: ours, through `fit` with its log, against a naive loop and a tuned one written by hand.

    python benchmarks/gan_step.py --out docs/gan_step.csv

Same networks, data, losses (non-saturating) and Adam for all. ``ring``: Metz et al. (2017), multilayer perceptrons of
2 x 128 tanh units, z of 256, batch 512. ``dcgan``: 32 x 32 x 3, 64 channels at the widest map, batch 64.

naive   what a textbook writes: the generator runs once for each player, the discriminator's gradients are computed in
        the generator's step too and thrown away, Adam by default, a ``DataLoader``, ``.item()`` for the log every step.
tuned   one generator pass for both, the discriminator frozen in the generator's step, fused Adam, data on the device.
ours    ``AdversarialTrainer`` in ``fit``: what ``tuned`` does, and moving averages, metrics, ``metrics.csv`` and
        TensorBoard events besides; ``--precision`` and ``--compile`` are its options alone.
torchgan, torch-mimicry
        their step functions on the same networks, where they can be imported.

The contenders take turns, a few steps each, in one process and one thread, so that other work on the machine hits all
of them; the first turn warms up and is not counted. Time is this process's CPU time, on a GPU the clock's after a
synchronisation. A step's floor is its arithmetic, counted on the tuned loop, at the rate of a large matrix product or
of a large convolution, whichever is faster in the same turns; the last column says how near to it each loop comes (work
that a loop does beyond the tuned one's is not counted, and element-wise functions count as none). Before anything is
timed, all three must agree on a step's outcome.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import get_args

import gan_peers
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus
from torch.optim import Adam
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from advrl.agents import AdversarialTrainer, Every, fit
from advrl.agents.forward import Precision
from advrl.checks import integer
from advrl.data import cycle
from advrl.device import clock, device_name, one_thread, resolve_device
from advrl.files import write_csv
from advrl.nn import MLP, DCGANDiscriminator, DCGANGenerator

SIDE = 1024  # of the matrices whose product gives the machine's rate, one a turn
MAPS = (32, 256, 16, 16)  # of the images whose 3 x 3 convolution, to as many channels, does
Turn = Callable[[int], object]  # takes so many steps


@dataclass(frozen=True)
class Task:
    """What is trained: networks, data (N, *event), and Adam's numbers."""

    latent: int
    batch: int
    lr: tuple[float, float]
    betas: tuple[float, float]
    generator: Callable[[], nn.Module]
    discriminator: Callable[[], nn.Module]
    data: Callable[[], Tensor]
    steps: int


def ring_points(n: int = 51_200) -> Tensor:
    """Eight Gaussians of standard deviation .02 on a circle of radius 2, (n, 2)."""
    angle = torch.randint(0, 8, (n,)) * (math.pi / 4)
    return 2 * torch.stack([angle.cos(), angle.sin()], 1) + 0.02 * torch.randn(n, 2)


TASKS = {
    "ring": Task(256, 512, (1e-3, 1e-4), (0.5, 0.999), lambda: MLP(256, 2, (128, 128), "tanh"),
                 lambda: MLP(2, (), (128, 128), "tanh"), ring_points, 100),
    "dcgan": Task(100, 64, (2e-4, 2e-4), (0.5, 0.999), lambda: nn.Sequential(DCGANGenerator(100, 3, 32, 64), nn.Tanh()),
                  lambda: DCGANDiscriminator(3, 32, 64), lambda: torch.rand(1024, 3, 32, 32) * 2 - 1, 1),
}  # fmt: skip


class Players:
    """Copies of the task's networks on the device, with their optimisers."""

    def __init__(self, task: Task, networks: tuple[nn.Module, nn.Module], **options: bool) -> None:
        self.generator, self.discriminator = copy.deepcopy(networks)
        self.g_opt = Adam(self.generator.parameters(), task.lr[0], task.betas, **options)
        self.d_opt = Adam(self.discriminator.parameters(), task.lr[1], task.betas, **options)


def naive_step(players: Players, real: Tensor, z: Tensor, z_again: Tensor) -> tuple[float, float]:
    """A textbook's step; returns both losses."""
    generator, discriminator = players.generator, players.discriminator
    players.d_opt.zero_grad()
    real_logits, fake_logits = discriminator(real), discriminator(generator(z).detach())
    d_loss = binary_cross_entropy_with_logits(real_logits, torch.ones_like(real_logits))
    d_loss = d_loss + binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits))
    d_loss.backward()
    players.d_opt.step()
    players.g_opt.zero_grad()
    logits = discriminator(generator(z_again))
    g_loss = binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
    g_loss.backward()
    players.g_opt.step()
    return d_loss.item(), g_loss.item()


def tuned_step(players: Players, real: Tensor, z: Tensor) -> None:
    """The least work that does the same: the generator runs once, no gradient is computed that nobody uses."""
    generator, discriminator = players.generator, players.discriminator
    fake = generator(z)
    players.d_opt.zero_grad()
    (softplus(-discriminator(real)).mean() + softplus(discriminator(fake.detach())).mean()).backward()
    players.d_opt.step()
    discriminator.requires_grad_(False)
    players.g_opt.zero_grad()
    softplus(-discriminator(fake)).mean().backward()
    players.g_opt.step()
    discriminator.requires_grad_(True)


def trainer_for(task: Task, networks: tuple[nn.Module, nn.Module], **options: object) -> AdversarialTrainer:
    """Ours on copies of the networks; its other options are the defaults."""
    generator, discriminator = copy.deepcopy(networks)
    return AdversarialTrainer(
        generator, discriminator, latent=task.latent, lr_generator=task.lr[0], lr_discriminator=task.lr[1],
        betas=task.betas, **options,  # type: ignore[arg-type]
    )  # fmt: skip


def agree(task: Task, networks: tuple[nn.Module, nn.Module], data: Tensor) -> float:
    """The largest difference between the three loops' weights after a step with the same noise, in learning rates.

    Adam's first step moves every weight by about its learning rate whatever the gradient, so that rounding shows
    where a gradient is nearly 0; its mean is therefore what is compared.
    """
    real, z = data[: task.batch], torch.randn(task.batch, task.latent, device=data.device)
    naive, tuned, trainer = Players(task, networks), Players(task, networks, fused=True), trainer_for(task, networks)
    naive_step(naive, real, z, z)
    tuned_step(tuned, real, z)
    trainer.step(real, z)
    apart = 0.0
    for name, lr in zip(("generator", "discriminator"), task.lr, strict=True):
        for other in (naive, trainer):
            for a, b in zip(getattr(tuned, name).parameters(), getattr(other, name).parameters(), strict=True):
                apart = max(apart, ((a - b).abs().mean() / lr).item())
    return apart


def naive_turn(task: Task, networks: tuple[nn.Module, nn.Module], data: Tensor) -> Turn:
    """Steps of the naive loop."""
    players, device = Players(task, networks), data.device
    loader = DataLoader(TensorDataset(data.cpu()), batch_size=task.batch, shuffle=True, drop_last=True)
    batches = cycle(loader)

    def turn(steps: int) -> None:
        for real in islice(batches, steps):
            noise = (torch.randn(task.batch, task.latent, device=device) for _ in range(2))
            naive_step(players, real.to(device), *noise)

    return turn


def tuned_turn(task: Task, networks: tuple[nn.Module, nn.Module], data: Tensor) -> Turn:
    """Steps of the tuned loop."""
    players = Players(task, networks, fused=True)

    def turn(steps: int) -> None:
        for _ in range(steps):
            rows = torch.randint(0, len(data), (task.batch,), device=data.device)
            tuned_step(players, data[rows], torch.randn(task.batch, task.latent, device=data.device))

    return turn


def take_turns(
    task: Task, data: Tensor, trainer: AdversarialTrainer, others: dict[str, Turn], steps: int, rounds: int
) -> dict[str, list[float]]:
    """Seconds a step of each contender, per round. Ours runs in ``fit``, whose callback gives the others their turn."""
    device, seconds = data.device, {name: list[float]() for name in ("ours", *others)}
    resumed = clock(device)

    def round_(step: int) -> None:
        nonlocal resumed
        seconds["ours"].append((clock(device) - resumed) / steps)
        for name, turn in others.items():
            start = clock(device)
            turn(steps)
            seconds[name].append((clock(device) - start) / steps)
        resumed = clock(device)

    total = steps * (rounds + 1)
    with tempfile.TemporaryDirectory() as folder:
        fit(
            trainer, data, total, batch_size=task.batch, out=folder, callbacks=[Every(steps, round_)],
            checkpoint_every=total, progress=False,
        )  # fmt: skip
    return {name: times[1:] for name, times in seconds.items()}


def measure(name: str, device: torch.device, steps: int, rounds: int, **options: object) -> list[dict[str, object]]:
    """A row for each contender."""
    task = TASKS[name]
    torch.manual_seed(0)
    networks = task.generator().to(device), task.discriminator().to(device)
    data = task.data().to(device)
    apart = agree(task, networks, data)
    if not apart < 0.02:
        raise AssertionError(f"the loops disagree on {name} by {apart:.2g} learning rates")
    with FlopCounterMode(display=False) as counter:
        tuned_turn(task, networks, data)(1)
    flops = counter.get_total_flops()
    matrices, maps = torch.randn(2, SIDE, SIDE, device=device), torch.randn(MAPS, device=device)
    kernel = torch.randn(MAPS[1], MAPS[1], 3, 3, device=device)
    others = {
        "tuned": tuned_turn(task, networks, data),
        "naive": naive_turn(task, networks, data),
        **gan_peers.turns(task, networks, data),
        "product": lambda _: torch.mm(*matrices),
        "convolution": lambda _: torch.conv2d(maps, kernel, padding=1),
    }
    trainer = trainer_for(task, networks, **options)
    times = take_turns(task, data, trainer, others, steps, rounds)
    rate = max(
        2 * SIDE**3 / (steps * statistics.median(times.pop("product"))),
        2 * 9 * MAPS[1] * maps.numel() / (steps * statistics.median(times.pop("convolution"))),
    )
    rows: list[dict[str, object]] = []
    for contender, seconds in times.items():
        ratios = [mine / tuned for mine, tuned in zip(seconds, times["tuned"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        median = statistics.median(seconds)
        rows.append({
            "task": name, "contender": contender, "device": device_name(device),
            **({"precision": "fp32", "compile": False} | options if contender == "ours" else {}),
            "ms": 1e3 * median, "times_tuned": middle, "low": low, "high": high,
            "gflops": flops / median / 1e9, "share_of_best": flops / median / rate, "step_gflop": flops / 1e9,
            "threads": torch.get_num_threads(), "steps": steps, "rounds": rounds, "torch": torch.__version__,
        })  # fmt: skip
    return rows


def table(rows: list[dict[str, object]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| task | step of | ms | time / tuned | quartiles | GFLOP/s | of the best |",
        "| --- | --- | ---: | ---: | :---: | ---: | ---: |",
    ]
    for row in rows:
        lines.append(
            "| {task} | {contender} | {ms:.2f} | {times_tuned:.2f} | {low:.2f} to {high:.2f} | {gflops:.1f} "
            "| {share_of_best:.0%} |".format(**row)
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> list[dict[str, object]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=TASKS, action="append", help="once or more; default: all")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, help="of each contender's turn; default: 100 (ring), 1 (dcgan)")
    parser.add_argument("--rounds", type=int, default=21, help="turns of each contender")
    parser.add_argument("--precision", choices=get_args(Precision), default="fp32", help="of ours")
    parser.add_argument("--compile", action="store_true", help="ours")
    parser.add_argument("--out", type=Path, help="write the rows to this CSV file")
    options = parser.parse_args(argv)
    device = resolve_device(options.device)
    rounds, ours = integer("--rounds", options.rounds, 2), {"precision": options.precision, "compile": options.compile}
    rows = []
    with one_thread():
        for name in options.task or TASKS:
            rows += measure(name, device, integer("--steps", options.steps or TASKS[name].steps), rounds, **ours)
    print(table(rows))
    if options.out:
        write_csv(options.out, rows)
    return rows


if __name__ == "__main__":
    main()
