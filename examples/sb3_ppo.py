"""Lesson: PPO of Stable-Baselines3 as a generator, paid by a discriminator that learns beside it.

    python examples/sb3_ppo.py

Words of five letters from an alphabet of six come from a source that nobody tells the agent: which letter follows
which is a table of chances. PPO writes letter by letter, and a discriminator that sees real words and PPO's pays each
finished word. The environment's own reward is the source's log-probability of the word. It is logged, and never paid.
"""

import gymnasium as gym
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecMonitor
from torch import nn
from torch.nn.functional import one_hot

import advrl.envs  # noqa: F401  registers the environments
from advrl.agents.sb3 import DiscriminatorCallback, DiscriminatorReward, SB3VecEnv, TokenFeatures, generate
from advrl.data import Batches
from advrl.objectives import reverse_kl
from advrl.tabular import LayeredTree, jensen_shannon

VOCAB, LENGTH, ENVS, ROUNDS = 6, 5, 256, 30
torch.manual_seed(0)
torch.set_num_threads(1)  # small networks

# The source: the first letter is any, each next one by a row of the table.
follows = (1.5 * torch.randn(VOCAB, VOCAB)).log_softmax(-1)


def log_prob(words):  # (N, 5) -> (N,)
    return follows[words[:, :-1], words[:, 1:]].sum(1) - torch.tensor(float(VOCAB)).log()


def draw(n):
    words = torch.randint(VOCAB, (n, 1))
    while words.shape[1] < LENGTH:
        words = torch.cat([words, torch.multinomial(follows[words[:, -1]].exp(), 1)], 1)
    return words


class Discriminator(nn.Module):
    """Words (N, 5) to logits (N,): which letter is where, and which follows which."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear((VOCAB + VOCAB**2) * LENGTH - VOCAB**2, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, words):
        pairs = words[:, :-1] * VOCAB + words[:, 1:]
        seen = [one_hot(words, VOCAB).flatten(1), one_hot(pairs, VOCAB**2).flatten(1)]
        return self.net(torch.cat(seen, 1).float()).squeeze(1)


# The environment, the reward around it, and the monitor outermost, so that it logs what is paid.
env = gym.make_vec("advrl/Sequence-v0", ENVS, vocab=VOCAB, length=LENGTH, reward=log_prob)
reward = DiscriminatorReward(SB3VecEnv(env), Discriminator(), reverse_kl)
callback = DiscriminatorCallback(reward, Batches(draw(20_000), 256), steps=20, lr=3e-3)
model = PPO(
    "MlpPolicy",
    VecMonitor(reward),
    n_steps=LENGTH,  # whole words
    batch_size=ENVS * LENGTH // 2,
    n_epochs=4,
    gamma=1.0,
    gae_lambda=1.0,  # the reward comes at the end, and the critic has a moving target
    normalize_advantage=False,  # else steps stay as large when the discriminator has nothing left to say
    learning_rate=2e-3,
    policy_kwargs={"features_extractor_class": TokenFeatures},
    seed=0,
    device="cpu",
)
model.set_logger(configure(None, []))

real = log_prob(draw(20_000)).mean()
print(f"log-probability of the source's own words {real:.2f}, of the untrained agent's ", end="")
print(f"{log_prob(generate(model, 2048)).mean():.2f}")
for done in range(0, ROUNDS, 10):
    model.learn(10 * ENVS * LENGTH, callback=callback, reset_num_timesteps=False)
    words = generate(model, 2048)
    print(f"after {done + 10:3d} rollouts {log_prob(words).mean():.2f}, {len(words.unique(dim=0)):,} of 2,048 differ")

# Close to the source, or just likely? All 7,776 words are few enough to add up.
tree = LayeredTree(VOCAB, LENGTH, log_prob)


def policy(prefix):  # (N, t) -> (N, 6) logits
    seen = torch.full((len(prefix), LENGTH), VOCAB)
    seen[:, : prefix.shape[1]] = prefix
    return model.policy.get_distribution(seen).distribution.logits


with torch.no_grad():
    law, data = tree.occupancy(policy)[-1], log_prob(tree.prefixes(LENGTH)).exp()
uniform = torch.full_like(data, 1 / len(data))
print(f"Jensen-Shannon divergence to the source {jensen_shannon(data, law):.3f}, ", end="")
print(f"of uniform letters {jensen_shannon(data, uniform):.3f}, at most {torch.tensor(2.0).log():.3f}")
