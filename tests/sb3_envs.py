"""Small worlds for the tests of the Stable-Baselines3 adapter."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space


class Tokens(VectorEnv):
    """Writes ``length`` tokens; the last one's step pays ``reward(tokens)``. Token 0 ends early if ``ends``.

    ``cut`` truncates after so many steps; ``nested`` observes a dict; ``masks`` forbids to repeat a token.
    """

    metadata = {"render_modes": ["rgb_array"], "autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(self, n, vocab=3, length=4, reward=None, ends=False, cut=None, nested=False, masks=False):
        self.num_envs, self.vocab, self.length, self.ends, self.cut = n, vocab, length, ends, cut
        self.reward = reward or (lambda tokens: (tokens == 1).sum(1).astype(float))
        self.nested, self.masks, self.render_mode = nested, masks, "rgb_array"
        box = gym.spaces.Box(0, vocab, (length,), np.int64)
        self.single_observation_space = gym.spaces.Dict({"tokens": box}) if nested else box
        self.single_action_space = gym.spaces.Discrete(vocab)
        self.observation_space = batch_space(self.single_observation_space, n)
        self.action_space = batch_space(self.single_action_space, n)
        self.seeds: list[Any] = []

    def _obs(self, tokens):
        return {"tokens": tokens.copy()} if self.nested else tokens.copy()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.options = options
        self.tokens = np.full((self.num_envs, self.length), self.vocab)
        self.t = np.zeros(self.num_envs, dtype=np.int64)
        return self._obs(self.tokens), {"start": np.arange(self.num_envs)}

    def action_masks(self):
        allowed = np.ones((self.num_envs, self.vocab), dtype=bool)
        if self.masks:
            rows = np.flatnonzero(self.t > 0)
            allowed[rows, self.tokens[rows, self.t[rows] - 1]] = False
        return allowed

    def step(self, actions):
        rows = np.arange(self.num_envs)
        if not self.action_masks()[rows, actions].all():
            raise ValueError("a token is repeated")
        self.tokens[rows, self.t] = actions
        self.t += 1
        terminated = (self.t == self.length) | (self.ends & (actions == 0))
        truncated = (self.t == self.cut) & ~terminated if self.cut else np.zeros_like(terminated)
        done = terminated | truncated
        reward = np.where(done, self.reward(self.tokens), 0.0)
        infos = {}
        if done.any():
            infos = {"final_obs": self._obs(self.tokens), "_final_obs": done, "final_info": {"when": self.t.copy()}}
        self.tokens[done], self.t[done] = self.vocab, 0
        return self._obs(self.tokens), reward, terminated, truncated, infos

    def sizes(self):
        return self.vocab, self.length

    def render(self):
        return tuple(np.full((2, 2, 3), int(self.t[i]), dtype=np.uint8) for i in range(self.num_envs))


class Bandit(VectorEnv):
    """One step: z is seen, the sample is the action; paid ``reward(actions)``."""

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(self, n, action_space, latent=3, reward=None):
        self.num_envs, self.render_mode = n, None
        self.reward = reward or (lambda actions: -np.square(actions.reshape(n, -1) - 0.3).mean(1))
        self.single_observation_space = gym.spaces.Box(-5, 5, (latent,), np.float32)
        self.single_action_space = action_space
        self.observation_space = batch_space(self.single_observation_space, n)
        self.action_space = batch_space(action_space, n)

    def _z(self):
        z = self.np_random.standard_normal((self.num_envs, *self.single_observation_space.shape))
        return z.clip(-5, 5).astype(np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.z = self._z()
        return self.z, {}

    def step(self, actions):
        over = np.ones(self.num_envs, dtype=bool)
        infos = {"final_obs": self.z, "_final_obs": over}
        self.z = self._z()
        return self.z, np.asarray(self.reward(actions), dtype=float), over, ~over, infos
