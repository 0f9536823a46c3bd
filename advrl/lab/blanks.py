"""Exercises out of lessons: what a lesson marks as the reader's turn is taken out, and nothing else.

    # your turn: sum the rewards, each discounted
    total = ...
    # done

becomes ``raise NotImplementedError("your turn: sum the rewards, each discounted")``. ``python -m advrl.lab.blanks
examples/lessons`` writes ``exercises/NAME.py`` for each ``NAME.py``, so a lesson and its exercise cannot drift apart.
"""

from __future__ import annotations

import sys
from pathlib import Path

TURN, DONE = "# your turn: ", "# done"


def blank(source: str) -> str:
    """A lesson's text with a blank in place of every solution.

    Raises:
        ValueError: for a solution that does not end, or ends without having begun, naming its line.
    """
    lines: list[str] = []
    begun = 0
    for number, line in enumerate(source.splitlines(), 1):
        word = line.strip()
        if word.startswith(TURN):
            if begun:
                raise ValueError(f"line {number}: a solution begins before that of line {begun} is done")
            begun = number
            indent = line[: len(line) - len(line.lstrip())]
            text = word.removeprefix("# ").replace("\\", "\\\\").replace('"', '\\"')
            lines.append(f'{indent}raise NotImplementedError("{text}")')
        elif word == DONE:
            if not begun:
                raise ValueError(f"line {number}: nothing has begun that could be done")
            begun = 0
        elif not begun:
            lines.append(line)
    if begun:
        raise ValueError(f"line {begun}: this solution is never done")
    return "\n".join(lines) + "\n"


def write(folder: Path) -> list[Path]:
    """Write the exercise of every lesson in a folder; return their paths."""
    exercises = folder / "exercises"
    exercises.mkdir(exist_ok=True)
    written = []
    for lesson in sorted(folder.glob("*.py")):
        path = exercises / lesson.name
        path.write_text(blank(lesson.read_text(encoding="utf-8")), encoding="utf-8")
        written.append(path)
    return written


if __name__ == "__main__":
    print("\n".join(map(str, write(Path(sys.argv[1])))))
