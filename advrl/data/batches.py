"""Endless batches: of a tensor that stays on its device, fresh ones of a mixture, or a loader gone round for ever."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from advrl import checks
from advrl.data.mixtures import Mixture


class Stream:
    """Endless batches that depend on a seed and on how many were drawn; no host synchronisation, resumed bit for bit.

    What is random comes from a generator of its own, which ``state_dict`` holds, so neither the model's draws nor an
    evaluation shift it. Subclasses say what a batch is.

    Args:
        batch_size: rows of a batch.
        seed: of the generator.
        device: of the generator.

    Raises:
        ValueError, TypeError: if the batch size is below 1 or the seed below 0.
    """

    def __init__(self, batch_size: int, seed: int, device: torch.device):
        self.batch_size = checks.integer("batch_size", batch_size)
        self.seed = checks.integer("seed", seed, minimum=0)
        self.drawn = 0
        self._generator = torch.Generator(device=device).manual_seed(seed)

    def draw(self, generator: torch.Generator) -> Tensor:
        """One batch, (batch_size, *event)."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[Tensor]:
        return self

    def __next__(self) -> Tensor:
        """The next batch, (batch_size, *event)."""
        self.drawn += 1
        return self.draw(self._generator)

    def state_dict(self) -> dict[str, Any]:
        """The generator's state, and what is needed to go on where there is another kind of device."""
        return {
            "generator": self._generator.get_state(),
            "device": self._generator.device.type,
            "seed": self.seed,
            "drawn": self.drawn,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the batches that ``state`` has seen.

        Generators of different kinds of device share no state: from one to another the order is a new one, fixed by
        the seed and the number of batches drawn.
        """
        self.seed, self.drawn = state["seed"], state["drawn"]
        if state["device"] == self._generator.device.type:
            self._generator.set_state(state["generator"].cpu())
        else:
            self._generator.manual_seed(self.seed + self.drawn)


class Batches(Stream):
    """Random rows of a tensor, with replacement.

    Data and indices live on ``device``.

    Args:
        images: (N, *event), one row per example.
        batch_size: rows of a batch.
        seed: of the order.
        device: where the data lives; by default where it is.

    Raises:
        ValueError: if there are no rows or the batch size is below 1.
    """

    def __init__(self, images: Tensor, batch_size: int, seed: int = 0, device: torch.device | str | None = None):
        if images.ndim == 0 or len(images) == 0:
            raise ValueError(f"batches need at least one row of data, got shape {tuple(images.shape)}")
        self.images = images.to(images.device if device is None else device)
        super().__init__(batch_size, seed, self.images.device)

    def draw(self, generator: torch.Generator) -> Tensor:
        """The rows of the next batch, (batch_size, *event)."""
        here = self.images.device
        rows = torch.randint(len(self.images), (self.batch_size,), generator=generator, device=here)
        return self.images.index_select(0, rows)


class Draws(Stream):
    """Fresh points of a mixture: no sample is ever seen twice.

    Args:
        mixture: what to draw from, on the device where batches shall be.
        batch_size: points of a batch.
        seed: of the draws.

    Raises:
        ValueError: if the batch size is below 1.
    """

    def __init__(self, mixture: Mixture, batch_size: int, seed: int = 0):
        self.mixture = mixture
        super().__init__(batch_size, seed, mixture.centres.device)

    def draw(self, generator: torch.Generator) -> Tensor:
        """The points of the next batch, (batch_size, E)."""
        return self.mixture.sample(self.batch_size, generator)


def cycle(loader: Iterable[Any]) -> Iterator[Tensor]:
    """Go round a ``DataLoader`` (or any iterable of batches) for ever, its order anew each time.

    Batches that are tuples or lists, as ``(images, labels)``, give their first element.

    Raises:
        TypeError: when a batch is neither a tensor nor begins with one.
        ValueError: when a round gives nothing: the loader is empty, or an iterator that can be gone through once.
    """
    while True:
        empty = True
        for batch in loader:
            empty = False
            first = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
            if not isinstance(first, Tensor):
                raise TypeError(
                    "batches must be tensors, or tuples whose first element is one, "
                    f"got {type(first).__name__} from {type(loader).__name__}"
                )
            yield first
        if empty:
            raise ValueError(
                f"{type(loader).__name__} gave no batch; pass a loader that can be gone through repeatedly"
            )
