"""Tokens per second: batched REINFORCE beside Stable-Baselines3's PPO and A2C, and our own PPO and actor-critic.

    python benchmarks/agents.py [--rounds 5] [--device cpu]

The task is one: 20 tokens, 10 places, paid at the end by a discriminator (an embedding and a perceptron). Beside our
agents, with a GRU, stands Stable-Baselines3 with the same GRU as its policy, which it runs over each prefix again since
it keeps no state; and with a perceptron on one-hot prefixes of as many parameters, critic included, which needs less
arithmetic, and which REINFORCE trains too. A whole iteration counts, playing and learning; PPO has 4 epochs, in
Stable-Baselines3 in batches of 2,048.
The process's own time on a CPU, interleaved; medians with quartiles, a JSON line each.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable

import gymnasium as gym
import torch
from stable_baselines3 import A2C, PPO
from timing import seconds
from torch import nn

import advrl.envs  # noqa: F401  registers the environments
from advrl.agents import ActorCriticTrainer, PPOTrainer, ReinforceTrainer
from advrl.agents.sb3 import GeneratorPolicy, SB3VecEnv, TokenFeatures
from advrl.envs import DiscriminatorScore, SequenceGeneration
from advrl.estimators import leave_one_out
from advrl.nn import GRUPolicy

VOCAB, LENGTH, EPISODES, HIDDEN = 20, 10, 1024, 64


class Perceptron(nn.Module):
    """The policy that Stable-Baselines3 makes of ``net_arch=[64]`` on one-hot prefixes: it reads, keeping no state."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear((VOCAB + 1) * LENGTH, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, VOCAB))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.net(nn.functional.one_hot(tokens, VOCAB + 1).flatten(1).to(self.net[0].weight.dtype))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(VOCAB, 16), nn.Flatten(), nn.Linear(16 * LENGTH, 64), nn.ReLU(), nn.Linear(64, 1))
    score = DiscriminatorScore(net.to(device))
    task = SequenceGeneration(VOCAB, LENGTH, score, device=device)
    rows = torch.zeros(EPISODES, 1, device=device)
    works: dict[str, Callable[[], object]] = {}
    sizes: dict[str, int] = {}
    for name, make in (
        ("reinforce", lambda policy: ReinforceTrainer(policy, task, baseline=leave_one_out)),
        ("actor-critic", lambda policy: ActorCriticTrainer(policy, task)),
        ("ppo", lambda policy: PPOTrainer(policy, task, epochs=4, minibatches=5)),
    ):
        policy = GRUPolicy(VOCAB, LENGTH, HIDDEN).to(device)
        trainer = make(policy)
        sizes[name] = sum(p.numel() for p in policy.parameters())
        works[name] = lambda trainer=trainer: trainer.step(rows)
    perceptron = Perceptron().to(device)
    same = ReinforceTrainer(perceptron, task, baseline=leave_one_out)
    sizes["reinforce, perceptron"] = sum(p.numel() for p in perceptron.parameters())
    works["reinforce, perceptron"] = lambda: same.step(rows)
    plain = {"features_extractor_class": TokenFeatures, "net_arch": [HIDDEN]}
    passes = {"batch_size": 2048, "n_epochs": 4}
    for name, cls, policy, inside, extra in (
        ("sb3 ppo, gru", PPO, GeneratorPolicy, {"generator": GRUPolicy(VOCAB, LENGTH, HIDDEN)}, passes),
        ("sb3 ppo, perceptron", PPO, "MlpPolicy", plain, passes),
        ("sb3 a2c, perceptron", A2C, "MlpPolicy", plain, {}),
    ):
        env = gym.make_vec("advrl/Sequence-v0", EPISODES, vocab=VOCAB, length=LENGTH, reward=score, device=str(device))
        model = cls(policy, SB3VecEnv(env), n_steps=LENGTH, gamma=1.0, device=device, policy_kwargs=inside, **extra)
        sizes[name] = sum(p.numel() for p in model.policy.parameters())
        works[name] = lambda model=model: model.learn(EPISODES * LENGTH, reset_num_timesteps=False)
    for work in works.values():
        work()  # warm
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(options.rounds):
        for name, work in works.items():
            times[name].append(seconds(work, device))
    for name, found in times.items():
        rates = sorted(EPISODES * LENGTH / t for t in found)
        beside = {}
        for kind in ("gru", "perceptron"):
            pairs = zip(found, times[f"sb3 ppo, {kind}"], strict=True)
            beside[f"times_{kind}"] = round(statistics.median(theirs / ours for ours, theirs in pairs), 2)
        quarter = len(rates) // 4
        print(json.dumps({
            "agent": name, "parameters": sizes[name], "tokens_per_s": round(statistics.median(rates)),
            "low": round(rates[quarter]), "high": round(rates[-1 - quarter]),
            **beside, "device": str(device), "threads": 1,
            "torch": torch.__version__,
        }))  # fmt: skip


if __name__ == "__main__":
    main()
