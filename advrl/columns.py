"""Text in columns."""

from __future__ import annotations

from collections.abc import Sequence


def columns(rows: Sequence[Sequence[str]], *, figures: bool = True, gap: str = "  ") -> list[str]:
    """A line for each row, every column as wide as its widest cell: names to the left, ``figures`` to the right.

    Args:
        rows: of equally many cells.
        figures: whether all columns but the first are.
        gap: between columns.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        gap.join(
            cell.rjust(width) if figures and i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
