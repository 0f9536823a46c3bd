"""The parts of a run that trains a writer of sequences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from advrl.agents import Every
from advrl.agents.switched import evaluating
from advrl.data import Vocabulary
from advrl.distributed import rank
from advrl.files import write_atomically
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
