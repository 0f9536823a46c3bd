"""What a step of each two-player dynamics costs, in steps of plain alternating training.

    python benchmarks/dynamics.py --out docs/dynamics.csv

The set-up is ``metz`` of ``advrl bench dynamics``, the mixture its ring. The yardstick is ``AdversarialTrainer``:
one generator pass for both players, the discriminator frozen in the generator's step, fused Adam. The contenders take
turns, a few steps each, in one process and one thread, so that other work on the machine hits all of them; the first
turn warms up and is not counted. Time is this process's CPU time, on a GPU the clock's after a synchronisation.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch

from advrl.checks import choice, integer, words
from advrl.device import clock, one_thread, resolve_device
from advrl.files import write_csv
from advrl.lab.dynamics_setups import CONTENDERS, MIXTURES, SETUPS, make_contender
from advrl.seeding import seed_everything

AIMS = {"extragradient": 2.1, "optimistic": 1.05, "lookahead": 1.05}


def measure(names: Sequence[str], device: torch.device, batch: int, steps: int, rounds: int) -> list[dict[str, object]]:
    """A row for each contender: milliseconds a step, and its ratio to the yardstick's turn in the same round."""
    mixture = MIXTURES["ring"]().to(device)
    trainers = {}
    for name in ("alternating", *names):
        seed_everything(0)
        trainers[name] = make_contender(name, mixture, device, SETUPS["metz"])[0]
    real = mixture.sample(batch)
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    for _ in range(rounds + 1):
        for name, trainer in trainers.items():
            start = clock(device)
            for _ in range(steps):
                trainer.step(real)
            seconds[name].append((clock(device) - start) / steps)
    rows: list[dict[str, object]] = []
    for name, times in seconds.items():
        ratios = [mine / plain for mine, plain in zip(times[1:], seconds["alternating"][1:], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        rows.append({
            "dynamics": name, "ms": 1e3 * statistics.median(times[1:]), "times_alternating": middle, "low": low,
            "high": high, "aim": AIMS.get(name, ""), "device": device.type, "batch": batch,
            "threads": torch.get_num_threads(), "steps": steps, "rounds": rounds, "torch": torch.__version__,
        })  # fmt: skip
    return rows


def table(rows: Sequence[dict[str, object]]) -> str:
    """The rows as Markdown."""
    lines = ["| a step of | ms | times alternating | quartiles | aim |", "| --- | ---: | ---: | :---: | ---: |"]
    lines += [
        "| {dynamics} | {ms:.2f} | {times_alternating:.2f} | {low:.2f} to {high:.2f} | {aim} |".format(**row)
        for row in rows
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> list[dict[str, object]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dynamics", default="", help="names with commas between; default: all")
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=5, help="of each contender's turn")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each contender")
    parser.add_argument("--out", type=Path, help="write the rows to this CSV file")
    options = parser.parse_args(argv)
    names = [choice("dynamics", name, CONTENDERS) for name in words(options.dynamics)] or list(CONTENDERS)
    with one_thread():
        rows = measure(
            [name for name in names if name != "alternating"],
            resolve_device(options.device),
            integer("--batch-size", options.batch_size),
            integer("--steps", options.steps),
            integer("--rounds", options.rounds, 2),
        )
    print(table(rows))
    if options.out:
        write_csv(options.out, rows)
    return rows


if __name__ == "__main__":
    main()
