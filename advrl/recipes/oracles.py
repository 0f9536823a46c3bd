"""Sequences of an oracle whose probabilities are known: sequence GANs and maximum likelihood, judged exactly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from advrl.agents.report import Estimate, FigureReport
from advrl.agents.switched import evaluating
from advrl.checks import choice, integer, number
from advrl.data import GrammarOracle, HMMOracle, LSTMOracle, Vocabulary
from advrl.data.oracles import Oracle
from advrl.metrics import duplicates, ngram_diversity, nll
from advrl.recipes.config import flag
from advrl.recipes.sequence_parts import HELD_OUT, SequenceParts
from advrl.recipes.sequences import SequenceConfig
from advrl.seeding import isolated

SAMPLES, QUICK = 2_000, 1_000
KindName = Literal["lstm", "hmm", "grammar"]

FIGURES = {
    "nll_oracle": ("NLL_oracle", "-log O of the samples: below the floor, what is likely again and again"),
    "nll_test": ("NLL_test", "-log G of held-out sequences of the oracle: high if some of them are forgotten"),
    "floor": ("floor", "the oracle's own entropy: what both likelihoods are for a perfect generator"),
    "reverse_kl": ("reverse KL", "KL(G || O), 0 for a perfect generator alone"),
    "forward_kl": ("forward KL", "KL(O || G), 0 for a perfect generator alone"),
    "ngram_entropy": ("3-gram entropy", "in nats, of a draw's 3-grams: how varied it is"),
    "duplicates": ("duplicates", "share of the samples that equal another one"),
    "impossible": ("impossible", "share of the samples that the oracle never writes"),
}


class OracleJudge:
    """Judges writers of sequences by the oracle's probabilities, by their own, and by how varied they are.

    Args:
        oracle: what is learned.
        device: where the writers are.
        seed: of the samples drawn; no business of a run's own seed.
    """

    def __init__(self, oracle: Oracle, device: torch.device, seed: int = 0) -> None:
        self.oracle, self.device, self.seed = oracle, device, seed

    def fast(self, policy: Any) -> dict[str, float]:
        """Figures of 1,000 samples of each, in nats per token; changes no generator's state.

        ``divergence`` is the sum of both KL divergences, ``gap`` what there is without a likelihood: the distances of
        NLL_oracle and of the 3-gram entropy from the oracle's own.
        """
        with isolated(self.seed + 1), torch.no_grad():
            held_out = self.oracle.sample(QUICK)
            real = self._variety(held_out)
            found = self._scores(policy, self._draw(policy, QUICK), held_out)
        values = {name: estimate.mean for name, estimate in found.items()}
        values["gap"] = abs(values["nll_oracle"] - values["floor"]) + abs(
            values["ngram_entropy"] - float(real["ngram_entropy"])
        )
        if "forward_kl" in values:
            values["divergence"] = values["reverse_kl"] + values["forward_kl"]
        return values

    def of(self, policy: Any, splits: int = 10) -> FigureReport:
        """Every figure of a writer, with those of the oracle's own samples beside them."""
        integer("splits", splits)
        n = SAMPLES * splits // 10 if splits < 10 else SAMPLES
        with isolated(self.seed), torch.no_grad():
            held_out = self.oracle.sample(n)
            drawn = self._draw(policy, n)
            rows = {"generated": self._scores(policy, drawn, held_out)}
            again = self.oracle.sample(n)
            own = {name: Estimate(0.0) for name in ("reverse_kl", "forward_kl")}
            own |= dict.fromkeys(("nll_test", "floor"), rows["generated"]["floor"])
            rows["oracle"] = self._likelihoods(self._log_prob(again), again) | own | self._spread(again)
        shown = {name: told for name, (told, _) in FIGURES.items() if name in rows["generated"]}
        notes = {
            "generated": f"{n:,} sequences, and {n:,} held out of the oracle; mean ± standard error, nats per token",
            "oracle": f"{n:,} other sequences of the oracle itself",
            **dict(FIGURES[name] for name in shown),
        }
        return FigureReport(n, splits, rows, shown, notes)

    def _draw(self, policy: Any, n: int) -> Tensor:
        with evaluating(policy):
            return torch.cat([policy.sample(min(1000, n - i)) for i in range(0, n, 1000)])

    def _scores(self, policy: Any, x: Tensor, held_out: Tensor) -> dict[str, Estimate]:
        oracle_of_model, oracle_of_oracle = self._log_prob(x), self._log_prob(held_out)
        found = self._likelihoods(oracle_of_model, x) | self._floor(oracle_of_oracle, held_out)
        if hasattr(policy, "log_probs"):
            with evaluating(policy):
                of_model, of_oracle = (
                    torch.cat([policy.log_probs(part).sum(1) for part in y.to(self.device).split(256)]).double().cpu()
                    for y in (x, held_out)
                )
            tokens, others = self.oracle.counts(x).cpu(), self.oracle.counts(held_out).cpu()
            found["nll_test"] = _per_token(-of_oracle, others)
            found["reverse_kl"] = _per_token(of_model - oracle_of_model, tokens)
            found["forward_kl"] = _per_token(oracle_of_oracle - of_oracle, others)
        return found | self._spread(x)

    def _likelihoods(self, log_prob: Tensor, x: Tensor) -> dict[str, Estimate]:
        possible = log_prob.isfinite()
        found = {"nll_oracle": _per_token(-log_prob, self.oracle.counts(x).cpu())}
        if isinstance(self.oracle, GrammarOracle):
            found["impossible"] = Estimate(float((~possible).double().mean()))
        return found

    def _floor(self, log_prob: Tensor, x: Tensor) -> dict[str, Estimate]:
        return {"floor": _per_token(-log_prob, self.oracle.counts(x).cpu())}

    def _log_prob(self, x: Tensor) -> Tensor:
        """(n,) of the oracle, in double precision on the CPU."""
        there = x if isinstance(self.oracle, LSTMOracle) else x.cpu()
        return self.oracle.log_prob(there).double().cpu()

    def _variety(self, x: Tensor) -> dict[str, Tensor]:
        vocab, length = self.oracle.vocab_size, self.oracle.length
        entropy = ngram_diversity(x, vocab, min(3, length))["entropy"][-1]
        return {"ngram_entropy": entropy, "duplicates": duplicates(x, vocab)}

    def _spread(self, x: Tensor) -> dict[str, Estimate]:
        return {name: Estimate(float(value)) for name, value in self._variety(x).items()}


def _per_token(total: Tensor, tokens: Tensor) -> Estimate:
    found = nll(-total, tokens)
    return Estimate(found.value, found.error)


@dataclass(frozen=True)
class OracleSequences(SequenceConfig):
    """Train a policy on sequences of an oracle whose probabilities are known, so that it can be judged exactly.

    By maximum likelihood, or against a discriminator (--algorithm). The judge prints both likelihoods, both KL
    divergences and the floor; the checkpoint is the one with the least sum of the divergences.
    """

    name: ClassVar[str] = "oracle"

    kind: KindName = "lstm"
    """lstm (of a seed), hmm (a hidden Markov model) or grammar (arithmetic; sentences that end)."""
    oracle: Path | None = None
    """An LSTM oracle's arrays, such as the published seqgan_oracle.npz; --vocab is then that of the file."""
    vocab: int = 100
    """Tokens; a grammar has its own."""
    length: int = 10
    """Tokens of a sequence."""
    oracle_hidden: int = 32
    """Units of the LSTM oracle, or states of the hidden Markov model."""
    oracle_seed: int = 0
    """Of the oracle's weights and of the training sequences."""
    sequences: int = 10_000
    """Sequences to learn from."""
    width: int = 32
    """Units of the hidden layers, and of a recurrent discriminator."""
    weights: float | None = None
    """Standard deviation of the policy's first weights; SeqGAN's is 0.1. Default: torch's own."""
    dropout: float = 0.0
    """Share of units dropped while likelihood is learned."""
    lr: float = 1e-2
    """Adam's learning rate for likelihood; in mle it falls linearly over the second half of the run."""

    def validate(self) -> None:
        """Raise a ``ValueError`` or ``TypeError`` for the first option that cannot be."""
        choice("kind", self.kind, get_args(KindName))
        if self.oracle is not None and self.kind != "lstm":
            raise ValueError(f"--oracle {self.oracle} is an LSTM's: --kind must be lstm, got {self.kind}")
        integer("--vocab", self.vocab, 2)
        for name in ("length", "oracle_hidden"):
            integer(flag(name), getattr(self, name))
        integer("--oracle-seed", self.oracle_seed, 0)
        if self.weights is not None:
            number("--weights", self.weights, 0.0, exclusive=True)
        super().validate()
        if integer("--sequences", self.sequences) < (self.batch_size or 1):
            raise ValueError(f"--sequences must be at least a batch of {self.batch_size}, got {self.sequences}")

    def must_match(self) -> list[str]:
        names = ["kind", "oracle", "vocab", "length", "oracle_hidden", "oracle_seed"]
        return [*super().must_match(), *names]

    def law(self) -> Oracle:
        """The oracle, on the CPU.

        Raises:
            ValueError: if the file is none.
        """
        if self.oracle is not None:
            return LSTMOracle.from_npz(self.oracle, self.length)
        if self.kind == "hmm":
            return HMMOracle(self.vocab, self.length, self.oracle_hidden, seed=self.oracle_seed)
        if self.kind == "grammar":
            return GrammarOracle(self.length)
        return LSTMOracle(self.vocab, self.length, self.oracle_hidden, seed=self.oracle_seed)

    def policy_for(self, shape: tuple[int, ...]) -> Any:
        """The untrained policy for (length, vocabulary): what :func:`advrl.load` fills with weights."""
        length, vocab = shape
        return self.writer(vocab, length, eos=self.kind == "grammar")

    def writer(self, vocab: int, length: int, eos: bool) -> Any:
        """The untrained policy, with ``--weights``."""
        policy = super().writer(vocab, length, eos)
        if self.weights is not None:
            with torch.no_grad():
                for weight in policy.parameters():
                    weight.normal_(0.0, self.weights)
        return policy

    def build(self, device: torch.device) -> SequenceParts:
        """All parts of the run.

        Raises:
            ValueError: if the oracle cannot be read, or the run to begin with is of another kind.
        """
        made: Any = self
        oracle = self.law()
        with isolated(self.oracle_seed):
            real, unseen = (oracle.sample(n).to(device) for n in (self.sequences, HELD_OUT))
        if isinstance(oracle, LSTMOracle):
            oracle.policy.to(device)
        vocab, length = oracle.vocab_size, oracle.length
        tokens = oracle.tokens if isinstance(oracle, GrammarOracle) else map(str, range(vocab))
        vocabulary = Vocabulary(tuple(tokens), "space")
        shape = (length, vocab)
        trainer = self.trainer(vocab, length, oracle.eos, device)
        self.begin_with(trainer, shape, vocabulary)
        likely = self.algorithm != "embedding" and self.kind != "grammar"  # a grammar makes one divergence infinite
        return SequenceParts(
            data=SimpleNamespace(shape=shape),
            real=real,
            trainer=trainer,
            evaluator=OracleJudge(oracle, device),
            vocabulary=vocabulary,
            about=f"{self.sequences:,} sequences of {self._told()}, {vocab:,} tokens, length {length}",
            monitor="divergence" if likely else "gap",
            chosen_by="sum of both divergences" if likely else "gap of NLL and 3-gram entropy to the oracle's own",
            begin=made.pretrain + made.warmup,
            held_out=unseen,
        )

    def _told(self) -> str:
        if self.oracle is not None:
            return f"the oracle in {self.oracle}"
        return "a grammar" if self.kind == "grammar" else f"an oracle ({self.kind}, seed {self.oracle_seed})"
