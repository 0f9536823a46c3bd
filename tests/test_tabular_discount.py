"""A discount for each agent: the same learner as on an MDP of that gamma, judged by the MDP's own."""

from dataclasses import replace

import pytest
import torch

from advrl import agents
from advrl.tabular import MDP, solve
from advrl.tabular.problems import garnet, random_walk

GAMMAS = torch.tensor([0.0, 0.5, 0.9], dtype=torch.float64)
PROBLEM = replace(garnet(8, 3, 3, 0.8, seed=11), p0=torch.eye(8, dtype=torch.float64)[0])
POLICY = torch.zeros(8, dtype=torch.int64)
LEARNERS = {
    "q": lambda mdp, **common: agents.q_learning(mdp, **common),
    "sarsa": lambda mdp, **common: agents.sarsa(mdp, **common),
    "expected": lambda mdp, **common: agents.expected_sarsa(mdp, **common),
    "double": lambda mdp, **common: agents.double_q_learning(mdp, **common),
    "n-step": lambda mdp, **common: agents.n_step_sarsa(mdp, 3, **common),
    "tree": lambda mdp, **common: agents.tree_backup(mdp, 3, **common),
    "sarsa(lambda)": lambda mdp, **common: agents.sarsa_lambda(mdp, **common),
    "q(lambda)": lambda mdp, **common: agents.q_lambda(mdp, **common),
    "monte carlo": lambda mdp, **common: agents.mc_control(mdp, **common),
    "monte carlo off": lambda mdp, **common: agents.mc_control(mdp, off_policy=True, **common),
    "dyna": lambda mdp, **common: agents.dyna_q(mdp, planning=2, **common),
    "sweeping": lambda mdp, **common: agents.prioritized_sweeping(mdp, planning=2, **common),
    "model": lambda mdp, **common: agents.model_learning(mdp, **common),
    "actor": lambda mdp, **common: agents.actor_critic(mdp, **common),
    "reinforce": lambda mdp, **common: agents.reinforce(mdp, batch=2, **common),
    "td": lambda mdp, **common: agents.td_prediction(mdp, POLICY, **common),
    "td(3)": lambda mdp, **common: agents.td_prediction(mdp, POLICY, n=3, **common),
    "mc": lambda mdp, **common: agents.mc_prediction(mdp, POLICY, **common),
}
OWN = ("reinforce", "actor")  # their policy, not a table of values, shows what was learned


@pytest.mark.parametrize("plain", [True, False], ids=["few", "many"])
@pytest.mark.parametrize("name", LEARNERS)
def test_agents_with_discounts_of_their_own_learn_what_they_would_on_an_mdp_of_that_gamma(name, plain, monkeypatch):
    from advrl.agents import tabular_control

    monkeypatch.setattr(tabular_control, "PLAIN_BELOW", 50 if plain else 0)
    if plain and name not in ("q", "sarsa", "expected", "double", "td"):
        pytest.skip("has one form")
    learn = LEARNERS[name]
    common = {"agents": 3, "episodes": 6, "max_steps": 12, "seed": 3}
    mixed = learn(PROBLEM, gamma=GAMMAS, **common)
    for n, gamma in enumerate(GAMMAS.tolist()):
        single = learn(replace(PROBLEM, gamma=gamma), **common)  # the n-th of three agents draws the same numbers
        value = "policy" if name in OWN else "V"
        torch.testing.assert_close(getattr(mixed, value)[n], getattr(single, value)[n], rtol=0, atol=1e-9)
        assert (mixed.lengths[n] == single.lengths[n]).all()
    same = learn(PROBLEM, gamma=0.8, **common)
    usual = learn(PROBLEM, **common)
    assert (same.V == usual.V).all() and (same.returns == usual.returns).all()


def test_posterior_sampling_plans_with_the_discount_of_the_agent():
    """Agents draw their models together, as their episodes end, so one agent at a time is compared."""
    common = {"episodes": 6, "max_steps": 12, "seed": 3}
    for gamma in (0.0, 0.9):
        own = agents.posterior_sampling(PROBLEM, gamma=torch.tensor([gamma], dtype=torch.float64), **common)
        same = agents.posterior_sampling(replace(PROBLEM, gamma=gamma), **common)
        assert (own.V == same.V).all() and (own.policy == same.policy).all() and (own.lengths == same.lengths).all()


@pytest.mark.parametrize("many", [False, True])
def test_returns_are_discounted_as_the_mdp_says(many):
    walk = random_walk(5)
    follow = torch.zeros(walk.num_states, dtype=torch.int64)
    size = 60 if many else 3
    found = agents.td_prediction(walk, follow, gamma=0.1, agents=size, episodes=4)
    plain = agents.td_prediction(walk, follow, agents=size, episodes=4)
    assert (found.returns == plain.returns).all() and (found.V != plain.V).any()


def test_a_sweep_of_gamma_in_one_call_from_short_to_long_sight():
    """From the left end: 0.3 at once, or 1 after four steps to the right, worth 0.3 < gamma^4 if gamma > 0.74."""
    prob, reward = torch.zeros(6, 2, 6, dtype=torch.float64), torch.zeros(6, 2, dtype=torch.float64)
    for s in range(5):
        prob[s, 0, max(s - 1, 0)], prob[s, 1, s + 1] = 1.0, 1.0
    prob[0, 0], prob[0, 0, 5], reward[0, 0], reward[4, 1] = 0.0, 1.0, 0.3, 1.0
    over = torch.arange(6) == 5
    prob[5, :, 5] = 1.0
    mdp = MDP(prob, reward, 0.9, terminal=over, p0=torch.eye(6, dtype=torch.float64)[0])
    gammas = torch.tensor([0.0, 0.5, 0.7, 0.8, 0.99], dtype=torch.float64).repeat_interleave(20)
    found = agents.q_learning(mdp, agents=100, episodes=400, alpha=0.5, epsilon=1.0, gamma=gammas, max_steps=50)
    loss = agents.value_gap(mdp, found.policy).view(5, 20)
    torch.testing.assert_close(loss[:3], torch.full((3, 20), 0.9**4 - 0.3, dtype=torch.float64), rtol=0, atol=1e-9)
    assert (loss[3:].abs() < 1e-9).all()
    best = torch.stack([solve(replace(mdp, gamma=g)).V for g in (0.0, 0.5, 0.7, 0.8, 0.99)])
    torch.testing.assert_close(found.V.view(5, 20, 6).mean(1), best, rtol=0, atol=1e-3)


def test_wrong_discounts_are_named():
    with pytest.raises(ValueError, match=r"gamma must be in \[0, 1\], got 1.5"):
        agents.q_learning(PROBLEM, gamma=1.5)
    with pytest.raises(ValueError, match=r"gamma must be a number or have shape \(2,\), got \(3,\)"):
        agents.sarsa(PROBLEM, agents=2, gamma=GAMMAS)
    with pytest.raises(TypeError, match="no schedule"):
        agents.q_learning(PROBLEM, gamma=agents.decay(0.9, 0.1, 10))
    with pytest.raises(ValueError, match="bonus where gamma is 1"):
        agents.q_learning(PROBLEM, gamma=torch.tensor([0.5, 1.0]), agents=2, bonus=0.1)
