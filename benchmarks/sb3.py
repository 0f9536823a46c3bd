"""PPO of Stable-Baselines3 on many natively batched environments against single ones in ``DummyVecEnv``.

    python benchmarks/sb3.py

One thread. All write sequences (V = 20, L = 10) that the same small discriminator pays at the end, with the same
network, the same 10,240 steps a rollout, 4 epochs and batches of 2,048; the environments are what differs: 1,024
natively batched ones with one call of the discriminator for all that finish, or 64 single ones, each with a call of its
own; beside them 64 single ones whose finished samples are scored in one call, and the same written by hand in NumPy. It
is checked first that all pay the same sequences the same. Seconds of the process itself, interleaved; median, least and
greatest as JSON. The shares say where a rollout and its update spend them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from torch import Tensor, nn

from advrl.agents.sb3 import DiscriminatorReward, SB3VecEnv, TokenFeatures
from advrl.envs import DiscriminatorScore
from advrl.nn import MLP

VOCAB, LENGTH, STEPS, BATCH = 20, 10, 10_240, 2_048


class Discriminator(nn.Module):
    """Sequences (B, L) to logits (B,): an embedding and a hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.net = nn.Embedding(VOCAB + 1, 16), MLP(16 * LENGTH, (), (64,))

    def forward(self, words: Tensor) -> Tensor:
        logits: Tensor = self.net(self.embedding(words).flatten(1))
        return logits


class Plain(gym.Env[np.ndarray, np.int64]):
    """The same sequences as one would write them by hand, in NumPy, without checks; a wrapper pays."""

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Box(0, VOCAB, (LENGTH,), np.int64)
        self.action_space = gym.spaces.Discrete(VOCAB)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.words, self.t = np.full(LENGTH, VOCAB), 0
        return self.words.copy(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.words[self.t] = action
        self.t += 1
        return self.words.copy(), 0.0, self.t == LENGTH, False, {}


def worlds(discriminator: nn.Module, envs: int, single: int) -> dict[str, Callable[[], VecEnv]]:
    """The ways, by name."""
    sizes: dict[str, Any] = {"vocab": VOCAB, "length": LENGTH}
    free: dict[str, Any] = sizes | {"reward": lambda words: torch.zeros(len(words))}  # the wrapper pays
    score = DiscriminatorScore(discriminator)
    return {
        f"native {envs}": lambda: DiscriminatorReward(
            SB3VecEnv(gym.make_vec("advrl/Sequence-v0", envs, **free)), discriminator
        ),
        f"native {single}": lambda: DiscriminatorReward(
            SB3VecEnv(gym.make_vec("advrl/Sequence-v0", single, **free)), discriminator
        ),
        f"dummy {single}": lambda: DummyVecEnv([lambda: gym.make("advrl/Sequence-v0", reward=score, **sizes)] * single),
        f"dummy {single}, one call": lambda: DiscriminatorReward(
            DummyVecEnv([lambda: gym.make("advrl/Sequence-v0", **free)] * single), discriminator
        ),
        f"dummy {single}, by hand": lambda: DiscriminatorReward(DummyVecEnv([Plain] * single), discriminator),
    }


def agent(env: VecEnv) -> PPO:
    model = PPO(
        "MlpPolicy", env, n_steps=STEPS // env.num_envs, batch_size=BATCH, n_epochs=4, gamma=1.0, gae_lambda=1.0,
        policy_kwargs={"features_extractor_class": TokenFeatures}, seed=0, device="cpu",
    )  # fmt: skip
    model.set_logger(configure(None, []))
    return model


class Clock:
    """Adds up the seconds that a method takes."""

    def __init__(self, owner: object, name: str) -> None:
        self.seconds, method = 0.0, getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            try:
                return method(*args, **kwargs)
            finally:
                self.seconds += time.process_time() - start

        setattr(owner, name, timed)


def paid(env: VecEnv) -> np.ndarray:
    """Rewards of one sequence after another, the same in all environments, at their ends."""
    env.seed(0)
    env.reset()
    words = np.random.default_rng(0).integers(VOCAB, size=(20, LENGTH))
    return np.array([[env.step(np.full(env.num_envs, token))[1][-1] for token in word][-1] for word in words])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", type=int, default=1_024)
    parser.add_argument("--single", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    makers = worlds(Discriminator(), args.envs, args.single)
    rewards = [paid(make()) for make in makers.values()]
    for other in rewards[1:]:
        np.testing.assert_allclose(rewards[0], other, atol=1e-5)

    agents = {name: agent(make()) for name, make in makers.items()}
    clocks = {
        name: {"update": Clock(model, "train"), "environment": Clock(model.get_env(), "step")}
        for name, model in agents.items()
    }
    for model in agents.values():
        model.learn(STEPS)  # warm up
    measured: dict[str, list[float]] = {name: [] for name in agents}
    shares: dict[str, list[dict[str, float]]] = {name: [] for name in agents}
    for _ in range(args.rounds):
        for name, model in agents.items():
            for clock in clocks[name].values():
                clock.seconds = 0.0
            start = time.process_time()
            model.learn(STEPS, reset_num_timesteps=False)
            whole = time.process_time() - start
            measured[name].append(STEPS / whole)
            told = {part: clock.seconds / whole for part, clock in clocks[name].items()}
            shares[name].append(told | {"policy and buffer": 1 - sum(told.values())})
    fast, slow = f"native {args.envs}", f"dummy {args.single}"
    ratios = sorted(a / b for a, b in zip(measured[fast], measured[slow], strict=True))
    by_hand = statistics.median(a / b for a, b in zip(measured[fast], measured[f"{slow}, by hand"], strict=True))
    result: dict[str, Any] = {
        name: {
            "median": round(statistics.median(x)),
            "low": round(min(x)),
            "high": round(max(x)),
            "shares": {part: round(statistics.median(s[part] for s in shares[name]), 2) for part in shares[name][0]},
        }
        for name, x in measured.items()
    }
    print(json.dumps({"bench": "sb3 ppo, steps per second", **result, "speedup": round(statistics.median(ratios), 2),
                      "speedup low": round(ratios[0], 2), "speedup high": round(ratios[-1], 2),
                      "speedup over by hand": round(by_hand, 2), "threads": 1,
                      "torch": torch.__version__}))  # fmt: skip


if __name__ == "__main__":
    main()
