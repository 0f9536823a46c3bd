"""What language models say of a text run, both ways, beside real text: the part of its report that takes training."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from advrl.agents.language_model import WIDTH, LanguageModel, train_language_model
from advrl.agents.report import Estimate, FigureReport
from advrl.agents.switched import evaluating
from advrl.metrics import frechet_distance, ngram_diversity
from advrl.seeding import isolated

LEAST = 10  # sentences to learn from
TESTED = 10_000  # real sentences that the reverse model is asked of, at most
FIGURES = {
    "LM": "nats per token of the sentences under a language model of the training part: be near real; below it are "
    "phrases that come again and again",
    "reverse LM": "nats per token of the test part under a language model of the sentences: what was never written "
    "costs; lower is better",
    "Fréchet": "squared distance to as many sentences of the test part, on the mean hidden state of the first model",
    "distinct-2": "distinct 2-grams over all 2-grams of a draw",
    "distinct-3": "distinct 3-grams over all 3-grams of a draw",
    "entropy": "of a draw's 3-grams, in nats",
}


class LanguageJudge:
    """Language models of the training part and of samples, for one corpus.

    Args:
        evaluator: of the run; tells the parts of its corpus and how many sentences are drawn at a time.
        sentences: behind each reverse model, at most as many as the training part has.
    """

    def __init__(self, evaluator: Any, sentences: int) -> None:
        self.train, self.validation, self.test = evaluator.train, evaluator.validation, evaluator.test
        self.vocab, self.n, self.seed = evaluator.vocab, evaluator.n, evaluator.seed
        self.sentences = min(sentences, len(self.train))

    @cached_property
    def model(self) -> LanguageModel:
        """Of the whole training part."""
        return train_language_model(self.train, self.vocab)

    @cached_property
    def real(self) -> dict[str, Estimate]:
        """Figures of the validation part; its reverse model is one of as many training sentences as were drawn."""
        found = self._of_draw(self.validation[: self.n])
        return {name: Estimate(float(value)) for name, value in found.items()} | {
            "reverse LM": self._reverse(self.train[: self.sentences])
        }

    def generated(self, policy: Any) -> dict[str, Estimate]:
        """Figures of a policy; changes no generator's state."""
        with isolated(self.seed), torch.no_grad(), evaluating(policy):
            draws = [policy.sample(self.n) for _ in range(-(-self.sentences // self.n))]
        drawn = [self._of_draw(x) for x in draws]
        found = {name: Estimate.of(torch.stack([one[name] for one in drawn])) for name in drawn[0]}
        return found | {"reverse LM": self._reverse(torch.cat(draws)[: self.sentences])}

    def extended(self, report: FigureReport, policy: Any) -> FigureReport:
        """The report of a run with these figures in it."""
        rows = {"generated": report.rows["generated"] | self.generated(policy), "real": report.rows["real"] | self.real}
        about = (
            f"LSTMs of {WIDTH} units, early stopping on a held-out tenth, their own seed: one of "
            f"{len(self.train):,} training sentences, reverse ones of {self.sentences:,} each, real and generated"
        )
        figures = report.figures | {name: name for name in FIGURES}
        return replace(report, rows=rows, figures=figures, notes=report.notes | FIGURES | {"models": about})

    def _of_draw(self, x: Tensor) -> dict[str, Tensor]:
        varied = ngram_diversity(x, self.vocab, 3)
        distance = frechet_distance(self.model.features(self.test[: len(x)]), self.model.features(x))
        found = {
            "LM": torch.tensor(self.model.score(x).value, dtype=torch.float64, device="cpu"),
            "Fréchet": distance,
            "distinct-2": varied["distinct"][1],
            "distinct-3": varied["distinct"][2],
            "entropy": varied["entropy"][2],
        }
        return {name: value.cpu() for name, value in found.items()}

    def _reverse(self, x: Tensor) -> Estimate:
        judge = self.model if x is self.train else train_language_model(x, self.vocab)
        told = judge.score(self.test[:TESTED])
        return Estimate(told.value, told.error)
