"""The way back from an MDP to an environment: one episode at a time, or many side by side on the MDP's device."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from advrl.checks import integer
from advrl.tabular import MDP, ended_states, to_table
from advrl.tabular.solution import feasible


class Dynamics:
    """Where an MDP goes, as tensor functions on its device: what learners call. One row of tables per s * A + a.

    Raises:
        ValueError: for a batch of MDPs.
    """

    def __init__(self, mdp: MDP) -> None:
        if mdp.batch_shape:
            raise ValueError(f"an environment plays one MDP, this is a batch of shape {mdp.batch_shape}")
        self.mdp = mdp
        matrix = mdp.sparse().P
        assert isinstance(matrix, Tensor)
        crow, col, prob = matrix.crow_indices().long(), matrix.col_indices().long(), matrix.values()
        width = crow.diff()
        most = max(1, int(width.max()))
        place = torch.arange(most, device=mdp.device)
        inside = place < width[:, None]
        entry = (crow[:-1, None] + place).clamp(max=max(len(col) - 1, 0))
        blank = torch.zeros(inside.shape, dtype=prob.dtype, device=mdp.device)
        self.next = torch.where(inside, col[entry], 0) if len(col) else blank.long()
        chance = torch.where(inside, prob[entry], 0.0) if len(col) else blank
        self.edges = chance.cumsum(-1)
        stops = torch.zeros_like(mdp.R) if mdp.stop is None else mdp.stop
        goes_on = (stops.flatten() == 0) & (width > 0)
        last = (chance > 0) * place  # the last successor takes what rounding leaves, or the episode would end by it
        self.edges = torch.where(goes_on[:, None] & (place >= last.amax(-1, keepdim=True)), torch.inf, self.edges)
        self.reward = mdp.R.flatten()
        self.over = ended_states(mdp)
        self.allowed = feasible(mdp)
        start = (~self.over).to(mdp.dtype) if mdp.p0 is None else mdp.p0
        self.start = start / start.sum()

    def init(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """(n,) first states; uniform over those that have not ended, where the MDP has no p0."""
        return torch.multinomial(self.start, n, replacement=True, generator=generator)

    def step(
        self, state: Tensor, action: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """((n,), (n,), (n,)) next states, expected rewards of state and action, and whether the episode has ended.

        What ends without a next state stays where it is.
        """
        row = state * self.mdp.num_actions + action
        u = torch.rand(state.shape, dtype=self.edges.dtype, device=state.device, generator=generator)
        k = (self.edges[row] <= u[:, None]).sum(-1)
        stopped = k == self.next.shape[1]
        following = self.next[row, k.clamp(max=self.next.shape[1] - 1)]
        following = torch.where(stopped, state, following)
        return following, self.reward[row], stopped | self.over[following]


class TabularEnv(gym.Env[np.int64, np.int64]):
    """Episodes of an MDP.

    Observation: the state's number. Action: the action's number; one that is not feasible is refused, and ``info``
    holds the ``action_mask``. Reward: the expected one of state and action, as the MDP holds it, so that returns have
    the right mean. The episode terminates in terminal states and where the MDP stops; a time limit is a wrapper,
    ``gymnasium.wrappers.TimeLimit``. It starts in the MDP's p0, or uniformly where it has none. ``P[s][a]`` is
    Gymnasium's table of transitions.
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 4}

    def __init__(self, mdp: MDP, render_mode: str | None = None) -> None:
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(f"render_mode must be one of {self.metadata['render_modes']}, got {render_mode!r}")
        self.mdp, self.render_mode = mdp, render_mode
        self.dynamics = dynamics = Dynamics(mdp)
        self._next, self._edges, self._reward, self._over, self._allowed, self.initial_state_distrib = (
            t.cpu().numpy()
            for t in (dynamics.next, dynamics.edges, dynamics.reward, dynamics.over, dynamics.allowed, dynamics.start)
        )
        self.shape, self.action_labels = mdp.shape, mdp.action_labels  # found by from_gymnasium
        self.observation_space = gym.spaces.Discrete(mdp.num_states)
        self.action_space = gym.spaces.Discrete(mdp.num_actions)
        self.state = 0

    @cached_property
    def P(self) -> dict[int, dict[int, list[tuple[float, int, float, bool]]]]:
        """Gymnasium's table ``P[s][a] = [(p, s', r, done), ...]``."""
        return to_table(self.mdp)

    def action_masks(self) -> np.ndarray:
        """(A,) bool: which actions are feasible now."""
        allowed: np.ndarray = self._allowed[self.state]
        return allowed

    def _info(self) -> dict[str, Any]:
        return {"action_mask": self.action_masks().astype(np.int8)}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.int64, dict[str, Any]]:
        """Start anew; ``options={"state": s}`` starts in state s."""
        super().reset(seed=seed)
        if options and "state" in options:
            self.state = int(options["state"])
            if not 0 <= self.state < self.mdp.num_states:
                raise ValueError(f"the first state must be in 0..{self.mdp.num_states - 1}, got {self.state}")
        else:
            u = self.np_random.random()
            last = len(self.initial_state_distrib) - 1
            self.state = min(int((self.initial_state_distrib.cumsum() <= u).sum()), last)
        return np.int64(self.state), self._info()

    def step(self, action: np.int64) -> tuple[np.int64, float, bool, bool, dict[str, Any]]:
        """One transition."""
        if not 0 <= action < self.mdp.num_actions or not self._allowed[self.state, action]:
            raise ValueError(f"action {action} is not feasible in state {self.mdp.state(self.state)}")
        before = self.state
        row = before * self.mdp.num_actions + int(action)
        k = int((self._edges[row] <= self.np_random.random()).sum())
        stopped = k == self._next.shape[1]
        if not stopped:
            self.state = int(self._next[row, k])
        ended = stopped or bool(self._over[self.state])
        return np.int64(self.state), self._paid(before, int(action)), ended, False, self._info()

    def _paid(self, before: int, action: int) -> float:
        return float(self._reward[before * self.mdp.num_actions + action])

    def render(self) -> Any:
        """The state's name."""
        return self.mdp.state(self.state) if self.render_mode == "ansi" else None


class TabularVectorEnv(VectorEnv):
    """Many episodes of an MDP side by side, one tensor operation for all, on the MDP's device.

    As :class:`TabularEnv`; where an episode ends, the next begins in the same step (``AutoresetMode.SAME_STEP``), and
    ``infos`` holds the last observation under ``final_obs``. Learners on the device call ``dynamics`` themselves.

    Args:
        max_episode_steps: truncate episodes after so many steps.
    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(self, mdp: MDP, num_envs: int = 1, max_episode_steps: int | None = None) -> None:
        self.num_envs = integer("num_envs", num_envs)
        self.limit = None if max_episode_steps is None else integer("max_episode_steps", max_episode_steps)
        self.mdp, self.dynamics, self.render_mode = mdp, Dynamics(mdp), None
        self.single_observation_space = gym.spaces.Discrete(mdp.num_states)
        self.single_action_space = gym.spaces.Discrete(mdp.num_actions)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.generator = torch.Generator(mdp.device)
        self.states = torch.zeros(num_envs, dtype=torch.int64, device=mdp.device)
        self.steps = torch.zeros_like(self.states)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start all episodes anew; ``seed`` is one number for all."""
        super().reset(seed=seed if isinstance(seed, int) else None)
        if not isinstance(seed, int | None):
            raise TypeError(f"seed must be one integer for all environments, got {seed!r}")
        self.generator.manual_seed(int(self.np_random.integers(2**63 - 1)))
        self.states = self.dynamics.init(self.num_envs, self.generator)
        self.steps = torch.zeros_like(self.states)
        return self.states.cpu().numpy().copy(), self._info()

    def _info(self) -> dict[str, Any]:
        return {"action_mask": self.dynamics.allowed[self.states].to(torch.int8).cpu().numpy()}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One transition of every episode."""
        taken = torch.as_tensor(np.asarray(actions), dtype=torch.int64, device=self.mdp.device)
        if tuple(taken.shape) != (self.num_envs,):
            raise ValueError(f"actions must have shape ({self.num_envs},), got {tuple(taken.shape)}")
        if bool(((taken < 0) | (taken >= self.mdp.num_actions)).any()):
            raise ValueError(f"actions must be in 0..{self.mdp.num_actions - 1}, got {actions}")
        wrong = ~self.dynamics.allowed[self.states].gather(1, taken[:, None]).squeeze(1)
        if bool(wrong.any()):
            i = int(wrong.nonzero()[0])
            raise ValueError(f"action {int(taken[i])} is not feasible in state {self.mdp.state(int(self.states[i]))}")
        final, reward, ended = self._advance(taken)
        self.steps += 1
        cut = ~ended & (self.steps >= self.limit) if self.limit is not None else torch.zeros_like(ended)
        done = ended | cut
        fresh = self.dynamics.init(self.num_envs, self.generator)
        self.states = torch.where(done, fresh, final)
        self.steps = self.steps.masked_fill(done, 0)
        infos = self._info()
        if bool(done.any()):
            infos |= {"final_obs": final.cpu().numpy(), "_final_obs": done.cpu().numpy()}
        out = (self.states, reward, ended, cut)
        states, rewards, terminated, truncated = (t.cpu().numpy().copy() for t in out)
        return states, rewards, terminated, truncated, infos

    def _advance(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.dynamics.step(self.states, actions, self.generator)
