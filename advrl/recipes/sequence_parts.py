"""The parts of a run that trains a writer of sequences, and how its sequences go on from a beginning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from advrl.agents import Every
from advrl.agents.switched import evaluating
from advrl.checks import number
from advrl.data import Vocabulary
from advrl.distributed import rank
from advrl.distributions import sample_categorical
from advrl.files import write_atomically
from advrl.nn.embedding_generator import EmbeddingGenerator
from advrl.seeding import isolated

VOCABULARY = "vocabulary.json"
SHOWN = 20
HELD_OUT = 500


@dataclass(frozen=True)
class SequenceParts:
    """A run's parts."""

    data: Any
    real: Tensor
    trainer: Any
    evaluator: Any
    vocabulary: Vocabulary
    about: str
    monitor: str
    chosen_by: str
    begin: int = 0
    """No checkpoint is chosen up to this step: the policy has not met the discriminator yet."""

    held_out: Tensor | None = None
    """Real sequences (N, T) that the discriminator never learns from, on the trainer's device."""

    pictured: ClassVar[str] = "sentences"

    def callbacks(self, folder: Path, every: int) -> list[Every]:
        """The quick evaluation and some sentences, every so many steps; the vocabulary goes into the folder at once."""
        policy: Any = self.trainer.average
        if rank() == 0:
            self.vocabulary.save(folder / VOCABULARY)

        def judge(step: int) -> Mapping[str, float]:
            found = dict(self.evaluator.fast(policy))
            if self.held_out is not None and getattr(self.trainer, "discriminator", None) is not None:
                found["logit_held_out"] = float(self.trainer.mean_logit(self.held_out))
            if step <= self.begin and self.monitor in found:
                found[f"pretrained_{self.monitor}"] = found.pop(self.monitor)
            return found

        def write(step: int) -> None:
            with isolated(1), evaluating(policy):
                lines = self.vocabulary.decode(policy.sample(SHOWN).cpu())
            write_atomically(folder / "samples" / f"step-{step:06d}.txt", ("\n".join(lines) + "\n").encode())

        return [Every(every, judge), Every(every, write)]


@torch.no_grad()
def continued(policy: Any, begun: Tensor, temperature: float = 1.0) -> Tensor:
    """Sequences (n, T) that begin as ``begun`` (n, t) and go on by the policy.

    Raises:
        ValueError: if the beginning is as long as a sequence may be.
    """
    number("temperature", temperature, 0.0, exclusive=True)
    n, start = begun.shape
    if start >= policy.length:
        raise ValueError(f"the prompt has {start} tokens, and a line has at most {policy.length}")
    if isinstance(policy, EmbeddingGenerator):
        return policy.continued(begun, temperature)
    state, tokens = policy.start(n), None
    columns, alive = [], torch.ones(n, dtype=torch.bool, device=begun.device)
    for t in range(policy.length):
        logits, state = policy.step(tokens, state)
        drawn = sample_categorical(logits / temperature)
        tokens = begun[:, t] if t < start else torch.where(alive, drawn, policy.outcomes)
        alive = alive & (tokens != policy.vocab_size)
        columns.append(tokens)
    return torch.stack(columns, 1)
