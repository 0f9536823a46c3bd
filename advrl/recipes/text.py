"""Lines of text, or of integer ids: a policy that writes them, by maximum likelihood."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from advrl.agents import Every, LikelihoodTrainer
from advrl.agents.report import Estimate, FigureReport
from advrl.checks import choice, integer, number
from advrl.data import TOKENISERS, Corpus, Vocabulary, make_corpus, read_lines
from advrl.distributed import rank
from advrl.distributions import sample_categorical
from advrl.files import write_atomically
from advrl.metrics import duplicates, novelty, self_bleu, sentence_bleu, step_nll
from advrl.nn import GRUPolicy, LSTMPolicy, TransformerPolicy
from advrl.nn.sequences import WritingPolicy
from advrl.recipes.config import flag
from advrl.recipes.images import evaluating
from advrl.recipes.parts import LinearDecay
from advrl.seeding import isolated

POLICIES: dict[str, type[Any]] = {"gru": GRUPolicy, "lstm": LSTMPolicy, "transformer": TransformerPolicy}
PolicyName = Literal["gru", "lstm", "transformer"]
JUDGED = 1000  # sentences in each draw
SHOWN = 20
VOCABULARY = "vocabulary.json"

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
    """

    def __init__(self, corpus: Corpus, device: torch.device, seed: int = 0) -> None:
        self.vocab, self.seed = len(corpus.vocabulary), seed
        self.train, self.validation, self.test = (
            part.to(device) for part in (corpus.train, corpus.validation, corpus.test)
        )
        self.n = min(JUDGED, len(self.validation), len(self.test))

    def fast(self, policy: WritingPolicy) -> dict[str, float]:
        """``validation_nll``, nats per token."""
        return {"validation_nll": self._nll(policy, self.validation)}

    def of(self, policy: WritingPolicy, splits: int = 10) -> FigureReport:
        """Every figure of a policy, with those of real text beside them."""
        integer("splits", splits)
        references = self.test[: 10 * JUDGED]
        with isolated(self.seed), torch.no_grad(), evaluating(policy):
            drawn = [self._figures(policy.distribution().sample((self.n,)), references) for _ in range(splits)]
            real = self._figures(self.validation[: self.n], references)
            rows = {
                "generated": {name: Estimate.of(torch.stack([one[name] for one in drawn])) for name in drawn[0]},
                "real": {name: Estimate(float(value)) for name, value in real.items()},
            }
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
class TextParts:
    """A run's parts."""

    data: Any
    real: Tensor
    trainer: LikelihoodTrainer
    evaluator: TextEvaluator
    vocabulary: Vocabulary
    about: str

    monitor: ClassVar[str] = "validation_nll"
    chosen_by: ClassVar[str] = "likelihood of the validation part"
    pictured: ClassVar[str] = "sentences"

    def callbacks(self, folder: Path, every: int) -> list[Every]:
        """The quick evaluation and some sentences, every so many steps; the vocabulary goes into the folder at once."""
        policy: Any = self.trainer.average
        if rank() == 0:
            self.vocabulary.save(folder / VOCABULARY)

        def judge(step: int) -> Mapping[str, float]:
            return self.evaluator.fast(policy)

        def write(step: int) -> None:
            with isolated(1), evaluating(policy):
                lines = self.vocabulary.decode(policy.sample(SHOWN).cpu())
            write_atomically(folder / "samples" / f"step-{step:06d}.txt", ("\n".join(lines) + "\n").encode())

        return [Every(every, judge), Every(every, write)]


@dataclass(frozen=True)
class Text:
    """Train a policy that writes text, on lines of your own: --corpus with a sentence (or integer ids) a line.

    Maximum likelihood, with the checkpoint that predicts the validation part best: the baseline that every sequence GAN
    is held against. A tenth of the lines each is kept for validation and test. A few minutes for 10,000 captions.
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
    policy: PolicyName = "lstm"
    """gru, lstm or transformer."""
    width: int = 256
    """Units of the hidden layers."""
    dropout: float = 0.3
    """Share of units dropped in training."""
    batch_size: int = 64
    """Sentences per update."""
    steps: int = 2000
    """Steps to train for."""
    lr: float = 2e-3
    """Adam's learning rate; falls linearly over the second half of the run."""
    ema: float = 0.99
    """Decay of the policy's moving average, which is what is sampled and judged; 0 turns it off."""
    seed: int = 0
    """Of everything random in the run; not of the split, which is always the same."""
    seeds: int = 1
    """Train this many runs, with seeds counted up from --seed, each in a folder of its own."""
    deterministic: bool = False
    """Use only deterministic algorithms (slower on a GPU)."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps; auto is cuda where there is one, else cpu."""
    out: Path | None = None
    """Folder of the run. Default: the next free runs/text-N."""
    resume: Path | None = None
    """Folder of a run to go on with; only --steps, --out, --device and the logging options may change."""
    log_every: int = 50
    """Steps between two rows of metrics.csv."""
    checkpoint_every: int = 500
    """Steps between two checkpoints."""
    picture_every: int = 250
    """Steps between two quick evaluations and sentences."""
    quiet: bool = False
    """No progress bar, no report."""

    probe_gradients: ClassVar[str] = ""
    probe_spectrum: ClassVar[bool] = False

    def validate(self) -> None:
        """Raise a ``ValueError`` or ``TypeError`` for the first option that cannot be."""
        if self.corpus is None:
            raise ValueError("--corpus is missing: give a file with a sentence a line, as in --corpus captions.txt")
        choice("tokeniser", self.tokeniser, ["auto", "ids", *TOKENISERS])
        choice("policy", self.policy, get_args(PolicyName))
        for name in ("min_count", "width", "batch_size", "steps", "seeds", "log_every", "checkpoint_every",
                     "picture_every"):  # fmt: skip
            integer(flag(name), getattr(self, name))
        if self.length is not None:
            integer("--length", self.length, 2)
        number("--lr", self.lr, 0.0, exclusive=True)
        number("--dropout", self.dropout, 0.0, 1.0)
        if number("--ema", self.ema, 0.0) >= 1.0:
            raise ValueError(f"--ema must be below 1, got {self.ema}")
        if not 0 <= self.seed <= 2**32 - self.seeds:
            raise ValueError(f"--seed, and the seeds counted up from it, must be in [0, 2**32), got {self.seed}")

    def announcement(self) -> str:
        """What the run says of itself, a line each."""
        return f"policy     {self.policy}, {self.width} units\nobjective  maximum likelihood\n"

    def policy_for(self, shape: tuple[int, ...]) -> WritingPolicy:
        """The untrained policy for (length, vocabulary): what :func:`advrl.load` fills with weights."""
        length, vocab = shape
        policy: WritingPolicy = POLICIES[self.policy](vocab, length, self.width, eos=True, dropout=self.dropout)
        return policy

    def build(self, device: torch.device) -> TextParts:
        """All parts of the run.

        Raises:
            ValueError: if the corpus cannot be used, or its training part is smaller than a batch.
        """
        assert self.corpus is not None
        corpus = make_corpus(read_lines(self.corpus), self.tokeniser, length=self.length, min_count=self.min_count)
        if len(corpus.train) < self.batch_size or not len(corpus.validation) or not len(corpus.test):
            raise ValueError(
                f"--corpus {self.corpus} leaves {len(corpus.train)} lines to train on, {len(corpus.validation)} to "
                f"validate and {len(corpus.test)} to test: give more lines, or a --batch-size of at most "
                f"{len(corpus.train)}"
            )
        shape = (corpus.length, len(corpus.vocabulary))
        policy = self.policy_for(shape).to(device)
        trainer = LikelihoodTrainer(policy, lr=self.lr, schedule=LinearDecay(self.steps), ema=self.ema)
        return TextParts(
            data=SimpleNamespace(shape=shape),
            real=corpus.train,
            trainer=trainer,
            evaluator=TextEvaluator(corpus, device),
            vocabulary=corpus.vocabulary,
            about=f"{len(corpus.train):,} lines of up to {corpus.length} tokens, {len(corpus.vocabulary):,} kinds; "
            f"{len(corpus.validation):,} to validate, {len(corpus.test):,} to test",
        )

    def lines(self, run: Any, n: int, seed: int = 0, *, prompt: str = "", temperature: float = 1.0) -> list[str]:
        """``n`` lines of a run; each begins with the prompt, whose tokens the policy has to know."""
        vocabulary = Vocabulary.load(run.folder / VOCABULARY)
        written = vocabulary.encode([prompt])[0] if prompt else torch.zeros(0, dtype=torch.int64, device="cpu")
        written = written[written < len(vocabulary)].to(run.device)
        with isolated(seed), evaluating(run.policy):
            return vocabulary.decode(continued(run.policy, written.expand(n, -1), temperature).cpu())


@torch.no_grad()
def continued(policy: WritingPolicy, begun: Tensor, temperature: float = 1.0) -> Tensor:
    """Sequences (n, T) that begin as ``begun`` (n, t) and go on by the policy.

    Raises:
        ValueError: if the beginning is as long as a sequence may be.
    """
    number("temperature", temperature, 0.0, exclusive=True)
    n, start = begun.shape
    if start >= policy.length:
        raise ValueError(f"the prompt has {start} tokens, and a line has at most {policy.length}")
    state, tokens = policy.start(n), None
    columns, alive = [], torch.ones(n, dtype=torch.bool, device=begun.device)
    for t in range(policy.length):
        logits, state = policy.step(tokens, state)
        drawn = sample_categorical(logits / temperature)
        tokens = begun[:, t] if t < start else torch.where(alive, drawn, policy.outcomes)
        alive = alive & (tokens != policy.vocab_size)
        columns.append(tokens)
    return torch.stack(columns, 1)
