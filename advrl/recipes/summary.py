"""Several seeds of one experiment in one table."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev


def summary_of_seeds(runs: Sequence[Path]) -> str:
    """Mean and standard error over runs of what each run's ``evaluation.json`` says of its generator."""
    reports = [json.loads((run / "evaluation.json").read_text()) for run in runs]
    lines = [f"over {len(runs)} seeds: mean ± standard error (least to most)"]
    for figure in reports[0]["rows"]["generated"]:
        means = [report["rows"]["generated"][figure]["mean"] for report in reports]
        values = [math.inf if mean is None else mean for mean in means]  # JSON has no infinity
        lines.append(_line(figure, values))
    shares = [report["class_shares"].get("generated") for report in reports]
    if all(shares):
        lines.append(_line("least class", [min(share) for share in shares]))
        lines.append(_line("most class", [max(share) for share in shares]))
    return "\n".join(lines)


def _line(name: str, values: list[float]) -> str:
    error = f" ± {stdev(values) / len(values) ** 0.5:.3f}" if len(values) > 1 and math.isfinite(sum(values)) else ""
    return f"  {name:<14}{mean(values):.3f}{error}  ({min(values):.3f} to {max(values):.3f})"
