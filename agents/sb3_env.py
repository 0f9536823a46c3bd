"""Gymnasium's vector environments for Stable-Baselines3, which takes none of them by itself.

The two differ in how an episode's end is told. Gymnasium's ``AutoresetMode.SAME_STEP`` returns the first observation of
the next episode, and the last one of the old in ``infos["final_obs"]``; Stable-Baselines3 wants a list with one dict
per environment, the last observation as ``terminal_observation``, and whether a time limit cut it off as
``TimeLimit.truncated``. Shapes: n environments.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

MASKS = "action_masks"  # the name under which sb3-contrib asks for them


class SB3VecEnv(VecEnv):
    """A batched Gymnasium environment as Stable-Baselines3's ``VecEnv``: one step for all, no Python loop over them.

    ``infos`` are the same n empty dicts at every step, but for the episodes that end in it: theirs hold
    ``terminal_observation``, ``TimeLimit.truncated`` and what ``final_info`` says. What the environment reports of
    steps within an episode is left out, for n fresh dicts a step would cost more than the step. Give
    ``stable_baselines3.common.vec_env.VecMonitor`` the result if returns and lengths of episodes are to be logged.

    ``env_method("action_masks")``, which sb3-contrib's MaskablePPO calls, gives one mask per environment: by the
    environment's own ``action_masks()``, (n, A), or by the ``action_mask`` of its latest infos. Other methods and
    attributes belong to the batch, see :meth:`get_attr` and :meth:`env_method`.

    Args:
        env: a vector environment whose ``metadata["autoreset_mode"]`` is ``AutoresetMode.SAME_STEP``.

    Raises:
        TypeError: if ``env`` is no vector environment.
        ValueError: for another autoreset mode, or spaces that Stable-Baselines3 does not know.
    """

    def __init__(self, env: VectorEnv) -> None:
        if not isinstance(env, VectorEnv):
            raise TypeError(
                f"env must be a gymnasium.vector.VectorEnv, as gymnasium.make_vec returns, got {type(env).__name__}; "
                "Stable-Baselines3 takes a single environment without an adapter"
            )
        mode = env.metadata.get("autoreset_mode")
        if mode != AutoresetMode.SAME_STEP:
            said = getattr(mode, "name", mode)
            raise ValueError(
                "Stable-Baselines3 expects that an episode's end and the next one's first observation come in one "
                f"step: env must have autoreset mode SAME_STEP, got {said}; make it with "
                "gymnasium.make_vec(id, n, vector_kwargs={'autoreset_mode': AutoresetMode.SAME_STEP}), or, if it is "
                "natively batched, with autoreset_mode= of its own"
            )
        _check_space("observation", env.single_observation_space)
        _check_space("action", env.single_action_space)
        self.env = env
        self._blank: list[dict[str, Any]] = [{} for _ in range(env.num_envs)]
        self._masks: np.ndarray | None = None
        self._actions: np.ndarray | None = None
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> Any:
        """First observations, (n, *shape); seeds and options given before are used now.

        Raises:
            ValueError: if the environments were given different options.
        """
        if any(options != self._options[0] for options in self._options):
            raise ValueError("the environments of a batch share their options: give set_options one dict")
        obs, infos = self.env.reset(seed=self._seeds[0], options=self._options[0] or None)
        self._reset_seeds()
        self._reset_options()
        self._masks = infos.get("action_mask")
        self.reset_infos = [_row(infos, i) for i in range(self.num_envs)]
        return _copied(obs)

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions, (n, *shape), for :meth:`step_wait`, those of discrete spaces as whole numbers.

        Stable-Baselines3 gives those of ``MultiBinary`` as floats.
        """
        whole = not isinstance(self.action_space, spaces.Box) and np.asarray(actions).dtype.kind == "f"
        self._actions = actions.astype(self.action_space.dtype) if whole else actions

    def step_wait(self) -> tuple[Any, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Observations (n, *shape), rewards (n,), ends (n,), infos."""
        assert self._actions is not None
        obs, rewards, terminated, truncated, told = self.env.step(self._actions)
        self._masks = told.get("action_mask")
        dones = np.logical_or(terminated, truncated)
        infos = list(self._blank)
        ended: list[int] = np.flatnonzero(dones).tolist()
        if ended:
            if "final_obs" not in told:
                raise ValueError("episodes ended, but the environment's infos have no 'final_obs': see SAME_STEP")
            final, last = told["final_obs"], told.get("final_info", {})
            for i in ended:
                infos[i] = _row(last, i)
                infos[i]["terminal_observation"] = _observation(final, i)
                infos[i]["TimeLimit.truncated"] = bool(truncated[i] and not terminated[i])
        return _copied(obs), np.array(rewards, dtype=np.float32), dones, infos

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The batch's attribute, once for each environment; for ``action_masks``, each one's mask.

        Raises:
            AttributeError: if the environment has none.
        """
        chosen = self._get_indices(indices)
        if attr_name == MASKS:
            masks = self._action_masks()
            return [masks[i] for i in chosen]
        value = self._attribute(attr_name)
        return [value for _ in chosen]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the batch.

        Raises:
            ValueError: for some environments only, since they share it.
        """
        if sorted(self._get_indices(indices)) != list(range(self.num_envs)):
            raise ValueError(f"the environments of a batch share {attr_name}: set it for all, without indices")
        setattr(self.env.unwrapped, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of the batch once; what it returns has a row for each environment, or is None.

        Raises:
            AttributeError: if the environment has no such method.
            ValueError: if it returns something else, which cannot be divided.
        """
        chosen = self._get_indices(indices)
        if method_name == MASKS:
            masks = self._action_masks()
            return [masks[i] for i in chosen]
        rows = self._attribute(method_name)(*method_args, **method_kwargs)
        if rows is None:
            return [None for _ in chosen]
        if not hasattr(rows, "__len__") or len(rows) != self.num_envs:
            raise ValueError(f"{method_name} must return one row for each of {self.num_envs} environments, got {rows}")
        return [rows[i] for i in chosen]

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """Never: the single environments are not there to be wrapped."""
        return [False for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[np.ndarray | None]:
        """One frame for each environment."""
        frames: Any = self.env.render()
        return list(frames or [None] * self.num_envs)

    def _attribute(self, name: str) -> Any:
        try:
            return getattr(self.env, name)  # of a wrapper too
        except AttributeError:
            return getattr(self.env.unwrapped, name)

    def _action_masks(self) -> np.ndarray:
        own = getattr(self.env.unwrapped, MASKS, None)
        if own is None and self._masks is None:
            raise AttributeError("the environment has neither action_masks() nor an action_mask in its infos")
        try:
            masks = np.asarray(self._masks if own is None else own(), dtype=bool)
        except TypeError as error:  # so our environments say that their actions have no numbers
            raise AttributeError(str(error)) from error
        if len(masks) != self.num_envs:
            raise ValueError(f"action masks must have {self.num_envs} rows, got shape {masks.shape}")
        return masks


def _check_space(name: str, space: spaces.Space[Any]) -> None:
    if name == "observation" and isinstance(space, spaces.Dict):
        for key, part in space.items():
            if isinstance(part, spaces.Dict):
                raise ValueError(f"Stable-Baselines3 takes flat Dict observations, but {key!r} is a Dict itself")
            _check_space(f"observation {key!r}", part)
        return
    if not isinstance(space, (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
        raise ValueError(
            f"Stable-Baselines3 takes Box, Discrete, MultiDiscrete and MultiBinary spaces, and flat Dict observations; "
            f"the {name} space is {space}"
        )
    if isinstance(space, spaces.Discrete) and space.start != 0:
        raise ValueError(f"Stable-Baselines3 counts from 0, but the {name} space is {space}")
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim != 1:
        raise ValueError(f"Stable-Baselines3 takes MultiDiscrete in one dimension, but the {name} space is {space}")


def _copied(obs: Any) -> Any:
    """The environment may write its next observation into the same array before the buffer has copied this one."""
    return {key: np.array(part) for key, part in obs.items()} if isinstance(obs, dict) else np.array(obs)


def _observation(final: Any, i: int) -> Any:
    """Row i of last observations: a dense array, an object array, or a dict of either."""
    if isinstance(final, dict):
        return {key: np.array(part[i]) for key, part in final.items()}
    row = final[i]
    return {key: np.array(part) for key, part in row.items()} if isinstance(row, dict) else np.array(row)


def _row(infos: dict[str, Any], i: int) -> dict[str, Any]:
    """What a vector environment's infos say of environment i, by Gymnasium's masks ``_key`` where there are any."""
    row = {}
    for key, value in infos.items():
        if key.startswith("_") and key[1:] in infos:
            continue
        present = infos.get(f"_{key}")
        if present is None or present[i]:
            row[key] = _row(value, i) if isinstance(value, dict) else value[i]
    return row


def chain(env: VecEnv) -> Iterable[VecEnv]:
    """An environment and what it wraps, from the outside in."""
    yield env
    while hasattr(env, "venv"):
        env = env.venv
        yield env
