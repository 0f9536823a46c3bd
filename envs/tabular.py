"""The way back from an MDP to an environment: one episode at a time, or many side by side on the MDP's device."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from advrl.checks import integer
from advrl.envs.options import check_reset_mask, checked_options
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

    As :class:`TabularEnv`. Learners on the device call ``dynamics`` themselves.

    Args:
        max_episode_steps: truncate episodes after so many steps.
        autoreset_mode: what follows an episode's end, as :class:`advrl.envs.GenerationVectorEnv` has it.
    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(
        self, mdp: MDP, num_envs: int = 1, max_episode_steps: int | None = None, *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
    ) -> None:  # fmt: skip
        self.num_envs = integer("num_envs", num_envs)
        self.limit = None if max_episode_steps is None else integer("max_episode_steps", max_episode_steps)
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.mdp, self.dynamics, self.render_mode = mdp, Dynamics(mdp), None
        self.single_observation_space = gym.spaces.Discrete(mdp.num_states)
        self.single_action_space = gym.spaces.Discrete(mdp.num_actions)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.generator = torch.Generator(mdp.device)
        self.states = torch.zeros(num_envs, dtype=torch.int64, device=mdp.device)
        self.steps = torch.zeros_like(self.states)
        self.over = torch.ones(num_envs, dtype=torch.bool, device=mdp.device)  # and not begun anew
        self._begun = False

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start all episodes anew; ``seed`` is one number for all, ``options={"reset_mask": m}`` (n,) says which.

        Raises:
            TypeError, ValueError: for other seeds, options or masks.
            gymnasium.error.ResetNeeded: for a mask before the first reset.
        """
        if not isinstance(seed, int | None):
            raise TypeError(f"seed must be one integer for all environments, got {seed!r}")
        super().reset(seed=seed)
        mask = checked_options(options, {"reset_mask"}).get("reset_mask")
        if mask is not None:
            check_reset_mask(mask, self.num_envs, self._begun)
        if seed is not None or not self._begun:
            self.generator.manual_seed(int(self.np_random.integers(2**63 - 1)))
        anew = torch.ones_like(self.over) if mask is None else torch.as_tensor(mask, device=self.mdp.device)
        self._restart(anew)
        self.over, self._begun = self.over & ~anew, True
        return self.states.cpu().numpy().copy(), self._info(self.states)

    def _restart(self, rows: Tensor) -> None:
        self.states = torch.where(rows, self.dynamics.init(self.num_envs, self.generator), self.states)
        self.steps = self.steps.masked_fill(rows, 0)

    def _info(self, states: Tensor) -> dict[str, Any]:
        mask = self.dynamics.allowed[states].to(torch.int8).cpu().numpy()
        return {"action_mask": mask, "_action_mask": np.ones(self.num_envs, np.bool_)}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One transition of every episode.

        Raises:
            gymnasium.error.ResetNeeded: before the first reset; with ``DISABLED``, after the end of an episode.
            ValueError: for actions out of range, or not feasible.
        """
        taken = torch.as_tensor(np.asarray(actions), dtype=torch.int64, device=self.mdp.device)
        if tuple(taken.shape) != (self.num_envs,):
            raise ValueError(f"actions must have shape ({self.num_envs},), got {tuple(taken.shape)}")
        if not self._begun:
            raise ResetNeeded("the episodes have not begun: call reset() before step()")
        waiting = self.over  # with NEXT_STEP and DISABLED alone
        if self.autoreset_mode == AutoresetMode.DISABLED and bool(waiting.any()):
            which = waiting.nonzero()[:8, 0].tolist()
            raise ResetNeeded(
                f"environments {which} are over: call reset(options={{'reset_mask': mask}}) before the next step()"
            )
        if bool(((taken < 0) | (taken >= self.mdp.num_actions)).any()):
            raise ValueError(f"actions must be in 0..{self.mdp.num_actions - 1}, got {actions}")
        wrong = ~self.dynamics.allowed[self.states].gather(1, taken[:, None]).squeeze(1) & ~waiting
        if bool(wrong.any()):
            i = int(wrong.nonzero()[0])
            raise ValueError(f"action {int(taken[i])} is not feasible in state {self.mdp.state(int(self.states[i]))}")
        final, reward, ended = self._advance(taken)
        reward, ended = reward.masked_fill(waiting, 0.0), ended & ~waiting
        self.states, self.steps = final, self.steps + 1
        cut = torch.zeros_like(ended) if self.limit is None else ~ended & ~waiting & (self.steps >= self.limit)
        done = ended | cut
        infos: dict[str, Any] = {}
        if self.autoreset_mode == AutoresetMode.SAME_STEP:
            if bool(done.any()):
                over = done.cpu().numpy()
                infos = {"final_obs": final.cpu().numpy(), "_final_obs": over}
                infos |= {"final_info": self._info(final), "_final_info": over.copy()}
            self._restart(done)
        else:
            self._restart(waiting)
            self.over = done
        infos |= self._info(self.states)
        out = (self.states, reward, ended, cut)
        states, rewards, terminated, truncated = (t.cpu().numpy().copy() for t in out)
        return states, rewards, terminated, truncated, infos

    def _advance(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.dynamics.step(self.states, actions, self.generator)
