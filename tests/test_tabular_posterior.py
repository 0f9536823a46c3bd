"""Posterior sampling: the posterior is the conjugate one, and it explores where greed does not."""

import pytest
import torch

from advrl.agents import posterior_sampling, q_learning, value_gap
from advrl.agents.tabular_loop import Loop, Transition
from advrl.agents.tabular_posterior import Posterior
from advrl.tabular import MDP
from advrl.tabular.problems import gridworld


def river(states=6):
    """RiverSwim, Strehl & Littman (2008): a little for staying, much for a long way against the current."""
    P = torch.zeros(states, 2, states, dtype=torch.float64)
    R = torch.zeros(states, 2, dtype=torch.float64)
    for s in range(states):
        P[s, 0, max(s - 1, 0)] = 1
        for to, chance in ((min(s + 1, states - 1), 0.35), (s, 0.6), (max(s - 1, 0), 0.05)):
            P[s, 1, to] += chance
    R[0, 0], R[-1, 1] = 0.005, 1.0
    return MDP(P, R, 0.95, p0=torch.eye(states, dtype=torch.float64)[0])


def test_it_swims_up_the_river_where_greed_stays():
    mdp = river()
    found = posterior_sampling(mdp, agents=30, episodes=40, max_steps=20, noise=0.5)
    assert (found.gap > -1e-9).all()
    assert (found.gap < 0.1 * found.best).double().mean() > 0.5
    greedy = q_learning(mdp, agents=60, episodes=40, max_steps=20)
    assert (value_gap(mdp, greedy.policy) < 0.1 * found.best).double().mean() < 0.1
    torch.testing.assert_close(value_gap(mdp, found.policy), found.gap)


def test_the_posterior_is_the_conjugate_one():
    mdp = gridworld("S.G", 0.9)
    loop = Loop(mdp, agents=4000, seed=0)
    learner = Posterior(loop, prior=0.5, noise=2.0, terminal=mdp.terminal)
    n = loop.agents
    whole = {"dtype": torch.int64}
    for following, reward, ended in ((1, 1.0, False), (1, 3.0, False), (2, 5.0, True)):
        learner.count_step(
            Transition(torch.zeros(n, **whole), torch.full((n,), 2), torch.full((n,), reward, dtype=torch.float64),
                       torch.full((n,), following), torch.full((n,), ended), torch.full((n,), ended),
                       torch.ones(n, dtype=torch.bool))
        )  # fmt: skip
    everyone = torch.arange(n)
    right = torch.tensor([0.5, 2.5, 0.5, 1.5], dtype=torch.float64)  # two to state 1, one to the end
    torch.testing.assert_close(learner.outcomes(everyone)[:, 0, 2], right.expand(n, -1))
    mean, spread = learner.rewards(everyone)
    assert mean[0, 0, 2] == 9 / 4 and spread[0, 0, 2] == 1.0  # variance 4: precision (1 + 3) / 4
    learner.draw(everyone)  # from Q = R + gamma P V with V of the terminal state 0
    Q = learner.Q.view(n, 3, 4)
    assert (Q[:, 2] == 0).all()
    assert Q[:, 0, 2].std() > 0.5 and Q[:, 0, 0].std() > Q[:, 0, 2].std()  # less is known of what was not tried


def test_it_does_without_a_discount_and_within_a_mask(device):
    mdp = gridworld("S..\n...\n..G", 1.0, step_reward=-1.0, goal_reward=0.0)
    mask = torch.ones(9, 4, dtype=torch.bool)
    mask[0, 2] = False
    masked = MDP(mdp.P, mdp.R, 1.0, terminal=mdp.terminal, p0=mdp.p0, mask=mask, shape=(3, 3)).to(device)
    found = posterior_sampling(masked, agents=10, episodes=40, max_steps=60, noise=0.3)
    assert (found.policy[:, 0] != 2).all()
    assert found.best == -4
    assert (found.gap < 1e-9).double().mean() > 0.5


def test_a_prior_of_nothing_is_refused():
    with pytest.raises(ValueError, match="prior"):
        posterior_sampling(river(), prior=0.0)
