"""A comparison as a table: printed, and as CSV, JSON and LaTeX."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from advrl.columns import columns
from advrl.files import csv_text, write_atomically
from advrl.lab.moments import Moments

WIDTH = 120
NAME = 17  # longer names are cut in print


@dataclass(frozen=True)
class Row:
    """One estimator on one problem. With P > 1 parameters, vectors are summed up in single numbers as said below.

    Args:
        name: of the estimator; rows of one name are one series over ``n``.
        n: its samples.
        settings: its class and arguments.
        unbiased: what it claims.
        replicates: estimates made.
        gradient: mean estimate, along the exact gradient if P > 1 (along a pilot estimate where none is known).
        gradient_error: its standard error.
        bias: mean minus exact gradient; if P > 1 the length of that vector, cleared of the noise's share.
        z: bias over its standard error; if P > 1 the largest of all coordinates in absolute value.
        bound: what |z| of an unbiased estimator exceeds once in a thousand tables rows.
        variance: of one estimate, summed over the P coordinates.
        variance_error: its standard error, from the fourth moment.
        closed_form: the exact variance, where known.
        evaluations: values of the cost that an estimate took.
        microseconds: that an estimate took, in batches, draws and backward included.
    """

    name: str
    n: int
    settings: str
    unbiased: bool
    replicates: int
    gradient: float
    gradient_error: float
    bias: float | None
    z: float | None
    bound: float
    variance: float
    variance_error: float
    closed_form: float | None
    evaluations: float
    microseconds: float

    @property
    def biased(self) -> bool:
        """Whether the bias stands out of the noise."""
        return self.z is not None and abs(self.z) > self.bound

    @property
    def variance_evaluations(self) -> float:
        """Variance times evaluations: what a fixed budget of evaluations leaves, up to a factor."""
        return self.variance * self.evaluations

    @property
    def variance_time(self) -> float:
        """Variance times microseconds: what a fixed time leaves, up to a factor."""
        return self.variance * self.microseconds


@dataclass(frozen=True)
class Table:
    """Rows of a comparison, what did not fit, and where it was made; printing it shows all of that.

    Args:
        problem: what was compared on.
        rows: one per estimator and sample size.
        refused: by name, why an estimator was left out.
        exact: the exact gradient's length (with its sign if P = 1), ``None`` where it is not known.
        parameters: P, how many numbers the gradient has.
        device: where.
        moments: the moments behind each row, vectors and all; not exported.
        draws: estimates behind each row's ``gradient``, for histograms; not exported.
    """

    problem: str
    rows: tuple[Row, ...]
    refused: Mapping[str, str]
    exact: float | None
    parameters: int
    device: str
    moments: tuple[Moments, ...] = field(default=(), compare=False, repr=False)
    draws: tuple[Tensor, ...] = field(default=(), compare=False, repr=False)

    def __getitem__(self, name: str) -> Row:
        """The first row of that name.

        Raises:
            KeyError: if there is none.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    def __str__(self) -> str:
        header, body = self._cells()
        lines = columns([header, *body])
        rule = "-" * max(map(len, lines))
        return "\n".join([self._title(), "", lines[0], rule, *lines[1:], *self._notes()])

    def _title(self) -> str:
        exact = "" if self.exact is None else f", exact gradient {_number(self.exact, 5)}"
        length = "" if self.parameters == 1 or self.exact is None else " long"
        many = "" if self.parameters == 1 else f" ({self.parameters} parameters)"
        return f"{self.problem}{exact}{length}{many}; {self.rows[0].replicates:,} estimates each, {self.device}"

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        known = any(row.closed_form is not None for row in self.rows)
        header = ["estimator", "n", "gradient ± se", "bias", "z", "variance ± se", "exact", "evals", "µs", "var×evals",
                  "var×µs"]  # fmt: skip
        body = [
            [
                row.name if len(row.name) <= NAME else row.name[: NAME - 1] + "…",
                str(row.n) if row.n < 10**6 else f"{row.n:.3g}",
                f"{_number(row.gradient)} ± {_number(row.gradient_error, 2)}",
                "" if row.bias is None else _number(row.bias, 2),
                "" if row.z is None else f"{_z(row.z)}{'*' if row.biased else ' '}",
                f"{_number(row.variance)} ± {_number(row.variance_error, 2)}",
                "" if row.closed_form is None else _number(row.closed_form),
                f"{row.evaluations:g}",
                _number(row.microseconds, 3),
                _number(row.variance_evaluations, 3),
                _number(row.variance_time, 3),
            ]
            for row in self.rows
        ]
        drop = ([] if known else [6]) + ([] if self.exact is not None else [3, 4])
        return [c for i, c in enumerate(header) if i not in drop], [
            [c for i, c in enumerate(line) if i not in drop] for line in body
        ]

    def _notes(self) -> list[str]:
        notes = []
        if any(row.biased for row in self.rows):
            notes.append("* biased: an unbiased estimator gets such a z once in a thousand rows")
        notes += [f"{name} left out: {reason}" for name, reason in self.refused.items()]
        return ["", *notes] if notes else []

    def to_csv(self) -> str:
        """One line per row, with every number in full."""
        further = ("variance_evaluations", "variance_time")
        return csv_text([asdict(row) | {name: getattr(row, name) for name in further} for row in self.rows])

    def to_json(self) -> str:
        """Everything but moments and draws; :meth:`from_json` reads it."""
        return json.dumps(
            {
                "problem": self.problem,
                "exact": self.exact,
                "parameters": self.parameters,
                "device": self.device,
                "refused": dict(self.refused),
                "rows": [asdict(row) for row in self.rows],
            },
            indent=2,
            ensure_ascii=False,
        )

    @classmethod
    def from_json(cls, text: str) -> Table:
        """The table that :meth:`to_json` wrote."""
        value: dict[str, Any] = json.loads(text)
        return cls(**{**value, "rows": tuple(Row(**row) for row in value["rows"])})

    def to_latex(self) -> str:
        """A tabular for LaTeX's booktabs."""
        header, body = self._cells()
        lines = [" & ".join(map(_latex, line)) + r" \\" for line in [header, *body]]
        columns = "l" + "r" * (len(header) - 1)
        return "\n".join([rf"\begin{{tabular}}{{{columns}}}", r"\toprule", lines[0], r"\midrule", *lines[1:],
                          r"\bottomrule", r"\end{tabular}", ""])  # fmt: skip

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``table.csv``, ``table.json`` and ``table.tex`` into a folder, and return their paths."""
        folder = Path(folder)
        texts = {"table.csv": self.to_csv(), "table.json": self.to_json() + "\n", "table.tex": self.to_latex()}
        return [write_atomically(folder / name, text.encode()) for name, text in texts.items()]


def _number(value: float, digits: int = 4) -> str:
    """A number in at most nine characters: plain where that is short, else with a power of ten."""
    if value == 0:
        return "0"
    if 1e-4 <= abs(value) < 10**6:
        text = f"{value:.{digits}g}"
        return f"{value:,.0f}" if "e" in text else text
    mantissa, power = f"{value:.{max(digits - 2, 0)}e}".split("e")
    return f"{mantissa}e{int(power)}"


def _z(value: float) -> str:
    return f"{value:.1f}" if abs(value) < 1000 else f"{value:.0e}".replace("e+0", "e")


def _latex(cell: str) -> str:
    text = cell.replace("%", r"\%").replace("_", r"\_").replace("&", r"\&")
    return text.replace("±", r"$\pm$").replace("×", r"$\times$").replace("µ", r"$\mu$").replace("…", r"\ldots{}")
