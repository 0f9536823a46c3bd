"""Sequences of an oracle whose probabilities are known: what an agent learns, beside what there is to reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from advrl.agents import Adversary, Turns
from advrl.agents.report import Estimate, FigureReport
from advrl.checks import choice, integer
from advrl.data import LSTMOracle
from advrl.envs import DiscriminatorScore, SequenceGeneration
from advrl.metrics import duplicates, ngram_diversity
from advrl.nn import CNNDiscriminator, GRUPolicy
from advrl.objectives import GAMES
from advrl.plots import save_figure
from advrl.recipes.agents import AgentConfig, AgentParts
from advrl.seeding import isolated

TRAIN, SAMPLES = 10_000, 2_000
FILTERS = ((1, 32), (2, 64), (3, 64), (4, 64))
RewardName = Literal["oracle", "discriminator"]

FIGURES = {
    "nll": (
        "NLL",
        "nats per token of the samples under the oracle; below the floor: what is likely, again and again",
    ),
    "entropy": ("3-gram entropy", "in nats, of a draw's 3-grams: how varied it is"),
    "duplicates": ("duplicates", "share of the samples that equal another one"),
    "gap": ("gap", "|NLL - floor| + |entropy - floor|: 0 is perfect; checkpoints are chosen by it"),
}


class OracleEvaluator:
    """Judges samplers of sequences (n, T) by the oracle's probabilities and by how varied they are.

    Args:
        oracle: on the device where samples are.
        seed: of the samples drawn; no business of a run's own seed.
    """

    def __init__(self, oracle: LSTMOracle, seed: int = 0) -> None:
        self.oracle, self.seed = oracle, seed
        with isolated(seed + 2), torch.no_grad():
            self.floor = self._figures(oracle.sample(SAMPLES), None)

    def fast(self, sample: Callable[[int], Tensor]) -> dict[str, float]:
        """Figures of 2,000 samples, beside the floor of the NLL; changes no generator's state."""
        with isolated(self.seed + 1), torch.no_grad():
            found = self._figures(sample(SAMPLES), self.floor)
        return {name: float(value) for name, value in found.items()} | {"floor": float(self.floor["nll"])}

    def evaluate(self, sample: Callable[[int], Tensor], splits: int = 10) -> FigureReport:
        """Every figure of a sampler, with the oracle's own beside them."""
        integer("splits", splits)
        rows = {}
        with isolated(self.seed), torch.no_grad():
            for name, draw in (("generated", sample), ("oracle", self.oracle.sample)):
                found = [self._figures(draw(SAMPLES), self.floor) for _ in range(splits)]
                rows[name] = {f: Estimate.of(torch.stack([figures[f] for figures in found])) for f in FIGURES}
        notes = {
            "generated": f"{splits} draws of {SAMPLES:,} sequences; mean ± standard error",
            "oracle": f"{splits} draws of the oracle itself: the floor",
            **dict(FIGURES.values()),
        }
        return FigureReport(SAMPLES, splits, rows, {name: told for name, (told, _) in FIGURES.items()}, notes)

    def _figures(self, x: Tensor, floor: dict[str, Tensor] | None) -> dict[str, Tensor]:
        vocab = self.oracle.vocab_size
        found = {
            "nll": (-self.oracle.log_prob(x).double() / self.oracle.length).mean().cpu(),
            "entropy": ngram_diversity(x, vocab, min(3, self.oracle.length))["entropy"][-1].cpu(),
            "duplicates": duplicates(x, vocab).cpu(),
        }
        if floor is not None:
            found["gap"] = sum(((found[f] - floor[f]).abs() for f in ("nll", "entropy")), torch.zeros((), device="cpu"))
        return found


@dataclass(frozen=True)
class SequenceOracle(AgentConfig):
    """Train an agent that writes sequences on a seeded LSTM oracle, whose probabilities are known.

    With --reward oracle it is paid log p(x), and with --entropy 1 the best policy is the oracle itself, by reverse KL;
    with less entropy it writes what is likely. With --reward discriminator it is paid by a discriminator that learns
    beside it from 10,000 sequences, from nothing: no likelihood is trained first. A minute or two on one core.
    """

    name: ClassVar[str] = "sequence-oracle"

    reward: RewardName = "oracle"
    """oracle (log p(x) of the finished sequence) or discriminator."""
    vocab: int = 20
    """Tokens."""
    length: int = 10
    """Tokens of a sequence."""
    oracle_hidden: int = 32
    """Units of the oracle."""
    oracle_seed: int = 0
    """Of the oracle's weights."""
    width: int = 64
    """Units of the policy."""
    entropy: float = 1.0
    """Weight of the policy's entropy beside the reward; with --reward discriminator, about 0.02."""

    def validate(self) -> None:
        """As for every agent, and the oracle's own options."""
        super().validate()
        choice("reward", self.reward, get_args(RewardName))
        if GAMES[self.objective].penalties:
            raise ValueError(f"--objective {self.objective} has a penalty on the slope, and tokens have none")
        integer("--vocab", self.vocab, 2)
        for name in ("length", "oracle_hidden"):
            integer("--" + name.replace("_", "-"), getattr(self, name))
        integer("--oracle-seed", self.oracle_seed, 0)

    def policy_for(self, shape: tuple[int, ...]) -> GRUPolicy:
        """The untrained policy: what :func:`advrl.load` fills with weights."""
        return GRUPolicy(self.vocab, self.length, self.width)

    def build(self, device: torch.device) -> AgentParts:
        """All parts of the run."""
        oracle = LSTMOracle(self.vocab, self.length, self.oracle_hidden, seed=self.oracle_seed)
        oracle.policy.to(device)
        adversary = None
        real: Tensor | Turns = Turns(self.batch_size, device)
        reward: Any = oracle.log_prob
        if self.reward == "discriminator":
            with isolated(self.oracle_seed):
                real = oracle.sample(TRAIN)
            discriminator = CNNDiscriminator(self.vocab, self.length, filters=FILTERS).to(device)
            reward = DiscriminatorScore(discriminator, GAMES[self.objective].objective)
            adversary = Adversary(reward, lr=self.lr_discriminator, updates=self.discriminator_steps)
        task = SequenceGeneration(self.vocab, self.length, reward, device=device)
        policy = self.policy_for((self.length,)).to(device)
        return AgentParts(
            data=SimpleNamespace(shape=(self.length,)),
            real=real,
            trainer=self.trainer(policy, task, adversary),
            evaluator=OracleEvaluator(oracle),
            about=f"an LSTM oracle of seed {self.oracle_seed}, {self.vocab} tokens, length {self.length}; "
            f"paid by the {self.reward}",
            monitor="gap",
            chosen_by="gap of NLL and 3-gram entropy to the oracle's own",
            pictured="sequences, a row each, a colour for each token",
            draw=self._draw,
        )

    def save_picture(self, samples: Tensor, path: Path) -> None:
        """Write a picture of sequences: a row each, a colour for each token."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(4, 4), layout="constrained")
        axes = figure.subplots()
        axes.imshow(samples.cpu().numpy(), cmap="turbo", vmin=0, vmax=self.vocab - 1, aspect="auto")
        axes.set(xlabel="place", ylabel="sequence")
        save_figure(figure, path)

    def _draw(self, policy: Any, step: int, path: Path) -> None:
        with isolated(1):
            self.save_picture(policy.sample(64), path)
