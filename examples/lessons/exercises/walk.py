"""Lesson: Monte Carlo against temporal differences, on the random walk.

    python examples/lessons/walk.py

Five states in a row, a coin says left or right; leaving on the right pays 1. The values are 1/6, 2/6, ... 5/6. Monte
Carlo waits for the end and moves V(s) towards the return; TD(0) moves it towards the reward and the next state's value
at once. Sutton & Barto (2018), example 6.2, whose figure this is.
"""

import numpy as np
import torch
from matplotlib.figure import Figure

from advrl.agents import mc_prediction, td_prediction
from advrl.plots import save_figure, style
from advrl.tabular.problems import random_walk

TRUTH = np.arange(1, 6) / 6  # of states 1 to 5; states 0 and 6 are the ends, and worth 0


def walk(rng):
    """(states, rewards): the states from 3 to the end, one reward after each but the last: 1 on entering 6, else 0."""
    raise NotImplementedError("your turn: toss coins, rng.random() < 0.5 for a step to the left")


def td_update(V, state, reward, following, alpha):
    """TD(0): V[state] moves by alpha towards the reward plus the value of the state that followed. Changes V."""
    raise NotImplementedError("your turn: V(s) += alpha * (R + V(s') - V(s))")


def mc_update(V, states, rewards, alpha):
    """Every-visit Monte Carlo: after an episode each V(S_t) moves by alpha towards the return from t on. Changes V."""
    raise NotImplementedError("your turn: here nothing is discounted; go through the visits in their order")


def rms(V):
    """Root of the mean squared error over the five states."""
    raise NotImplementedError("your turn: hold V[1:6] against TRUTH")


def learn(method, alpha, episodes, rng):
    """The values (episodes + 1, 7) before the first and after every episode; all start at one half."""
    V = np.array([0, 0.5, 0.5, 0.5, 0.5, 0.5, 0])
    history = [V.copy()]
    for _ in range(episodes):
        states, rewards = walk(rng)
        if method == "TD":
            for t, reward in enumerate(rewards):
                td_update(V, states[t], reward, states[t + 1], alpha)
        else:
            mc_update(V, states, rewards, alpha)
        history.append(V.copy())
    return np.array(history)


def main(runs=100, agents=1000):
    rng = np.random.default_rng(0)
    one = learn("TD", 0.1, 100, rng)
    for k in (0, 1, 10, 100):
        print(f"TD after {k:3d} episodes: {one[k, 1:6].round(2)}")
    print(f"the truth:             {TRUTH.round(2)}\n")

    curves = {}
    for method, alphas in (("TD", (0.05, 0.1, 0.15)), ("MC", (0.01, 0.02, 0.03, 0.04))):
        for alpha in alphas:
            found = [[rms(V) for V in learn(method, alpha, 100, rng)] for _ in range(runs)]
            curves[method, alpha] = np.mean(found, 0)

    # The same with advrl: thousands of agents in one call, paid as they enter the end.
    mdp, follow = random_walk(5), torch.zeros(7, dtype=torch.int64)
    paid = torch.zeros(7, 1, 2, dtype=torch.float64)  # steps to the left and to the right
    paid[5, 0, 1] = 1.0
    print(f"RMS error after 100 episodes   by hand ({runs} runs)   by advrl ({agents:,} agents)")
    for (method, alpha), curve in curves.items():
        options = {"agents": agents, "episodes": 100, "alpha": alpha, "initial": 0.5, "rewards": paid, "seed": 0}
        if method == "TD":
            V = td_prediction(mdp, follow, **options).V
        else:
            V = mc_prediction(mdp, follow, visits="every", **options).V
        error = ((V[:, 1:6] - torch.as_tensor(TRUTH)) ** 2).mean(1).sqrt().mean()
        print(f"  {method}  alpha {alpha:<18} {curve[-1]:.3f}                {float(error):.3f}")

    with style():
        figure = Figure(figsize=(7.2, 3.0))
        left, right = figure.subplots(1, 2)
        for k in (0, 1, 10, 100):
            left.plot(range(1, 6), one[k, 1:6], "o-", ms=3, label=f"{k} episodes")
        left.plot(range(1, 6), TRUTH, "k--", label="truth")
        left.set(title="TD's values, one run", xlabel="state", xticks=range(1, 6))
        left.legend(fontsize=7)
        for (method, alpha), curve in curves.items():
            colour = {"TD": "#0072B2", "MC": "#D55E00"}[method]
            right.plot(curve, color=colour, lw=1.0, alpha=0.5 + 0.5 * (alpha in (0.1, 0.02)))
            right.text(101, curve[-1], f"{method} {alpha:g}", fontsize=5.5, va="center", color=colour)
        right.set(title=f"RMS error, mean of {runs} runs", xlabel="episodes", xlim=(0, 118), ylim=(0, 0.26))
        print(f"Written:\n  {save_figure(figure, 'runs/lessons/walk.png')}")


if __name__ == "__main__":
    main()
