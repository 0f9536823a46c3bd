"""Lines of text, or of integer ids: a policy that writes them, by maximum likelihood or against a discriminator."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor

from advrl.agents.report import Estimate, FigureReport
from advrl.agents.switched import evaluating
from advrl.checks import choice, integer
from advrl.data import TOKENISERS, Corpus, make_corpus, read_lines
from advrl.metrics import duplicates, novelty, self_bleu, sentence_bleu, step_nll
from advrl.nn.sequences import WritingPolicy
from advrl.recipes.sequence_parts import HELD_OUT, SequenceParts
from advrl.recipes.sequences import SequenceConfig
from advrl.seeding import isolated

JUDGED = 1000  # sentences in each draw
QUICK = 500

NAMES = ["nll", *(f"{bleu}-{k}" for bleu in ("BLEU", "self-BLEU") for k in range(2, 6)), "duplicates", "novel"]
FIGURES = {name: name for name in NAMES}
NOTES = {
    "nll": "nats per token of the test part, by the policy: lower is better, and gives no credit for repetition",
    "BLEU": "mean over sentences of n-grams found in the test part (Texygen's protocol, smoothing epsilon)",
    "self-BLEU": "the same against each other: lower is more varied; be near the real row in both, and in one draw",
    "duplicates": "share of the sentences that equal another one",
    "novel": "share of the sentences that the training part does not have",
}


class TextEvaluator:
    """Judges policies by the likelihood of held-out text, and by what they write.

    Args:
        corpus: its test part is held out; its validation part stands for real text.
        seed: of the sentences drawn; no business of a run's own seed.
        gap: whether the quick evaluation draws sentences too, for how far they are from real ones in BLEU-3 and
            self-BLEU-3.
    """

    def __init__(self, corpus: Corpus, device: torch.device, seed: int = 0, *, gap: bool = False) -> None:
        self.vocab, self.seed, self.gap = len(corpus.vocabulary), seed, gap
        self.train, self.validation, self.test = (
            part.to(device) for part in (corpus.train, corpus.validation, corpus.test)
        )
        self.n = min(JUDGED, len(self.validation), len(self.test))
        self.quick = min(QUICK, len(self.train) // 2, len(self.validation))
        self.real: tuple[float, float] | None = None

    def fast(self, policy: Any) -> dict[str, float]:
        """``validation_nll``, nats per token, of a policy with a likelihood.

        With ``gap``, also BLEU-3 of 500 sentences and their self-BLEU-3, the distance of the two from those of as many
        real ones, and ``duplicates``. The references are of the training part: the test part chooses nothing.
        """
        found = {} if not hasattr(policy, "log_probs") else {"validation_nll": self._nll(policy, self.validation)}
        if not self.gap:
            return found
        if self.real is None:
            self.real = self._pair(self.validation[: self.quick])
        with isolated(self.seed + 1), torch.no_grad(), evaluating(policy):
            x = policy.sample(self.quick)
        bleu, own = self._pair(x)
        gap = math.hypot(bleu - self.real[0], own - self.real[1])
        return found | {"BLEU-3": bleu, "self-BLEU-3": own, "gap": gap, "duplicates": float(duplicates(x, self.vocab))}

    def _pair(self, x: Tensor) -> tuple[float, float]:
        bleu = sentence_bleu(x, self.train[: 10 * JUDGED], self.vocab).mean(0)[2]
        return float(bleu), float(self_bleu(x, self.vocab).mean(0)[2])

    def of(self, policy: Any, splits: int = 10) -> FigureReport:
        """Every figure of a policy, with those of real text beside them."""
        integer("splits", splits)
        references = self.test[: 10 * JUDGED]
        with isolated(self.seed), torch.no_grad(), evaluating(policy):
            drawn = [self._figures(policy.sample(self.n), references) for _ in range(splits)]
            real = self._figures(self.validation[: self.n], references)
            rows = {
                "generated": {name: Estimate.of(torch.stack([one[name] for one in drawn])) for name in drawn[0]},
                "real": {name: Estimate(float(value)) for name, value in real.items()},
            }
            if hasattr(policy, "log_probs"):
                rows["generated"]["nll"] = Estimate(self._nll(policy, self.test))
        notes = {
            "generated": f"{splits} draws of {self.n:,} sentences; mean ± standard error",
            "real": f"{self.n:,} sentences of the validation part, against the same test part",
            **NOTES,
        }
        return FigureReport(self.n, splits, rows, FIGURES, notes)

    def _nll(self, policy: WritingPolicy, x: Tensor) -> float:
        with torch.no_grad(), evaluating(policy):
            steps = torch.cat([policy.log_probs(part) for part in x.split(256)])
        return step_nll(steps, x < policy.outcomes).value

    def _figures(self, x: Tensor, references: Tensor) -> dict[str, Tensor]:
        bleu = sentence_bleu(x, references, self.vocab).mean(0)
        own = self_bleu(x, self.vocab).mean(0)
        found = {f"BLEU-{k}": bleu[k - 1] for k in range(2, 6)} | {f"self-BLEU-{k}": own[k - 1] for k in range(2, 6)}
        found["duplicates"] = duplicates(x, self.vocab)
        found["novel"] = novelty(x, self.train, self.vocab, 1)["sequences"]
        return {name: value.cpu() for name, value in found.items()}


@dataclass(frozen=True)
class Text(SequenceConfig):
    """Train a policy that writes text, on lines of your own: --corpus with a sentence (or integer ids) a line.

    By maximum likelihood, with the checkpoint that predicts the validation part best: the baseline that every sequence
    GAN is held against. Or by one of them (--algorithm), with the checkpoint whose BLEU-3 and self-BLEU-3 are nearest
    to those of real text. A tenth of the lines each is kept for validation and test. A few minutes for 10,000 captions.
    """

    name: ClassVar[str] = "text"

    corpus: Path | None = None
    """A UTF-8 file with a sentence, or a list of integer ids, a line."""
    tokeniser: str = "auto"
    """word, character or space; ids for integers; auto is ids if all lines are integers, else word."""
    length: int | None = None
    """Tokens of a sentence; longer ones are cut and counted. Default: the longest and its end."""
    min_count: int = 1
    """Rarer tokens become <unk>."""

    def validate(self) -> None:
        """Raise a ``ValueError`` or ``TypeError`` for the first option that cannot be."""
        if self.corpus is None:
            raise ValueError("--corpus is missing: give a file with a sentence a line, as in --corpus captions.txt")
        choice("tokeniser", self.tokeniser, ["auto", "ids", *TOKENISERS])
        integer("--min-count", self.min_count)
        if self.length is not None:
            integer("--length", self.length, 2)
        super().validate()

    def policy_for(self, shape: tuple[int, ...]) -> Any:
        """The untrained policy for (length, vocabulary): what :func:`advrl.load` fills with weights."""
        length, vocab = shape
        return self.writer(vocab, length, eos=True)

    def build(self, device: torch.device) -> SequenceParts:
        """All parts of the run.

        Raises:
            ValueError: if the corpus cannot be used, its training part is smaller than a batch, or the run to begin
                with is of another kind.
        """
        made: Any = self
        corpus = make_corpus(read_lines(made.corpus), self.tokeniser, length=self.length, min_count=self.min_count)
        if len(corpus.train) < made.batch_size or not len(corpus.validation) or not len(corpus.test):
            raise ValueError(
                f"--corpus {self.corpus} leaves {len(corpus.train)} lines to train on, {len(corpus.validation)} to "
                f"validate and {len(corpus.test)} to test: give more lines, or a --batch-size of at most "
                f"{len(corpus.train)}"
            )
        shape = (corpus.length, len(corpus.vocabulary))
        trainer = self.trainer(len(corpus.vocabulary), corpus.length, True, device)
        self.begin_with(trainer, shape, corpus.vocabulary)
        likelihood = self.algorithm == "mle"
        return SequenceParts(
            data=SimpleNamespace(shape=shape),
            real=corpus.train,
            trainer=trainer,
            evaluator=TextEvaluator(corpus, device, gap=not likelihood),
            vocabulary=corpus.vocabulary,
            about=f"{len(corpus.train):,} lines of up to {corpus.length} tokens, {len(corpus.vocabulary):,} kinds; "
            f"{len(corpus.validation):,} to validate, {len(corpus.test):,} to test",
            monitor="validation_nll" if likelihood else "gap",
            chosen_by="likelihood of the validation part" if likelihood else "gap to real text in BLEU and self-BLEU",
            begin=made.pretrain + made.warmup,
            held_out=corpus.validation[:HELD_OUT].to(device),
        )
