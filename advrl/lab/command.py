"""``advrl compare``: what the command line can be told, and what it does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from advrl.checks import choice, integer, number, words
from advrl.device import resolve_device
from advrl.distributed import first, process_group
from advrl.estimators import ESTIMATORS, Estimator, make_estimator
from advrl.lab.compare import compare
from advrl.lab.problem import Known
from advrl.lab.table import Table


@dataclass(frozen=True)
class Compare:
    """Options of ``advrl compare PROBLEM``."""

    estimators: str = ""
    """Which, by name, with commas between. Default: all that fit the problem, or those the problem names."""
    samples: str = ""
    """Samples per estimate, one number or several with commas between; each estimator is compared at each."""
    replicates: int | None = None
    """Independent estimates behind every row."""
    temperature: float = 1.0
    """Of the relaxations."""
    warmup: int = 0
    """Batches that learned parts (critics, control variates) are trained on before they are measured."""
    seed: int = 0
    """Of all draws."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    out: Path | None = None
    """Folder for the table (CSV, JSON, LaTeX) and the figures. Default: the next free runs/compare-PROBLEM-N."""


def options_for(problem: type[Known]) -> type[Any]:
    """The options above with those of the problem itself (``--theta``, say)."""
    return dataclasses.make_dataclass(
        f"Compare{problem.__name__}",
        [("problem", Annotated[problem, tyro.conf.arg(name="")], dataclasses.field(default_factory=problem))],
        bases=(Compare,),
        frozen=True,
    )


def run(options: Any, folder: Callable[[], Path], say: Callable[[str], None] = print) -> None:
    """Compare, print the table, write it and its figures; the ranks that ``torchrun`` started share the replicates.

    Args:
        options: what :func:`options_for` was parsed into.
        folder: where to, if the options do not say.
        say: where the report goes.

    Raises:
        ValueError, TypeError: for names that do not exist (the close match is given) and numbers out of range.
    """
    known: Known = options.problem
    sizes = _sizes(options.samples) or known.samples
    replicates = known.replicates if options.replicates is None else integer("--replicates", options.replicates, 2)
    number("--temperature", options.temperature, 0.0, exclusive=True)
    integer("--warmup", options.warmup, 0)
    device = resolve_device(options.device)
    names = words(options.estimators) or list(known.rows) or [*ESTIMATORS, *known.estimators(2)]
    for name in names:
        choice("estimator", name, [*ESTIMATORS, *known.estimators(2)])
    series: dict[str, Sequence[Estimator]] = {}
    impossible: dict[str, str] = {}
    for name in names:
        made = []
        for n in sizes:
            own = known.estimators(n)
            try:
                made.append(own[name] if name in own else make_estimator(name, n=n, temperature=options.temperature))
            except ValueError as error:  # leave-one-out of one sample, for instance: the other sizes may do
                impossible[name] = f"{error}"
        if made:
            series[name] = made
    if not series:
        raise ValueError("; ".join(impossible.values()))
    with process_group(device):
        table = compare(series, known, replicates=replicates, device=device, seed=options.seed, warmup=options.warmup)
        table = dataclasses.replace(table, refused={**impossible, **table.refused})
        first(lambda: _report(table, options.out or folder(), say))


def _report(table: Table, folder: Path, say: Callable[[str], None]) -> None:
    from advrl.lab.figures import save_figures

    say(str(table))
    written = [*table.save(folder), *save_figures(table, folder)]
    say("\nWritten:\n" + "\n".join(f"  {path}" for path in written))


def overview() -> str:
    """What ``advrl compare --list`` prints."""
    from advrl.lab import PROBLEMS

    problems = "\n".join(f"  {name:<20} {first_sentence(cls)}" for name, cls in PROBLEMS.items())
    estimators = "\n".join(f"  {name:<20} {entry.summary}" for name, entry in ESTIMATORS.items())
    return f"""\
problems
{problems}

estimators
{estimators}"""


def first_sentence(cls: type[Any]) -> str:
    """Of a docstring."""
    return " ".join((cls.__doc__ or "").strip().split("\n\n")[0].split()).split(";")[0].rstrip(".")


def _sizes(text: str) -> tuple[int, ...]:
    sizes = []
    for word in words(text):
        if not word.isdecimal():
            raise ValueError(f"--samples takes whole numbers with commas between, got {word!r}")
        sizes.append(integer("--samples", int(word)))
    return tuple(sizes)
