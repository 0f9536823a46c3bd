"""The result of an evaluation: figures to compute with, and the table that says what they mean."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from advrl.columns import columns

FIGURES = {
    "frechet": ("Fréchet", "squared distance of Gaussians fitted to the features: lower is better"),
    "precision": ("precision", "share of samples within the real set: higher is better, as for the next three"),
    "recall": ("recall", "share of real images within the set of samples"),
    "density": ("density", "how deep within the real set samples lie: about 1 for real images"),
    "coverage": ("coverage", "share of real images with a sample near by"),
    "confident": ("confident", "share that the classifier gives one class at least .9: be near the held-out half's"),
    "memorisation": (
        "copy ratio",
        "distance to the nearest training image over that to the nearest held-out one, on pixels: "
        "1 for fresh samples, 0 for copies",
    ),
    "class_accuracy": ("class accuracy", "share that the classifier puts in the class that was asked for"),
    "code_accuracy": (
        "code accuracy",
        "the same, with the codes matched to the classes one to one as well as they can be",
    ),
    "test_error": ("test error", "share of the held-out half that the discriminator puts in another class"),
}
WIDTH = 100


class Estimate(NamedTuple):
    """A mean, and its standard error where there were several draws."""

    mean: float
    error: float | None = None

    @classmethod
    def of(cls, values: Tensor) -> Estimate:
        """From one value per draw, (splits,)."""
        several = len(values) > 1 and bool(values.isfinite().all())
        return cls(float(values.mean()), float(values.std() / len(values) ** 0.5) if several else None)

    def cell(self) -> str:
        """As a table shows it."""
        return f"{self.mean:.3f}" + ("" if self.error is None else f" ± {self.error:.3f}")


@dataclass(frozen=True)
class Report:
    """What :meth:`advrl.agents.evaluation.Evaluator.evaluate` found; ``str()`` is a table for people.

    Args:
        data: name of the data set.
        n: samples, and real images, in each comparison.
        splits: draws of n samples.
        k: neighbour of precision, recall, density and coverage.
        real: numbers of images in the training and the held-out half.
        features: what they are.
        accuracy: the classifier's on held-out images, or None without labels.
        rows: by name (``generated``, ``real halves``, ``training half``, ``held-out half``), then by figure.
        class_shares: of samples and of held-out images, by the classifier; empty without labels.
        shares_from: samples behind the generated class shares.
    """

    data: str
    n: int
    splits: int
    k: int
    real: tuple[int, int]
    features: str
    accuracy: float | None
    rows: dict[str, dict[str, Estimate]]
    class_shares: dict[str, list[float]]
    shares_from: int

    kind: ClassVar[str] = "class"  # what the shares are of

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dictionaries; a figure that is not finite is None, as JSON has none."""
        return {
            "data": self.data,
            "n": self.n,
            "splits": self.splits,
            "k": self.k,
            "training_images": self.real[0],
            "held_out_images": self.real[1],
            "features": self.features,
            "classifier_accuracy": self.accuracy,
            "rows": as_json(self.rows),
            "class_shares": {name: list(shares) for name, shares in self.class_shares.items()},
            "class_shares_from": self.shares_from,
        }

    def __str__(self) -> str:
        parts = [table([["", *self.rows], *self._figures()])]
        if self.class_shares:
            parts.append(self._shares())
        parts.append("\n".join(self._definitions()))
        return "\n\n".join(parts)

    def _shown(self) -> list[str]:
        return [figure for figure in FIGURES if any(figure in row for row in self.rows.values())]

    def _figures(self) -> list[list[str]]:
        """One line for each figure, one column for each row of the report: the sheet fits a terminal that way."""
        return [
            [FIGURES[f][0], *(row[f].cell() if f in row else "-" for row in self.rows.values())] for f in self._shown()
        ]

    def _shares(self) -> str:
        """Class shares in per cent, as many columns at a time as fit."""
        number = len(next(iter(self.class_shares.values())))
        tables = []
        for start in range(0, number, 10):
            part = range(start, min(start + 10, number))
            lines = [["% of class", *map(str, part)]]
            lines += [[name, *(f"{100 * shares[i]:.1f}" for i in part)] for name, shares in self.class_shares.items()]
            tables.append(table(lines))
        made = self.class_shares["generated"]
        least, most = min(range(number), key=made.__getitem__), max(range(number), key=made.__getitem__)
        summary = (
            f"generated: least class {least} ({100 * made[least]:.1f} %), most class {most} ({100 * made[most]:.1f} %) "
            f"of {self.shares_from:,} samples"
        )
        return "\n".join([*tables, summary])

    def _definitions(self) -> list[str]:
        train, held_out = self.real
        accuracy = "" if self.accuracy is None else f", {100 * self.accuracy:.1f} % right on the held-out half"
        notes = {
            "data": f"{self.data}: {train:,} training and {held_out:,} held-out images",
            "features": f"{self.features}{accuracy}",
            "generated": f"{self.splits} draws of {self.n:,} samples, each against {self.n:,} held-out images; "
            "mean ± standard error",
            "real halves": f"{self.splits} random pairs of {self.n:,} of all real images against each other: "
            "what there is to reach",
            "training half": "its images as samples, against the held-out half: what copying scores",
            **dict(FIGURES[figure] for figure in self._shown()),
        }
        if "precision" in notes:
            notes["precision"] += f" (k = {self.k})"
        indent = max(map(len, notes)) + 2
        return [
            textwrap.fill(f"{name:<{indent}}{note}", WIDTH, subsequent_indent=" " * indent)
            for name, note in notes.items()
        ]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def as_json(rows: Mapping[str, Mapping[str, Estimate]]) -> dict[str, Any]:
    """Rows of estimates as plain dictionaries."""
    return {
        name: {
            figure: {"mean": _finite(estimate.mean), "standard_error": _finite(estimate.error)}
            for figure, estimate in row.items()
        }
        for name, row in rows.items()
    }


def table(lines: list[list[str]]) -> str:
    """Columns aligned: names to the left, figures by their means, heads above them to the right."""
    head, *body = lines
    names, *figures = ([line[i] for line in body] for i in range(len(head)))
    aligned = [names]
    for column in figures:
        pairs = [cell.partition(" ± ") for cell in column]
        left = max(len(mean) for mean, _, _ in pairs)
        right = max(len(sign + error) for _, sign, error in pairs)
        aligned.append([f"{mean:>{left}}{sign + error:<{right}}" for mean, sign, error in pairs])
    return "\n".join(columns([head, *zip(*aligned, strict=True)], gap="   "))


@dataclass(frozen=True)
class FigureReport:
    """Figures of samples beside those of what there is to reach; ``str()`` is a table for people.

    Args:
        n: samples in each draw.
        splits: draws.
        rows: by name (``generated`` and others), then by figure.
        figures: what the table calls each, in its order.
        notes: what the rows and the figures are.
    """

    n: int
    splits: int
    rows: dict[str, dict[str, Estimate]]
    figures: dict[str, str]
    notes: dict[str, str]

    class_shares: ClassVar[dict[str, list[float]]] = {}

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dictionaries."""
        return {"n": self.n, "splits": self.splits, "rows": as_json(self.rows), "class_shares": {}}

    def __str__(self) -> str:
        lines = [
            [told, *(row[name].cell() if name in row else "-" for row in self.rows.values())]
            for name, told in self.figures.items()
        ]
        indent = max(map(len, self.notes)) + 2
        notes = (textwrap.fill(f"{name:<{indent}}{note}", WIDTH, subsequent_indent=" " * indent)
                 for name, note in self.notes.items())  # fmt: skip
        return table([["", *self.rows], *lines]) + "\n\n" + "\n".join(notes)
