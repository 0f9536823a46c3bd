"""Planning against the textbooks' numbers, each by two methods or more, and bounds against the truth."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from advrl.tabular import (
    MDP,
    Successors,
    backward_induction,
    from_gymnasium,
    linear_program,
    lookahead,
    modified_policy_iteration,
    policy_evaluation,
    policy_iteration,
    soft_value_iteration,
    solve,
    success_probability,
    value_iteration,
    value_sweeps,
)
from advrl.tabular.problems import (
    car_rental,
    cliff,
    corner_grid,
    gambler,
    garnet,
    random_mdp,
    random_walk,
    special_grid,
    student,
    student_process,
    windy,
)

PLANNERS = {
    "policy iteration": policy_iteration,
    "modified": modified_policy_iteration,
    "linear program": linear_program,
    "jacobi": value_iteration,
    "max": lambda m: value_iteration(m, stop="max"),
    "gauss-seidel": lambda m: value_iteration(m, sweep="gauss-seidel"),
    "prioritised": lambda m: value_iteration(m, sweep="prioritised"),
    "topological": lambda m: value_iteration(m, sweep="topological"),
}
planners = pytest.mark.parametrize("plan", PLANNERS.values(), ids=PLANNERS)


def close(actual, expected, atol=6e-4):
    torch.testing.assert_close(
        torch.as_tensor(actual).double(), torch.as_tensor(expected, dtype=torch.float64), rtol=0, atol=atol
    )


def uniform(mdp):
    return torch.full((mdp.num_states, mdp.num_actions), 1 / mdp.num_actions)


def only(mdp):
    return torch.zeros(mdp.num_states, dtype=torch.int64)


@pytest.mark.parametrize("method", ["lu", "krylov", "iterative", "inplace"])
def test_special_grid_under_the_random_policy(method):
    """Sutton & Barto (2018), figure 3.2, to three decimals."""
    values = policy_evaluation(special_grid(), uniform(special_grid()), method).V
    close(values.view(5, 5), [
        [3.309, 8.789, 4.428, 5.322, 1.492],
        [1.522, 2.992, 2.250, 1.908, 0.547],
        [0.051, 0.738, 0.673, 0.358, -0.403],
        [-0.974, -0.435, -0.355, -0.586, -1.183],
        [-1.858, -1.345, -1.229, -1.423, -1.975],
    ])  # fmt: skip


@planners
def test_special_grid_solved(plan):
    """Sutton & Barto (2018), figure 3.5: values, and every optimal action."""
    found = plan(special_grid())
    close(found.V.view(5, 5), [
        [21.977, 24.419, 21.977, 19.419, 17.477],
        [19.780, 21.977, 19.780, 17.802, 16.022],
        [17.802, 19.780, 17.802, 16.022, 14.419],
        [16.022, 17.802, 16.022, 14.419, 12.978],
        [14.419, 16.022, 14.419, 12.978, 11.680],
    ])  # fmt: skip
    east, north, west = 2, 3, 0
    rows = [[{east}, {0, 1, 2, 3}, {west}, {0, 1, 2, 3}, {west}]]
    rows += [[{north, east}, {north}, {north, west}, {west}, {west}]]
    rows += [[{north, east}, {north}, {north, west}, {north, west}, {north, west}]] * 3
    sets = [set(row.nonzero().flatten().tolist()) for row in found.optimal_set]
    assert sets == [wanted for row in rows for wanted in row]


def test_corner_grid_sweep_by_sweep():
    """Sutton & Barto (2018), figure 4.1."""
    mdp = corner_grid()
    swept = policy_evaluation(mdp, uniform(mdp), "iterative", history=True, tol=1e-9)
    close(swept.history[1][[1, 2]], [-1.75, -2], 1e-12)
    close(swept.history[2][[1, 2, 3, 5]], [-2.4375, -2.9375, -3, -2.875], 1e-12)
    close(swept.history[9][:8], [0, -6.138, -8.352, -8.967, -6.138, -7.737, -8.428, -8.352])
    final = [0, -14, -20, -22, -14, -18, -20, -20, -20, -20, -18, -14, -22, -20, -14, 0]
    for method in ("lu", "krylov", "iterative", "inplace"):
        close(policy_evaluation(mdp, uniform(mdp), method).V, final, 1e-7)


@pytest.mark.parametrize(
    ("p", "values"),
    [(0.4, {25: 0.16, 50: 0.4, 75: 0.64, 1: 0.0021, 51: 0.4031, 99: 0.9643}),
     (0.25, {25: 0.0625, 50: 0.25, 75: 0.4375}), (0.55, {1: 0.1818, 25: 0.9934})],
)  # fmt: skip
def test_gambler(p, values):
    found = solve(gambler(p))
    close(found.V[list(values)], list(values.values()), 6e-5)
    stakes = found.policy[1:100].tolist()
    ties = int((found.optimal_set[1:100].sum(-1) > 1).sum())
    if p == 0.55:
        assert stakes == [1] * 99 and ties == 0
    else:
        assert ties == 72
        assert stakes[:25] == [*range(1, 13), *range(12, 0, -1), 25] and stakes[49] == 50


def test_car_rental():
    mdp = car_rental()
    no_move = torch.full((441,), 5)
    found = policy_iteration(mdp, no_move)
    assert found.iterations == 5  # four improvements, the fifth changes nothing
    values = found.V.view(21, 21)
    close([values[0, 0], values[10, 10], values[20, 20], values[20, 0], values[0, 20]],
          [421.4141, 574.9483, 636.9896, 554.9477, 567.7685], 6e-5)  # fmt: skip
    assert torch.bincount(found.policy, minlength=11).tolist() == [0, 3, 9, 14, 17, 270, 33, 29, 23, 17, 26]
    close(modified_policy_iteration(mdp).V, found.V.tolist(), 1e-8)


@planners
def test_cliff_and_wind(plan):
    close(plan(cliff()).V[36], -13.0, 1e-7)
    close(plan(cliff(slippery=True)).V[36], -64.7092, 6e-5)
    close(plan(windy()).V[30], -15.0, 1e-7)
    close(plan(windy(kings=True, stochastic=True)).V[30], -10.9646, 6e-5)


def test_kings_need_seven_steps():
    close(solve(windy(kings=True)).V[30], -7.0, 1e-12)
    close(solve(windy(kings=True, stay=True)).V[30], -7.0, 1e-12)


def test_student():
    close(policy_evaluation(student_process(), only(student_process())).V[:6],
          [-12.543, 1.457, 4.321, 10, 0.802, -22.543])  # fmt: skip
    close(policy_evaluation(student_process(0.9), only(student_process())).V[:6],
          [-5.013, 0.943, 4.087, 10, 1.908, -7.638])  # fmt: skip
    close(policy_evaluation(student(), uniform(student())).V[:4], [-2.308, -1.308, 2.692, 7.385])
    found = solve(student())
    close(found.V[:4], [6, 6, 8, 10], 1e-12)
    close(found.Q[3, 0], 9.4, 1e-12)


@pytest.mark.parametrize("states", [5, 19])
def test_random_walk(states):
    mdp = random_walk(states)
    close(policy_evaluation(mdp, only(mdp)).V[1:-1], [i / (states + 1) for i in range(1, states + 1)], 1e-12)


LAKES = [
    ("4x4", 0.99, 0.5420259320, 6.33981954), ("4x4", 0.95, 0.1804715784, None), ("4x4", 0.9, 0.0688909049, None),
    ("4x4", 1.0, 14 / 17, None), ("8x8", 0.99, 0.4146403618, 21.56837794), ("8x8", 0.95, 0.0482502041, None),
    ("8x8", 0.9, 0.0064111143, None), ("8x8", 1.0, 1.0, None),
]  # fmt: skip


@pytest.mark.parametrize(("size", "gamma", "value", "total"), LAKES)
def test_frozen_lake(size, gamma, value, total):
    mdp = from_gymnasium(gym.make("FrozenLake-v1", map_name=size), gamma)
    for plan in (policy_iteration, modified_policy_iteration, linear_program):
        found = plan(mdp)
        close(found.V[0], value, 1e-8)
        if total is not None:
            close(found.V.sum(), total, 1e-6)


@pytest.mark.parametrize(("size", "gamma", "ever", "limit", "within", "best"), [
    ("4x4", 0.99, 0.823529, 100, 0.740165, 0.744190), ("8x8", 0.99, 0.893841, 200, 0.862955, 0.913220),
    ("4x4", 0.9, 0.780488, 100, 0.729766, 0.744190), ("4x4", 0.95, 0.780488, 100, 0.729766, 0.744190),
])  # fmt: skip
def test_success_on_the_lake(size, gamma, ever, limit, within, best):
    env = gym.make("FrozenLake-v1", map_name=size)
    mdp = from_gymnasium(env, gamma)
    policy = solve(mdp).policy
    close(success_probability(mdp, policy, mdp.R), ever, 1e-6)
    close(success_probability(mdp, policy, mdp.R, horizon=limit), within, 1e-6)
    close(backward_induction(from_gymnasium(env, 1.0), limit).V[0, 0], best, 1e-6)


def test_lake_policy_and_dry_lake():
    policy = solve(from_gymnasium(gym.make("FrozenLake-v1"), 0.99)).policy
    assert policy[[0, 1, 2, 3, 4, 6, 8, 9, 10, 13, 14]].tolist() == [0, 3, 3, 3, 0, 0, 3, 1, 0, 2, 1]
    for size, value in (("4x4", 0.9509900499), ("8x8", 0.8775210230)):
        dry = from_gymnasium(gym.make("FrozenLake-v1", map_name=size, is_slippery=False), 0.99)
        close(solve(dry).V[0], value, 1e-10)


def test_taxi():
    env = gym.make("Taxi-v4")
    for gamma, mean in ((1.0, 7.93), (0.99, 6.32746431), (0.9, -1.2633231)):
        mdp = from_gymnasium(env, gamma)
        assert int((mdp.p0 > 0).sum()) == 300
        close((solve(mdp).V * mdp.p0).sum(), mean, 1e-7)


@pytest.mark.parametrize("seed", range(6))
@planners
def test_planners_agree(plan, seed):
    rng = np.random.default_rng(seed)
    mdp = (garnet, random_mdp)[seed % 2](int(rng.integers(2, 30)), int(rng.integers(1, 5)), gamma=0.9, seed=seed)
    truth = policy_iteration(mdp, tol=0)
    found = plan(mdp)
    close(found.V, truth.V.tolist(), 1e-8)
    assert found.status == "converged" and float(found.error_bound) <= 1e-8


def random_instance(seed):
    """Dense, sparse or batched, with terminal states, masks and stops, at any discount, in either precision."""
    rng = np.random.default_rng(seed)
    states, actions = int(rng.integers(2, 12)), int(rng.integers(1, 4))
    batch = (int(rng.integers(1, 4)),) if seed % 3 == 0 else ()
    P = rng.dirichlet(np.full(states, 0.3), (*batch, states, actions))
    stop = None
    if seed % 4 == 0:
        stop = rng.random((*batch, states, actions)) * 0.3 * rng.integers(0, 2, (*batch, states, 1))
        P = P * (1 - stop[..., None])
    mask = rng.random((states, actions)) < 0.7
    mask[np.arange(states), rng.integers(0, actions, states)] = True
    gamma = [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999][seed % 6]
    R = rng.standard_normal((*batch, states, actions)) * 10.0 ** rng.integers(-2, 3)
    given = {
        "terminal": torch.as_tensor(rng.random(states) < 0.2) if seed % 5 == 0 else None,
        "mask": torch.as_tensor(mask) if seed % 2 else None,
        "stop": None if stop is None else torch.as_tensor(stop),
    }
    mdp = MDP(torch.as_tensor(P), torch.as_tensor(R), torch.full(batch, gamma) if batch else gamma, **given)
    if not batch and seed % 7 < 3:
        mdp = mdp.sparse()
    return mdp.to(dtype=torch.float32) if seed % 2 else mdp


@pytest.mark.parametrize("first", range(0, 1000, 100))
def test_bounds_contain_the_truth(first):
    """The truth: policy iteration in float64 on the very numbers that the solver saw."""
    for seed in range(first, first + 100):
        mdp = random_instance(seed)
        exact = mdp.to(dtype=torch.float64)
        try:
            truth = policy_iteration(exact, tol=0).V
        except ValueError as error:  # rounding to float32 moved a row's sum past the tolerance: no valid problem
            if "sum to 1" not in str(error):
                raise
            continue
        plan = (solve, value_iteration, modified_policy_iteration)[seed % 3]
        found = plan(mdp, tol=1e-3)
        slack = 1e-12 * (1 + truth.abs())
        assert (found.lower.double() - slack <= truth).all() and (truth <= found.upper.double() + slack).all(), seed
        assert ((found.V.double() - truth).abs().amax(-1) <= found.error_bound.double() + slack.amax(-1)).all(), seed
        value = policy_evaluation(exact, found.policy, "lu").V
        assert ((truth - value).amax(-1) <= found.policy_regret_bound.double() + 2 * slack.amax(-1)).all(), seed


def test_rounding_is_told():
    """What float32 cannot reach is called rounding, and ends."""
    found = value_iteration(random_mdp(50, 4, 0.999).to(dtype=torch.float32), tol=1e-9)
    assert found.status == "rounding" and float(found.error_bound) > 1e-9


def test_giving_up_is_told():
    assert value_iteration(random_mdp(gamma=0.99), stop="max", max_sweeps=3).status == "max_iterations"


def test_batch_is_stacked_singles():
    mdps = [random_mdp(6, 3, gamma, seed=i) for i, gamma in enumerate((0.5, 0.9, 0.99))]
    together = MDP.stack(mdps)
    for plan in (policy_iteration, modified_policy_iteration, value_iteration):
        found = plan(together)
        for i, mdp in enumerate(mdps):
            close(found.V[i], plan(mdp).V.tolist(), 2e-8)


def test_batched_successors_are_stacked_singles():
    mdps = [garnet(8, 2, 3, 0.9, seed=i) for i in range(3)]
    P = Successors(torch.stack([m.P.next for m in mdps]), torch.stack([m.P.prob for m in mdps]))
    together = MDP(P, torch.stack([m.R for m in mdps]), 0.9)
    for plan in (policy_iteration, modified_policy_iteration, value_iteration):
        for i, mdp in enumerate(mdps):
            close(plan(together).V[i], plan(mdp).V.tolist(), 2e-8)


def test_soft_values():
    """Between the mean and the greatest; one state with a loop has the closed form t logsumexp(r / t) / (1 - gamma)."""
    R = torch.tensor([[1.0, 2.0, 0.5]], dtype=torch.float64)
    mdp = MDP(torch.ones(1, 3, 1, dtype=torch.float64), R, 0.9)
    for t in (0.1, 1.0):
        found = soft_value_iteration(mdp, t)
        close(found.V, (t * (R / t).logsumexp(-1) / 0.1).tolist(), 1e-7)
        close(found.policy, (R / t).softmax(-1).tolist(), 1e-7)
    hard = solve(garnet(20))
    cold = soft_value_iteration(garnet(20), 1e-4)
    assert float((cold.V - hard.V).abs().max()) <= 1e-4 * np.log(4) / 0.05 + 1e-8


def test_lookahead_contracts():
    mdp, truth = garnet(30, gamma=0.9), solve(garnet(30, gamma=0.9))
    for depth in (1, 2, 5):
        error = (lookahead(mdp, torch.zeros(30, dtype=torch.float64), depth) - truth.Q).abs().max()
        assert error <= 0.9**depth * truth.V.abs().max()


def test_sweeps_can_be_watched():
    sweeps = value_sweeps(corner_grid())
    close(next(sweeps)[5], -1.0, 0)
    close(next(sweeps)[5], -2.0, 0)


def test_ties_do_not_cycle():
    """Two actions that are equal but for rounding (QuantEcon.py 313): policy iteration ends."""
    P = torch.tensor([[[0.1, 0.2, 0.7], [0.7, 0.2, 0.1]]] * 3, dtype=torch.float64)
    R = torch.full((3, 2), 0.1, dtype=torch.float64)
    assert policy_iteration(MDP(P, R, 0.99)).iterations <= 2


def two_rooms(reward=0.0):
    """State 0 may loop or leave to the end, state 1."""
    P = torch.zeros(2, 2, 2, dtype=torch.float64)
    P[0, 0, 0] = P[0, 1, 1] = P[1, :, 1] = 1
    R = torch.tensor([[reward, 1.0], [0, 0]], dtype=torch.float64)
    return MDP(P, R, 1.0, terminal=torch.tensor([False, True]), state_labels=("hall", "exit"))


def test_undiscounted():
    close(solve(two_rooms()).V[0], 1.0, 1e-12)
    assert solve(two_rooms()).policy[0] == 1  # staying is worth as much, and never ends
    with pytest.raises(ValueError, match="unbounded"):
        solve(two_rooms(0.5))
    with pytest.raises(ValueError, match=r"never ends: .* among states 0 \(hall\)"):
        policy_evaluation(two_rooms(), torch.tensor([0, 0]))
    trap = MDP(torch.eye(2, dtype=torch.float64)[:, None], torch.ones(2, 1, dtype=torch.float64), 1.0)
    with pytest.raises(ValueError, match="no policy ends from states 0, 1"):
        solve(trap)


def test_undiscounted_bounds_where_every_policy_ends():
    rng = np.random.default_rng(0)
    P = np.triu(rng.dirichlet(np.ones(10), (3, 10)), 0).transpose(1, 0, 2)
    P /= P.sum(-1, keepdims=True)
    P[:, :, -1] += 0.01
    P /= P.sum(-1, keepdims=True)
    mdp = MDP(torch.as_tensor(P.copy()), torch.as_tensor(rng.standard_normal((10, 3))), 1.0,
              terminal=torch.arange(10) == 9)  # fmt: skip
    truth = policy_iteration(mdp, tol=0).V
    found = value_iteration(mdp)
    assert found.lower is not None and (found.lower <= truth + 1e-12).all() and (truth <= found.upper + 1e-12).all()


def test_a_policy_that_all_but_never_ends():
    """The cliff where a tenth of the actions are random: the worst policy takes some 1e16 steps, the best ends soon."""
    mdp = cliff().dense()
    P, R = (0.9 * t + 0.1 * t.mean(1, keepdim=True) for t in (mdp.P, mdp.R))
    soft = MDP(P, R, 1.0, terminal=mdp.terminal)
    for plan in (policy_iteration, value_iteration, modified_policy_iteration):
        found = plan(soft)
        close(found.V[36], -20.71, 6e-3)
        assert found.lower is None and found.reason
