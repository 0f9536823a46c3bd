"""Critics: from what an environment shows to the value of being there."""

from __future__ import annotations

from typing import Any, cast

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from advrl.checks import integer
from advrl.envs.generation import Generation


class ValueNet(nn.Module):
    """V(observation), a perceptron with one hidden layer, 0 everywhere to begin with.

    Integers (tokens and their padding) have an embedding for each place, and the places' are added up: a first layer on
    one-hots. Numbers enter as they are.

    Args:
        task: whose observations it sees.
        hidden: units.
    """

    def __init__(self, task: Generation, hidden: int = 64) -> None:
        super().__init__()
        integer("hidden", hidden)
        space = task.observation_space
        spaces = dict(space.spaces) if isinstance(space, gym.spaces.Dict) else {"": space}
        self.firsts = nn.ModuleDict({f"from_{name}": _First(part, hidden) for name, part in spaces.items()})
        self.last = nn.Sequential(nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, 1))
        out = cast(nn.Linear, self.last[-1])
        nn.init.zeros_(out.weight)
        nn.init.zeros_(out.bias)

    def forward(self, observation: Tensor | dict[str, Tensor]) -> Tensor:
        """(m,) values of observations (m, *observation), or of a dictionary of them."""
        parts = observation if isinstance(observation, dict) else {"": observation}
        hidden = sum(self.firsts[f"from_{name}"](part) for name, part in parts.items())
        value: Tensor = self.last(hidden).squeeze(-1)
        return value


class _First(nn.Module):
    def __init__(self, space: gym.Space[Any], hidden: int) -> None:
        super().__init__()
        shape, dtype = cast(tuple[int, ...], space.shape), np.dtype(cast(Any, space.dtype))
        size = int(np.prod(shape))
        self.kinds = int(cast(Any, space).high.max()) + 1 if dtype.kind in "iu" else 0
        if self.kinds:
            self.table = nn.Embedding(size * self.kinds, hidden)
            nn.init.normal_(self.table.weight, std=size**-0.5)
        else:
            self.linear = nn.Linear(size, hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        if not self.kinds:
            out: Tensor = self.linear(x)
            return out
        places = torch.arange(x.shape[1], device=x.device) * self.kinds
        added: Tensor = nn.functional.embedding_bag(x + places, self.table.weight, mode="sum")
        return added
