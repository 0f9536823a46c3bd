"""``advrl bench envs``: raw steps per second of the sequence environment, batched and one by one.

The task is ``advrl/Sequence-v0`` with 20 tokens and 10 places, paid at the end by a discriminator of 5,417 parameters;
actions are drawn beforehand. All contenders play in one process, one thread, taking turns, and must pay the same for
the same actions. ``plain`` is the single environment as one would write it by hand in NumPy, with one call of the
discriminator per finished sequence; ``single`` is this package's, a batch of one. ``dynamics`` are the tensor functions
that agents on the device call. Time is that of this process on a CPU, the clock's on a GPU.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor, nn

from advrl.checks import integer
from advrl.device import clock, one_thread, resolve_device
from advrl.envs import DiscriminatorScore, SequenceEnv, SequenceGeneration, SequenceVectorEnv
from advrl.files import write_csv
from advrl.seeding import isolated

VOCAB, LENGTH = 20, 10
Step = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Options:
    """Raw steps per second of the sequence environment: batched, on the device, and one by one in SyncVectorEnv."""

    num_envs: int = 1024
    """Environments of the batch."""
    singles: int = 64
    """Environments side by side of those that step one by one."""
    rounds: int = 11
    """Rounds, in each of which every contender plays once; the median counts."""
    seconds: float = 0.2
    """Of one contender in one round, about."""
    device: str = "cpu"
    """cpu, cuda, cuda:N or mps: of the batch and its discriminator."""
    out: Path | None = None
    """Folder of the table. Default: the next free runs/bench-envs-N."""


@dataclass(frozen=True)
class Contender:
    """A name, the number of environments, and a step: actions (n,) to rewards (n,)."""

    name: str
    num_envs: int
    step: Step


def discriminator(device: torch.device | str = "cpu") -> nn.Module:
    """Embedding, one hidden layer: tokens (n, 10) to logits (n,). The same numbers on every device."""
    with isolated(0):
        net = nn.Sequential(
            nn.Embedding(VOCAB + 1, 8, device="cpu"), nn.Flatten(), nn.Linear(8 * LENGTH, 64, device="cpu"), nn.ReLU(),
            nn.Linear(64, 1, device="cpu"), nn.Flatten(0),
        )  # fmt: skip
    return net.to(device)


class PlainSequence(gym.Env[np.ndarray, np.int64]):
    """The task without any of this package's machinery."""

    def __init__(self, reward: Callable[[Tensor], Tensor]) -> None:
        self.observation_space = gym.spaces.Box(0, VOCAB, (LENGTH,), np.int64)
        self.action_space = gym.spaces.Discrete(VOCAB)
        self.reward = reward

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, Any]:
        """Nothing is written."""
        super().reset(seed=seed)
        self.tokens, self.t = np.full(LENGTH, VOCAB), 0
        return self.tokens.copy(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One token more."""
        self.tokens[self.t] = action
        self.t += 1
        done = self.t == LENGTH
        paid = float(self.reward(torch.from_numpy(self.tokens)[None])[0]) if done else 0.0
        return self.tokens.copy(), paid, done, False, {}


def contenders(options: Options) -> list[Contender]:
    """Those that need nothing but Gymnasium."""
    device = resolve_device(options.device)
    near, far = (DiscriminatorScore(discriminator(where)) for where in ("cpu", device))
    sizes: dict[str, Any] = {"vocab": VOCAB, "length": LENGTH}
    n, few = options.num_envs, options.singles
    batch = {k: SequenceVectorEnv(k, **sizes, reward=far, device=device) for k in {n, few}}
    singles = {
        "SyncVectorEnv of plain": lambda: PlainSequence(near),
        "SyncVectorEnv of single": lambda: SequenceEnv(**sizes, reward=near),
    }
    found = [Contender("batch", k, stepper(env)) for k, env in sorted(batch.items(), reverse=True)]
    found.append(Contender("dynamics", n, on_device(SequenceGeneration(**sizes, reward=far, device=device), n)))
    for name, make in singles.items():
        found.append(Contender(name, few, stepper(SyncVectorEnv([make] * few, autoreset_mode=AutoresetMode.SAME_STEP))))
    return found


def stepper(env: Any) -> Step:
    """Steps of a Gymnasium vector environment, after a reset."""
    env.reset(seed=0)

    def step(actions: np.ndarray) -> np.ndarray:
        rewards: np.ndarray = env.step(actions)[1]
        return rewards

    return step


def on_device(task: SequenceGeneration, n: int) -> Step:
    """Steps of the tensor functions: all n sequences are as long, so they start anew together."""
    state, t = task.init(n), 0

    def step(actions: np.ndarray) -> Any:
        nonlocal state, t
        state, reward, _ = task.step(state, torch.as_tensor(actions, device=task.device))
        t = (t + 1) % LENGTH
        if t == 0:
            state = task.init(n)
        return reward

    return step


def agree(all_of_them: list[Contender]) -> None:
    """Raise an ``AssertionError`` unless all pay the same for two episodes of the same actions."""
    few = min(c.num_envs for c in all_of_them)
    draw = np.random.default_rng(1).integers(0, VOCAB, (2 * LENGTH, max(c.num_envs for c in all_of_them)))
    paid = [torch.stack([torch.as_tensor(c.step(a[: c.num_envs]))[:few].cpu() for a in draw]) for c in all_of_them]
    for contender, value in zip(all_of_them, paid, strict=True):
        torch.testing.assert_close(value.float(), paid[0].float(), msg=f"{contender.name} pays something else")


def measure(all_of_them: list[Contender], options: Options) -> list[dict[str, Any]]:
    """A row for each: steps per second, the median of the rounds with its quartiles, and the ratio to the first."""
    agree(all_of_them)
    device = resolve_device(options.device)
    draw = np.random.default_rng(0).integers(0, VOCAB, (LENGTH, max(c.num_envs for c in all_of_them)))

    def play(contender: Contender, episodes: int) -> float:
        start = clock(device)
        for _ in range(episodes):
            for actions in draw:
                contender.step(actions[: contender.num_envs])
        return episodes * LENGTH * contender.num_envs / (clock(device) - start)

    episodes = [max(1, round(options.seconds * play(c, 2) / LENGTH / c.num_envs)) for c in all_of_them]
    rates: list[list[float]] = [[] for _ in all_of_them]
    for _ in range(options.rounds):
        for contender, count, into in zip(all_of_them, episodes, rates, strict=True):
            into.append(play(contender, count))
    rows = []
    for contender, rate in zip(all_of_them, rates, strict=True):
        low, middle, high = statistics.quantiles(rate, n=4) if len(rate) > 1 else rate * 3
        ratio = statistics.median(first / own for first, own in zip(rates[0], rate, strict=True))
        rows.append({
            "environment": contender.name, "num_envs": contender.num_envs, "steps_per_second": round(middle),
            "low": round(low), "high": round(high), "batch_is_faster_by": round(ratio, 2), "rounds": len(rate),
        })  # fmt: skip
    return rows


def run(
    options: Options,
    folder: Callable[[], Path],
    say: Callable[[str], None] = print,
    more: Callable[[Options], list[Contender]] = lambda options: [],
) -> list[dict[str, Any]]:
    """Let all play, print the table and write it as envs.csv.

    Args:
        options: sizes and time.
        folder: names the folder if the options do not.
        say: takes the table, and where it is.
        more: further contenders.

    Raises:
        ValueError, TypeError: for numbers out of range.
    """
    integer("--num-envs", options.num_envs), integer("--singles", options.singles), integer("--rounds", options.rounds)
    with one_thread():
        rows = measure(contenders(options) + more(options), options)
    say(f"{'environment':28} {'number':>6} {'steps/s':>10} {'quartiles':>21} {'batch is':>9}")
    for row in rows:
        spread = f"{row['low']:,} - {row['high']:,}"
        say(
            f"{row['environment']:28} {row['num_envs']:6} {row['steps_per_second']:10,} {spread:>21} "
            f"{row['batch_is_faster_by']:8.1f}x"
        )
    path = write_csv((options.out or folder()) / "envs.csv", rows)
    say(f"\nthe table: {path}")
    return rows
