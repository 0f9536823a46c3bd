"""Lesson: what is a state worth? Policy evaluation by hand and by machine, then two ways to the best policy.

    python examples/planning.py

A 4 x 4 grid (Sutton & Barto, 2018, example 4.1): every step costs 1, two opposite corners end the walk.
"""

import torch

from advrl.tabular import assert_policy_optimal, policy_evaluation, policy_iteration, render_policy, value_iteration
from advrl.tabular.problems import corner_grid

mdp = corner_grid(gamma=1.0)
P, R = mdp.dense().P, mdp.R  # P[s, a, s'] (16, 4, 16): where a step leads; R[s, a] (16, 4): what it pays

# 1. By hand. A policy's values satisfy V = R_pi + P_pi V: the next reward, and what the next state is worth.
random = torch.full((16, 4), 0.25, dtype=torch.float64)
P_pi, R_pi = torch.einsum("sa,sat->st", random, P), (random * R).sum(1)
V = torch.zeros(16, dtype=torch.float64)
for sweep in range(1, 201):
    V = R_pi + P_pi @ V  # every state asks its neighbours
    if sweep in (1, 2, 3, 10, 200):
        print(f"\nwalking at random, after {sweep} sweeps\n{V.view(4, 4).numpy().round(1)}")

# 2. By machine: the same equations are linear, and solved at once.
exact = policy_evaluation(mdp, random).V
print(f"\nlinear algebra differs from 200 sweeps by {float((exact - V).abs().max()):.1e}")

# 3. One greedy step from the values of a policy gives a better policy (here, the best there is).
Q = R + P @ exact
better = Q.argmax(1)
assert_policy_optimal(mdp, better)
print(f"\ngreedy with respect to the random walk's values\n{render_policy(mdp, better)}")

# 4. Two ways to the optimum: improve the values sweep by sweep, or the policy, each time evaluated exactly.
by_value = value_iteration(mdp, history=True)
detour = torch.full((16,), 2)  # to the right, then down: it ends, which is all that a first policy must do
detour[3::4] = 1
by_policy = policy_iteration(mdp, detour, history=True)
for name, found in (("value iteration", by_value), ("policy iteration", by_policy)):
    errors = ", ".join(f"{float((V - by_policy.V).abs().max()):.3g}" for V in found.history)
    print(f"\n{name}: {found.iterations} steps, greatest error after each: {errors}")
print(f"\nevery optimal action\n{render_policy(mdp, by_policy.optimal_set)}")
