"""Published figures of sequence GANs, each with its source and what its numbers mean; they stand beside ours."""

from __future__ import annotations

from typing import NamedTuple


class PublishedOracle(NamedTuple):
    """NLL_oracle at length 20, nats per token; no source gives NLL_test, a divergence or duplicates."""

    method: str
    nll_oracle: float
    source: str


class PublishedText(NamedTuple):
    """BLEU-2 to 5 and self-BLEU-2 to 5 on image-COCO captions."""

    method: str
    bleu: tuple[float, float, float, float]
    self_bleu: tuple[float, float, float, float]
    source: str


SEQGAN = "SeqGAN, Yu et al. (2017), table 1"
LEAKGAN = "LeakGAN, Guo et al. (2018), table 1"
TEXYGEN = "Texygen's README, Zhu et al. (2018)"

ORACLE: tuple[PublishedOracle, ...] = (
    PublishedOracle("random", 10.310, SEQGAN),
    PublishedOracle("MLE", 9.038, SEQGAN),
    PublishedOracle("scheduled sampling", 8.985, SEQGAN),
    PublishedOracle("PG-BLEU", 8.946, SEQGAN),
    PublishedOracle("SeqGAN", 8.736, SEQGAN),
    PublishedOracle("RankGAN", 8.247, "RankGAN, Lin et al. (2017), table 1"),
    PublishedOracle("LeakGAN", 7.038, LEAKGAN),
    PublishedOracle("RelGAN", 6.680, "RelGAN, Nie et al. (2019): weights of another seed, so another oracle"),
)
ORACLE_PROTOCOL = (
    "published: the SeqGAN oracle (5,000 tokens, length 20, LSTM of 32 units, weights N(0, 1)); 10,000 training "
    "sequences, MLE for 120 rounds of them; SeqGAN's rows with 16 rollouts and up to 4,680 discriminator updates a "
    "round. They report NLL_oracle alone, which lost diversity lowers: uniform tokens have 11.43 on that oracle, "
    "single tokens by their frequency 10.28 (what the papers call random), the oracle's greedy sequence 2.76."
)
WHICH = {
    True: "ORACLE  ours is read from a file. If it is the published one, with a floor of 5.75 at length 20, the rows "
    "stand on one oracle; RelGAN's does not.",
    False: "ORACLE  ours is seeded, not the published one: the published rows are another benchmark, whose floor is "
    "5.75, and say nothing about ours. Give --oracle seqgan_oracle.npz for theirs.",
}

TEXT: tuple[PublishedText, ...] = (
    PublishedText("SeqGAN", (0.745, 0.498, 0.294, 0.180), (0.950, 0.840, 0.670, 0.489), TEXYGEN),
    PublishedText("MaliGAN", (0.673, 0.432, 0.257, 0.159), (0.918, 0.781, 0.606, 0.437), TEXYGEN),
    PublishedText("RankGAN", (0.743, 0.467, 0.264, 0.156), (0.959, 0.882, 0.762, 0.618), TEXYGEN),
    PublishedText("LeakGAN", (0.746, 0.528, 0.355, 0.230), (0.966, 0.913, 0.848, 0.780), TEXYGEN),
    PublishedText("TextGAN", (0.593, 0.463, 0.277, 0.207), (0.942, 0.931, 0.804, 0.746), TEXYGEN),
    PublishedText("MLE", (0.731, 0.497, 0.305, 0.189), (0.916, 0.769, 0.583, 0.408), TEXYGEN),
)
TEXT_PROTOCOL = (
    "published: image-COCO captions, 10,000 lines to train and 10,000 to test on, sentence BLEU against all test lines "
    "(method 1 of Chen and Cherry) and self-BLEU. Ours in the same columns: as many samples as --samples against all "
    "lines of --test, the same smoothing and tokeniser `word`; self-BLEU grows with the number of samples. Trained on "
    "eight tenths of --corpus, of which the rest validates and tests."
)
