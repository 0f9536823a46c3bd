"""The table of a run, ``metrics.csv``: one row per logged step, a column per metric, empty where nothing was measured.

    step,seconds,d_loss,frechet
    100,1.25,0.693,
    200,2.5,0.71,12.5

Names hold no comma, quote or line break, so a row is a line and a cell is what stands between commas. Floats are
written with ``repr`` and come back bit for bit. A row counts once its line break is written: what a killed process
left after the last line break is cut by whoever reads.
"""

from __future__ import annotations

import math
from pathlib import Path

INDEX = ("step", "seconds")  # the first two columns of every table


def read_rows(path: str | Path) -> tuple[list[str], list[list[str]]]:
    """Column names and rows of a metrics table, cells as they are written; a half-written last row is left out.

    Raises:
        ValueError: if the file is no metrics table, naming the line that is wrong.
        OSError: if it cannot be read.
    """
    text = Path(path).read_bytes().decode("utf-8", errors="replace")
    header, *lines = text.split("\n")
    names = header.rstrip("\r").split(",")
    if tuple(names[:2]) != INDEX or len(set(names)) < len(names) or not lines:
        raise ValueError(f"{path} is no metrics table: its first line must be 'step,seconds,...', got {header[:60]!r}")
    rows = []
    for number, line in enumerate(lines[:-1], start=2):  # the last piece is what follows the last line break
        cells = line.rstrip("\r").split(",")
        if len(cells) != len(names) or not cells[0].isdecimal() or not all(map(_is_number, cells)):
            raise ValueError(f"{path}, line {number}: expected a step and {len(names) - 1} numbers, got {line[:60]!r}")
        rows.append(cells)
    return names, rows


def read_metrics(path: str | Path) -> dict[str, list[float]]:
    """Columns of a metrics table by name, all of one length, ``nan`` where a cell is empty.

    Raises:
        ValueError: if the file is no metrics table, naming the line that is wrong.
        OSError: if it cannot be read.
    """
    names, rows = read_rows(path)
    return {name: [float(row[i]) if row[i] else math.nan for row in rows] for i, name in enumerate(names)}


def format_rows(names: list[str], rows: list[list[str]]) -> bytes:
    """The bytes of a metrics table with these column names and cells."""
    return "".join(",".join(cells) + "\n" for cells in [names, *rows]).encode()


def _is_number(cell: str) -> bool:
    try:
        float(cell or "nan")
    except ValueError:
        return False
    return True
