"""Evaluation on a mixture that is known: modes, quality and evenness of fresh samples, beside a perfect sampler's.

Nothing is held out, since real points are drawn afresh for every batch and there is nothing to learn by heart.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from advrl import checks, seeding
from advrl.agents.report import WIDTH, Estimate, as_json, table
from advrl.data import Mixture
from advrl.metrics import ModeCoverage, mode_coverage

SAMPLES = 10_000  # of a draw: a share of .9 is then known to .003
Sample = Callable[[int], Tensor]

FIGURES = {
    "modes": ("modes", "modes that hold at least one sample of high quality"),
    "high_quality": ("high quality", "share of samples within 3 standard deviations of the nearest centre"),
    "spread": (
        "spread",
        "how wide modes are: offset of a coordinate from the centre, in standard deviations, among these samples",
    ),
    "kl": (
        "KL",
        "from equal shares to those of the modes among samples of high quality, in nats; inf if one is missed",
    ),
    "reverse_kl": ("reverse KL", "the other way round, as PacGAN prints it: log K if all samples are in one mode"),
    "divergence": (
        "divergence",
        "KL of the shares of the modes and of what lies outside from the perfect sampler's: 0 is perfect; checkpoints "
        "are chosen by it",
    ),
}


@dataclass(frozen=True)
class ModeReport:
    """What :meth:`ModeEvaluator.evaluate` found; ``str()`` is a table for people.

    Args:
        data: the mixture's name.
        definition: what it is.
        n: samples of a draw.
        splits: independent draws.
        rows: by name (``generated``, ``perfect sampler``), then by figure.
        class_shares: share of each mode among samples of high quality, of the generator (the mean
            over draws that have such samples; empty if none has) and of the mixture.
    """

    data: str
    definition: str
    n: int
    splits: int
    rows: dict[str, dict[str, Estimate]]
    class_shares: dict[str, list[float]]

    kind: ClassVar[str] = "mode"  # what the shares are of

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dictionaries; a figure that is not finite is None, as JSON has none."""
        return {
            "data": self.data,
            "definition": self.definition,
            "n": self.n,
            "splits": self.splits,
            "rows": as_json(self.rows),
            "class_shares": {name: list(shares) for name, shares in self.class_shares.items()},
        }

    def __str__(self) -> str:
        lines = [[name, *(row[f].cell() for row in self.rows.values())] for f, (name, _) in FIGURES.items()]
        notes = {
            "data": f"{self.data}: {self.definition}",
            "generated": f"{self.splits} draws of {self.n:,} samples; mean ± standard error",
            "perfect sampler": f"{self.splits} draws of {self.n:,} points of the mixture: what there is to reach",
            **dict(FIGURES.values()),
        }
        indent = max(map(len, notes)) + 2
        explained = (
            textwrap.fill(f"{name:<{indent}}{note}", WIDTH, subsequent_indent=" " * indent)
            for name, note in notes.items()
        )
        return table([["", *self.rows], *lines]) + "\n\n" + "\n".join(explained)


class ModeEvaluator:
    """Judges samplers of one mixture.

    Args:
        mixture: on the device where samples are.
        seed: of the samples drawn; no business of a run's own seed.
    """

    def __init__(self, mixture: Mixture, seed: int = 0) -> None:
        self.mixture, self.seed = mixture, checks.integer("seed", seed, minimum=0)

    def evaluate(self, sample: Sample, splits: int = 10) -> ModeReport:
        """Every figure of a sampler, with a perfect sampler's beside them; changes no generator's state.

        Args:
            sample: from a number n to points (n, E).
            splits: independent draws of 10,000 samples, for means and standard errors.

        Raises:
            ValueError: if samples have another shape or are not finite.
        """
        checks.integer("splits", splits)
        found, row = self._judge(sample, splits)
        _, perfect = self._judge(self.mixture.sample, splits)
        shares = [coverage.shares for coverage in found if coverage.high_quality > 0]  # else there are none
        return ModeReport(
            data=self.mixture.name,
            definition=self.mixture.definition,
            n=SAMPLES,
            splits=splits,
            rows={"generated": row, "perfect sampler": perfect},
            class_shares={
                "generated": torch.stack(shares).mean(0).tolist(),
                "mixture": [1 / self.mixture.modes] * self.mixture.modes,
            }
            if shares
            else {},
        )

    def fast(self, sample: Sample) -> dict[str, float]:
        """Figures of 10,000 samples to follow a run and to choose checkpoints by; changes no generator's state.

        They come from other noise than those of :meth:`evaluate`, so that the choice does not flatter the result.
        """
        with seeding.isolated(self.seed + 1), torch.no_grad():
            coverage = self._coverage(sample)
        return {name: float(getattr(coverage, name)) for name in ("modes", "high_quality", "reverse_kl", "divergence")}

    def _judge(self, sample: Sample, splits: int) -> tuple[list[ModeCoverage], dict[str, Estimate]]:
        with seeding.isolated(self.seed), torch.no_grad():
            found = [self._coverage(sample) for _ in range(splits)]
        return found, {f: Estimate.of(torch.stack([getattr(c, f) for c in found])) for f in FIGURES}

    def _coverage(self, sample: Sample) -> ModeCoverage:
        points = sample(SAMPLES)
        if tuple(points.shape) != (SAMPLES, *self.mixture.shape):
            raise ValueError(
                f"sample({SAMPLES}) must have shape {(SAMPLES, *self.mixture.shape)}, got {tuple(points.shape)}"
            )
        return mode_coverage(points, self.mixture.centres, self.mixture.std)
