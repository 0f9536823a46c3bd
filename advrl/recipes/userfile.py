"""``FILE.py:NAME`` on the command line: an object from a user's own file, so that extending needs no edit of advrl."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from typing import Any

from advrl.files import execute


def load_object(spec: str) -> Any:
    """The object called NAME in FILE.py, for ``spec`` = ``FILE.py:NAME``. The file is executed, once.

    Raises:
        ValueError: if the spec has another form, the file does not exist or has no such name. What the file itself
            raises is passed on, as an ImportError where it could be taken for a wrong option.
    """
    file, _, name = spec.rpartition(":")
    path = Path(file).expanduser()
    if not file.endswith(".py") or not name.isidentifier():
        raise ValueError(f"expected FILE.py:NAME, got {spec!r}")
    if not path.is_file():
        raise ValueError(f"{spec}: there is no file {path}")
    key = f"advrl_user_file_{path.resolve()}"
    if key not in sys.modules:
        try:
            sys.modules[key] = execute(path, key)
        except (ValueError, TypeError) as error:  # a bug in the file, not a wrong option
            raise ImportError(f"{path} could not be imported: {error}") from error
    module = sys.modules[key]
    if not hasattr(module, name):
        names = [n for n in vars(module) if not n.startswith("_")]
        close = difflib.get_close_matches(name, names, n=1)
        raise ValueError(f"{path} has no {name!r}" + (f"; did you mean {close[0]!r}?" if close else ""))
    return getattr(module, name)
