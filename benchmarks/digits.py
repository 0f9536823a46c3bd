"""Every policy with each basic estimator that fits it, on the digits, for equal time on one core, in one table.

    python benchmarks/digits.py --seconds 110

Each pair trains ``advrl train digits`` with its default options for as many bare steps as fit into the time by a short
run before, one thread each, two runs at a time. It is the process's own time that counts, which on an idle machine is
the wall time. What the whole run then took, with its pictures and its judge, is the column seconds. Writes
docs/digits.csv and the table in docs/recipes.md.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from advrl.checks import choice, number
from advrl.estimators import ESTIMATORS
from advrl.files import write_csv
from advrl.nn import FAMILIES
from advrl.recipes import Digits, train

DOCS = Path(__file__).parents[1] / "docs"
FIGURES = ("frechet", "precision", "recall", "density", "coverage", "confident", "memorisation")
START, END = "<!-- table: benchmarks/digits.py -->", "<!-- end of table -->"


def pairs(estimators: list[str]) -> list[tuple[str, str]]:
    """(policy, estimator) wherever the estimator does not refuse."""
    found = []
    for policy in FAMILIES:
        for estimator in estimators:
            try:
                Digits(policy=policy, estimator=estimator, width=8, latent=2).build(torch.device("cpu"))
            except ValueError:
                continue
            found.append((policy, estimator))
    return found


def steps_per_second(config: Digits) -> float:
    """Of bare steps per second of this process, after a warm-up."""
    parts = config.build(torch.device("cpu"))
    for _ in range(20):
        parts.trainer.step(parts.real[: config.batch_size])
    start = time.process_time()
    for _ in range(100):
        parts.trainer.step(parts.real[: config.batch_size])
    return 100 / (time.process_time() - start)


def measure(policy: str, estimator: str, seconds: float, seed: int, folder: Path) -> dict[str, object]:
    """Train one pair for about ``seconds`` and return its row."""
    torch.set_num_threads(1)
    config = Digits(policy=policy, estimator=estimator, seed=seed, quiet=True)
    steps = max(50, math.floor(steps_per_second(config) * seconds))
    every = math.ceil(steps / 12)
    start = time.process_time()
    run = train(
        Digits(policy=policy, estimator=estimator, seed=seed, quiet=True, steps=steps, picture_every=every,
               checkpoint_every=every, out=folder / f"{policy}-{estimator}-{seed}"),
        say=lambda text: None,
    )  # fmt: skip
    seconds = time.process_time() - start
    report = json.loads((run / "evaluation.json").read_text())
    figures = {name: report["rows"]["generated"][name]["mean"] for name in FIGURES}
    shares = report["class_shares"]["generated"]
    return {
        "policy": policy, "estimator": estimator, "seed": seed, "steps": steps, "seconds": round(seconds, 1),
        **{name: round(value, 4) for name, value in figures.items()},
        "share_min": min(shares), "share_max": max(shares),
        "real_frechet": report["rows"]["real halves"]["frechet"]["mean"],
        "real_confident": report["rows"]["held-out half"]["confident"]["mean"],
    }  # fmt: skip


def table(rows: list[dict[str, object]]) -> str:
    """The rows as Markdown."""
    heads = {"policy": "policy", "estimator": "estimator", "steps": "steps", "seconds": "seconds", "frechet": "Fréchet"}
    heads |= {name: name for name in FIGURES[1:-1]} | {FIGURES[-1]: "copy ratio"}
    heads |= {"share_min": "least class", "share_max": "most class"}
    lines = ["| " + " | ".join(heads.values()) + " |", "| --- | --- |" + " ---: |" * (len(heads) - 2)]
    for row in rows:
        cells = []
        for name in heads:
            value = row[name]
            digits = 0 if name == "seconds" else 1 if name == "frechet" else 3
            cells.append(
                f"{value:,}" if name == "steps" else f"{value:.{digits}f}" if isinstance(value, float) else str(value)
            )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=110.0, help="of one core for each pair")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--estimators", default="loo,score,path,gumbel,st", help="names, with commas")
    parser.add_argument("--out", type=Path, help="keep the runs here")
    options = parser.parse_args()
    number("--seconds", options.seconds, 1.0)
    names = [choice("estimator", name, ESTIMATORS) for name in options.estimators.split(",")]
    with tempfile.TemporaryDirectory() as temporary, ProcessPoolExecutor(options.workers, get_context("spawn")) as pool:
        folder = options.out or Path(temporary)
        jobs = [pool.submit(measure, *pair, options.seconds, options.seed, folder) for pair in pairs(names)]
        rows = []
        for job in jobs:
            rows.append(job.result())
            print(json.dumps(rows[-1]), flush=True)
    write_csv(DOCS / "digits.csv", rows)
    page = DOCS / "recipes.md"
    before, rest = page.read_text().split(START)
    page.write_text(f"{before}{START}\n\n{table(rows)}\n\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
