"""A pool of past fakes: the discriminator remembers what the generator used to do.

Half of every batch of fakes that it learns from comes from the pool, and as many fresh ones take the places of others
there, drawn at random: Shrivastava et al. (2017), section 2.3. It is fictitious play with a short memory, against
generators that go round in circles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from advrl.agents.stabiliser import Stabiliser
from advrl.checks import integer

if TYPE_CHECKING:
    from advrl.agents.adversarial import AdversarialTrainer


class HistoryPool(Stabiliser):
    """Half of the discriminator's fakes are past ones. Each rank has a pool of its own, of this size.

    Until the pool holds half a batch, all fakes are fresh; until it is full, nothing in it is replaced. It is part of
    the checkpoint. Costs its memory and a copy of half a batch a step.

    Args:
        size: samples that it keeps; at least half a batch.

    Raises:
        ValueError, TypeError: for a size below 1, and, in a step, if half a batch does not fit in.
    """

    name = "history-pool"
    held: Tensor
    count: Tensor

    def __init__(self, size: int = 1024) -> None:
        super().__init__()
        self.size = integer("history pool's size", size)

    def attach(self, trainer: AdversarialTrainer, sample: Tensor) -> None:
        """Make room for samples like these."""
        self.register_buffer("held", sample.new_zeros(self.size, *sample.shape[1:]))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64, device=sample.device))

    @torch.no_grad()
    def fakes(self, fresh: Tensor) -> Tensor:
        """Half of them replaced by past ones (B, *event)."""
        half = len(fresh) // 2
        if not half:
            return fresh
        if half > self.size:
            raise ValueError(f"the history pool's {self.size} samples are fewer than half a batch of {len(fresh)}")
        places = torch.arange(self.size, device=fresh.device)
        keys = torch.rand(self.size, device=fresh.device)
        taken = keys.masked_fill(places >= self.count, 2.0).argsort()[:half]  # without replacement, filled places only
        ready = self.count >= half
        past = torch.where(ready, self.held[taken], fresh[:half])
        room = self.count + half <= self.size
        # As long as there is room the next places are taken, then others at random (those of the highest keys).
        target = torch.where(room, (self.count + places[:half]) % self.size, self._random(keys, places, half))
        kept = fresh[-half:]
        self.held.index_copy_(0, target, kept)
        self.count.copy_(torch.where(room, self.count + half, self.count))
        return torch.cat([past, fresh[half:]])

    def _random(self, keys: Tensor, places: Tensor, half: int) -> Tensor:
        order: Tensor = keys.masked_fill(places >= self.count, -1.0).argsort(descending=True)[:half]
        return order
