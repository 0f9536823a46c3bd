"""What a user may ask of ``reset``: the same words in every environment."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded


def checked_options(options: dict[str, Any] | None, known: set[str]) -> dict[str, Any]:
    """The options as a dictionary.

    Raises:
        ValueError: for one that is not known.
    """
    options = dict(options or {})
    if unknown := options.keys() - known:
        raise ValueError(f"unknown reset options {sorted(unknown)} (one of: {', '.join(sorted(known))})")
    return options


def check_reset_mask(mask: object, num_envs: int, begun: bool) -> None:
    """Raise what is wrong with a ``reset_mask`` of ``num_envs`` environments, of which none may be new.

    Raises:
        TypeError, ValueError: if it is no array of bool, has another shape or says nothing.
        gymnasium.error.ResetNeeded: if the environments have not begun.
    """
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
        got = mask.dtype if isinstance(mask, np.ndarray) else type(mask).__name__
        raise TypeError(f"reset_mask must be a NumPy array of bool, got {got}")
    if mask.shape != (num_envs,) or not mask.any():
        raise ValueError(
            f"reset_mask must have shape ({num_envs},) and be true somewhere, got shape {mask.shape} with "
            f"{int(mask.sum())} true"
        )
    if not begun:
        raise ResetNeeded("the first reset must be of all environments, without reset_mask")
