"""Tabular learners against exact values: convergence, unbiasedness, published curves."""

import functools
import itertools
import math

import pytest
import torch

from advrl.agents import (
    decay,
    double_q_learning,
    dyna_q,
    exact_values,
    expected_sarsa,
    harmonic,
    linear_sarsa,
    mc_control,
    mc_prediction,
    n_step_sarsa,
    prioritized_sweeping,
    q_lambda,
    q_learning,
    sarsa,
    sarsa_lambda,
    tabular_control,
    td_prediction,
    tree_backup,
)
from advrl.tabular import (
    MDP,
    Simulator,
    Successors,
    policy_evaluation,
    sample_step,
    sample_trajectories,
    solve,
    success_probability,
    value_sweeps,
)
from advrl.tabular.problems import cliff, garnet, gridworld, random_mdp
from tests.statistics import assert_unbiased
from tests.tabular import ROOM, close, layered, uniform, walk

# --- the simulator ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["dense", "successors", "csr", "wide"])
def test_outcomes_come_as_often_as_they_should(form, device):
    mdp = garnet(40 if form == "wide" else 6, 2, 30 if form == "wide" else 3, seed=1)
    mdp = {"dense": mdp.dense, "wide": mdp.dense, "successors": lambda: mdp, "csr": mdp.sparse}[form]().to(device)
    n = 40_000
    state, action = torch.full((n,), 5, device=device), torch.ones(n, dtype=torch.int64, device=device)
    step = sample_step(mdp, state, action, torch.Generator(device).manual_seed(0))
    seen = torch.nn.functional.one_hot(step.next, mdp.num_states).double()
    exact = mdp.dense().P[5, 1].double()
    assert not seen[:, exact == 0].any()
    assert_unbiased(seen[:, exact > 0].cpu(), exact[exact > 0].cpu())
    close(step.reward, mdp.R[5, 1])
    assert not step.ended.any()


def test_rewards_of_transitions_average_to_those_of_pairs():
    """Half of the mass stops; what that pays is what is left of R."""
    P = Successors(torch.tensor([[[0, 1]], [[1, 1]]]), torch.tensor([[[0.25, 0.25]], [[0.5, 0.0]]]).double())
    stop = torch.full((2, 1), 0.5, dtype=torch.float64)
    mdp = MDP(P, torch.tensor([[3.0], [1.0]]).double(), 0.9, stop=stop)
    rewards = torch.tensor([[[4.0, 0.0]], [[2.0, 9.0]]]).double()
    sim = Simulator.of(mdp, rewards)
    n = 20_000
    zero = torch.zeros(n, dtype=torch.int64)
    step = sample_step(sim, zero, zero, torch.Generator().manual_seed(0))
    assert set(step.reward.unique().tolist()) == {0.0, 4.0}  # 3 = .25 * 4 + .25 * 0 + .5 * 4
    assert_unbiased(torch.stack([step.reward, step.ended.double()], 1), torch.tensor([3.0, 0.5]).double())
    with pytest.raises(ValueError, match="shape of P"):
        Simulator.of(mdp, torch.zeros(2, 1))
    with pytest.raises(ValueError, match="batch"):
        Simulator.of(MDP.stack([random_mdp(), random_mdp()]))


def test_trajectories_succeed_as_often_as_is_exact():
    mdp = gridworld(ROOM, 0.9, slip=0.3)
    t = sample_trajectories(mdp, uniform(mdp), 20_000, 25, torch.Generator().manual_seed(0))
    exact = success_probability(mdp, uniform(mdp), torch.arange(9) == 8, horizon=25)
    assert_unbiased(t.ended.any(1).double()[:, None], exact[None])
    assert bool((t.mask[:, 1:] == (t.mask[:, :-1] & ~t.ended[:, :-1])).all())
    V = policy_evaluation(gridworld(ROOM, 0.5, slip=0.3), uniform(mdp)).V
    assert_unbiased(t.returns(0.5)[:, :1], V[:1] + 0.5**25 * 0)  # what 25 steps cut off is below 1e-7


# --- convergence to exact values --------------------------------------------------------------------------------------

DETERMINISTIC = {
    "q": (q_learning, {}),
    "double": (double_q_learning, {}),
    "tree backup": (tree_backup, {"n": 3}),
    "q(lambda)": (q_lambda, {"lam": 0.8}),
    "dyna": (dyna_q, {"planning": 2}),
    "sweeping": (prioritized_sweeping, {"planning": 2, "threshold": 0.0}),
    "off-policy": (tree_backup, {"n": 1}),
}


@pytest.mark.parametrize(("learner", "options"), DETERMINISTIC.values(), ids=DETERMINISTIC)
@pytest.mark.parametrize("agents", [2, 60])
def test_without_noise_a_full_step_is_value_iteration(learner, options, agents, device):
    """Deterministic moves, alpha 1, random behaviour: asynchronous sweeps, which end at Q* exactly."""
    mdp = gridworld(ROOM, 0.9, step_reward=-0.1).to(device)
    found = learner(mdp, agents=agents, episodes=60, alpha=1.0, epsilon=1.0, max_steps=200, **options)
    close(found.Q[:, [0, 1, 2, 3, 5, 6, 7]], solve(mdp).Q[[0, 1, 2, 3, 5, 6, 7]])
    close(exact_values(mdp, found.policy)[:, 0], solve(mdp).V[0])
    assert found.steps == int(found.lengths.sum())


@pytest.mark.parametrize("agents", [2, 60])
def test_expected_sarsa_without_noise_is_policy_evaluation(agents):
    mdp = gridworld(ROOM, 0.5, step_reward=-0.1)
    found = expected_sarsa(mdp, agents=agents, episodes=100, alpha=1.0, epsilon=1.0)
    floor = [0, 1, 2, 3, 5, 6, 7]
    close(found.Q[:, floor], policy_evaluation(mdp, uniform(mdp)).Q[floor])


ON_POLICY = {
    "sarsa": (sarsa, {"epsilon": 1.0}),
    "expected sarsa": (expected_sarsa, {"epsilon": 1.0}),
    "2 steps": (n_step_sarsa, {"n": 2, "epsilon": 1.0}),
    "5 steps": (n_step_sarsa, {"n": 5, "epsilon": 1.0}),
    "accumulating": (sarsa_lambda, {"lam": 0.7, "trace": "accumulating", "epsilon": 1.0}),
    "replacing": (sarsa_lambda, {"lam": 0.7, "trace": "replacing", "epsilon": 1.0}),
    "dutch": (sarsa_lambda, {"lam": 0.7, "trace": "dutch", "epsilon": 1.0}),
    "monte carlo": (mc_control, {"epsilon": 1.0}),
    "linear": (linear_sarsa, {"epsilon": 1.0, "features": torch.eye(9).double()}),
}


@pytest.mark.parametrize(("learner", "options"), ON_POLICY.values(), ids=ON_POLICY)
@pytest.mark.parametrize("plain", [False, True])
def test_values_of_random_behaviour_are_unbiased(learner, options, plain, monkeypatch):
    """No state comes twice in an episode, so from the exact values every expected update is zero, and stays it."""
    if plain and learner not in (sarsa, expected_sarsa):
        pytest.skip("one path")
    monkeypatch.setattr(tabular_control, "PLAIN_BELOW", 10**9 if plain else 0)
    mdp, rewards = layered()
    exact = policy_evaluation(mdp, uniform(mdp)).Q
    start = {} if learner is linear_sarsa else {"initial": exact}
    episodes = 120 if learner is linear_sarsa else 12  # whose weights start at 0: .5^n of that is left
    found = learner(mdp, agents=1500, episodes=episodes, alpha=0.3, rewards=rewards, **start, **options)
    if learner is linear_sarsa:
        assert_unbiased(found.Q[:, 0], exact[0])
        return
    assert_unbiased(found.Q[:, :7].flatten(1), exact[:7].flatten())


@pytest.mark.parametrize("options", [{"n": 1}, {"n": 3}, {"lam": 0.5}, {"lam": 0.9, "trace": "dutch"}], ids=str)
def test_prediction_is_unbiased(options):
    mdp, rewards = layered()
    policy = torch.rand(9, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64).softmax(-1)
    exact = policy_evaluation(mdp, policy).V
    found = td_prediction(
        mdp, policy, agents=1500, episodes=10, alpha=0.4, initial=exact[:, None], rewards=rewards, **options
    )
    assert_unbiased(found.V[:, :7], exact[:7])


MONTE_CARLO = {
    "first": {},
    "every": {"visits": "every"},
    "step size": {"alpha": 0.2},
    "ordinary": {"weighting": "ordinary", "behaviour": True},
}


@pytest.mark.parametrize("options", MONTE_CARLO.values(), ids=MONTE_CARLO)
def test_monte_carlo_is_unbiased(options):
    mdp, rewards = layered()
    policy = torch.rand(9, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64).softmax(-1)
    if "behaviour" in options:
        options = {**options, "behaviour": uniform(mdp)}
    exact = policy_evaluation(mdp, policy).V
    found = mc_prediction(mdp, policy, agents=3000, episodes=10, initial=exact, rewards=rewards, **options)
    assert_unbiased(found.V[:, :7], exact[:7])


def test_weighted_sampling_has_less_variance_and_the_right_limit():
    mdp, rewards = layered()
    rewards = rewards + 3  # ordinary sampling pays for the mean of returns, weighted for their spread alone
    mdp = MDP(mdp.P, rewards, 0.9, terminal=mdp.terminal, p0=mdp.p0)
    policy = torch.tensor([0, 1, 0, 1, 0, 1, 0, 0, 0])
    exact = policy_evaluation(mdp, policy).V[0]
    both = {}
    for weighting in ("ordinary", "weighted"):
        options = {"behaviour": uniform(mdp), "weighting": weighting, "rewards": rewards}
        found = mc_prediction(mdp, policy, agents=300, episodes=100, **options)
        both[weighting] = found.V[:, 0]
    assert both["weighted"].var() < both["ordinary"].var()
    # a ratio of means is off by at most O(1 / n): within its own spread, for one agent's 100 episodes
    assert abs(both["weighted"].mean() - exact) < both["weighted"].std()


def test_off_policy_monte_carlo_keeps_the_best_values_and_finds_them():
    """Without noise, an episode whose end is greedy is paid Q* exactly. From zeros, greedy beats the behaviour."""
    mdp = gridworld(ROOM, 0.9, step_reward=-0.1)
    best = solve(mdp).Q
    kept = mc_control(mdp, off_policy=True, epsilon=0.5, agents=20, episodes=30, initial=best)
    close(kept.Q, best)
    found = mc_control(mdp, off_policy=True, epsilon=0.5, agents=20, episodes=100, max_steps=100)
    assert (exact_values(mdp, found.policy)[:, 0] > exact_values(mdp, uniform(mdp)[None])[0, 0]).all()


def test_step_sizes_that_fade_converge():
    """Sample means of a noisy pair: alpha = 1 / n makes Q the mean of all rewards."""
    P, stop = torch.zeros(1, 2, 1), torch.ones(1, 2)
    mdp = MDP(P.double(), torch.tensor([[1.0, 2.0]]).double(), stop=stop.double())
    for agents in (3, 70):
        found = q_learning(mdp, agents=agents, episodes=40, alpha=harmonic(), epsilon=1.0, initial=50.0)
        close(found.Q, [[1.0, 2.0]])
    schedule = decay(1.0, 0.0, 10)
    close(schedule(torch.tensor([0.0, 5.0, 10.0, 99.0])), [1.0, 0.5, 0.0, 0.0])


# --- published numbers ------------------------------------------------------------------------------------------------


def assert_published(errors: torch.Tensor, published: float, runs: int) -> None:
    """Four standard errors of the difference of two means, ours and one of ``runs``, and half of the last digit."""
    bound = 4 * errors.std() * math.sqrt(1 / len(errors) + 1 / runs) + 5e-4
    assert abs(errors.mean() - published) < bound, f"{errors.mean():.4f}, published {published}, bound {bound:.4f}"


@pytest.mark.parametrize(
    ("options", "published"),
    [
        ({"n": 1, "alpha": 0.8}, 0.346),
        ({"n": 2, "alpha": 0.6}, 0.278),
        ({"n": 4, "alpha": 0.4}, 0.265),
        ({"n": 8, "alpha": 0.25}, 0.278),
        ({"n": 16, "alpha": 0.15}, 0.313),
        ({"lam": 0.4, "alpha": 0.7}, 0.273),
        ({"lam": 0.8, "alpha": 0.3}, 0.263),
        ({"lam": 0.9, "alpha": 0.2}, 0.290),
    ],
    ids=str,
)
def test_random_walk_of_19_states(options, published):
    """Sutton & Barto (2018), figures 7.2 and 12.6: error over states, averaged over the first ten episodes."""
    mdp, rewards, truth = walk(19, -1.0, 1.0)
    policy = torch.zeros(21, dtype=torch.int64)
    found = td_prediction(mdp, policy, agents=200, episodes=10, rewards=rewards, keep=True, **options)
    assert_published((found.history[..., 1:-1] - truth).square().mean(-1).sqrt().mean(-1), published, 200)


@pytest.mark.parametrize(
    ("method", "alpha", "published"),
    [("td", 0.05, 0.035), ("td", 0.1, 0.055), ("td", 0.15, 0.069),
     ("mc", 0.01, 0.098), ("mc", 0.02, 0.082), ("mc", 0.04, 0.107)],
)  # fmt: skip
def test_random_walk_of_5_states(method, alpha, published):
    """Sutton & Barto (2018), example 6.2: error after 100 episodes."""
    mdp, rewards, truth = walk(5, 0.0, 1.0)
    options = {"agents": 250, "episodes": 100, "alpha": alpha, "initial": 0.5, "rewards": rewards}
    policy = torch.zeros(7, dtype=torch.int64)
    learner = td_prediction if method == "td" else functools.partial(mc_prediction, visits="every")
    found = learner(mdp, policy, **options)
    assert_published((found.V[:, 1:-1] - truth).square().mean(-1).sqrt(), published, 2000)


def test_the_cliff_on_and_off_policy():
    """Sutton & Barto (2018), example 6.6. Behaviour's own best, -20.71, is the solution with epsilon in the moves."""
    mdp = cliff().dense()
    soft = MDP(0.9 * mdp.P + 0.1 * mdp.P.mean(1, keepdim=True), 0.9 * mdp.R + 0.1 * mdp.R.mean(1, keepdim=True),
               terminal=mdp.terminal, p0=mdp.p0)  # fmt: skip
    target = float(next(itertools.islice(value_sweeps(soft), 2000, None))[36])
    assert target == pytest.approx(-20.71, abs=5e-3)
    learned = expected_sarsa(mdp, agents=3, episodes=4000, alpha=1.0, epsilon=0.1)
    Q = learned.Q[:, 36]
    close(0.9 * Q.amax(-1) + 0.1 * Q.mean(-1), target, atol=5e-3)
    on = sarsa(mdp, agents=30, episodes=400, alpha=0.5)
    off = q_learning(mdp, agents=30, episodes=400, alpha=0.5)
    close(off.V[:, 36], -13.0, atol=1e-3)
    ahead = on.returns[:, -100:].mean(1) - off.returns[:, -100:].mean(1)  # no pairs, but equally many
    assert ahead.mean() > 4 * ahead.std() / math.sqrt(30)
