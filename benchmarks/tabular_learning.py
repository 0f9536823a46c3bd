"""Q-learning on FrozenLake 8x8: environment steps per second of many agents at once, and of one beside a NumPy loop.

    python benchmarks/tabular_learning.py

One thread. The loop is what a course's first program looks like: a NumPy table, and the environment's own table of
transitions looked up without Gymnasium's step. All three learn with the same settings, and the mean returns of their
last episodes are compared before anything is timed. The times are the process's own, interleaved, and their median is
told with the least and the greatest, as JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import gymnasium as gym
import numpy as np
import torch

from advrl.agents import q_learning
from advrl.device import clock
from advrl.tabular import from_gymnasium

ALPHA, EPSILON, GAMMA, LIMIT = 0.1, 0.1, 0.99, 200


def loop(env: gym.Env, episodes: int, seed: int) -> tuple[int, list[float]]:
    """Plain Q-learning: number of steps, and the returns."""
    rng = np.random.default_rng(seed)
    table = env.unwrapped.P  # type: ignore[attr-defined]
    Q = np.zeros((64, 4))
    steps, returns = 0, []
    for _ in range(episodes):
        s, G, discount = 0, 0.0, 1.0
        for _ in range(LIMIT):
            if rng.random() < EPSILON:
                a = int(rng.integers(4))
            else:
                a = int(rng.choice(np.flatnonzero(Q[s] == Q[s].max())))
            outcomes = table[s][a]
            _, following, reward, done = outcomes[int(rng.random() * len(outcomes))]
            target = reward + (0.0 if done else GAMMA * Q[following].max())
            Q[s, a] += ALPHA * (target - Q[s, a])
            G, discount, s, steps = G + discount * reward, discount * GAMMA, following, steps + 1
            if done:
                break
        returns.append(G)
    return steps, returns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    env = gym.make("FrozenLake-v1", map_name="8x8")
    mdp = from_gymnasium(env, GAMMA)
    options = {"alpha": ALPHA, "epsilon": EPSILON, "max_steps": LIMIT}

    ours = q_learning(mdp, agents=200, episodes=1000, **options).returns[:, -200:].mean(1)
    theirs = np.array([np.mean(loop(env, 1000, seed)[1][-200:]) for seed in range(6)])
    error = float((ours.var() / len(ours) + theirs.var(ddof=1) / len(theirs)) ** 0.5)
    assert abs(float(ours.mean()) - theirs.mean()) < 5 * error, (ours.mean(), theirs.mean(), error)

    def rate(device: str, agents: int, episodes: int, seed: int) -> float:
        where, place = mdp.to(device), torch.device(device)
        start = clock(place)
        steps = q_learning(where, agents=agents, episodes=episodes, seed=seed, **options).steps
        return steps / (clock(place) - start)

    def loop_rate(seed: int) -> float:
        start = time.process_time()
        return loop(env, 300, seed)[0] / (time.process_time() - start)

    measured: dict[str, list[float]] = {"many": [], "one": [], "loop": []}
    rate(args.device, args.agents, 1, 0)
    for seed in range(args.rounds):
        measured["many"].append(rate(args.device, args.agents, 8, seed))
        measured["one"].append(rate("cpu", 1, 300, seed))
        measured["loop"].append(loop_rate(seed))
    told = {
        name: {"median": round(statistics.median(x)), "low": round(min(x)), "high": round(max(x))}
        for name, x in measured.items()
    }
    ratio = statistics.median(a / b for a, b in zip(measured["one"], measured["loop"], strict=True))
    print(json.dumps({"bench": "q-learning steps per second", "agents": args.agents, "device": args.device, **told,
                      "one to loop": round(ratio, 1), "threads": 1, "torch": torch.__version__}))  # fmt: skip


if __name__ == "__main__":
    main()
