"""A whole sample in one step, a contextual bandit: ``gymnasium.make("advrl/OneShot-v0")``.

Shapes: n episodes, C numbers of noise, E numbers of a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from advrl.checks import choice, integer
from advrl.envs.contexts import Contexts, Reward
from advrl.envs.generation import Generation, State
from advrl.envs.pictures import grey, point
from advrl.envs.views import GenerationEnv, GenerationVectorEnv

KINDS = ("box", "binary", "levels")


class OneShotGeneration(Generation):
    """The game of a GAN's generator as a bandit: it sees noise z, its action is the sample x, it is paid r(x).

    Observation: z (C,), standard normal, cut at +-5. Action: the sample, E numbers: with ``kind="box"`` in [-1, 1],
    with ``"binary"`` 0 or 1, with ``"levels"`` 0 .. levels - 1. The reward sees them as samples (n, *shape) in [-1, 1],
    whatever the kind. The episode terminates with its one step.

    Args:
        latent: C, numbers of noise, or a table (K, C) of contexts that are equally likely.
        shape: of a sample, with E numbers in all.
        kind: ``box``, ``binary`` or ``levels``.
        levels: of each number, with ``kind="levels"``.
        reward: a name, or a function of samples (n, *shape) -> (n,); see :class:`Generation`.
        conditional: whether the reward is called with (samples, z).
        device: of all tensors.

    Raises:
        TypeError, ValueError: for sizes out of range, an unknown kind, levels without use.
    """

    contexts: Contexts
    horizon = 1

    def __init__(
        self, latent: int | Tensor = 2, shape: Sequence[int] = (2,), reward: str | Reward = "ring", *,
        kind: str = "box", levels: int | None = None, conditional: bool = False, device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        super().__init__(reward, context=latent, conditional=conditional, device=device)
        self.kind = choice("kind", kind, KINDS)
        self.shape = tuple(integer("shape", size) for size in shape)
        size = prod(self.shape)
        if not self.shape:
            raise ValueError("shape must name at least one dimension, got ()")
        if (levels is not None) != (kind == "levels"):
            raise ValueError(f"levels goes with kind='levels', and that needs it: got kind={kind!r}, levels={levels}")
        self.levels = None if levels is None else integer("levels", levels, 2)
        self.observation_space = self.contexts.space
        if self.levels is not None:
            self.action_space = gym.spaces.MultiDiscrete([self.levels] * size)
        elif kind == "binary":
            self.action_space = gym.spaces.MultiBinary(size)
        else:
            self.action_space = gym.spaces.Box(-1, 1, (size,), np.float32)

    def blank(self, n: int) -> State:
        """Zeros."""
        return {"sample": torch.zeros(n, *self.shape, dtype=torch.float32, device=self.device)}

    def advance(self, state: State, action: Tensor) -> tuple[State, Tensor]:
        """The action is the sample."""
        steps = state["steps"] + 1
        return state | {"sample": self.decode(action), "steps": steps}, torch.ones_like(steps, dtype=torch.bool)

    def decode(self, action: Tensor) -> Tensor:
        """(n, *shape) samples in [-1, 1] that actions (n, E) stand for."""
        top = 1 if self.levels is None else self.levels - 1
        x = action.to(torch.float32)
        return (x if self.kind == "box" else 2 * x / top - 1).unflatten(-1, self.shape)

    def observe(self, state: State) -> Tensor:
        """(n, C) z."""
        return state["context"]

    def sample(self, state: State) -> Tensor:
        """(n, *shape) in [-1, 1]."""
        return state["sample"]

    def picture(self, state: State, row: int) -> np.ndarray:
        """One or two numbers as a dot, an image or a row of numbers in grey."""
        x = state["sample"][row].cpu().numpy()
        return point(x) if x.ndim == 1 and len(x) <= 2 else grey(x.reshape(-1, x.shape[-1]))


class OneShotEnv(GenerationEnv):
    """:class:`OneShotGeneration`, one sample at a time: ``advrl/OneShot-v0``, ``GAN1D-v0`` and ``DigitsOneShot-v0``.

    Version 0.

    Args:
        render_mode: ``ansi`` or ``rgb_array``.
        options: those of :class:`OneShotGeneration`.
    """

    dynamics: OneShotGeneration

    def __init__(self, render_mode: str | None = None, **options: Any) -> None:
        super().__init__(OneShotGeneration(**options), render_mode)


class OneShotVectorEnv(GenerationVectorEnv):
    """:class:`OneShotGeneration`, many samples side by side.

    Args:
        num_envs: n.
        autoreset_mode, render_mode: as :class:`GenerationVectorEnv` has them.
        options: those of :class:`OneShotGeneration`.
    """

    dynamics: OneShotGeneration

    def __init__(
        self, num_envs: int = 1, *, autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        render_mode: str | None = None, **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(OneShotGeneration(**options), num_envs, autoreset_mode=autoreset_mode, render_mode=render_mode)
