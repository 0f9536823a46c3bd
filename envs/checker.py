"""A checker for vector environments, which Gymnasium and Stable-Baselines3 have for single ones alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, iterate

from advrl.checks import integer
from advrl.seeding import isolated

SAME, NEXT, DISABLED = AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED


def check_vector_env(
    env: VectorEnv[Any, Any, Any], single: Callable[[], gym.Env[Any, Any]] | None = None, *,
    options: Mapping[str, Any] | None = None, steps: int = 100, seed: int = 0,
) -> None:  # fmt: skip
    """Raise an ``AssertionError`` with what is wrong, if a vector environment breaks Gymnasium's contract.

    What is checked: that spaces and batches of them agree; that observations, rewards and flags are NumPy arrays of the
    right shapes and dtypes, inside their spaces, and do not change under the caller when the next step is taken; that
    one seed gives one course of episodes, whatever is drawn elsewhere; that masks hold 0 and 1, leave an action, are
    those of ``action_masks()`` and can be followed; that what follows an episode's end is what
    ``metadata["autoreset_mode"]`` says; and, with ``single``, that the batch is its environments side by side.

    Args:
        env: the vector environment; it is reset.
        single: makes one single environment. Its episodes are compared with the batch's, from a reset with the same
            options, up to the first end of each; so apart from what ``options`` set it must not be random.
        options: for ``reset`` of the batch, arrays with a row for each environment; each single one gets its row.
        steps: to take in each check, in which an episode must end.
        seed: of all.

    Raises:
        AssertionError: naming what is wrong, and the environment where one can be named.
        TypeError: for something else than a vector environment.
    """
    if not isinstance(env, VectorEnv):
        raise TypeError(f"check_vector_env needs a gymnasium VectorEnv, got {type(env).__name__}")
    given = dict(options or {})
    _check_spaces(env)
    with isolated(seed):
        first = _play(env, given, integer("steps", steps), seed)
    with isolated(seed + 1):  # what the global generators draw must not matter
        again = _play(env, given, steps, seed)
    _check_equal(first, again, "a second run with the same seed and actions")
    assert any(over.any() for *_, over in first), f"no episode ended within {steps} steps: give more steps="
    if env.metadata["autoreset_mode"] == DISABLED:
        _check_refusal(env, given, steps, seed)
    if single is not None:
        _check_singles(env, single, given, steps, seed)


def _check_spaces(env: VectorEnv[Any, Any, Any]) -> None:
    n = env.num_envs
    assert isinstance(n, int) and n > 0, f"num_envs must be a positive integer, got {n!r}"
    mode = env.metadata.get("autoreset_mode")
    assert isinstance(mode, AutoresetMode), f'metadata["autoreset_mode"] must be an AutoresetMode, got {mode!r}'
    for kind in ("observation", "action"):
        one, many = getattr(env, f"single_{kind}_space"), getattr(env, f"{kind}_space")
        expected = batch_space(one, n)
        assert many == expected, f"{kind}_space must be {n} of single_{kind}_space, {expected}, got {many}"


def _play(env: VectorEnv[Any, Any, Any], options: dict[str, Any], steps: int, seed: int) -> list[tuple[Any, ...]]:
    """(observation, reward, terminated, truncated, over) of each step, each checked on the way."""
    mode = env.metadata["autoreset_mode"]
    env.action_space.seed(seed)
    env.single_action_space.seed(seed)
    seen, infos = env.reset(seed=seed, options=dict(options) or None)
    _check_observation(env, seen, "reset()")
    nothing = np.zeros(env.num_envs, np.bool_)
    course = [(_copy(seen), np.zeros(env.num_envs), nothing, nothing, nothing)]
    over = nothing
    for k in range(steps):
        if mode == DISABLED and over.any():
            seen, infos = _masked_reset(env, seen, over)
        actions, before = _actions(env, infos), _copy(seen)
        held = seen
        seen, reward, terminated, truncated, infos = env.step(actions)
        where = f"step {k + 1}"
        _check_same(held, before, f"the observation before {where} changed with the step: return a copy")
        _check_observation(env, seen, where)
        _check_outcome(env, reward, terminated, truncated, where)
        assert isinstance(infos, dict), f"{where}: infos must be a dict, got {type(infos).__name__}"
        waited, over = over, terminated | truncated
        if mode == NEXT and waited.any():
            wrong = waited & (over | (reward != 0))
            assert not wrong.any(), (
                f"{where}: with NEXT_STEP the step after an end begins the next episode, with reward 0 and no end; "
                f"environments {_which(wrong)} did otherwise"
            )
        if mode == SAME and over.any():
            _check_final(env, infos, over, where)
        elif "final_obs" in infos:
            raise AssertionError(f"{where}: final_obs is for SAME_STEP, in steps where an episode ends")
        course.append((_copy(seen), reward.copy(), terminated.copy(), truncated.copy(), over))
    return course


def _check_observation(env: VectorEnv[Any, Any, Any], seen: Any, where: str) -> None:
    for part in _parts(seen):
        assert isinstance(part, np.ndarray), (
            f"{where}: observations must be NumPy arrays, got {type(part).__name__}"
            + (f" on {part.device}: bring it to the host" if isinstance(part, torch.Tensor) else "")
        )
    assert env.observation_space.contains(seen), (
        f"{where}: the observation is not in observation_space {env.observation_space}: {_about(seen)}"
    )


def _check_outcome(env: VectorEnv[Any, Any, Any], reward: Any, terminated: Any, truncated: Any, where: str) -> None:
    for name, value, kind in (("rewards", reward, "f"), ("terminated", terminated, "b"), ("truncated", truncated, "b")):
        assert isinstance(value, np.ndarray) and value.shape == (env.num_envs,) and value.dtype.kind == kind, (
            f"{where}: {name} must be a NumPy array ({env.num_envs},) of {'floats' if kind == 'f' else 'bool'}, got "
            f"{_about(value)}"
        )
    bad = ~np.isfinite(reward)
    assert not bad.any(), f"{where}: rewards must be finite, those of environments {_which(bad)} are not"


def _check_final(env: VectorEnv[Any, Any, Any], infos: dict[str, Any], over: np.ndarray, where: str) -> None:
    for key in ("final_obs", "_final_obs"):
        assert key in infos, (
            f"{where}: an episode ended, so with SAME_STEP infos must have {key!r}; has {sorted(infos)}"
        )
    marked = infos["_final_obs"]
    assert np.array_equal(marked, over), (
        f"{where}: _final_obs marks environments {_which(marked)}, but the episodes of {_which(over)} ended"
    )
    last = infos["final_obs"]
    for i in np.flatnonzero(over).tolist():
        row = _pick(last, i)
        assert env.single_observation_space.contains(row), (
            f"{where}: final_obs of environment {i} is not in single_observation_space: {_about(row)}"
        )


def _masked_reset(env: VectorEnv[Any, Any, Any], seen: Any, over: np.ndarray) -> tuple[Any, dict[str, Any]]:
    fresh, infos = env.reset(options={"reset_mask": over.copy()})
    _check_observation(env, fresh, "reset() with reset_mask")
    for i in np.flatnonzero(~over).tolist():
        _check_same(_pick(fresh, i), _pick(seen, i), f"reset_mask left environment {i} out, but it was reset too")
    return fresh, infos


def _check_refusal(env: VectorEnv[Any, Any, Any], options: dict[str, Any], steps: int, seed: int) -> None:
    env.action_space.seed(seed)
    env.single_action_space.seed(seed)
    _, infos = env.reset(seed=seed, options=dict(options) or None)
    for _ in range(steps):
        actions = _actions(env, infos)
        _, _, terminated, truncated, infos = env.step(actions)
        over = terminated | truncated
        if over.any():
            try:
                env.step(actions)
            except (AssertionError, ResetNeeded, ValueError):
                return
            raise AssertionError(f"with DISABLED, a step after the end of environments {_which(over)} must be refused")


def _actions(env: VectorEnv[Any, Any, Any], infos: dict[str, Any]) -> Any:
    if "action_mask" not in infos:
        return env.action_space.sample()
    mask, space = infos["action_mask"], env.single_action_space
    shape = (env.num_envs, gym.spaces.flatdim(space))
    assert isinstance(mask, np.ndarray) and mask.shape == shape and mask.dtype.kind in "bi", (
        f'infos["action_mask"] must be an array {shape} of int8 or bool, got {_about(mask)}'
    )
    assert np.isin(mask, (0, 1)).all(), 'infos["action_mask"] must hold 0 and 1 alone'
    stuck = ~mask.any(1)
    assert not stuck.any(), f'infos["action_mask"] leaves environments {_which(stuck)} no action'
    if hasattr(env.unwrapped, "action_masks"):
        other = env.unwrapped.action_masks()
        assert np.array_equal(other, mask), 'action_masks() and infos["action_mask"] must agree'
    return np.array([space.sample(mask=row.astype(np.int8)) for row in mask])


def _check_singles(
    env: VectorEnv[Any, Any, Any],
    single: Callable[[], gym.Env[Any, Any]],
    options: dict[str, Any],
    steps: int,
    seed: int,
) -> None:
    n = env.num_envs
    ones = [single() for _ in range(n)]
    assert ones[0].observation_space == env.single_observation_space, (
        f"the single environment observes {ones[0].observation_space}, the batch {env.single_observation_space}"
    )
    assert ones[0].action_space == env.single_action_space, (
        f"the single environment takes {ones[0].action_space}, the batch {env.single_action_space}"
    )
    env.single_action_space.seed(seed)
    env.action_space.seed(seed)
    seen, infos = env.reset(seed=seed, options=dict(options) or None)
    for i, one in enumerate(ones):
        start, _ = one.reset(seed=seed, options={key: value[i] for key, value in options.items()} or None)
        _check_same(
            _pick(seen, i), start,
            f"environment {i} starts elsewhere than its single one (set what is random through options=)",
        )  # fmt: skip
    live = np.ones(n, np.bool_)
    for k in range(steps):
        actions = _actions(env, infos)
        seen, reward, terminated, truncated, infos = env.step(actions)
        for i, action in enumerate(iterate(env.action_space, actions)):
            if not live[i]:
                continue
            row, paid, ended, cut, _ = ones[i].step(action)
            where = f"step {k + 1}: environment {i} and its single one"
            assert np.isclose(float(paid), reward[i], rtol=1e-5, atol=1e-6), f"{where} are paid {reward[i]} and {paid}"
            assert (ended, cut) == (terminated[i], truncated[i]), (
                f"{where} say terminated, truncated = {bool(terminated[i]), bool(truncated[i])} and {ended, cut}"
            )
            over = ended or cut
            last = infos["final_obs"] if over and env.metadata["autoreset_mode"] == SAME else None
            mine = _pick(seen, i) if last is None else _pick(last, i)
            _check_same(mine, row, f"{where} observe different things")
            live[i] = not over
        if not live.any() or (env.metadata["autoreset_mode"] == DISABLED and not live.all()):
            break


def _check_equal(one: list[tuple[Any, ...]], other: list[tuple[Any, ...]], what: str) -> None:
    for k, (a, b) in enumerate(zip(one, other, strict=True)):
        for name, x, y in zip(("observations", "rewards", "terminated", "truncated"), a, b, strict=False):
            _check_same(x, y, f"{what} differs in its {name}, {f'after step {k}' if k else 'after reset()'}")


def _check_same(one: Any, other: Any, message: str) -> None:
    for a, b in zip(_parts(one), _parts(other), strict=True):
        assert np.allclose(np.asarray(a), np.asarray(b), rtol=1e-5, atol=1e-6), message


def _each(change: Callable[[Any], Any], nest: Any) -> Any:
    if isinstance(nest, dict):
        return {key: _each(change, part) for key, part in nest.items()}
    return tuple(_each(change, part) for part in nest) if isinstance(nest, tuple) else change(nest)


def _parts(nest: Any) -> list[Any]:
    inside = nest.values() if isinstance(nest, dict) else nest
    return [leaf for part in inside for leaf in _parts(part)] if isinstance(nest, dict | tuple) else [nest]


def _pick(batch: Any, i: int) -> Any:
    return _each(lambda part: part[i], batch)


def _copy(seen: Any) -> Any:
    return _each(lambda part: part.copy(), seen)


def _which(rows: Any) -> list[int]:
    return np.flatnonzero(rows)[:8].tolist()


def _about(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_about(part)}" for key, part in value.items())
    if isinstance(value, np.ndarray):
        span = f" from {value.min()} to {value.max()}" if value.size and value.dtype.kind in "iuf" else ""
        return f"array {value.shape} of {value.dtype}{span}"
    return f"{type(value).__name__} {value!r}"[:200]
