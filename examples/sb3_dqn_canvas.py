"""Lesson: DQN of Stable-Baselines3 draws digits, stroke by stroke; a discriminator judges the finished picture.

    python examples/sb3_dqn_canvas.py

Each stroke is one of 128 actions: 64 places to draw a line to, 64 to move the pen to. DQN learns from a memory of
strokes of long ago, whose pictures an older discriminator had judged; the memory asks the present one anew. The
environment's own reward is minus the squared distance to the nearest real digit: logged, never paid. A greedy policy
that sees nothing random draws one picture over and over; what variety there is, is its exploration. Writes canvas.png:
pictures of the run from top to bottom, real digits last.
"""

import gymnasium as gym
import torch
from stable_baselines3 import DQN
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecMonitor

import advrl.envs  # noqa: F401  registers the environments
from advrl.agents.sb3 import DiscriminatorCallback, DiscriminatorReward, RelabelReplayBuffer, SB3VecEnv, generate
from advrl.data import Batches, digits
from advrl.envs import REWARDS
from advrl.nn import MLP
from advrl.objectives import minimax, r1
from advrl.plots import image_grid, save_png

STEPS, ENVS, STROKES = 16_000, 64, 6  # 60,000 steps draw better
torch.manual_seed(0)
torch.set_num_threads(1)

env = gym.make_vec("advrl/Canvas-v0", ENVS, strokes=STROKES)  # reward="nearest-digit"
reward = DiscriminatorReward(SB3VecEnv(env), MLP((1, 8, 8), (), (128,)), minimax)
real = Batches(2 * digits().train - 1, 64)
callback = DiscriminatorCallback(
    reward, real, steps=4, lr=5e-4, penalties=[(0.1, r1)], reward_timing="relabel", min_samples=64
)
model = DQN(
    "MlpPolicy",
    VecMonitor(reward),
    replay_buffer_class=RelabelReplayBuffer,
    buffer_size=20_000,
    learning_starts=1_000,
    train_freq=1,
    gradient_steps=4,
    batch_size=128,
    gamma=1.0,  # all that counts is the picture
    target_update_interval=ENVS * 20,
    exploration_fraction=0.5,
    exploration_final_eps=0.05,
    learning_rate=1e-3,
    policy_kwargs={"net_arch": [128, 128]},
    seed=0,
    device="cpu",
)
model.set_logger(configure(None, []))

pictures = []
for part in range(5):
    if part:
        model.learn(STEPS // 4, callback=callback, reset_num_timesteps=False)
    drawn = generate(model, 256)
    pictures.append(drawn[:16])
    truth, judged = REWARDS["nearest-digit"](drawn).mean(), reward.score(drawn).mean()
    print(f"{part * STEPS // 4:7,} strokes: distance to the nearest digit {-truth:.3f}, ", end="")
    print(f"the discriminator pays {judged:.2f}, {len(drawn.unique(dim=0))} of 256 differ")
save_png(image_grid(torch.cat([*pictures, next(real)[:16]]), columns=16), "canvas.png")
