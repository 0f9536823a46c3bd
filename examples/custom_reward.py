"""Lesson: any function of finished samples is a reward; no discriminator.

    python examples/custom_reward.py

Melodies of six notes from a scale of seven: paid for small steps, for ending where they began, and for not standing
still. PPO learns to write them, and there are few enough to know the best.
"""

import gymnasium as gym
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.logger import configure

import advrl.envs  # noqa: F401  registers the environments
from advrl.agents.sb3 import SB3VecEnv, TokenFeatures, generate
from advrl.tabular import LayeredTree

NOTES, LENGTH, ENVS = 7, 6, 256
torch.manual_seed(0)
torch.set_num_threads(1)


def melodious(notes):  # (N, 6) -> (N,), for all melodies that end in a step of the environments at once
    leaps = (notes[:, 1:] - notes[:, :-1]).abs()
    smooth = (leaps == 1).float().mean(1) + 0.5 * (leaps == 2).float().mean(1)
    return smooth + (notes[:, 0] == notes[:, -1]).float() - (leaps == 0).float().mean(1)


env = gym.make_vec("advrl/Sequence-v0", ENVS, vocab=NOTES, length=LENGTH, reward=melodious)
model = PPO(
    "MlpPolicy",
    SB3VecEnv(env),
    n_steps=LENGTH,  # whole melodies
    batch_size=ENVS * LENGTH // 2,
    n_epochs=4,
    gamma=1.0,
    gae_lambda=1.0,
    ent_coef=0.2,  # there are many good ones: keep more than one
    learning_rate=3e-3,
    policy_kwargs={"features_extractor_class": TokenFeatures},
    seed=0,
    device="cpu",
)
model.set_logger(configure(None, []))

best = LayeredTree(NOTES, LENGTH, melodious).optimal()
print(f"the best of {NOTES**LENGTH:,} melodies is paid {best.value:.2f}, for example {best.best().tolist()}")
for rollouts in range(0, 31, 10):
    if rollouts:
        model.learn(10 * ENVS * LENGTH, reset_num_timesteps=False)
    notes, log_prob = generate(model, 1000, return_log_prob=True)
    paid = melodious(notes)
    print(f"after {rollouts} rollouts {paid.mean():.2f}, entropy {-log_prob.mean():.1f} nats, best {paid.max():.2f}")
print("five of them:", *generate(model, 5, temperature=0.7).tolist())
