"""Lesson: an environment of one's own, with dynamics of its own, as the world that a generator lives in.

    python examples/own_environment.py

A hiker walks nine steps, each up, level or down; below the ground there is no way. What is judged is the skyline that
has been walked, not the actions: a discriminator has seen real hills, which rise and come down to the ground again.
The environment knows nothing of that. It is a plain Gymnasium environment that pays nothing; what is finished is its
last observation, and PPO of Stable-Baselines3 is paid for it by the discriminator.
"""

import gymnasium as gym
import numpy as np
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3 import PPO
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecMonitor
from torch import nn

from advrl.agents.sb3 import DiscriminatorCallback, DiscriminatorReward, SB3VecEnv, generate
from advrl.data import Batches
from advrl.envs import check_vector_env

STEPS, ENVS, ROUNDS = 9, 64, 24
torch.manual_seed(0)
torch.set_num_threads(1)


class Walk(gym.Env):
    """Observation: the heights walked so far, -1 where the hiker has not been. Actions: down, level, up."""

    observation_space = gym.spaces.Box(-1, STEPS, (STEPS,), np.float32)
    action_space = gym.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.heights, self.place = np.full(STEPS, -1, np.float32), 0
        return self.heights.copy(), {}

    def step(self, action):
        before = self.heights[self.place - 1] if self.place else 0
        self.heights[self.place] = max(before + int(action) - 1, 0)
        self.place += 1
        return self.heights.copy(), 0.0, self.place == STEPS, False, {}  # nothing is paid here


def hills(n):
    """(n, 9) real skylines: up to a summit, along it, and down to the ground."""
    up = torch.randint(2, 5, (n, 1))
    along = torch.randint(0, 2, (n, 1))
    place = torch.arange(1, STEPS + 1)
    return torch.minimum(torch.minimum(place, up), 2 * up + along - place).clamp(min=0).float()


EVERY = hills(2000).unique(dim=0)
KINDS = len(EVERY)


def share_of_hills(skylines):
    """How many are skylines that there are."""
    return (skylines[:, None] == EVERY).all(-1).any(1).float().mean()


check_env(Walk(), skip_render_check=True)
batch = SyncVectorEnv([Walk] * ENVS, autoreset_mode=AutoresetMode.SAME_STEP)
check_vector_env(batch, Walk)  # of advrl: what Gymnasium's checker does not look at

discriminator = nn.Sequential(nn.Linear(STEPS, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
reward = DiscriminatorReward(SB3VecEnv(batch), discriminator, sample="observation")
callback = DiscriminatorCallback(reward, Batches(hills(5000), 128), steps=16, lr=2e-3)
model = PPO(
    "MlpPolicy",
    VecMonitor(reward),
    n_steps=4 * STEPS,  # whole walks
    batch_size=ENVS * STEPS,
    n_epochs=6,
    gamma=1.0,
    gae_lambda=1.0,
    ent_coef=0.02,  # many hills, not one
    normalize_advantage=False,
    learning_rate=2e-3,
    seed=0,
    device="cpu",
)
model.set_logger(configure(None, []))
for rounds in range(0, ROUNDS + 1, ROUNDS // 4):
    if rounds:
        model.learn(ROUNDS // 4 * ENVS * 4 * STEPS, callback=callback, reset_num_timesteps=False)
    skylines = generate(model, 1000)
    kinds = len(skylines.unique(dim=0))
    share = share_of_hills(skylines)
    print(f"after {rounds:2d} rollouts {share:.0%} are real hills, {kinds} of 1,000 differ (there are {KINDS})")
for height in range(5, 0, -1):
    print(" ".join("".join("#" if x >= height else " " for x in row.tolist()) for row in skylines[:6]))
