"""Lesson: what is a state worth? Policy evaluation by hand and by machine.

    python examples/lessons/evaluation.py

A 4 x 4 grid (Sutton & Barto, 2018, example 4.1): every step costs 1, two opposite corners end the walk. Whoever walks
at random has values V = R_pi + gamma P_pi V: the next reward, and what the next state is worth.
"""

import numpy as np
from matplotlib.figure import Figure

from advrl.plots import save_figure, style
from advrl.tabular import policy_evaluation
from advrl.tabular.problems import corner_grid

# P[s, a, s'] (S, A, S): where a step leads, with rows of zeros where the episode is over; R[s, a]: what it pays.


def under_policy(P, R, policy):
    """(P_pi, R_pi), of shapes (S, S) and (S,): the steps and rewards of one who follows policy[s, a]."""
    # your turn: average over actions, each with its probability
    return np.einsum("sa,sat->st", policy, P), (policy * R).sum(1)
    # done


def sweep(P_pi, R_pi, V, gamma):
    """New values, after every state has asked its neighbours once; V stays as it is."""
    # your turn: the Bellman equation, as an assignment
    return R_pi + gamma * P_pi @ V
    # done


def sweep_in_place(P_pi, R_pi, V, gamma):
    """The same one state after another, first to last, each using what is already new; changes V, returns nothing."""
    # your turn: overwrite V[s], state by state
    for s in range(len(V)):
        V[s] = R_pi[s] + gamma * P_pi[s] @ V
    # done


def evaluate(P_pi, R_pi, gamma, theta):
    """(V, number of sweeps): sweeps from V = 0 until one changes no state by theta or more; it counts too."""
    # your turn: sweep, and look at the greatest change
    V, sweeps = np.zeros(len(R_pi)), 0
    while True:
        new = sweep(P_pi, R_pi, V, gamma)
        change, V, sweeps = np.abs(new - V).max(), new, sweeps + 1
        if change < theta:
            return V, sweeps
    # done


def solve_exactly(P_pi, R_pi, gamma):
    """The values at once: the Bellman equation is linear in V."""
    # your turn: (I - gamma P_pi) V = R_pi
    return np.linalg.solve(np.eye(len(R_pi)) - gamma * P_pi, R_pi)
    # done


def main():
    mdp = corner_grid(gamma=1.0)
    P, R = mdp.dense().P.numpy(), mdp.R.numpy()
    P_pi, R_pi = under_policy(P, R, np.full((16, 4), 0.25))

    V, pictures = np.zeros(16), {0: np.zeros(16)}
    for k in range(1, 11):
        V = sweep(P_pi, R_pi, V, 1.0)
        pictures[k] = V
    for k in (1, 2, 3, 10):
        print(f"\nwalking at random, after {k} sweeps\n{pictures[k].reshape(4, 4).round(2)}")

    V, sweeps = evaluate(P_pi, R_pi, 1.0, 1e-4)
    in_place, fewer, change = np.zeros(16), 0, 1.0
    while change >= 1e-4:
        before = in_place.copy()
        sweep_in_place(P_pi, R_pi, in_place, 1.0)
        change, fewer = np.abs(in_place - before).max(), fewer + 1
    exact = solve_exactly(P_pi, R_pi, 1.0)
    machine = policy_evaluation(mdp, np.full((16, 4), 0.25)).V.numpy()
    print(f"\nexactly\n{exact.reshape(4, 4).round(2)}")
    print(f"until a sweep changes less than 0.0001: {sweeps} sweeps, {fewer} in place")
    print(f"greatest error: of sweeps {np.abs(V - exact).max():.1e}, of advrl {np.abs(machine - exact).max():.1e}")

    with style():
        figure = Figure(figsize=(7.2, 2.0))
        shown = {f"after {k}": pictures[k] for k in (0, 1, 2, 3, 10)} | {"for ever": exact}
        for axis, (title, values) in zip(figure.subplots(1, 6), shown.items(), strict=True):
            axis.imshow(values.reshape(4, 4), vmin=-22, vmax=0)
            for s, value in enumerate(values):
                axis.text(s % 4, s // 4, f"{value:.1f}", ha="center", va="center", fontsize=5.5,
                          color="white" if value < -9 else "black")  # fmt: skip
            axis.set(title=title, xticks=[], yticks=[])
            axis.grid(False)
        print(f"Written:\n  {save_figure(figure, 'runs/lessons/evaluation.png')}")


if __name__ == "__main__":
    main()
