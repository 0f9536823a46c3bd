"""The bridge: an environment in which samples are written step by step, written out as a tabular MDP.

Every state that can be reached is visited layer by layer, with the environment's own dynamics and one call of its
reward per layer; so what is exact for the MDP (values, optimal policies, gradients) is exact for the environment. For
sequences alone, and large ones, ``advrl.tabular.LayeredTree`` needs no table. Shapes: S states, A actions.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch
from torch import Tensor

from advrl.envs.generation import Generation, State
from advrl.tabular import MDP, Successors


def to_mdp(env: Any, context: object = None, limit: int = 200_000) -> tuple[MDP, State]:
    """The environment as an MDP with gamma 1, and the environment's own state for each of the MDP's.

    State 0 is the start. What has ended is no state: the step that ends an episode has ``stop`` 1. A policy of
    observations becomes a table by ``policy(task.observe(states))``.

    Args:
        env: an ``Env`` or ``VectorEnv`` of a :class:`Generation` with numbered actions, wrapped or not, or the task.
        context: (C,) what is given, where the task has contexts: the MDP is that of one of them.
        limit: most states.

    Returns:
        (mdp, states): (S, A) float64 on the task's device, and the task's state, a dictionary of (S, ...) tensors.

    Raises:
        TypeError: for other environments.
        ValueError: for more states than ``limit``, or a context that is missing.
    """
    task = env if isinstance(env, Generation) else getattr(env.unwrapped, "dynamics", None)
    if not isinstance(task, Generation) or not isinstance(task.action_space, gym.spaces.Discrete):
        raise TypeError(f"only generation environments with numbered actions can be written out, got {env!r}")
    if task.contexts is not None and context is None:
        raise ValueError("the MDP is that of one context: give context=")
    actions, device = int(task.action_space.n), task.device
    given = None if context is None else torch.as_tensor(context, dtype=torch.float32, device=device)[None]
    layer = task.init(1, given)
    layers, following, rewards, stops, masks = [layer], [], [], [], []
    count = 1  # states so far
    while len(layer["steps"]):
        size = len(layer["steps"])
        mask = task.mask(layer)
        assert mask is not None
        row, action = mask.nonzero(as_tuple=True)
        state, reward, ended = task.step({key: value[row] for key, value in layer.items()}, action)
        layer = {key: value[~ended] for key, value in state.items()}
        number = torch.where(ended, 0, count + (~ended).cumsum(0) - 1)
        following.append(_table(size, actions, row, action, number))
        rewards.append(_table(size, actions, row, action, reward.double()))
        stops.append(1 - _table(size, actions, row, action, (~ended).double()))
        masks.append(mask)
        count += len(layer["steps"])
        if count > limit:
            raise ValueError(
                f"more than {limit:,} states after {len(layers)} steps: raise limit=, or take a smaller task"
            )
        layers.append(layer)
    stop = torch.cat(stops)
    p0 = torch.zeros(count, dtype=torch.float64, device=device)
    p0[0] = 1
    P = Successors(torch.cat(following)[..., None].int(), (1 - stop)[..., None])
    mdp = MDP(P, torch.cat(rewards), 1.0, stop=stop, p0=p0, mask=torch.cat(masks))
    return mdp, {key: torch.cat([part[key] for part in layers]) for key in layers[0]}


def _table(states: int, actions: int, row: Tensor, action: Tensor, value: Tensor) -> Tensor:
    """(states, actions) with ``value`` at (row, action), 0 elsewhere."""
    table = torch.zeros(states, actions, dtype=value.dtype, device=value.device)
    table[row, action] = value
    return table
