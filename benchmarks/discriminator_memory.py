"""What a discriminator of sequences learns: what real ones have in common, or which ones it was shown.

    advrl train oracle --oracle seqgan_oracle.npz --length 20 --weights 0.1 --steps 624 --out mle
    python benchmarks/discriminator_memory.py mle

A discriminator learns alone, against samples of a run's policy, which stays as it is: fresh ones for every update, and
batches of the run's training sequences. After 25, 50, ... updates it tells 2,000 real sequences from 2,000 new samples:
those that it learned from, and those that it never saw. The figure is the area under the ROC curve, P(D(real) >
D(fake)): 1/2 is a coin. What a policy can be taught by it is what the second curve has. Writes
docs/discriminator-memory.csv and, from it, docs/images/discriminator-memory.png.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor

from advrl import load
from advrl.agents import Reinforce, SequenceGANTrainer
from advrl.agents.switched import evaluating
from advrl.checks import words
from advrl.files import read_csv, write_csv
from advrl.nn import CNNDiscriminator, RecurrentDiscriminator
from advrl.plots import save_figure
from advrl.plots.style import BLUE, INK, MUTED, style
from advrl.recipes.sequences import SMALL_FILTERS
from advrl.seeding import isolated

DOCS = Path(__file__).parents[1] / "docs"
BATCH, JUDGED, FIRST = 64, 2_000, 25
KINDS = {
    "cnn": lambda v, t: CNNDiscriminator(v, t),
    "cnn-small": lambda v, t: CNNDiscriminator(v, t, filters=SMALL_FILTERS),
    "recurrent": lambda v, t: RecurrentDiscriminator(v),
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", help="of maximum likelihood; without it the figure alone is drawn")
    parser.add_argument("--updates", type=int, default=1600)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--out", type=Path, default=DOCS / "discriminator-memory.csv")
    parser.add_argument("--figure", type=Path, default=DOCS / "images" / "discriminator-memory.png")
    options = parser.parse_args(arguments)
    if options.run is not None:
        rows = [row for kind in words(options.kinds) for row in learned(options.run, kind, options.updates, options.lr)]
        write_csv(options.out, rows)
    draw(read_csv(options.out), options.figure)


def learned(folder: Path, kind: str, updates: int, lr: float) -> list[dict[str, object]]:
    """A row after 25, 50, 100, ... updates of one discriminator."""
    run = load(folder, device="cpu")
    parts = run.config.build(run.device)
    real = parts.real
    with isolated(1):
        unseen = run.config.law().sample(JUDGED)
    torch.manual_seed(0)
    discriminator = KINDS[kind](run.policy.vocab_size, run.policy.length)
    trainer = SequenceGANTrainer(run.policy, discriminator, Reinforce(), warmup=updates + 1, lr_discriminator=lr)
    rows: list[dict[str, object]] = []
    spent, begin = 0.0, time.process_time()
    for update in range(1, updates + 1):
        trainer.step(real[torch.randint(len(real), (BATCH,))])
        if update >= FIRST and (update // FIRST).bit_count() == 1 and update % FIRST == 0:
            spent += time.process_time() - begin
            with isolated(1), torch.no_grad(), evaluating(discriminator):
                fake = scores(discriminator, run.policy.sample(JUDGED))
                found = [area(scores(discriminator, x[:JUDGED]), fake) for x in (real, unseen)]
            row: dict[str, object] = {"discriminator": kind, "lr": lr, "updates": update}
            row |= {
                "rounds": f"{update * BATCH / len(real):.2f}",
                "seen": f"{found[0]:.4f}",
                "unseen": f"{found[1]:.4f}",
            }
            rows.append(row | {"cpu_seconds": f"{spent:.1f}"})
            print(rows[-1], flush=True)
            begin = time.process_time()
    return rows


def scores(discriminator: torch.nn.Module, x: Tensor) -> Tensor:
    """(N,) logits of sequences, the mean over prefixes where each has one."""
    logits = torch.cat([discriminator(part) for part in x.split(256)])
    return logits if logits.dim() == 1 else logits.mean(1)


def area(real: Tensor, fake: Tensor) -> float:
    """Area under the ROC curve: P(real > fake) + P(real = fake) / 2, by ranks (Mann and Whitney, 1947)."""
    below, not_above = (torch.searchsorted(fake.sort().values, real, right=right) for right in (False, True))
    return float((below + not_above).double().mean() / (2 * len(fake)))


def draw(rows: list[dict[str, str]], path: Path) -> None:
    """Both areas over updates, a panel for each discriminator."""
    from matplotlib.figure import Figure

    kinds = list(dict.fromkeys(row["discriminator"] for row in rows))
    with style():
        figure = Figure(figsize=(2.6 * len(kinds), 2.9))
        for axis, kind in zip(figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0], kinds, strict=True):
            mine = [row for row in rows if row["discriminator"] == kind]
            at = [int(row["updates"]) for row in mine]
            for column, color, label in (
                ("seen", BLUE, "sequences it learned from"),
                ("unseen", INK, "sequences it never saw"),
            ):
                axis.plot(at, [float(row[column]) for row in mine], marker="o", ms=3.5, color=color, label=label)
            axis.axhline(0.5, color=MUTED, ls="--", lw=1, label="a coin")
            axis.set(title=kind, xscale="log", xlabel="updates", ylim=(0.4, 1.02))
        axis_ = figure.axes[0]
        axis_.set_ylabel("P(D(real) > D(fake))")
        figure.legend(*axis_.get_legend_handles_labels(), loc="outside lower left", ncols=3)
    save_figure(figure, path)


if __name__ == "__main__":
    main()
