"""Lesson: two ways to the best policy, side by side: value iteration and policy iteration.

    python examples/lessons/iteration.py

Value iteration makes the Bellman equation of the best values, V(s) = max_a [R(s, a) + gamma sum P(s'|s, a) V(s')], an
assignment. Policy iteration evaluates a policy exactly, then improves it. Sutton & Barto (2018), sections 4.3 and 4.4.
"""

import numpy as np
from matplotlib.figure import Figure

from advrl.plots import save_figure, style
from advrl.tabular import assert_policy_optimal, render_policy, solve
from advrl.tabular.problems import gridworld

MAP = """
S.......
...##...
..H...H.
.##..#..
....H..G"""

# P[s, a, s'] (S, A, S): where a step leads, with rows of zeros where the episode is over; R[s, a]: what it pays.


def action_values(P, R, V, gamma):
    """Q[s, a]: do a once, then be in states that are worth V."""
    # your turn: the reward, and the discounted value of where one gets to
    return R + gamma * P @ V
    # done


def best_actions(Q, tol=1e-9):
    """(S, A) bool: every action whose value is within tol of the best of its state. Ties are ties."""
    # your turn: compare each row with its greatest entry
    return Q.max(1, keepdims=True) - Q <= tol
    # done


def value_iteration(P, R, gamma, theta):
    """The values after each sweep, a list that starts with V = 0; the last changed less than theta in every state."""
    # your turn: V = max over actions of Q, again and again
    history = [np.zeros(len(R))]
    while True:
        history.append(action_values(P, R, history[-1], gamma).max(1))
        if np.abs(history[-1] - history[-2]).max() < theta:
            return history
    # done


def evaluate_policy(P, R, policy, gamma):
    """Values of a policy (S,) of actions, exactly."""
    # your turn: pick the policy's rows of P and entries of R, and solve a linear system
    here = np.arange(len(R))
    return np.linalg.solve(np.eye(len(R)) - gamma * P[here, policy], R[here, policy])
    # done


def improve(Q, policy, tol=1e-9):
    """The greedy policy, but for states where the old action is as good: rounding must not flip ties for ever."""
    # your turn: change an action only where another is better by more than tol
    here = np.arange(len(Q))
    return np.where(Q.max(1) > Q[here, policy] + tol, Q.argmax(1), policy)
    # done


def policy_iteration(P, R, gamma, policy):
    """(policy, values of every policy on the way, a list): evaluate and improve until nothing changes."""
    # your turn: stop when the improved policy is the old one
    history = []
    while True:
        history.append(evaluate_policy(P, R, policy, gamma))
        better = improve(action_values(P, R, history[-1], gamma), policy)
        if (better == policy).all():
            return policy, history
        policy = better
    # done


def main():
    mdp = gridworld(MAP, gamma=0.95, slip=0.2)
    P, R, gamma = mdp.dense().P.numpy(), mdp.R.numpy(), 0.95
    truth = solve(mdp)

    by_value = value_iteration(P, R, gamma, 1e-10)
    policy, by_policy = policy_iteration(P, R, gamma, np.zeros(len(R), dtype=int))
    assert_policy_optimal(mdp, policy)  # any optimal policy will do
    errors = {
        "value iteration": [np.abs(V - truth.V.numpy()).max() for V in by_value],
        "policy iteration": [np.abs(V - truth.V.numpy()).max() for V in by_policy],
    }
    for name, error in errors.items():
        print(f"{name}: {len(error) - 1} steps, greatest error {', '.join(f'{e:.2g}' for e in error[:8])} ...")
    best = best_actions(action_values(P, R, by_policy[-1], gamma))
    right = (best == truth.optimal_set.numpy())[~mdp.terminal.numpy()].all()
    print(f"\nevery optimal action ({'as' if right else 'not as'} advrl finds them)")
    print(render_policy(mdp, truth.optimal_set))

    with style():
        figure = Figure(figsize=(7.2, 2.9))
        left, right = figure.subplots(1, 2)
        for name, error in errors.items():
            left.semilogy(np.maximum(error, 1e-16), "o-", ms=3, label=name)
        left.set(title="Greatest error", xlabel="sweeps, or policies")
        left.legend()
        right.imshow(np.where(mdp.terminal.numpy(), np.nan, by_policy[-1]).reshape(mdp.shape))
        moves = np.array([(-1, 0), (0, 1), (1, 0), (0, -1)]) * 0.35  # left, down, right, up as (x, y)
        for s, a in np.argwhere(best & ~mdp.terminal.numpy()[:, None]):
            y, x = divmod(s, mdp.shape[1])
            right.annotate("", (x + moves[a, 0], y + moves[a, 1]), (x, y),
                           arrowprops={"arrowstyle": "->", "color": "white"})  # fmt: skip
        right.set(title="Values, and all optimal actions", xticks=[], yticks=[])
        right.grid(False)
        print(f"Written:\n  {save_figure(figure, 'runs/lessons/iteration.png')}")


if __name__ == "__main__":
    main()
