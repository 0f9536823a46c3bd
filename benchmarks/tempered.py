"""What temperature alone does to both likelihoods: the published SeqGAN oracle against itself, and its unigrams.

    python benchmarks/tempered.py --oracle seqgan_oracle.npz

The oracle at temperature 1 is the perfect generator; at others it is a perfect model that is sampled wrongly. A model
of single tokens, counted on 10,000 of its sequences, is the least that training gives. Both are swept; each row has
NLL_oracle, NLL_test on held-out samples and both divergences with 95 % intervals, in nats per token at length 20.
Writes docs/tempered.csv and docs/images/tempered.png.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from advrl.data import LSTMOracle
from advrl.files import write_csv
from advrl.metrics import Estimate, Tradeoff, nll, oracle_scores
from advrl.plots import tradeoff_plot

DOCS = Path(__file__).parents[1] / "docs"
LENGTH = 20
TEMPERATURES = (0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--oracle", type=Path, required=True, help="the npz of its 15 arrays")
    parser.add_argument("--samples", type=int, default=2000, help="of each model at each temperature")
    options = parser.parse_args()
    torch.manual_seed(0)
    oracle = LSTMOracle.from_npz(options.oracle, LENGTH)
    held_out = oracle.sample(options.samples)
    floor = oracle.log_prob(held_out)
    train = oracle.sample(10_000)
    entropy = nll(oracle.log_prob(train), LENGTH)  # of more sequences than the rows'
    print("floor of 10,000 sequences", entropy, flush=True)
    vocab = oracle.vocab_size
    counts = torch.bincount(train.flatten(), minlength=vocab) + 0.1  # so that no token is impossible
    logits = (counts / counts.sum()).log()

    def perfect(temperature: float) -> tuple[Tensor, Tensor, Tensor]:
        model = LSTMOracle.from_npz(options.oracle, LENGTH, temperature=temperature)
        samples = model.sample(options.samples)
        return model.log_prob(samples), oracle.log_prob(samples), model.log_prob(held_out)

    def unigram(temperature: float) -> tuple[Tensor, Tensor, Tensor]:
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
    write_csv(DOCS / "tempered.csv", rows)
    picture = DOCS / "images" / "tempered.png"
    tradeoff_plot(sweeps, floor=entropy.value, out=picture, title="What temperature alone does")


if __name__ == "__main__":
    main()
