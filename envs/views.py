"""Gymnasium's two views of a generation task: one episode at a time, or many side by side, as NumPy arrays."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from advrl.checks import integer
from advrl.envs.generation import Generation, State, choose
from advrl.envs.options import check_reset_mask, checked_options

Observation = np.ndarray | dict[str, np.ndarray]
MODES = ["ansi", "rgb_array"]


def _numpy(value: Tensor) -> np.ndarray:
    array: np.ndarray = value.cpu().numpy()
    return array.copy()  # the caller's array must not change under them, nor ours under us


def _observation(task: Generation, state: State) -> Observation:
    seen = task.observe(state)
    return {key: _numpy(part) for key, part in seen.items()} if isinstance(seen, dict) else _numpy(seen)


def _row(seen: Observation, i: int) -> Observation:
    return {key: part[i] for key, part in seen.items()} if isinstance(seen, dict) else seen[i]


def _render_mode(mode: str | None) -> str | None:
    if mode not in (None, *MODES):
        raise ValueError(f"render_mode must be one of {MODES}, got {mode!r}")
    return mode


def _drawn(task: Generation, state: State, row: int, mode: str | None) -> Any:
    return None if mode is None else task.text(state, row) if mode == "ansi" else task.picture(state, row)


class GenerationEnv(gym.Env[Any, Any]):
    """One episode of a generation task at a time: a batch of one, as NumPy arrays.

    Where actions have numbers, ``info["action_mask"]`` (A,) int8 says which can be taken; :meth:`action_masks` too.

    Args:
        dynamics: the task.
        render_mode: ``ansi`` or ``rgb_array``.
    """

    metadata = {"render_modes": MODES, "render_fps": 4}

    def __init__(self, dynamics: Generation, render_mode: str | None = None) -> None:
        self.dynamics, self.render_mode = dynamics, _render_mode(render_mode)
        self.observation_space, self.action_space = dynamics.observation_space, dynamics.action_space
        self._generator = torch.Generator(dynamics.device)
        self._state: State | None = None
        self._over = True

    def action_masks(self) -> np.ndarray:
        """(A,) bool: which actions can be taken now."""
        return _masks(self.dynamics, self._state)[0]

    def _info(self, state: State) -> dict[str, Any]:
        mask = self.dynamics.mask(state)
        return {} if mask is None else {"action_mask": mask[0].to(torch.int8).cpu().numpy()}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start a sample; ``options={"context": c}`` (C,) sets what it is given."""
        super().reset(seed=seed)
        context = checked_options(options, {"context"}).get("context")
        if context is not None:
            context = context[None] if isinstance(context, Tensor) else np.asarray(context)[None]
        if seed is not None or self._state is None:
            self._generator.manual_seed(int(self.np_random.integers(2**63 - 1)))
        self._state = self.dynamics.init(1, context, self._generator)
        self._over = False
        return _row(_observation(self.dynamics, self._state), 0), self._info(self._state)

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Write a little more.

        Raises:
            gymnasium.error.ResetNeeded: before the first reset, and after the end of the episode.
            TypeError, ValueError: for an action that cannot be taken.
        """
        if self._over or self._state is None:
            raise ResetNeeded("the episode is over, or has not begun: call reset() before step()")
        task = self.dynamics
        given = action[None] if isinstance(action, Tensor) else np.asarray(action)[None]
        taken = task.actions(given, 1)
        task.check(self._state, taken)
        self._state, reward, ended = task.step(self._state, taken)
        self._over = bool(ended)
        return _row(_observation(task, self._state), 0), float(reward), self._over, False, self._info(self._state)

    def render(self) -> Any:
        """What has been written, as text, or as a picture (H, W, 3) uint8."""
        if self._state is None:
            raise ResetNeeded("nothing to render before the first reset()")
        return _drawn(self.dynamics, self._state, 0, self.render_mode)


class GenerationVectorEnv(VectorEnv[Any, Any, Any]):
    """Many episodes of a generation task side by side, one tensor operation for all, on any device.

    Args:
        dynamics: the task.
        num_envs: n.
        autoreset_mode: what follows an episode's end. ``SAME_STEP``: the next begins at once, and ``infos`` holds the
            last observation and info under ``final_obs`` and ``final_info``. ``NEXT_STEP``: the next step begins it,
            ignoring its action and paying nothing. ``DISABLED``: whoever steps calls
            ``reset(options={"reset_mask": ended})`` first. An ``AutoresetMode`` or its value, such as ``"NextStep"``.
        render_mode: ``ansi`` or ``rgb_array``: ``render()`` returns a tuple of n.
    """

    metadata = {"render_modes": MODES, "render_fps": 4, "autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(
        self, dynamics: Generation, num_envs: int = 1, *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP, render_mode: str | None = None,
    ) -> None:  # fmt: skip
        self.dynamics, self.num_envs = dynamics, integer("num_envs", num_envs)
        self.render_mode = _render_mode(render_mode)
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.single_observation_space, self.single_action_space = dynamics.observation_space, dynamics.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._generator = torch.Generator(dynamics.device)
        self._state: State | None = None
        self._over = np.zeros(num_envs, dtype=np.bool_)

    @property
    def device(self) -> torch.device:
        """Where the episodes are played; observations, rewards and infos are NumPy arrays all the same."""
        return self.dynamics.device

    def action_masks(self) -> np.ndarray:
        """(n, A) bool: which actions can be taken now."""
        return _masks(self.dynamics, self._state)

    def _info(self, state: State) -> dict[str, Any]:
        mask = self.dynamics.mask(state)
        if mask is None:
            return {}
        return {"action_mask": mask.to(torch.int8).cpu().numpy(), "_action_mask": np.ones(self.num_envs, np.bool_)}

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start all episodes anew.

        Args:
            seed: one integer for all.
            options: ``context`` (n, C) sets what each is given; ``reset_mask`` (n,) bool which of them start anew.

        Raises:
            TypeError, ValueError: for other seeds, options, or masks.
        """
        if not isinstance(seed, int | None):
            raise TypeError(f"seed must be one integer for all environments, got {seed!r}")
        super().reset(seed=seed)
        given = checked_options(options, {"context", "reset_mask"})
        mask = given.get("reset_mask")
        if mask is not None:
            check_reset_mask(mask, self.num_envs, self._state is not None)
        if seed is not None or self._state is None:
            self._generator.manual_seed(int(self.np_random.integers(2**63 - 1)))
        fresh = self.dynamics.init(self.num_envs, given.get("context"), self._generator)
        if mask is None:
            self._state, self._over = fresh, np.zeros(self.num_envs, dtype=np.bool_)
        else:
            assert self._state is not None
            self._state = choose(torch.as_tensor(mask, device=self.device), fresh, self._state)
            self._over = self._over & ~mask
        return _observation(self.dynamics, self._state), self._info(self._state)

    def step(self, actions: Any) -> tuple[Observation, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Write a little more of every sample.

        Raises:
            gymnasium.error.ResetNeeded: before the first reset; with ``DISABLED``, after the end of an episode.
            TypeError, ValueError: for actions that cannot be taken.
        """
        if self._state is None:
            raise ResetNeeded("the episodes have not begun: call reset() before step()")
        if self.autoreset_mode == AutoresetMode.DISABLED and self._over.any():
            which = np.flatnonzero(self._over)[:8].tolist()
            raise ResetNeeded(
                f"environments {which} are over: call reset(options={{'reset_mask': mask}}) before the next step()"
            )
        task, n = self.dynamics, self.num_envs
        taken = task.actions(actions, n)
        waiting = torch.as_tensor(self._over, device=self.device) if self._over.any() else None  # NEXT_STEP alone
        task.check(self._state, taken, None if waiting is None else ~waiting)
        if waiting is None:
            state, reward, ended = task.step(self._state, taken)
        else:
            state, ended = task.advance(self._state, taken)
            ended = ended & ~waiting
            reward = task.pay(state, ~waiting if task.dense else ended)
            state = choose(waiting, task.init(n, None, self._generator), state)
        over = _numpy(ended)
        final: dict[str, Any] = {}
        if self.autoreset_mode == AutoresetMode.SAME_STEP and over.any():
            final = self._final(state, over)
            state = choose(ended, task.init(n, None, self._generator), state)
        elif self.autoreset_mode != AutoresetMode.SAME_STEP:
            self._over = over
        self._state = state
        infos = final | self._info(state)
        return _observation(task, state), _numpy(reward).astype(np.float64), over, np.zeros(n, np.bool_), infos

    def _final(self, state: State, over: np.ndarray) -> dict[str, Any]:
        """What SAME_STEP tells of the episodes that are over, as Gymnasium's own vector environments do."""
        seen = _observation(self.dynamics, state)
        last = np.full(self.num_envs, None, dtype=object)
        for i in np.flatnonzero(over).tolist():
            last[i] = _row(seen, i)
        info = {
            key: over if key.startswith("_") else value * over.reshape(-1, *[1] * (value.ndim - 1))
            for key, value in self._info(state).items()
        }
        return {"final_obs": last, "_final_obs": over.copy(), "final_info": info, "_final_info": over.copy()}

    def render(self) -> tuple[Any, ...] | None:
        """What has been written by each, as text or as pictures."""
        if self._state is None:
            raise ResetNeeded("nothing to render before the first reset()")
        state, mode = self._state, self.render_mode
        return None if mode is None else tuple(_drawn(self.dynamics, state, i, mode) for i in range(self.num_envs))


def _masks(task: Generation, state: State | None) -> np.ndarray:
    if state is None:
        raise ResetNeeded("there is no mask before the first reset()")
    mask = task.mask(state)
    if mask is None:
        raise TypeError(f"actions of {task.action_space} have no numbers that could be masked")
    return _numpy(mask)
