"""Batches decoded from a folder while the training runs, for folders that memory does not hold.

Images are gone through in rounds: each is shown once, in an order that depends on the seed and the round's number
alone, and batches follow one another across the end of a round. The k-th batch is thus known from the seed and k, so
that two whole numbers resume a run bit for bit, whatever the number of workers and however far ahead they read.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from advrl.checks import integer
from advrl.data.batches import Stream
from advrl.data.pictures import PictureError, Pictures


class PictureBatches(Stream):
    """Endless batches of a folder's pictures, decoded by worker processes that read ahead.

    Args:
        pictures: the folder.
        rows: which of them to show, (N,) indices.
        prepare: from (B, C, S, S) in [0, 1] to what the networks see; applied on ``device``.
        batch_size: pictures of a batch.
        seed: of the order.
        device: where batches are wanted; to a GPU they go through pinned memory.
        workers: processes that decode; 0 decodes in this one.
        pair: from a prepared batch (B, C, S, S) and the numbers (B,) of its pictures to what is trained on, by default
            the batch itself.

    Raises:
        ValueError, TypeError: if there are no rows, or for numbers out of range; when drawing, a PictureError names a
            picture that cannot be decoded.
    """

    def __init__(
        self,
        pictures: Pictures,
        rows: Tensor,
        prepare: Callable[[Tensor], Tensor],
        batch_size: int,
        seed: int = 0,
        device: torch.device | str = "cpu",
        workers: int = 0,
        pair: Callable[[Tensor, Tensor], Tensor] | None = None,
    ):
        if len(rows) == 0:
            raise ValueError("batches need at least one picture")
        self.pictures, self.prepare, self.device, self.pair = pictures, prepare, torch.device(device), pair
        self.rows = rows.numpy()
        self.batch_size = integer("batch_size", batch_size)
        self.seed = integer("seed", seed, minimum=0)
        self.workers = integer("workers", workers, minimum=0)
        self.drawn = 0
        self._batches: Iterator[tuple[Tensor, Tensor] | str] | None = None

    def __next__(self) -> Tensor:
        """The next batch, (batch_size, *event), on the device."""
        if self._batches is None:  # not before: load_state_dict says where to begin
            self._batches = iter(self._loader())
        batch = next(self._batches)
        if isinstance(batch, str):
            raise PictureError(batch)
        self.drawn += 1
        pixels, numbers = (part.to(self.device, non_blocking=True) for part in batch)
        images = self.prepare(pixels.to(torch.float32).div_(255))
        return images if self.pair is None else self.pair(images, numbers)

    def state_dict(self) -> dict[str, Any]:
        """All that the next batch depends on."""
        return {"seed": self.seed, "drawn": self.drawn, "batch_size": self.batch_size, "pictures": len(self.rows)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the batches that ``state`` has seen.

        Raises:
            ValueError: if the folder holds another number of pictures now, or batches had another size.
        """
        now = self.state_dict()
        for name in ("batch_size", "pictures"):
            if state.get(name) != now[name]:
                raise ValueError(f"the run was made with {name} = {state.get(name)}, there are {now[name]} now")
        self.seed, self.drawn, self._batches = state["seed"], state["drawn"], None

    def _loader(self) -> DataLoader[Any]:
        """A loader whose samples are whole batches, from the one that comes next.

        Its own seed comes from a generator that nothing else draws from.
        """
        order = _Order(self.rows, self.batch_size, self.seed, self.drawn)
        return DataLoader(
            _Reader(self.pictures),
            sampler=order,
            batch_size=None,
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(device="cpu"),
            multiprocessing_context=_workers_context() if self.workers else None,
            worker_init_fn=_leave_interrupts,
        )


def _workers_context() -> Any:
    """How workers start: not by a fork of this process, which would catch its threads (torch, the log) in mid-step.

    Where there is a fork server it imports torch once for all of them.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _leave_interrupts(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal: this one's end is the training's business, which saves first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def rounds(number: int, batch_size: int, seed: int, start: int = 0) -> Iterator[np.ndarray]:
    """Batches of indices below ``number`` from the ``start``-th on, for ever: permutation after permutation."""
    turn, at = divmod(start * batch_size, number)
    order = _permutation(number, seed, turn)[at:]
    while True:
        while len(order) < batch_size:
            turn += 1
            order = np.concatenate([order, _permutation(number, seed, turn)])
        yield order[:batch_size]
        order = order[batch_size:]


def _permutation(number: int, seed: int, turn: int) -> np.ndarray:
    # RandomState: the one generator whose stream NumPy promises never to change.
    return np.random.RandomState(np.random.SeedSequence((seed, turn)).generate_state(4)).permutation(number)


@dataclass(frozen=True)
class _Order(Iterable[list[int]]):
    rows: np.ndarray
    batch_size: int
    seed: int
    start: int

    def __iter__(self) -> Iterator[list[int]]:
        for batch in rounds(len(self.rows), self.batch_size, self.seed, self.start):
            yield self.rows[batch].tolist()


class _Reader(Dataset[Any]):
    """What a worker does. A fault comes as its sentence: raised there, it would arrive wrapped in a traceback."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures

    def __getitem__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor] | str:
        """Pictures, and their numbers."""
        try:
            return self.pictures.read(indices), torch.tensor(indices, device="cpu")
        except PictureError as error:
            return str(error)
