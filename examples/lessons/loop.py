"""Lesson: the agent-environment loop, a trajectory, and the return of it by hand.

    python examples/lessons/loop.py

An agent sees a state, acts, is paid a reward and sees the next state: that loop is all of reinforcement learning's
world. What counts is the return, G_t = R_(t+1) + gamma R_(t+2) + gamma^2 R_(t+3) + ... (Sutton & Barto, 2018, eq. 3.8).
"""

import math

import gymnasium as gym
import numpy as np
from matplotlib.figure import Figure

import advrl.envs  # noqa: F401  registers advrl/GridWorld-v0
from advrl.plots import save_figure, style
from advrl.tabular import from_gymnasium, policy_evaluation

MAP = "S.#\n..H\n..G"  # start, pit, wall, goal; entering the goal pays 1, the pit 0
GAMMA = 0.9


def play(env, policy, rng, seed=None):
    """One episode: the list of its steps (state, action, reward), until the environment says that it is over.

    policy[s, a] is the probability of action a in state s; draw actions with rng.choice.
    """
    # your turn: reset the environment, then act and step until the episode has ended or was cut off
    state, _ = env.reset(seed=seed)
    steps, over = [], False
    while not over:
        action = rng.choice(policy.shape[1], p=policy[state])
        following, reward, terminated, truncated, _ = env.step(action)
        steps.append((int(state), int(action), float(reward)))
        state, over = following, terminated or truncated
    return steps
    # done


def returns(rewards, gamma):
    """The list of returns G_0, G_1, ... of an episode with these rewards."""
    # your turn: walk backwards, since G_t = R_(t+1) + gamma G_(t+1)
    found, total = [], 0.0
    for reward in reversed(rewards):
        total = reward + gamma * total
        found.append(total)
    return found[::-1]
    # done


def mean_and_error(values):
    """The mean of independent numbers, and its standard error."""
    # your turn: the error of a mean of n numbers is their standard deviation (n - 1 below) over the root of n
    return float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values)))
    # done


def main(episodes=3000):
    env = gym.make("advrl/GridWorld-v0", map=MAP, slip=0.2, render_mode="ansi")
    rng = np.random.default_rng(0)
    policy = np.full((9, 4), 0.25)  # every action alike

    print("One episode: state, action (0 left, 1 down, 2 right, 3 up), reward, and the return from there on")
    steps = play(env, policy, rng, seed=0)
    rewards = [reward for _, _, reward in steps]
    for (state, action, reward), G in zip(steps, returns(rewards, GAMMA), strict=True):
        print(f"  {state:2d}  {action}  {reward:g}  {G:.4f}")
    print(env.render())

    # The value of a state is the expected return from there. Play often, and average; or solve for it.
    found = [returns([r for _, _, r in play(env, policy, rng)], GAMMA)[0] for _ in range(episodes)]
    mean, error = mean_and_error(found)
    exact = float(policy_evaluation(from_gymnasium(env, gamma=GAMMA), policy).V[0])
    print(f"mean return of {episodes:,} episodes  {mean:.4f} ± {error:.4f}\nexact value of the start     {exact:.4f}")

    with style():
        figure = Figure(figsize=(6.0, 3.0))
        left, right = figure.subplots(1, 2)
        left.hist(found, bins=30, color="#0072B2")
        left.set_title("Return of an episode")
        counts = np.arange(1, episodes + 1)
        right.plot(counts, np.cumsum(found) / counts, label="mean so far")
        right.axhline(exact, ls="--", color="#666666", label="exact value")
        right.set(xscale="log", xlabel="episodes", title="The mean finds the value")
        right.legend()
        print(f"Written:\n  {save_figure(figure, 'runs/lessons/loop.png')}")


if __name__ == "__main__":
    main()
