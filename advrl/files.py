"""Files that are either the old one or the new one, never half of one."""

from __future__ import annotations

import os
from pathlib import Path


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
