"""What temperature alone does to both likelihoods: the published SeqGAN oracle against itself, and its unigrams.

    python benchmarks/tempered.py --oracle seqgan_oracle.npz

The oracle at temperature 1 is the perfect generator; at others it is a perfect model that is sampled wrongly. A model
of single tokens, counted on 10,000 of its sequences, is the least that training gives. Both are swept; each row has
NLL_oracle, NLL_test on held-out samples and both divergences with 95 % intervals, in nats per token at length 20.
Writes docs/tempered.csv and docs/images/tempered.png.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from advrl.metrics import Estimate, Tradeoff, nll, oracle_scores
from advrl.plots import tradeoff_plot

DOCS = Path(__file__).parents[1] / "docs"
LENGTH = 20
TEMPERATURES = (0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4)


class Oracle:
    """The LSTM of Yu et al. (2017), gates i, f, o, c, from its arrays; the first input is token 0."""

    def __init__(self, path: Path):
        with np.load(path, allow_pickle=False) as arrays:
            part = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        self.input, self.state, self.bias = (torch.cat([part[f"{name}_{k}"] for k in "ifoc"], -1) for name in "WUb")
        self.embedding, self.weight, self.out = part["emb"], part["W_out"], part["b_out"]

    @torch.no_grad()
    def run(self, choose: Callable[[int, Tensor], Tensor], count: int, temperature: float) -> tuple[Tensor, Tensor]:
        """Sequences (count, LENGTH) whose tokens ``choose(step, log_probs)`` names, and their log-probability."""
        token = torch.zeros(count, dtype=torch.int64)
        hidden = cell = torch.zeros(count, 32)
        tokens, total = [], torch.zeros(count)
        for step in range(LENGTH):
            gates = self.embedding[token] @ self.input + hidden @ self.state + self.bias
            i, f, o, c = gates.chunk(4, -1)
            cell = f.sigmoid() * cell + i.sigmoid() * c.tanh()
            hidden = o.sigmoid() * cell.tanh()
            log_probs = ((hidden @ self.weight + self.out) / temperature).log_softmax(-1)
            token = choose(step, log_probs)
            total += log_probs.gather(1, token[:, None])[:, 0]
            tokens.append(token)
        return torch.stack(tokens, 1), total

    def sample(self, count: int, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        return self.run(lambda step, log_probs: draw(log_probs), count, temperature)

    def log_prob(self, ids: Tensor, temperature: float = 1.0) -> Tensor:
        return self.run(lambda step, log_probs: ids[:, step], len(ids), temperature)[1]


def draw(log_probs: Tensor) -> Tensor:
    """One token a row, by inverse transform in double precision."""
    mass = log_probs.double().exp().cumsum(-1)
    return torch.searchsorted(mass, mass[:, -1:] * torch.rand(len(mass), 1, dtype=torch.float64))[:, 0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--oracle", type=Path, required=True, help="the npz of its 15 arrays")
    parser.add_argument("--samples", type=int, default=2000, help="of each model at each temperature")
    options = parser.parse_args()
    torch.manual_seed(0)
    oracle = Oracle(options.oracle)
    held_out, floor = oracle.sample(options.samples)
    train, of_train = map(torch.cat, zip(*[oracle.sample(1000) for _ in range(10)], strict=True))
    entropy = nll(of_train, LENGTH)  # of more sequences than the rows'
    print("floor of 10,000 sequences", entropy, flush=True)
    vocab = len(oracle.out)
    counts = torch.bincount(train.flatten(), minlength=vocab) + 0.1  # so that no token is impossible
    logits = (counts / counts.sum()).log()

    def perfect(temperature: float) -> tuple[Tensor, ...]:
        samples, own = oracle.sample(options.samples, temperature)
        return own, oracle.log_prob(samples), oracle.log_prob(held_out, temperature)

    def unigram(temperature: float) -> tuple[Tensor, ...]:
        log_probs = (logits / temperature).log_softmax(-1)
        tokens = torch.multinomial(log_probs.exp(), options.samples * LENGTH, replacement=True)
        samples = tokens.view(-1, LENGTH)
        return log_probs[samples].sum(1), oracle.log_prob(samples), log_probs[held_out].sum(1)

    rows: list[dict[str, object]] = []
    sweeps = {}
    for name, model in (("the oracle itself", perfect), ("unigrams", unigram)):
        found: list[dict[str, Estimate]] = []
        for temperature in TEMPERATURES:
            found.append(oracle_scores(*model(temperature), floor, tokens=LENGTH))
            row: dict[str, object] = {"model": name, "temperature": temperature}
            for key, told in found[-1].items():
                row |= {key: round(told.value, 4), f"{key}_low": round(told.low, 4), f"{key}_high": round(told.high, 4)}
            rows.append(row)
            print(name, temperature, *(f"{key} {told}" for key, told in found[-1].items()), flush=True)
        sweeps[name] = Tradeoff(
            torch.tensor(TEMPERATURES),
            torch.tensor([told["nll_oracle"].value for told in found]),
            torch.tensor([told["nll_test"].value for told in found]),
        )
    with open(DOCS / "tempered.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    picture = DOCS / "images" / "tempered.png"
    tradeoff_plot(sweeps, floor=entropy.value, out=picture, title="What temperature alone does")


if __name__ == "__main__":
    main()
