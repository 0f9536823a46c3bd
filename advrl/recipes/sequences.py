"""What every recipe that trains a writer of sequences can be told, and the trainer that it builds from it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import nn

from advrl.agents import LikelihoodTrainer
from advrl.agents.sequence_gan import SequenceGANTrainer
from advrl.agents.sequence_gan_paths import Annealed, EmbeddingPath, Gumbel
from advrl.agents.sequence_gan_rewards import BASELINES, REWARD_NAMES, make_baseline
from advrl.agents.sequence_gan_scores import (
    ActorCritic,
    Constant,
    ImportanceWeighted,
    PrefixCritic,
    Reinforce,
    ScratchGAN,
    SeqGAN,
    SequenceAlgorithm,
)
from advrl.agents.switched import evaluating
from advrl.checks import choice, integer, number
from advrl.data import Vocabulary
from advrl.nn import CNNDiscriminator, GRUPolicy, LSTMPolicy, RecurrentDiscriminator, TransformerPolicy
from advrl.nn.attention import TransformerDiscriminator
from advrl.nn.embedding_generator import EmbeddingGenerator, VectorDiscriminator
from advrl.objectives import GAMES
from advrl.recipes.config import flag
from advrl.recipes.parts import LinearDecay
from advrl.recipes.sequence_defaults import ALGORITHMS, AlgorithmName, Defaults, DiscriminatorName
from advrl.recipes.sequence_parts import VOCABULARY
from advrl.seeding import isolated

POLICIES: dict[str, type[Any]] = {"gru": GRUPolicy, "lstm": LSTMPolicy, "transformer": TransformerPolicy}
PolicyName = Literal["gru", "lstm", "transformer"]
CheckpointName = Literal["best", "last"]
SMALL_FILTERS = ((1, 32), (2, 64), (3, 64), (4, 64))


@dataclass(frozen=True)
class SequenceConfig:
    """Options shared by the recipes that write sequences; what is ``None`` here takes the algorithm's default."""

    algorithm: AlgorithmName = "mle"
    """How the policy learns: mle (maximum likelihood), or against a discriminator: seqgan, reinforce, scratchgan,
    maligan, gumbel, bsgan, embedding, actor-critic, constant (a control)."""
    policy: PolicyName = "lstm"
    """gru, lstm or transformer; embedding has a generator of its own."""
    width: int = 256
    """Units of the hidden layers, and of a recurrent discriminator."""
    dropout: float = 0.3
    """Share of units dropped while likelihood is learned."""
    batch_size: int | None = None
    """Sequences per update. Default: 64; 128 in maligan and bsgan, 256 in actor-critic, 512 in scratchgan."""
    steps: int | None = None
    """Steps to train for, --pretrain and --warmup among them. Default: 1000; 2000 in mle, 3000 in scratchgan and
    embedding."""
    lr: float = 2e-3
    """Adam's learning rate for likelihood; in mle it falls linearly over the second half of the run."""
    pretrain: int | None = None
    """Steps of maximum likelihood before all others. Default: half of the steps; 0 with --init, scratchgan and
    embedding."""
    init: Path | None = None
    """A run to begin with, such as one of maximum likelihood; policy and vocabulary have to be the same."""
    init_checkpoint: CheckpointName = "best"
    """Of --init: best by its quick evaluation, or last, as in published schedules."""
    warmup: int | None = None
    """Steps after those in which the discriminator learns alone. Default: a twentieth; 0 in scratchgan, embedding."""
    discriminator: DiscriminatorName | None = None
    """cnn (SeqGAN's, 1,720 filters), cnn-small (224), recurrent (a logit per prefix) or transformer. Default:
    cnn-small; recurrent in scratchgan and actor-critic."""
    discriminator_steps: int | None = None
    """Discriminator updates per step, each on a batch of its own. Default: 5; 1 in scratchgan and embedding."""
    objective: str | None = None
    """Losses of the two players. Default: non-saturating; relativistic in gumbel."""
    reward: str | None = None
    """What a logit pays: d, log-d, logit, 2d-1, or objective. Default: d; 2d-1 in scratchgan and actor-critic."""
    baseline: str | None = None
    """none, loo (mean of the others) or ewma (moving average), where the algorithm has one. Default: loo; ewma in
    scratchgan."""
    discount: float | None = None
    """Of rewards per step. Default: 1; 0.23 in scratchgan."""
    lam: float = 0.95
    """Of generalised advantages, in actor-critic."""
    rollouts: int = 16
    """Of each prefix, in seqgan."""
    update_rate: float = 0.8
    """Share of the old weights that seqgan's lagging copy keeps at each update; 0 for no copy."""
    group: int = 16
    """Samples that are weighed against each other, in bsgan."""
    temperature: str = "1:0.5"
    """Of the relaxation, in gumbel: FIRST:LAST, by the same factor each step, or one number."""
    vector_noise: float = 0.3
    """Standard deviation of the noise on all vectors that the discriminator sees, in embedding."""
    entropy: float = 0.0
    """Weight of the policy's entropy beside the reward."""
    kl: float = 0.0
    """Weight of the policy's divergence from what it was when adversarial training began."""
    lr_generator: float | None = None
    """Adam's learning rate for the policy against the discriminator. Default: 0.001."""
    lr_discriminator: float | None = None
    """Adam's learning rate for the discriminator. Default: 0.001; 0.005 in scratchgan and
    actor-critic."""
    ema: float | None = None
    """Decay of the policy's moving average, which is what is sampled and judged; 0 turns it off. Default: 0.99 in mle,
    else 0."""
    seed: int = 0
    """Of everything random in the run; not of the data, which are always the same."""
    seeds: int = 1
    """Train this many runs, with seeds counted up from --seed, each in a folder of its own."""
    deterministic: bool = False
    """Use only deterministic algorithms (slower on a GPU)."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps; auto is cuda where there is one, else cpu."""
    out: Path | None = None
    """Folder of the run. Default: the next free runs/RECIPE-N."""
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

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            return  # validate says so
        usual = ALGORITHMS[self.algorithm]
        for name in Defaults._fields[1:]:
            if name not in ("pretrain", "warmup") and getattr(self, name) is None:
                object.__setattr__(self, name, getattr(usual, name))
        for name, share in (("pretrain", usual.pretrain if self.init is None else 0.0), ("warmup", usual.warmup)):
            if getattr(self, name) is None and isinstance(self.steps, int):
                object.__setattr__(self, name, int(share * self.steps))

    def validate(self) -> None:
        """Raise a ``ValueError`` or ``TypeError`` for the first option that cannot be."""
        choice("algorithm", self.algorithm, ALGORITHMS)
        for name, known in (("policy", POLICIES), ("discriminator", get_args(DiscriminatorName)), ("objective", GAMES),
                            ("reward", REWARD_NAMES), ("baseline", BASELINES),
                            ("init_checkpoint", get_args(CheckpointName))):  # fmt: skip
            choice(name, getattr(self, name), known)
        for name in ("width", "batch_size", "steps", "seeds", "discriminator_steps", "rollouts", "log_every",
                     "checkpoint_every", "picture_every"):  # fmt: skip
            integer(flag(name), getattr(self, name))
        for name in ("pretrain", "warmup"):
            integer(flag(name), getattr(self, name), 0)
        integer("--group", self.group, 2)
        for name in ("lr", "lr_generator", "lr_discriminator"):
            number(flag(name), getattr(self, name), 0.0, exclusive=True)
        for name in ("dropout", "discount", "lam"):
            number(flag(name), getattr(self, name), 0.0, 1.0)
        for name in ("vector_noise", "kl", "entropy"):
            number(flag(name), getattr(self, name), 0.0)
        for name in ("ema", "update_rate"):
            if number(flag(name), getattr(self, name), 0.0) >= 1.0:
                raise ValueError(f"{flag(name)} must be below 1, got {getattr(self, name)}")
        temperatures(self.temperature)
        if not 0 <= self.seed <= 2**32 - self.seeds:
            raise ValueError(f"--seed, and the seeds counted up from it, must be in [0, 2**32), got {self.seed}")
        self._check_game()

    def _check_game(self) -> None:
        game = GAMES[str(self.objective)]
        if game.penalties or game.clip is not None:
            raise ValueError(f"--objective {self.objective} bounds the discriminator's slope, and tokens have none")
        if self.algorithm == "bsgan" and _int(self.batch_size) % self.group:
            raise ValueError(f"--batch-size must be a multiple of --group {self.group}, got {self.batch_size}")
        if self.algorithm != "mle" and _int(self.pretrain) + _int(self.warmup) >= _int(self.steps):
            raise ValueError(
                f"--pretrain {self.pretrain} and --warmup {self.warmup} leave none of --steps {self.steps} to the game:"
                " the steps of both are among them"
            )
        if self.algorithm == "embedding" and (self.pretrain or self.entropy or self.kl):
            raise ValueError("--algorithm embedding has no likelihood: --pretrain, --entropy and --kl must be 0")
        if self.algorithm == "embedding" and not str(self.discriminator).startswith("cnn"):
            raise ValueError(f"--algorithm embedding needs --discriminator cnn or cnn-small, got {self.discriminator}")
        if self.algorithm == "constant" and self.warmup:
            raise ValueError(f"--algorithm constant has no judge that --warmup {self.warmup} could train alone: give 0")
        if self.algorithm == "mle" and (self.pretrain or self.warmup or self.entropy or self.kl):
            raise ValueError(
                "--algorithm mle has no game: --pretrain, --warmup, --entropy and --kl go with another --algorithm"
            )
        if self.algorithm == "scratchgan" and self.discriminator != "recurrent":
            raise ValueError(
                f"--algorithm scratchgan is paid at every step: it needs --discriminator recurrent, got "
                f"{self.discriminator}"
            )

    @property
    def settings(self) -> str:
        """What the list of recipes says of it."""
        return f"algorithm {self.algorithm}, policy {self.policy}, {self.steps:,} steps"

    def announcement(self) -> str:
        """What the run says of itself, a line each."""
        writer = "embedding" if self.algorithm == "embedding" else self.policy
        lines = [f"policy     {writer}, {self.width} units", f"algorithm  {self.algorithm}: {self._summary()}"]
        if self.init is not None:
            lines.append(f"from       {self.init}, {self.init_checkpoint} checkpoint")
        if self.algorithm not in ("mle", "constant"):
            lines.append(
                f"judge      {self.discriminator}, objective {self.objective}, reward {self.reward}; "
                f"updates a step: {self.discriminator_steps}"
            )
        if self.algorithm != "mle":
            game = _int(self.steps) - _int(self.pretrain) - _int(self.warmup)
            lines.append(
                f"steps      {self.pretrain} of likelihood, {self.warmup} of the judge alone, {game} of the game"
            )
        return "\n".join(lines) + "\n"

    def _summary(self) -> str:
        return ALGORITHMS[self.algorithm].summary

    def writer(self, vocab: int, length: int, eos: bool) -> Any:
        """The untrained policy."""
        if self.algorithm == "embedding":
            return EmbeddingGenerator(vocab, length, self.width, eos=eos)
        return POLICIES[self.policy](vocab, length, self.width, eos=eos, dropout=self.dropout)

    def judge(self, vocab: int, length: int, eos: bool) -> nn.Module | None:
        """The untrained discriminator; nobody in mle and constant."""
        kind = self.discriminator
        if self.algorithm in ("mle", "constant"):
            return None
        if kind == "recurrent":
            return RecurrentDiscriminator(vocab, self.width, eos=eos)
        if kind == "transformer":
            return TransformerDiscriminator(vocab, length, self.width, eos=eos)
        cls = VectorDiscriminator if self.algorithm == "embedding" else CNNDiscriminator
        return cls(vocab, length, eos=eos) if kind == "cnn" else cls(vocab, length, eos=eos, filters=SMALL_FILTERS)

    def learner(self, vocab: int, eos: bool) -> SequenceAlgorithm:
        """The algorithm as configured; not for mle."""
        made: Any = self
        baseline = make_baseline(made.baseline)
        first, last = temperatures(self.temperature)
        game = made.steps - made.pretrain - made.warmup
        makers = {
            "seqgan": lambda: SeqGAN(self.rollouts, self.update_rate, baseline),
            "reinforce": lambda: Reinforce(baseline),
            "scratchgan": lambda: ScratchGAN(made.discount, baseline),
            "maligan": lambda: ImportanceWeighted(baseline=float(made.baseline != "none")),
            "bsgan": lambda: ImportanceWeighted(self.group, baseline=float(made.baseline != "none")),
            "gumbel": lambda: Gumbel(Annealed(first, last, game)),
            "embedding": lambda: EmbeddingPath(self.vector_noise),
            "actor-critic": lambda: ActorCritic(PrefixCritic(vocab, self.width, eos=eos), made.discount, self.lam),
            "constant": Constant,
        }
        return makers[self.algorithm]()

    def trainer(self, vocab: int, length: int, eos: bool, device: torch.device) -> Any:
        """The trainer, its networks on the device."""
        made: Any = self
        policy = self.writer(vocab, length, eos).to(device)
        if self.algorithm == "mle":
            return LikelihoodTrainer(policy, lr=self.lr, schedule=LinearDecay(made.steps), ema=made.ema)
        discriminator = self.judge(vocab, length, eos)
        return SequenceGANTrainer(
            policy,
            None if discriminator is None else discriminator.to(device),
            self.learner(vocab, eos),
            objective=GAMES[made.objective].objective,
            reward=made.reward,
            entropy=self.entropy,
            kl=self.kl,
            pretrain=made.pretrain,
            warmup=made.warmup,
            discriminator_steps=made.discriminator_steps,
            lr_generator=made.lr_generator,
            lr_discriminator=made.lr_discriminator,
            lr_pretrain=self.lr,
            ema=made.ema,
        )

    def begin_with(self, trainer: Any, shape: tuple[int, ...], vocabulary: Vocabulary) -> None:
        """Give the trainer the policy of ``--init``, if there is one.

        Raises:
            ValueError: if that run's recipe, data, policy or vocabulary are not this one's; the message names both.
        """
        if self.init is None or self.resume is not None:
            return
        from advrl.recipes.run import load, read_config, saved_config

        saved = saved_config(self.init)
        if type(saved) is not type(self):
            raise ValueError(f"--init {self.init} is a run of {saved.name}, not of {self.name}")  # type: ignore[attr-defined]
        for name in self.must_match():
            theirs, ours = getattr(saved, name), getattr(self, name)
            if theirs != ours:
                raise ValueError(
                    f"--init {self.init} has {flag(name)} {theirs}, this run has {ours}: they must be the same"
                )
        if (saved.algorithm == "embedding") != (self.algorithm == "embedding"):
            raise ValueError(
                f"--init {self.init} was trained by {saved.algorithm}, this run by {self.algorithm}: the generator of "
                "embedding is another one"
            )
        vocabulary.require(Vocabulary.load(self.init / VOCABULARY), f"--init {self.init}")
        theirs = tuple(read_config(self.init)["shape"])
        if theirs != shape:
            raise ValueError(f"--init {self.init} writes sequences of shape {theirs}, this run's are {shape}")
        trained = load(self.init, device=str(trainer.device), checkpoint=self.init_checkpoint).policy
        trainer.begin_with(trained)

    def must_match(self) -> list[str]:
        """The options that a run to begin with must share."""
        return ["policy", "width"]

    def lines(self, run: Any, n: int, seed: int = 0, *, prompt: str = "", temperature: float = 1.0) -> list[str]:
        """``n`` lines of a run; each begins with the prompt, whose tokens the policy has to know."""
        vocabulary = Vocabulary.load(run.folder / VOCABULARY)
        begun = vocabulary.encode([prompt])[0] if prompt else torch.zeros(0, dtype=torch.int64, device="cpu")
        begun = begun[begun < len(vocabulary)].to(run.device)
        number("temperature", temperature, 0.0, exclusive=True)
        if len(begun) >= run.policy.length:
            raise ValueError(f"the prompt has {len(begun)} tokens, and a line has at most {run.policy.length}")
        with isolated(seed), evaluating(run.policy):
            return vocabulary.decode(run.policy.continued(begun.expand(n, -1), temperature).cpu())


def _int(value: int | None) -> int:
    return 0 if value is None else value


def temperatures(text: str) -> tuple[float, float]:
    """The first and the last temperature of ``FIRST:LAST`` or of one number.

    Raises:
        ValueError: if it is neither.
    """
    parts = text.split(":")
    try:
        first, last = float(parts[0]), float(parts[-1])
    except ValueError:
        first = last = -1.0
    if len(parts) > 2 or not (first > 0 and last > 0):
        raise ValueError(f"--temperature must be FIRST:LAST or one number, all positive, got {text!r}")
    return first, last


assert {f.name for f in fields(SequenceConfig)} >= set(Defaults._fields[1:])
