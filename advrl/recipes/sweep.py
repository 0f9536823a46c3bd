"""Temperature sweeps of a run that writes sequences: quality against diversity, beside a run of maximum likelihood."""

from __future__ import annotations

import itertools
import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from advrl.agents.report import WIDTH, Estimate, FigureReport, table
from advrl.checks import integer
from advrl.files import write_atomically, write_csv
from advrl.metrics import Tradeoff, diversity_at, shared_quality, tradeoff_gap
from advrl.nn.sequences import WritingPolicy
from advrl.recipes.language_judge import LanguageJudge
from advrl.recipes.run import Run, RunError, judged


class Axes(NamedTuple):
    """What a sweep is drawn by: a figure of quality and one of diversity, both losses."""

    quality: str
    diversity: str


LIKELIHOODS, MODELS = Axes("nll_oracle", "nll_test"), Axes("LM", "reverse LM")
SWEPT = 2_000  # sentences behind each reverse language model of a sweep
SHOWN = {
    LIKELIHOODS: ("nll_oracle", "nll_test", "reverse_kl", "forward_kl", "ngram_entropy", "duplicates"),
    MODELS: ("LM", "reverse LM", "nll", "BLEU-4", "self-BLEU-4", "Fréchet", "entropy", "duplicates"),
}
NAMES = {LIKELIHOODS: "NLL_oracle and NLL_test, nats per token", MODELS: "LM and reverse LM score, nats per token"}


class Tempered(nn.Module):
    """A policy that is sampled, and has its likelihood, at a temperature.

    Raises:
        RunError: if it has none, as what writes vectors.
    """

    def __init__(self, policy: Any, temperature: float) -> None:
        if not isinstance(policy, WritingPolicy):
            raise RunError(
                f"{type(policy).__name__} has no temperature: a sweep needs a policy that writes token by token"
            )
        super().__init__()
        self.policy, self.temperature = policy, temperature

    @property
    def outcomes(self) -> int:
        """Of a step."""
        return self.policy.outcomes

    def distribution(self) -> Any:
        """The law at the temperature."""
        return self.policy.distribution(temperature=self.temperature)

    def sample(self, n: int) -> Tensor:
        """(n, T) sequences."""
        return self.policy.sample(n, temperature=self.temperature)

    def log_probs(self, x: Tensor) -> Tensor:
        """(n, T) of given sequences, step by step."""
        found: Tensor = self.distribution().log_probs(x)
        return found


def temperatures(text: str) -> tuple[float, ...]:
    """``0.6:1.4:9`` is nine of them, equally far apart; ``0.7,1,1.3`` is a list.

    Raises:
        ValueError: if it is neither, or they do not increase from above 0.
    """
    try:
        if ":" in text:
            low, high, count = text.split(":")
            found = tuple(
                torch.linspace(float(low), float(high), integer("count", int(count), 2), device="cpu").tolist()
            )
        else:
            found = tuple(float(word) for word in text.split(","))
    except ValueError as error:
        raise ValueError(
            f"--temperatures must be LOW:HIGH:COUNT, as 0.6:1.4:9, or a list, as 0.7,1,1.3; got {text!r}"
        ) from error
    found = tuple(round(value, 6) for value in found)
    if found[0] <= 0 or len(found) < 2 or any(b <= a for a, b in itertools.pairwise(found)):
        raise ValueError(f"--temperatures must be at least two that increase from above 0, got {text!r}")
    return found


@dataclass(frozen=True)
class Sweep:
    """What a run's samples are like at each temperature.

    Args:
        rows: a figure's estimate by name, for each temperature; that of real data last, by ``reference``.
        temperature: (K,).
        axes: the two figures that its curve is drawn by.
        reference: figures of real data.
        notes: what the figures are.
    """

    rows: Sequence[Mapping[str, Estimate]]
    temperature: Sequence[float]
    axes: Axes
    reference: Mapping[str, Estimate]
    notes: Mapping[str, str]

    @property
    def curve(self) -> Tradeoff:
        """Quality and diversity, both losses."""
        quality, diversity = ([row[name].mean for row in self.rows] for name in self.axes)
        return Tradeoff(_vector(self.temperature), _vector(quality), _vector(diversity))

    @property
    def floor(self) -> tuple[float, float]:
        """What real data have."""
        if self.axes is LIKELIHOODS:
            return (self.rows[0]["floor"].mean,) * 2
        quality, diversity = (self.reference[name].mean for name in self.axes)
        return quality, diversity


def sweep(
    run: Run, at: Sequence[float], parts: Any = None, judge: LanguageJudge | None = None, samples: int = 2_000
) -> Sweep:
    """Judge a run at each temperature, by the figures of its own report, and for text by language models too.

    Args:
        run: of ``advrl train text`` or of an oracle recipe.
        at: temperatures.
        parts: of the run, if they are built already.
        judge: the language models of its corpus, if there are some already.
        samples: behind each figure (of text: behind those of language models, as the judge says).

    Raises:
        RunError: if it writes no sequences token by token.
    """
    parts = parts or run.config.build(run.device)
    text = hasattr(parts.evaluator, "vocab")
    policy: Any = run.policy
    if not isinstance(policy, WritingPolicy) or not (text or hasattr(parts.evaluator, "oracle")):
        raise RunError(f"{run.folder} writes no sequences token by token: --temperatures is for those that do")
    if text:
        judge = judge or LanguageJudge(parts.evaluator, SWEPT)
    rows, report = [], None
    for temperature in at:
        report = _report(parts, Tempered(policy, temperature).eval(), judge, max(1, samples // 200))
        rows.append(report.rows["generated"])
    assert report is not None
    reference = next(row for name, row in report.rows.items() if name != "generated")
    return Sweep(rows, list(at), MODELS if text else LIKELIHOODS, reference, report.notes)


def sweep_against(run: Run, at: Sequence[float], other: Run | None) -> tuple[Sweep, Sweep | None]:
    """Sweeps of a run and, if given, of another, under one judge and over the same temperatures.

    Raises:
        RunError: if one of them writes no sequences, or they write other ones (length or vocabulary).
    """
    parts = run.config.build(run.device)
    judge = LanguageJudge(parts.evaluator, SWEPT) if hasattr(parts.evaluator, "vocab") else None
    own = sweep(run, at, parts, judge)
    if other is None:
        return own, None
    mine, theirs = ([getattr(r.policy, name, None) for name in ("vocab_size", "length")] for r in (run, other))
    if mine != theirs:
        raise RunError(f"{other.folder} writes other sequences (tokens and length {theirs}) than {run.folder} ({mine})")
    return own, sweep(other, at, parts, judge)


def _report(parts: Any, policy: Tempered, judge: LanguageJudge | None, splits: int) -> FigureReport:
    report: Any
    if hasattr(parts.evaluator, "of"):
        report = judged(parts, policy, splits=splits if judge is None else 2)
    else:  # of an agent, which is judged by samples alone
        from advrl.recipes.oracles import OracleJudge

        report = OracleJudge(parts.evaluator.oracle, next(policy.parameters()).device).of(policy, splits)
    found: FigureReport = report if judge is None else judge.extended(report, policy)
    return found


def sweep_text(name: str, own: Sweep, against: Sweep | None = None, other: str = "--against") -> str:
    """The table, and what the curves say of each other at equal quality."""
    shown = [figure for figure in SHOWN[own.axes] if figure in own.rows[0]]
    lines = [["temperature", *shown]]
    for told, one in ((name, own), (other, against)):
        if one is None:
            continue
        lines += [
            [f"{told}  T={t:g}", *(row[f].cell() for f in shown)]
            for t, row in zip(one.temperature, one.rows, strict=True)
        ]
    lines.append(["real", *(own.reference[f].cell() if f in own.reference else "-" for f in shown)])
    parts = [table(lines)]
    if own.axes is LIKELIHOODS:
        parts.append(f"floor      {own.floor[0]:.3f} nats per token: NLL_oracle below it is lost diversity")
    if against is not None:
        parts.append(compared(own, against, name, other))
    named = ("generated", *shown, "models")
    notes = [
        textwrap.fill(f"{n:<15}{own.notes[n]}", WIDTH, subsequent_indent=" " * 15) for n in named if n in own.notes
    ]
    return "\n\n".join([*parts, "\n".join(notes)] if notes else parts)


def compared(own: Sweep, against: Sweep, name: str, other: str) -> str:
    """Diversity at matched quality, and its mean difference over the quality that both sweeps have."""
    quality, diversity = own.axes
    try:
        low, high = shared_quality(own.curve, against.curve)
    except ValueError as error:
        return f"{name} and {other} cannot be compared: {error}"
    grid = torch.linspace(low, high, 5, dtype=torch.float64, device="cpu")
    lines = [[f"{quality} =", *(f"{q:.3f}" for q in grid.tolist())]]
    for told, one in ((name, own), (other, against)):
        lines.append([f"{diversity}, {told}", *(f"{d:.3f}" for d in diversity_at(one.curve, grid).tolist())])
    gap = tradeoff_gap(own.curve, against.curve)
    verdict = "level with" if gap == 0 else "ahead of" if gap < 0 else "behind"
    return (
        f"At equal quality ({NAMES[own.axes]}; both are losses):\n{table(lines)}\n"
        f"mean gap in {diversity} {gap:+.4f}: {name} is {verdict} {other}"
    )


def as_rows(name: str, swept: Sweep, **more: Any) -> list[dict[str, Any]]:
    """A row for each temperature and one of real data, each figure with its standard error."""
    rows = [(f"{t:g}", row) for t, row in zip(swept.temperature, swept.rows, strict=True)]
    return [
        {"run": name if t else "real", "temperature": t, **more}
        | {key: value for f, e in row.items() for key, value in ((f, _number(e.mean)), (f"{f}_se", _number(e.error)))}
        for t, row in [*rows, ("", swept.reference)]
    ]


def write_sweep(out: Path, name: str, own: Sweep, against: Sweep | None = None, other: str = "--against") -> list[Path]:
    """``sweep.csv``, ``sweep.json`` and ``plots/sweep.png`` in a run's folder."""
    from advrl.plots import tradeoff_plot

    rows = as_rows(name, own) + (as_rows(other, against)[:-1] if against is not None else [])
    paths = [out / "sweep.csv", out / "sweep.json", out / "plots" / "sweep.png"]
    write_csv(paths[0], rows)
    told: dict[str, Any] = {"rows": rows, "axes": own.axes._asdict(), "floor": own.floor}
    if against is not None:
        try:
            told["gap"] = tradeoff_gap(own.curve, against.curve)
        except ValueError:
            told["gap"] = None  # no quality that both have
    write_atomically(paths[1], json.dumps(told, indent=2).encode())
    curves = {name: own.curve} | ({other: against.curve} if against is not None else {})
    quality, diversity = (f"{axis}, nats per token" for axis in own.axes)
    tradeoff_plot(curves, floor=own.floor, out=paths[2], quality=quality, diversity=diversity)
    return paths


def _number(value: float | None) -> float | str:
    return "" if value is None else round(value, 5)


def _vector(values: Sequence[float]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.float64, device="cpu")
