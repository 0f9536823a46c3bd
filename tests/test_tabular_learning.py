"""Tabular learners against exact values: convergence, unbiasedness, published curves, time limits, the agents axis."""

import functools
import itertools
import math

import pytest
import torch

from advrl import cli
from advrl.agents import (
    TileCoding,
    actor_critic,
    decay,
    double_q_learning,
    dyna_q,
    exact_values,
    expected_sarsa,
    harmonic,
    linear_sarsa,
    linear_td,
    mc_control,
    mc_prediction,
    model_learning,
    n_step_sarsa,
    posterior_sampling,
    prioritized_sweeping,
    q_lambda,
    q_learning,
    reinforce,
    sarsa,
    sarsa_lambda,
    tabular_control,
    td_prediction,
    tree_backup,
    value_gap,
)
from advrl.agents.tabular_dyna import Dyna, Sweeping
from advrl.agents.tabular_gradient import ActorCritic
from advrl.agents.tabular_linear import Linear
from advrl.agents.tabular_loop import Loop, Transition
from advrl.agents.tabular_model import Counting
from advrl.agents.tabular_nstep import NStepSarsa, TreeBackup
from advrl.agents.tabular_traces import Traces
from advrl.tabular import (
    MDP,
    Simulator,
    Successors,
    policy_evaluation,
    policy_gradient,
    sample_step,
    sample_trajectories,
    solve,
    success_probability,
    value_sweeps,
)
from advrl.tabular.problems import cliff, gambler, garnet, gridworld, random_mdp, random_walk
from tests.statistics import assert_unbiased
from tests.test_devices import NoWaiting

ROOM = "S..\n.#.\n..G"


def layered(gamma: float = 0.9) -> tuple[MDP, torch.Tensor]:
    """Start, three states, three states, two ends: no state comes twice. With it the rewards of single transitions."""
    g = torch.Generator().manual_seed(3)
    P, r = torch.zeros(9, 2, 9, dtype=torch.float64), torch.randn(9, 2, 9, generator=g, dtype=torch.float64)
    for layer, onward in (([0], [1, 2, 3]), ([1, 2, 3], [4, 5, 6]), ([4, 5, 6], [7, 8])):
        for s in layer:
            P[s][:, onward] = torch.rand(2, len(onward), generator=g, dtype=torch.float64)
    P[7:, :, 7] = 1
    P /= P.sum(-1, keepdim=True)
    first = torch.zeros(9, dtype=torch.float64)
    first[0] = 1
    return MDP(P, r, gamma, terminal=torch.arange(9) >= 7, p0=first), r


def uniform(mdp: MDP) -> torch.Tensor:
    return torch.full((mdp.num_states, mdp.num_actions), 1 / mdp.num_actions, dtype=torch.float64)


def close(actual, expected, atol=1e-8):
    torch.testing.assert_close(actual, torch.as_tensor(expected).to(actual).expand_as(actual), rtol=0, atol=atol)


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


def walk(states: int, left: float, right: float):
    rewards = torch.zeros(states + 2, 1, 2, dtype=torch.float64)
    rewards[1, 0, 0], rewards[states, 0, 1] = left, right
    truth = left + (right - left) * torch.arange(1, states + 1) / (states + 1)
    return random_walk(states, left=left, right=right), rewards, truth


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


# --- time limits, masks, the agents axis ------------------------------------------------------------------------------

BOOTSTRAPPING = [q_learning, sarsa, expected_sarsa, double_q_learning, n_step_sarsa, tree_backup, sarsa_lambda,
                 q_lambda, dyna_q, prioritized_sweeping, mc_control]  # fmt: skip


@pytest.mark.parametrize("learner", BOOTSTRAPPING, ids=lambda f: f.__name__)
@pytest.mark.parametrize("agents", [1, 50])
def test_a_time_limit_is_no_end(learner, agents):
    """One state, a reward of 1 for ever: worth 10, whatever the limit. If the step ends the episode, it is worth 1."""
    going = MDP(torch.ones(1, 1, 1).double(), torch.ones(1, 1).double(), 0.9)
    options = {"alpha": 0.5, "agents": agents, "episodes": 200, "max_steps": 2}
    if learner is prioritized_sweeping:
        options["threshold"] = 0.0
    close(learner(going, **options).Q, 10.0, atol=1e-3)
    ending = MDP(torch.zeros(1, 1, 1).double(), torch.ones(1, 1).double(), 0.9, stop=torch.ones(1, 1).double())
    found = learner(ending, **options)
    close(found.Q, 1.0, atol=1e-6)
    assert (found.lengths == 1).all()
    close(found.returns, 1.0)


@pytest.mark.parametrize("learner", [*BOOTSTRAPPING, reinforce, actor_critic, model_learning], ids=lambda f: f.__name__)
@pytest.mark.parametrize("agents", [2, 60])
def test_only_feasible_actions_are_taken(learner, agents):
    mdp = gambler(goal=8)
    options = {} if learner is model_learning else {"alpha": 0.2}
    found = learner(mdp, agents=agents, episodes=40, max_steps=50, **options)
    assert ((found.returns == 0) | (found.returns == 1) | (mdp.R.max() < 1)).all()
    if found.Q is not None:
        assert (found.Q[:, ~mdp.mask & ~mdp.terminal[:, None]] == -torch.inf).all()
        assert mdp.mask[torch.arange(1, 8), found.policy[:, 1:8]].all()
    else:
        assert (found.policy[:, ~mdp.mask & ~mdp.terminal[:, None]] == 0).all()


LEARNERS = [q_learning, sarsa, expected_sarsa, double_q_learning, n_step_sarsa, tree_backup, sarsa_lambda, q_lambda,
            dyna_q, prioritized_sweeping, actor_critic]  # fmt: skip


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda f: f.__name__)
def test_an_agent_among_many_is_the_agent_alone(learner, monkeypatch):
    """With the same draws, whatever its neighbours' step sizes are; and with a seed of its own it is reproduced."""
    monkeypatch.setattr(tabular_control, "PLAIN_BELOW", 0)
    recorded = torch.rand(200_000, 5, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    place = [0]

    def replay(columns):
        def draw(self, count):
            place[0] += count
            return recorded[place[0] - count : place[0], columns]

        return draw

    mdp = gridworld(ROOM, 0.9, slip=0.2, step_reward=-0.1)
    alpha = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5], dtype=torch.float64)
    options = {"episodes": 5, "max_steps": 60}
    monkeypatch.setattr(Loop, "uniform", replay(slice(None)))
    many = learner(mdp, agents=5, alpha=alpha, **options)
    place[0] = 0
    monkeypatch.setattr(Loop, "uniform", replay(slice(3, 4)))
    one = learner(mdp, agents=1, alpha=0.4, **options)
    for name in ("V", "policy", "returns", "lengths"):
        torch.testing.assert_close(getattr(many, name)[3:4], getattr(one, name), rtol=0, atol=1e-12)


@pytest.mark.parametrize("learner", [q_learning, sarsa, expected_sarsa, double_q_learning], ids=lambda f: f.__name__)
def test_few_agents_learn_as_many_do(learner, monkeypatch):
    """The plain path and the batched one: means of returns and values differ by no more than chance."""
    mdp = gridworld(ROOM, 0.9, slip=0.2, step_reward=-0.1)
    runs = []
    for below in (0, 10**9):
        monkeypatch.setattr(tabular_control, "PLAIN_BELOW", below)
        runs.append(learner(mdp, agents=400, episodes=20, alpha=0.3, epsilon=decay(0.5, 0.1, 10), max_steps=100))
    a, b = (torch.cat([r.V[:, :3], r.returns[:, ::4], r.lengths[:, ::4].double()], 1) for r in runs)
    assert_unbiased(a - b, torch.zeros(a.shape[1]).double())  # independent agents, in any order


INSIDE = {
    **{name: lambda loop, name=name: tabular_control.OneStep(loop, name, 0.5, 0.1) for name in
       ("max", "sarsa", "expected", "double")},
    "traces": lambda loop: Traces(loop, 0.9, "dutch", 0.5, 0.1, watkins=False),
    "q(lambda)": lambda loop: Traces(loop, 0.9, "replacing", 0.5, 0.1, watkins=True),
    "n steps": lambda loop: NStepSarsa(loop, 3, 0.5, 0.1),
    "tree backup": lambda loop: TreeBackup(loop, 3, 0.5, 0.1),
    "dyna": lambda loop: Dyna(loop, 0.5, 0.1, 2, 0.01),
    "sweeping": lambda loop: Sweeping(loop, 0.5, 0.1, 2, 0.0),
    "counting": lambda loop: Counting(loop, 0.1, 0.1, 2, 2),
    "linear": lambda loop: Linear(loop, torch.eye(9), None, 0.5, 0.1),
    "actor-critic": lambda loop: ActorCritic(loop, 0.5, 0.5, None),
}  # fmt: skip


@pytest.mark.parametrize("make", INSIDE.values(), ids=INSIDE)
def test_a_step_of_all_agents_reads_no_value(make):
    """A GPU is waited for only where the loop looks whether all have finished."""
    loop = Loop(gridworld(ROOM, 0.9, slip=0.2), agents=6)
    learner = make(loop)
    state = loop.simulator.first(loop.uniform(1)[0])
    moving = torch.ones(6, dtype=torch.bool)
    with NoWaiting():
        for _ in range(4):
            action = learner.act(state)
            following, reward, ended = loop.simulator.step(state, action, loop.uniform(1)[0])
            learner.update(Transition(state, action, reward, following, ended, ended, moving))
            state = following.masked_fill(ended, 0)


@pytest.mark.parametrize("make", [
    lambda loop: tabular_control.OneStep(loop, "sarsa", 0.5, 1.0),
    lambda loop: Traces(loop, 0.9, "replacing", 0.5, 1.0, watkins=False),
    lambda loop: NStepSarsa(loop, 2, 0.5, 1.0),
])  # fmt: skip
def test_sarsa_does_what_it_learned_from(make):
    """The action of the target is the next one taken, unless the episode is over."""
    loop = Loop(gridworld(ROOM, 0.9), agents=200)
    learner = make(loop)
    state, still = torch.zeros(200, dtype=torch.int64), torch.zeros(200, dtype=torch.bool)
    done = torch.arange(200) >= 100
    action = learner.act(state)
    reward = torch.zeros(200, dtype=torch.float64)
    learner.update(Transition(state, action, reward, state + 1, still, done, ~still))
    target = learner.stored
    taken = learner.act(torch.where(done, state, state + 1))
    assert torch.equal(taken[:100], target[:100])
    assert not torch.equal(taken[100:], target[100:])


def test_a_seed_is_a_run_and_a_bonus_explores():
    mdp = gridworld(ROOM, 0.9)
    one, two, other = (q_learning(mdp, agents=3, episodes=10, seed=s) for s in (1, 1, 2))
    assert torch.equal(one.Q, two.Q)
    assert not torch.equal(one.returns, other.returns)
    generator = torch.Generator().manual_seed(7)
    assert q_learning(mdp, episodes=2, seed=generator).returns.shape == (1, 2)
    corridor = gridworld("S..................G", 0.99)
    for agents in (4, 60):
        options = {"agents": agents, "episodes": 30, "epsilon": 0.0, "alpha": 0.5, "max_steps": 60}
        found = [q_learning(corridor, bonus=bonus, **options) for bonus in (0.0, 1.0)]
        reached = [(r.returns > 0).any(1).double().mean() for r in found]
        assert reached[1] == 1.0 > reached[0]


# --- models, features, gradients --------------------------------------------------------------------------------------


def test_a_model_of_a_deterministic_world_is_right():
    mdp = gridworld(ROOM, 0.9, step_reward=-0.1)
    found = model_learning(mdp, epsilon=1.0, agents=5, episodes=30, max_steps=200)
    close(found.gap, 0.0)
    close(found.believed, found.best)
    assert found.model.batch_shape == (5,)
    close(found.achieved, solve(mdp).V[0])


def test_a_learned_model_costs_what_its_errors_cost():
    """The gap is never negative, is the exact one, and shrinks with experience; optimism explores."""
    mdp = gridworld(ROOM, 0.9, slip=0.3, step_reward=-0.1)
    short, long = (model_learning(mdp, bonus=0.1, epsilon=0.0, agents=60, episodes=e, max_steps=100) for e in (2, 60))
    assert (short.gap > -1e-9).all()
    assert long.gap.mean() < short.gap.mean()
    close(value_gap(mdp, long.policy), long.gap)
    close(long.achieved[0], policy_evaluation(mdp, long.policy[0]).V[0])
    with pytest.raises(ValueError, match="gamma < 1"):
        model_learning(cliff(), bonus=0.1)


def test_exact_values_of_many_policies():
    mdp = gridworld(ROOM, 0.9, slip=0.2, step_reward=-0.1)
    g = torch.Generator().manual_seed(0)
    soft = torch.rand(4, 9, 4, generator=g, dtype=torch.float64).softmax(-1)
    close(exact_values(mdp, soft), torch.stack([policy_evaluation(mdp, p).V for p in soft]))
    hard = torch.randint(4, (6, 9), generator=g)
    close(exact_values(mdp, hard), torch.stack([policy_evaluation(mdp, p).V for p in hard]))
    V = torch.zeros(9).double()
    for _ in range(13):
        V = (soft[0] * (mdp.R + 0.9 * mdp.expectation(V))).sum(-1)
    close(exact_values(mdp, soft[:1], horizon=13)[0], V)
    stuck = torch.zeros(1, 48, dtype=torch.int64)
    close(exact_values(cliff(), stuck, horizon=1000)[0, 36], -1000.0)
    with pytest.raises(ValueError, match="never ends"):
        exact_values(cliff(), stuck)
    with pytest.raises(ValueError, match="policies"):
        exact_values(cliff(), stuck[0])


def test_one_hot_features_are_a_table():
    mdp, rewards, _ = walk(5, 0.0, 1.0)
    policy, options = torch.zeros(7, dtype=torch.int64), {"agents": 60, "episodes": 5, "alpha": 0.2, "rewards": rewards}
    table = td_prediction(mdp, policy, **options)
    for features in (torch.eye(7).double(), torch.arange(7)[:, None]):
        linear = linear_td(mdp, policy, features, **options)
        close(linear.V, table.V, atol=1e-12)
        close(linear.weights[:, 0], table.V, atol=1e-12)


def test_features_that_hold_the_values_find_them():
    """A corridor without noise, features 1[state >= i]: TD(0) converges to the values."""
    mdp = gridworld("S....G", 0.9)
    right = torch.full((6,), 2)
    found = linear_td(mdp, right, torch.ones(6, 6).tril().double(), episodes=1500, alpha=0.1)
    close(found.V[0, :5], policy_evaluation(mdp, right).V[:5], atol=1e-4)


def test_tiles():
    tiles = TileCoding((0.0, -1.0), (1.0, 1.0), bins=4, tilings=8)
    low, size = torch.tensor([0.0, -1.0]), torch.tensor([1.0, 2.0])
    points = low + size * torch.rand(500, 2, generator=torch.Generator().manual_seed(0))
    active = tiles(points)
    assert active.shape == (500, 8)
    assert tiles.size == 8 * 25
    assert int(active.min()) >= 0
    assert int(active.max()) < tiles.size
    assert (active // 25 == torch.arange(8)).all(), "one tile of each tiling"
    step = torch.tensor([1 / 32, 0.0])  # an eighth of a tile: some tiling of eight changes, and only few do
    inside = points[(points[:, 0] < 0.9)]
    changed = (tiles(inside) != tiles(inside + step)).sum(-1)
    assert changed.float().mean() == pytest.approx(1.0, abs=0.2)
    assert (tiles(torch.tensor([[-9.0, 9.0]])) == tiles(torch.tensor([[0.0, 1.0]]))).all()
    for wrong in (((0.0,), (0.0,)), ((), ()), ((0.0,), (1.0, 2.0))):
        with pytest.raises(ValueError, match="low"):
            TileCoding(*wrong)


def test_policy_gradients_are_unbiased():
    """One update of each of many agents is its estimate; centred logits move by alpha times the exact gradient."""
    mdp, rewards = layered()
    logits = torch.randn(9, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    exact = policy_gradient(mdp, logits)[:7, 0]  # the two actions' parts are opposite
    V = policy_evaluation(mdp, logits.softmax(-1)).V
    runs = {
        "reinforce": reinforce(mdp, alpha=0.1, batch=1, agents=6000, episodes=1, logits=logits, rewards=rewards),
        "leave one out": reinforce(mdp, alpha=0.1, batch=3, agents=3000, episodes=3, logits=logits, rewards=rewards),
        "actor-critic": actor_critic(mdp, alpha=0.1, critic=0.0, agents=3000, episodes=1, logits=logits,
                                     rewards=rewards, initial=V[:, None].expand(9, 2)),
    }  # fmt: skip
    for found in runs.values():
        moved = (found.policy.log() - logits)[:, :7]
        assert_unbiased((moved - moved.mean(-1, keepdim=True))[..., 0] / 0.1, exact)


@pytest.mark.parametrize("learner", [reinforce, actor_critic])
def test_policy_gradients_climb(learner):
    mdp = gridworld(ROOM, 0.9, slip=0.1, step_reward=-0.1)
    found = learner(mdp, alpha=0.5, agents=20, episodes=400, max_steps=60)
    before = exact_values(mdp, uniform(mdp)[None])[0, 0]
    assert (exact_values(mdp, found.policy)[:, 0] > before + 0.5 * (solve(mdp).V[0] - before)).all()


# --- the boundary -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.5}, "alpha must be in"),
        ({"alpha": torch.tensor([0.1, 0.2])}, "alpha must be a number or have shape"),
        ({"epsilon": -0.1}, "epsilon"),
        ({"agents": 0}, "agents"),
        ({"episodes": 0}, "episodes"),
        ({"max_steps": 0}, "max_steps"),
        ({"initial": torch.zeros(3, 3)}, "initial"),
        ({"bonus": -1.0}, "bonus"),
        ({"seed": -1}, "seed"),
    ],
    ids=str,
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        q_learning(gridworld(ROOM), **options)


def test_other_mistakes_are_named():
    mdp = gridworld(ROOM)
    with pytest.raises(TypeError, match="unknown option 'agent'"):
        q_learning(mdp, agent=3)
    with pytest.raises(ValueError, match="unknown trace 'acumulating'; did you mean 'accumulating'"):
        sarsa_lambda(mdp, trace="acumulating")
    with pytest.raises(ValueError, match="dutch"):
        q_lambda(mdp, trace="dutch")
    with pytest.raises(ValueError, match="n or lam"):
        td_prediction(mdp, uniform(mdp), n=2, lam=0.5)
    with pytest.raises(ValueError, match="never takes action"):
        mc_prediction(mdp, uniform(mdp), behaviour=torch.zeros(9, dtype=torch.int64))
    with pytest.raises(ValueError, match="multiple of batch"):
        reinforce(mdp, batch=3, episodes=4)
    with pytest.raises(ValueError, match="initial"):
        linear_sarsa(mdp, torch.eye(9), initial=1.0)
    with pytest.raises(ValueError, match="features must have shape"):
        linear_sarsa(mdp, torch.eye(3))
    with pytest.raises(ValueError, match="batch"):
        q_learning(MDP.stack([mdp, mdp]))


@pytest.mark.parametrize(
    "learner", [*LEARNERS, mc_control, reinforce, model_learning, posterior_sampling], ids=lambda f: f.__name__
)
def test_nothing_is_made_on_the_default_device(learner):
    mdp = gridworld(ROOM, 0.9, slip=0.2)
    torch.set_default_device("meta")
    try:
        for agents in (2, 55):
            assert learner(mdp, agents=agents, episodes=8, max_steps=20).returns.device.type == "cpu"
        tiles = TileCoding((0.0,), (8.0,), 2, 2)(torch.arange(9.0, device="cpu")[:, None])
        assert linear_sarsa(mdp, tiles, episodes=2, max_steps=20).V.device.type == "cpu"
        assert mc_prediction(mdp, uniform_on_cpu(mdp), episodes=2, max_steps=20).V.device.type == "cpu"
    finally:
        torch.set_default_device(None)


def uniform_on_cpu(mdp):
    return torch.full((mdp.num_states, mdp.num_actions), 0.25, dtype=torch.float64, device="cpu")


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_prints_a_table_and_draws(tmp_path, capsys):
    picture = tmp_path / "curves.png"
    assert cli.main(f"learn q-learning cliff --agents 60 --episodes 250 --alpha 0.5 --out {picture}".split()) == 0
    text = capsys.readouterr().out
    assert "q-learning on cliff: 48 states, 4 actions, gamma 1" in text
    assert "V* of the start                   -13.0000" in text
    assert "60 of 60" in text
    assert picture.stat().st_size > 10_000
    one = ["--gamma", "0.9", "--episodes", "10", "--agents", "1"]
    assert cli.main(["learn", "actor-critic", "FrozenLake-v1", *one]) == 0
    assert "0.0689" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["q-lerning", "cliff"], "did you mean 'q-learning'"),
        (["q-learning", "clif"], "did you mean 'cliff'"),
        (["sarsa", "cliff", "--lam", "0.5"], "sarsa has no --lam"),
        (["sarsa", "cliff", "--map", "8x8"], "cliff takes no --map"),
        (["sarsa", "Blackjack-v1"], "no table"),
        (["sarsa", "cliff", "--agents", "0"], "--agents must be at least 1"),
        (["sarsa", "cliff", "--gamma", "2"], "gamma"),
    ],
)
def test_a_wrong_command_is_one_sentence(words, message, capsys):
    assert cli.main(["learn", *words]) == 2
    assert message in capsys.readouterr().err
