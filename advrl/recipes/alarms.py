"""Alarms of runs that write sequences: signs of collapse in a report, beside what real sequences have."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from advrl import metrics
from advrl.agents.report import WIDTH, Estimate
from advrl.metrics import Alarm, duplicate_alarm, entropy_alarm, floor_alarm

Row = Mapping[str, Estimate]


def sequence_alarms(rows: Mapping[str, Row]) -> list[Alarm]:
    """NLL_oracle below the floor, entropy far below real sequences', or more duplicates than they have.

    Args:
        rows: of a report: ``generated`` beside ``oracle`` or ``real``. There is nothing to say of runs without.
    """
    generated, real = rows.get("generated"), rows.get("oracle", rows.get("real"))
    if generated is None or real is None:
        return []
    found: list[Alarm | None] = []
    if "nll_oracle" in generated and "floor" in generated:
        found.append(floor_alarm(_interval(generated["nll_oracle"]), _interval(generated["floor"])))
    for name in ("ngram_entropy", "entropy"):
        if name in generated and name in real:
            found.append(entropy_alarm(max(generated[name].mean, 0.0), max(real[name].mean, 0.0)))
            break
    if "duplicates" in generated and "duplicates" in real:
        found.append(duplicate_alarm(generated["duplicates"].mean, real["duplicates"].mean))
    return [alarm for alarm in found if alarm is not None]


def alarm_text(alarms: Sequence[Alarm]) -> str:
    """Alarms as people read them, a paragraph each; '' if there are none."""
    return "".join(f"{told('ALARM', alarm)}\n\n" for alarm in alarms)


def told(when: str, alarm: Alarm) -> str:
    """Lines to be printed; no flag is broken in two."""
    return textwrap.fill(f"{when}  {alarm}", WIDTH, subsequent_indent=" " * 7, break_on_hyphens=False)


def _interval(estimate: Estimate) -> metrics.Estimate:
    half = 1.96 * (estimate.error or 0.0)
    return metrics.Estimate(estimate.mean, estimate.error or 0.0, estimate.mean - half, estimate.mean + half, 0)
