"""``advrl bench text``: sequence GANs on a corpus, beside tempered likelihood, real text and the published rows.

BLEU-2 to 5, self-BLEU-2 to 5, both scores of language models, duplicates, over seeds and temperatures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from advrl.data import make_corpus, read_lines
from advrl.files import read_csv, write_atomically, write_csv
from advrl.lab.bench_sequences import (
    JUDGED,
    Bench,
    Rows,
    SequenceOptions,
    budgets,
    by_temperature,
    check,
    curves,
    gaps,
    line,
    play,
    table_lines,
)
from advrl.lab.published_sequences import TEXT, TEXT_PROTOCOL
from advrl.metrics import duplicates, self_bleu, sentence_bleu
from advrl.seeding import isolated

ORDERS = range(2, 6)
BLEUS = tuple(f"{name}-{k}" for name in ("BLEU", "self-BLEU") for k in ORDERS)
FIGURES = ("nll", "LM", "reverse LM", "Fréchet", *BLEUS, "duplicates")
AXES = ("LM", "reverse LM")
DEFINITIONS = """\
nll           nats per token of the test part, by the policy at that temperature
LM            nats per token of samples under a language model of the training part: quality, lost diversity lowers it
reverse LM    nats per token of the test part under a language model of as many samples: diversity
Fréchet       squared distance to the test part, on mean hidden states of the first model
BLEU, self-BLEU   mean over sentences, smoothing epsilon, of --samples sentences; against all lines of --test if given,
              else against the test part. Be near real text in both
±             half of Student's 95 % interval over seeds. T is the temperature"""


@dataclass(frozen=True)
class Options(SequenceOptions):
    """Sequence GANs on lines of text: BLEU, self-BLEU and language models both ways, beside tempered likelihood.

    Writes sweeps.csv (a row for each run and temperature; the study goes on from there), table.csv, report.md,
    tradeoff.png and lines of each run. Every game begins with the maximum-likelihood run of its seed.
    """

    corpus: Path | None = None
    """A UTF-8 file with a sentence a line."""
    test: Path | None = None
    """Another one, the references of BLEU, as in the published protocol. Default: the corpus' own test part."""
    width: int = 256
    """Units of the policy."""
    dropout: float = 0.3
    """Share of units dropped while likelihood is learned."""
    lr: float = 2e-3
    """Adam's learning rate for maximum likelihood."""
    samples: int = 2_000
    """Sentences behind BLEU, and behind each reverse language model."""


def run(options: Options, folder: Callable[[], Path], say: Callable[[str], None] = print) -> None:
    """Train what is not trained yet, print the report, write it, its rows and the figure.

    Raises:
        ValueError, TypeError: for names that do not exist and numbers out of range, before anything is trained.
        OSError: if a file cannot be read.
    """
    from advrl.recipes import Text

    if options.corpus is None:
        raise ValueError("--corpus is missing: give a file with a sentence a line, as in --corpus captions.txt")
    algorithms = check(options)
    config = Text(corpus=options.corpus, width=options.width, dropout=options.dropout, lr=options.lr,
                  batch_size=options.batch_size, steps=2)  # fmt: skip
    out = options.out or folder()
    judge = Judge(options, out)
    rows = play(Bench(config, judge, AXES), options, out, say)
    real = judge.real(out / "real.csv", config)
    text = report(rows, real, algorithms, options)
    written = [out / "report.md", out / "table.csv", out / "sweeps.csv", out / "tradeoff.png"]
    write_atomically(written[0], (text + "\n").encode())
    means = [*by_temperature(rows, algorithms, FIGURES), {"algorithm": "real text", **real}]
    write_csv(written[1], means, 6)
    draw(rows, real, algorithms, written[3])
    say(f"\n{text}\n\nWritten:\n" + "\n".join(f"  {path}" for path in written))


class Judge:
    """Figures of text runs at each temperature; the language model of the training part is trained once."""

    def __init__(self, options: Options, out: Path) -> None:
        self.options, self.out = options, out
        self.references = None if options.test is None else read_lines(options.test)
        self.models: Any = None

    def __call__(self, run: Any, at: Sequence[float]) -> list[dict[str, float]]:
        """Rows, one for each temperature; leaves lines of the run in ``lines``."""
        from advrl.recipes.sweep import Tempered, sweep

        parts = run.config.build(run.device)
        models = self._models(parts)
        swept = sweep(run, at, parts, models)
        self._keep({name: e.mean for name, e in swept.reference.items()})
        lines = run.config.lines(run, 20)
        write_atomically(self.out / "lines" / f"{run.folder.name}.txt", ("\n".join(lines) + "\n").encode())
        told = []
        for temperature, row in zip(at, swept.rows, strict=True):
            found = {name: e.mean for name, e in row.items()}
            with isolated(0), torch.no_grad():
                x = Tempered(run.policy, temperature).sample(self.options.samples)
            found |= self.bleu(x, parts)
            told.append({"temperature": temperature, **found})
        return told

    def bleu(self, x: Tensor, parts: Any) -> dict[str, float]:
        """BLEU and self-BLEU of sentences (N, T), and duplicates among them."""
        vocab = len(parts.vocabulary)
        references = parts.evaluator.test
        if self.references is not None:  # encoded anew, with them
            lines, how = parts.vocabulary.decode(x.cpu()), parts.vocabulary.tokeniser
            joint = make_corpus(lines, how, test=self.references, validation_share=0.0)
            x, references, vocab = joint.train, joint.test, len(joint.vocabulary)
        bleu, own = sentence_bleu(x, references, vocab).mean(0), self_bleu(x, vocab).mean(0)
        pairs = {"BLEU": bleu, "self-BLEU": own}
        return {f"{name}-{k}": float(pairs[name][k - 1]) for name in pairs for k in ORDERS} | {
            "duplicates": float(duplicates(x, vocab))
        }

    def real(self, path: Path, config: Any) -> dict[str, float]:
        """Figures of real text: training lines as samples for BLEU, the rest as the report of a run has it."""
        from advrl.device import resolve_device

        kept = read_csv(path)
        if kept and "BLEU-2" in kept[0]:
            return {name: float(value) for name, value in kept[0].items() if value}
        parts = config.build(resolve_device("cpu"))
        found = {name: float(value) for name, value in kept[0].items() if value} if kept else {}
        found |= self.bleu(parts.evaluator.train[: self.options.samples], parts)
        write_csv(path, [found], 6)
        return found

    def _keep(self, reference: dict[str, float]) -> None:
        names = [name for name in FIGURES if name in reference and name not in (*BLEUS, "duplicates")]
        path = self.out / "real.csv"
        if not path.exists():
            write_csv(path, [{name: reference[name] for name in names}], 6)

    def _models(self, parts: Any) -> Any:
        from advrl.recipes.language_judge import LanguageJudge

        self.models = self.models or LanguageJudge(parts.evaluator, self.options.samples)
        return self.models


def report(rows: Rows, real: dict[str, float], algorithms: Sequence[str], options: Options) -> str:
    """What people read: all algorithms, tempered likelihood, real text, published rows, gaps, budgets."""
    head = ["", "T", "seeds", *FIGURES]
    lines = table_lines(rows, algorithms, head, FIGURES, options.checkpoint)
    lines.append(line(["**real text**", "", "", *(f"{real[f]:.3f}" if f in real else "" for f in FIGURES)]))
    for p in TEXT:
        numbers = [f"{value:.3f}" for value in (*p.bleu, *p.self_bleu)]
        lines.append(line([f"*{p.method}*: {p.source}", "", "", "", "", "", "", *numbers, ""]))
    against = "the corpus' test part" if options.test is None else f"all lines of {options.test.name}"
    how = (
        f"ours          {options.samples:,} sentences of each run against {against}; real text: {options.samples:,} "
        "training lines for BLEU, self-BLEU and duplicates, the validation part for LM and Fréchet, and as many "
        "training lines for reverse LM"
    )
    parts = ["\n".join(lines), gaps(rows, algorithms, AXES), budgets(rows, algorithms), DEFINITIONS,
             JUDGED[options.checkpoint], how, TEXT_PROTOCOL]  # fmt: skip
    return "\n\n".join(parts)


def draw(rows: Rows, real: dict[str, float], algorithms: Sequence[str], path: Path) -> None:
    """The curve of each algorithm by language models both ways; real text as lines."""
    from advrl.plots import tradeoff_plot

    sweeps = {name: list(curves(rows, name, AXES).values()) for name in algorithms}
    floor = (real["LM"], real["reverse LM"])
    quality, diversity = (f"{name} score, nats per token" for name in AXES)
    shown = {n: s for n, s in sweeps.items() if s}
    tradeoff_plot(shown, floor=floor, out=path, quality=quality, diversity=diversity,
                  title="Quality and diversity of text over temperatures; dashed: real text")  # fmt: skip
