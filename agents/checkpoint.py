"""Checkpoints: one file, written atomically, read without executing anything in it.

A file is written beside its final name, forced to disk and renamed over it, so that a run killed at any moment leaves
either the old checkpoint or the new one, whole.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from advrl.files import write_atomically

FORMAT = "advrl-checkpoint-1"


class CheckpointError(ValueError):
    """A file that is no checkpoint, or a truncated one."""


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors and plain values) to ``path``, atomically."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    write_atomically(path, buffer.getbuffer())


def load_checkpoint(path: Path, device: torch.device | str = "cpu", ranks: int | None = None) -> dict[str, Any]:
    """Read what :func:`save_checkpoint` wrote, with ``weights_only=True``.

    Args:
        path: the file.
        device: where tensors go.
        ranks: how many ranks are to go on with the run; None just reads.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointError: if it is truncated, was not written by advrl, or by another number of ranks.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no checkpoint at {path}")
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path} is no checkpoint, or a truncated one")
    with zipfile.ZipFile(path) as archive:  # torch.load does not look at the checksums that torch.save wrote
        if archive.testzip() is not None:
            raise CheckpointError(f"{path} is damaged: a checksum in it is wrong")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:  # torch's own text is a page on how to read it all the same
        raise CheckpointError(
            f"{path} is no checkpoint of advrl: it holds more than tensors and plain values"
        ) from error
    except RuntimeError as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {str(error).splitlines()[0]}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path} was not written by this version of advrl (expected format {FORMAT!r})")
    made = 1 + len(state.setdefault("others", []))  # beside rank 0's own state
    if ranks is not None and ranks != made:
        how = f"with torchrun --nproc-per-node {made}" if made > 1 else "without torchrun"
        raise CheckpointError(
            f"{path} was made by {made} rank{'s' * (made > 1)} and cannot go on with {ranks}, since each has random "
            f"streams of its own: start {how}"
        )
    return state
