"""Maximum likelihood on the published SeqGAN oracle by its authors' schedule, judged both ways as it goes on.

    python benchmarks/mle_rounds.py --oracle seqgan_oracle.npz --rounds 20

Weights N(0, 0.1), Adam with 0.01, clipped at 5, batches of 64 of 10,000 sequences, as in the published code, which goes
through them 120 times. Each row has both likelihoods, their floor and both divergences of 2,000 samples and 2,000
held-out sequences with 95 % intervals, and CPU-seconds of training. Goes on from its checkpoint if it was interrupted.
Writes docs/mle-rounds.csv and, from it, docs/images/mle-rounds.png.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from advrl.agents import LikelihoodTrainer
from advrl.data import LSTMOracle
from advrl.files import read_csv, write_csv
from advrl.metrics import oracle_scores
from advrl.nn import LSTMPolicy
from advrl.plots import save_figure
from advrl.plots.style import BLUE, INK, MUTED, style
from advrl.seeding import isolated

DOCS = Path(__file__).parents[1] / "docs"
LENGTH, BATCH, SEQUENCES, JUDGED = 20, 64, 10_000, 2_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--oracle", type=Path, help="the npz of its 15 arrays; without it the figure alone is drawn")
    parser.add_argument("--rounds", type=int, default=120)
    parser.add_argument("--out", type=Path, default=DOCS / "mle-rounds.csv")
    parser.add_argument("--checkpoint", type=Path, default=Path("mle-rounds.pt"))
    options = parser.parse_args()
    if options.oracle is not None:
        train(options.oracle, options.rounds, options.out, options.checkpoint)
    draw([{name: float(value) for name, value in row.items()} for row in read_csv(options.out)])


def train(path: Path, rounds: int, out: Path, checkpoint: Path) -> None:
    """A row after rounds 1, 2, 3, 4, 6, 8, 10 and every tenth, and after the last."""
    oracle = LSTMOracle.from_npz(path, LENGTH)
    torch.manual_seed(0)
    x, held_out = oracle.sample(SEQUENCES), oracle.sample(JUDGED)
    floor = oracle.log_prob(held_out)
    policy = LSTMPolicy(oracle.vocab_size, LENGTH, 32, start_token=0)
    with torch.no_grad():
        for weight in policy.parameters():
            weight.normal_(0, 0.1)
    trainer = LikelihoodTrainer(policy, lr=0.01)
    done, spent = 0, 0.0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        trainer.load_state_dict(saved["trainer"])
        torch.set_rng_state(saved["random"])
        done, spent = saved["round"], saved["seconds"]
    for number in range(done + 1, rounds + 1):
        start = time.process_time()
        for rows in torch.randperm(SEQUENCES)[: SEQUENCES // BATCH * BATCH].view(-1, BATCH):
            trainer.step(x[rows])
        spent += time.process_time() - start
        state = {"trainer": trainer.state_dict(), "random": torch.get_rng_state(), "round": number, "seconds": spent}
        torch.save(state, checkpoint)
        if number in (1, 2, 3, 4, 6, 8, rounds) or number % 10 == 0:
            with isolated(1), torch.no_grad():
                samples = policy.sample(JUDGED)
                mine, theirs = (
                    torch.cat([policy.log_probs(part).sum(1) for part in y.split(256)]) for y in (samples, held_out)
                )
                found = oracle_scores(mine, oracle.log_prob(samples), theirs, floor, tokens=LENGTH)
            row: dict[str, object] = {"round": number, "cpu_seconds": round(spent, 1)}
            for name, told in found.items():
                row |= {
                    name: round(told.value, 4),
                    f"{name}_low": round(told.low, 4),
                    f"{name}_high": round(told.high, 4),
                }
            print(row, flush=True)
            write_csv(out, [*read_csv(out), row])


def draw(rows: list[dict[str, float]]) -> None:
    """Both likelihoods over rounds, beside the floor and the published figure."""
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(5.6, 3.6))
        axis = figure.subplots()
        at = [row["round"] for row in rows]
        for name, told, colour in (("nll_oracle", "NLL_oracle", BLUE), ("nll_test", "NLL_test", INK)):
            axis.plot(at, [row[name] for row in rows], marker="o", ms=3.5, color=colour, label=told)
            axis.fill_between(at, [r[f"{name}_low"] for r in rows], [r[f"{name}_high"] for r in rows], color=colour,
                              alpha=0.15, lw=0)  # fmt: skip
        axis.axhline(9.038, color=MUTED, ls=":", lw=1, label="MLE as published, 9.038")
        axis.axhline(rows[0]["floor"], color=MUTED, ls="--", lw=1, label="floor")
        axis.set(xlabel="rounds of maximum likelihood", ylabel="nats per token",
                 title="NLL_oracle falls on while held-out sequences are forgotten")  # fmt: skip
        axis.xaxis.get_major_locator().set_params(integer=True)
        figure.legend(loc="outside lower left", ncols=2)
    save_figure(figure, DOCS / "images" / "mle-rounds.png")


if __name__ == "__main__":
    main()
