"""What all tabular learners have in common, and models, features and gradients: limits, masks, agents, mistakes."""

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
    policy_evaluation,
    policy_gradient,
    solve,
)
from advrl.tabular.problems import cliff, gambler, gridworld
from tests.statistics import assert_unbiased
from tests.tabular import ROOM, close, layered, uniform, walk
from tests.test_devices import NoWaiting

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
