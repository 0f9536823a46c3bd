"""Lesson: SARSA against Q-learning, at the cliff.

    python examples/lessons/cliff.py

From one end of a cliff to the other: a step costs 1, a fall 100 and the way back to the start. Q-learning learns what
the best policy is worth, and walks along the edge; SARSA learns what it does itself, one action in ten at random, and
keeps away. Sutton & Barto (2018), example 6.6, whose figure this is.
"""

import numpy as np
import torch
from matplotlib.figure import Figure

from advrl import agents
from advrl.plots import save_figure, style
from advrl.tabular import policy_evaluation, render_policy, solve
from advrl.tabular.problems import cliff

ALPHA, EPSILON = 0.5, 0.1  # gamma is 1


def choose(q, rng, epsilon=EPSILON):
    """An action by its values q (A,): any of them alike with probability epsilon, else a best one, ties at random."""
    raise NotImplementedError("your turn: first decide whether to explore")


def q_learning_target(Q, reward, following, next_action, ended):
    """What Q[state, action] should be, by Q-learning; where the episode ended nothing follows."""
    raise NotImplementedError("your turn: the reward, and the best value of the next state")


def sarsa_target(Q, reward, following, next_action, ended):
    """What Q[state, action] should be, by SARSA."""
    raise NotImplementedError("your turn: the reward, and the value of the action that is taken next")


def expected_sarsa_target(Q, reward, following, next_action, ended, epsilon=EPSILON):
    """What Q[state, action] should be, by expected SARSA: as SARSA on average over its next actions."""
    raise NotImplementedError("your turn: with probability epsilon any action, else the best")


def learn(target, step, episodes, rng):
    """(Q, returns): an agent's action values and the return of each of its episodes.

    step(state, action) -> (next state, reward, whether the episode ended); episodes begin in state 36.
    """
    Q, paid = np.zeros((48, 4)), []
    raise NotImplementedError("your turn: in every episode act epsilon-greedily, and move Q by ALPHA towards the target after every step")
    return Q, paid


def world(state, action):
    """The cliff: next state, reward, whether the episode ended. States are 12 row + column; up, right, down, left."""
    row, column = divmod(state, 12)
    row = min(max(row + (-1, 0, 1, 0)[action], 0), 3)
    column = min(max(column + (0, 1, 0, -1)[action], 0), 11)
    if row == 3 and 0 < column < 11:
        return 36, -100.0, False
    return 12 * row + column, -1.0, (row, column) == (3, 11)


def path(Q):
    """States on the way of the greedy policy, at most 50."""
    states = [36]
    while states[-1] != 47 and len(states) < 50:
        states.append(world(states[-1], int(Q[states[-1]].argmax()))[0])
    return states


def main(episodes=500, runs=10, many=400):
    mdp = cliff()
    print(f"value of the start, best policy: {float(solve(mdp).V[36]):.0f}\n")
    rng = np.random.default_rng(0)
    curves, paths = {}, {}
    for name, target in (("SARSA", sarsa_target), ("Q-learning", q_learning_target)):
        found = [learn(target, world, episodes, rng) for _ in range(runs)]
        last = np.array([paid for _, paid in found])[:, -100:].mean()
        paths[name] = path(found[0][0])
        print(f"{name}: return of the last 100 episodes {last:.1f} while exploring ({runs} agents)")
        print(f"  the first agent's greedy way has {len(paths[name]) - 1} steps: {paths[name]}\n")

    # With advrl: a thousand agents of each in one call.
    print(f"{many:,} agents of each, last 100 episodes of {episodes}")
    for name in ("sarsa", "expected_sarsa", "q_learning"):
        options = {"alpha": ALPHA, "epsilon": EPSILON, "agents": many, "episodes": episodes, "max_steps": 2000}
        found = getattr(agents, name)(mdp, **options)
        curves[name.replace("_", " ")] = found.returns.numpy()
        greedy = found.policy[0]
        print(f"  {name:<15} {float(found.returns[:, -100:].mean()):7.2f}")
    best = solve(mdp)
    soft = EPSILON / 4 + (1 - EPSILON) * np.eye(4)[best.policy.numpy()]
    print(f"the best policy, one action in ten at random: {float(policy_evaluation(mdp, soft).V[36]):.1f}")
    print(f"\nQ-learning's greedy actions, first agent\n{render_policy(mdp, torch.eye(4, dtype=torch.bool)[greedy])}")

    with style():
        figure = Figure(figsize=(7.2, 2.8))
        left, right = figure.subplots(1, 2)
        for name, values in curves.items():
            left.plot(values.mean(0), label=name, lw=1.2)
        left.set(title=f"Return while learning, mean of {many:,}", xlabel="episode", ylim=(-100, 0))
        left.legend(loc="lower right")
        right.imshow(np.isin(np.arange(48), range(37, 47)).reshape(4, 12), cmap="Greys", vmax=2)
        for name, states in paths.items():
            shift = 0.12 if name == "SARSA" else -0.12
            right.plot([s % 12 + shift for s in states], [s // 12 + shift for s in states], "o-", ms=2.5, label=name)
        right.text(5.5, 3, "the cliff", ha="center", va="center")
        right.set(title="The greedy way of one agent each", xticks=[], yticks=[])
        right.grid(False)
        right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.05), ncols=2)
        print(f"Written:\n  {save_figure(figure, 'runs/lessons/cliff.png')}")


if __name__ == "__main__":
    main()
