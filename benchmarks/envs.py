"""Raw steps per second of the sequence environment: ``advrl bench envs``, and Stable-Baselines3's DummyVecEnv.

    python benchmarks/envs.py --out runs/envs

One thread, one process, contenders take turns; all must pay the same for the same actions before anything is timed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import numpy as np
import tyro
from stable_baselines3.common.vec_env import DummyVecEnv

from advrl.envs import DiscriminatorScore, SequenceEnv
from advrl.lab.bench_envs import LENGTH, VOCAB, Contender, Options, PlainSequence, discriminator, run


def dummies(options: Options) -> list[Contender]:
    """DummyVecEnv of the single environment and of the one written by hand."""
    reward = DiscriminatorScore(discriminator())
    makes: dict[str, Callable[[], gym.Env]] = {
        "DummyVecEnv of plain": lambda: PlainSequence(reward),
        "DummyVecEnv of single": lambda: SequenceEnv(vocab=VOCAB, length=LENGTH, reward=reward),
    }
    found = []
    for name, make in makes.items():
        env = DummyVecEnv([make] * options.singles)
        env.reset()

        def step(actions: np.ndarray, env: DummyVecEnv = env) -> np.ndarray:
            return env.step(actions)[1]

        found.append(Contender(name, options.singles, step))
    return found


if __name__ == "__main__":
    run(tyro.cli(Options), lambda: Path("runs/envs"), more=dummies)
