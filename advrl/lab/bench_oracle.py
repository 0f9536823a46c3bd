"""``advrl bench oracle``: sequence GANs on an oracle whose probabilities are known, beside tempered likelihood.

Both likelihoods, both divergences to the oracle, entropy and duplicates, over seeds and temperatures; the floor and the
published rows beside them, with what those are worth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advrl.files import write_atomically, write_csv
from advrl.lab.bench_sequences import (
    JUDGED,
    Bench,
    Rows,
    SequenceOptions,
    budgets,
    by_temperature,
    cell,
    check,
    curves,
    gaps,
    line,
    over_seeds,
    play,
    table_lines,
)
from advrl.lab.published_sequences import ORACLE, ORACLE_PROTOCOL, WHICH

FIGURES = ("nll_oracle", "nll_test", "reverse_kl", "forward_kl", "ngram_entropy", "duplicates")
HEAD = ("", "T", "seeds", "NLL_oracle", "NLL_test", "reverse KL", "forward KL", "3-gram entropy", "duplicates")
AXES = ("nll_oracle", "nll_test")
DEFINITIONS = """\
NLL_oracle    -log O of the samples: below the floor, what is likely again and again
NLL_test      -log G of held-out sequences of the oracle: high if some are forgotten
KL            reverse KL(G || O), forward KL(O || G): both 0 for a perfect generator alone
3-gram entropy, duplicates   of a draw's samples; be near the oracle's own
±             half of Student's 95 % interval over seeds; nats per token. T is the temperature"""


@dataclass(frozen=True)
class Options(SequenceOptions):
    """Sequence GANs on an oracle: both likelihoods and divergences over seeds, beside tempered maximum likelihood.

    Writes sweeps.csv (a row for each run and temperature; the study goes on from there), table.csv, report.md and
    tradeoff.png. Every game begins with the maximum-likelihood run of its seed.
    """

    oracle: Path | None = None
    """The published oracle's arrays, seqgan_oracle.npz, at length 20. Default: a seeded oracle."""
    vocab: int = 100
    """Tokens of the seeded oracle."""
    length: int | None = None
    """Tokens of a sequence. Default: 10, and 20 with --oracle."""
    sequences: int = 10_000
    """To learn from."""
    width: int = 32
    """Units of the policy."""
    weights: float | None = 0.1
    """Standard deviation of its first weights."""
    lr: float = 1e-2
    """Adam's learning rate for maximum likelihood."""
    samples: int = 2_000
    """Behind each figure."""


def run(options: Options, folder: Callable[[], Path], say: Callable[[str], None] = print) -> None:
    """Train what is not trained yet, print the report, write it, its rows and the figure.

    Raises:
        ValueError, TypeError: for names that do not exist and numbers out of range, before anything is trained.
    """
    from advrl.recipes.oracles import OracleSequences

    algorithms = check(options)
    length = options.length or (10 if options.oracle is None else 20)
    config = OracleSequences(oracle=options.oracle, vocab=options.vocab, length=length, sequences=options.sequences,
                             width=options.width, weights=options.weights, lr=options.lr, steps=2)  # fmt: skip
    bench = Bench(config, lambda run, at: judged(run, at, options.samples), AXES)
    out = options.out or folder()
    rows = play(bench, options, out, say)
    text = report(rows, algorithms, options)
    written = [out / "report.md", out / "table.csv", out / "sweeps.csv", out / "tradeoff.png"]
    write_atomically(written[0], (text + "\n").encode())
    write_csv(written[1], by_temperature(rows, algorithms, FIGURES), 6)
    draw(rows, algorithms, written[3])
    say(f"\n{text}\n\nWritten:\n" + "\n".join(f"  {path}" for path in written))


def judged(run: Any, at: Sequence[float], samples: int) -> list[dict[str, float]]:
    """A run's figures at each temperature, those of the oracle's own samples as ``oracle_*``, and its alarms."""
    from advrl.recipes.alarms import sequence_alarms
    from advrl.recipes.sweep import sweep

    parts = run.config.build(run.device)
    if not hasattr(run.policy, "step"):  # writes vectors
        found = parts.evaluator.of(run.policy, max(1, samples // 200))
        rows, reference = [found.rows["generated"]], found.rows["oracle"]
    else:
        swept = sweep(run, at, parts, samples=samples)
        rows, reference = list(swept.rows), dict(swept.reference)
    told = []
    for temperature, row in zip(at, rows, strict=True):
        alarms = sequence_alarms({"generated": row, "oracle": reference})
        told.append(
            {"temperature": temperature, **{name: e.mean for name, e in row.items()}}
            | {f"oracle_{name}": reference[name].mean for name in ("ngram_entropy", "duplicates")}
            | {"alarms": "+".join(alarm.name for alarm in alarms)}
        )
    return told


def report(rows: Rows, algorithms: Sequence[str], options: Options) -> str:
    """What people read: all algorithms at temperature 1, tempered likelihood, the floor, published rows, gaps."""
    lines = table_lines(rows, algorithms, HEAD, FIGURES, options.checkpoint)
    floor = cell(over_seeds(rows[:1], "floor"))
    own = [cell(over_seeds(rows[:1], f"oracle_{name}")) for name in ("ngram_entropy", "duplicates")]
    lines.append(line(["**floor: the oracle itself**", "1", "", floor, floor, "0", "0", *own]))
    lines += [line([f"*{p.method}*: {p.source}", "", "", f"{p.nll_oracle:.3f}", *[""] * 5]) for p in ORACLE]
    alarms = sorted({(row["algorithm"], name) for row in rows for name in row.get("alarms", "").split("+")
                     if name and float(row["temperature"]) == 1.0})  # fmt: skip
    told = "".join(f"ALARM  {algorithm}: {name}\n" for algorithm, name in alarms)
    parts = ["\n".join(lines), told.rstrip(), gaps(rows, algorithms, AXES), budgets(rows, algorithms), DEFINITIONS,
             JUDGED[options.checkpoint], WHICH[options.oracle is not None], ORACLE_PROTOCOL]  # fmt: skip
    return "\n\n".join(part for part in parts if part)


def draw(rows: Rows, algorithms: Sequence[str], path: Path) -> None:
    """The curve of each algorithm, a thin line for each seed, and the floor."""
    from advrl.plots import tradeoff_plot

    sweeps = {name: list(curves(rows, name, AXES).values()) for name in algorithms}
    shown = {name: found for name, found in sweeps.items() if found}
    tradeoff_plot(shown, floor=float(rows[0]["floor"]), out=path)
