"""Generating a sample as an episode: what all such tasks share, as tensor functions on one device.

A :class:`Generation` plays n episodes side by side. Its state is a dictionary of tensors with n rows, ``steps`` (n,)
among them and ``context`` (n, C) where one is given, and is never changed in place. ``Env`` and ``VectorEnv`` are NumPy
views of it (``advrl.envs.views``); agents that stay on the device call it themselves:

    state = task.init(n)
    while ...:
        state, reward, ended = task.step(state, action)

Shapes: n episodes, A actions, C numbers of context.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from advrl.device import resolve_device
from advrl.envs.contexts import Contexts, Reward, to_device
from advrl.envs.rewards import checked, find_reward

State = dict[str, Tensor]
"""Tensors with one row per episode."""


class Generation(ABC):
    """A task whose episodes write one sample each; the finished sample is paid.

    Args:
        reward: the name of one of ``REWARDS``, or a function of finished samples (n, *event) -> (n,), such as a
            ``DiscriminatorScore``. It is called once for all samples that finish in a step.
        context: numbers of noise that an episode is given, or a table (K, C) of contexts; see ``Contexts``.
        conditional: whether the reward is called with (samples, contexts); those with a name never are.
        dense: pay every step with the reward of what has been written by then, in place of the last step alone.
        device: of all tensors; a ``torch.device``, or ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises:
        ValueError: for a device that is not there.
    """

    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    masked = False  # whether ``mask`` ever forbids an action
    horizon: int  # steps after which every episode has ended

    def __init__(
        self, reward: str | Reward, *, context: int | Tensor | None = None, conditional: bool = False,
        dense: bool = False, device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        device = resolve_device(device) if isinstance(device, str) else device
        self.device = torch.empty(0, device=device).device  # with its number, so that devices can be compared
        self.reward = find_reward(reward, self.device)
        self.contexts = None if context is None else Contexts(context, self.device)
        self.conditional, self.dense = conditional and not isinstance(reward, str), dense

    @abstractmethod
    def blank(self, n: int) -> State:
        """What has been written before the first step, without steps and context."""

    @abstractmethod
    def advance(self, state: State, action: Tensor) -> tuple[State, Tensor]:
        """The state after actions (n, *action), and (n,) bool whether the sample is finished; nothing is paid."""

    @abstractmethod
    def observe(self, state: State) -> Tensor | dict[str, Tensor]:
        """What the policy sees, (n, *observation)."""

    @abstractmethod
    def sample(self, state: State) -> Tensor:
        """(n, *event) what has been written, as the reward sees it."""

    def mask(self, state: State) -> Tensor | None:
        """(n, A) bool: which actions can be taken; None if actions have no numbers."""
        if not isinstance(self.action_space, gym.spaces.Discrete):
            return None
        shape = (len(state["steps"]), int(self.action_space.n))
        return torch.ones(shape, dtype=torch.bool, device=self.device)

    def text(self, state: State, row: int) -> str:
        """One episode in words."""
        return " ".join(f"{v:g}" for v in self.sample(state)[row].flatten().tolist())

    @abstractmethod
    def picture(self, state: State, row: int) -> np.ndarray:
        """One episode as (H, W, 3) uint8."""

    def init(self, n: int, context: object = None, generator: torch.Generator | None = None) -> State:
        """n episodes before their first step, with ``context`` (n, C) or one drawn for each.

        Raises:
            ValueError: for a context where none is taken, or one outside of its space.
        """
        state = self.blank(n) | {"steps": torch.zeros(n, dtype=torch.int64, device=self.device)}
        if self.contexts is not None:
            drawn = self.contexts.draw(n, generator) if context is None else self.contexts.check(context, n)
            state["context"] = drawn
        elif context is not None:
            raise ValueError("this environment takes no context: make it with context=")
        return state

    def step(self, state: State, action: Tensor) -> tuple[State, Tensor, Tensor]:
        """State, (n,) rewards and (n,) bool whether the sample is finished, after actions that are taken as valid."""
        state, ended = self.advance(state, action)
        return state, self.pay(state, torch.ones_like(ended) if self.dense else ended), ended

    def pay(self, state: State, rows: Tensor) -> Tensor:
        """(n,) rewards of the samples as they are, in one call for ``rows`` (n,) bool; 0 for the others."""
        count, n = int(rows.sum()), len(rows)
        if count == 0:
            return torch.zeros(n, dtype=torch.float32, device=self.device)
        given = [self.sample(state)] + ([state["context"]] if self.conditional else [])
        if count == n:
            return checked(self.reward, *given)
        index = rows.nonzero().squeeze(1)
        value = checked(self.reward, *(x[index] for x in given))
        return torch.zeros(n, dtype=value.dtype, device=self.device).index_copy(0, index, value)

    def actions(self, given: object, n: int) -> Tensor:
        """A user's actions as a tensor (n, *action).

        Raises:
            TypeError: for floats where actions are numbered.
            ValueError: for another shape or device.
        """
        taken = to_device("actions", given, self.device)
        space = self.action_space
        shape = (n, *(space.shape or ()))
        if tuple(taken.shape) != shape:
            raise ValueError(f"actions must have shape {shape}, got {tuple(taken.shape)}")
        if isinstance(space, gym.spaces.Box):
            return taken.to(torch.float32)
        if taken.is_floating_point():
            raise TypeError(f"actions of {space} must be integers, got {taken.dtype}")
        return taken.to(torch.int64)

    def check(self, state: State, action: Tensor, live: Tensor | None = None) -> None:
        """Raise a ``ValueError`` that names the environment whose action is out of range or masked out.

        Args:
            state: n episodes.
            action: (n, *action).
            live: (n,) bool: which actions count; all if None.
        """
        low, high = self._limits()
        wrong = ~((action >= low) & (action <= high))
        wrong = wrong.flatten(1).any(1) if wrong.dim() > 1 else wrong
        mask = self.mask(state) if self.masked else None
        if mask is not None:
            inside = action.clamp(0, mask.shape[1] - 1)
            wrong = wrong | ~mask.gather(1, inside[:, None]).squeeze(1)
        if live is not None:
            wrong = wrong & live
        if not bool(wrong.any()):
            return
        i = int(wrong.nonzero()[0])
        chosen = action[i].tolist()
        if mask is not None and bool(low <= action[i] <= high):
            allowed = mask[i].nonzero().squeeze(1).tolist()
            raise ValueError(f"action {chosen} of environment {i} is masked out: it may take {allowed} now")
        raise ValueError(f"action {chosen} of environment {i} is outside of {self.action_space}")

    def _limits(self) -> tuple[float, float]:
        space = self.action_space
        if isinstance(space, gym.spaces.Discrete):
            return 0, int(space.n) - 1
        if isinstance(space, gym.spaces.MultiDiscrete):
            return 0, int(space.nvec.flat[0]) - 1
        if isinstance(space, gym.spaces.Box):
            return float(space.low.flat[0]), float(space.high.flat[0])
        return 0, 1


def choose(rows: Tensor, one: State, other: State) -> State:
    """The rows of ``one`` where ``rows`` (n,) is true, those of ``other`` elsewhere."""
    return {key: torch.where(rows.view(-1, *[1] * (old.dim() - 1)), one[key], old) for key, old in other.items()}
