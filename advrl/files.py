"""Files that are either the old one or the new one, never half of one; tables as such files; Python files of users."""

from __future__ import annotations

import csv
import importlib.util
import io
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any


def write_atomically(path: str | Path, data: bytes | memoryview) -> Path:
    """Make ``path`` hold ``data``: a temporary file beside it, fsync, rename. Parent folders are made.

    A process killed at any moment, or a disk that fills, leaves the file as it was before.

    Raises:
        OSError: if the disk is full or the folder cannot be written; the temporary file is then removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")  # one name per file: what a kill leaves behind is written over
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)  # gone already, unless something above failed
    if hasattr(os, "O_DIRECTORY"):  # make the rename durable too, where a folder can be opened
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return path


def execute(path: Path, name: str) -> ModuleType:
    """A user's Python file as a module of this name, executed anew; in ``sys.modules`` while it is, and no longer."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[name]
    return module


def as_text(row: Mapping[str, Any], digits: int | None = None) -> dict[str, str]:
    """A row as :func:`read_csv` finds it. Floats have so many significant digits, or all of theirs."""

    def text(value: Any) -> str:
        if isinstance(value, float) and digits is not None:
            return f"{value:.{digits}g}"
        return "" if value is None else str(value)

    return {name: text(value) for name, value in row.items()}


def csv_text(rows: Sequence[Mapping[str, Any]], digits: int | None = None) -> str:
    """Rows as CSV, see :func:`as_text`; a column that some rows have not is empty there."""
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(as_text(row, digits) for row in rows)
    return text.getvalue()


def write_csv(path: str | Path, rows: Sequence[Mapping[str, Any]], digits: int | None = None) -> Path:
    """Make ``path`` hold :func:`csv_text` of the rows."""
    return write_atomically(path, csv_text(rows, digits).encode())


def read_csv(path: str | Path) -> list[dict[str, str]]:
    """The rows of a table; none where there is no file yet."""
    if not Path(path).exists():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
