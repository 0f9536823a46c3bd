"""Checks at the boundary: each raises an error that names the argument, its value and the way out. Lists as text."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable

import torch
from torch import Tensor


def integer(name: str, value: object, minimum: int = 1) -> int:
    """``value`` as an int of at least ``minimum``; booleans and floats are refused."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {value!r} of type {type(value).__name__}")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")
    return value


def number(
    name: str, value: object, minimum: float = -math.inf, maximum: float = math.inf, *, exclusive: bool = False
) -> float:
    """``value`` as a finite float in [minimum, maximum]; with ``exclusive``, strictly above the minimum."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {value!r} of type {type(value).__name__}")
    low = value > minimum if exclusive else value >= minimum
    if not (math.isfinite(value) and low and value <= maximum):
        above = f"above {minimum:g}" if exclusive else f"at least {minimum:g}"
        bounds = [above] * (minimum > -math.inf) + [f"at most {maximum:g}"] * (maximum < math.inf)
        raise ValueError(f"{name} must be {' and '.join(['finite', *bounds])}, got {value}")
    return float(value)


def choice(name: str, value: str, choices: Iterable[str], *, hint: str = "") -> str:
    """``value`` if it is one of ``choices``, else a ``ValueError`` that names the closest one."""
    known = list(choices)
    if value in known:
        return value
    close = difflib.get_close_matches(str(value), known, n=1)
    suggestion = f"; did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"unknown {name} {value!r}{suggestion} (one of: {', '.join(known)}{hint})")


def words(text: str) -> list[str]:
    """The words of a list with commas between, each once."""
    return list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def finite(name: str, value: Tensor) -> Tensor:
    """``value`` if all its entries are finite, else a ``ValueError`` that names the first one that is not."""
    bad = ~torch.isfinite(value)
    if bad.any():
        where = tuple(bad.nonzero()[0].tolist())
        raise ValueError(
            f"{name} must be finite, but entry {where} is {value[where].item()} ({int(bad.sum())} entries are not)"
        )
    return value


def same_shape(**tensors: Tensor) -> None:
    """Raise a ``ValueError`` with all the shapes unless they agree: broadcasting would pair the wrong entries."""
    shapes = {name: tuple(t.shape) for name, t in tensors.items()}
    if len(set(shapes.values())) > 1:
        listing = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"shapes must agree, got {listing}")
