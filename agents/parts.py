"""What every trainer keeps: the state of its parts, by name, its step count, and the average of its policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


@torch.no_grad()
def follow(
    average: nn.Module,
    live: nn.Module,
    decay: float,
    steps: int,
    parameters: tuple[list[Tensor], list[Tensor]] | None = None,
) -> None:
    """Move a network's exponential moving average by a step; buffers, such as batch norm's, are copied.

    Args:
        average: a, changed in place: a <- d a + (1 - d) theta.
        live: theta.
        decay: d; at first less, (1 + t) / (10 + t) after t steps: a short memory while everything moves.
        steps: t.
        parameters: of both, where they are at hand: gathering them costs as much as averaging them.
    """
    decay = min(decay, (1 + steps) / (10 + steps))
    if parameters is None:
        parameters = list(average.parameters()), list(live.parameters())
    mine, theirs = parameters
    torch._foreach_lerp_(mine, theirs, 1 - decay)
    for copied, buffer in zip(average.buffers(), live.buffers(), strict=True):
        copied.copy_(buffer)


def set_rate(optimiser: Optimizer | None, rate: float, schedule: Callable[[int], float] | None, steps: int) -> None:
    """Give an optimiser the learning rate of a step: ``rate`` times the schedule's factor; there may be neither."""
    if optimiser is None or schedule is None:
        return
    for group in optimiser.param_groups:
        group["lr"] = rate * schedule(steps)


@torch.no_grad()
def lay_out(optimiser: Optimizer) -> None:
    """Give an optimiser's moments the memory layout of its parameters, which fused steps take for granted."""
    for parameter, state in optimiser.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


class Parts:
    """A trainer whose state is that of its parts: networks, optimisers and whatever else has a ``state_dict``."""

    steps: int

    def _parts(self) -> dict[str, Any]:
        """The parts by the names that they have in a checkpoint."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """The state of every part, and the step count."""
        return {"steps": self.steps} | {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state_dict` returned.

        Raises:
            ValueError: if it has other parts than this trainer.
        """
        parts = self._parts()
        if state.keys() - {"steps"} != parts.keys():
            raise ValueError(f"the state has parts {sorted(state.keys() - {'steps'})}, this trainer {sorted(parts)}")
        for name, part in parts.items():
            part.load_state_dict(state[name])
            if isinstance(part, Optimizer):
                lay_out(part)
        self.steps = int(state["steps"])
