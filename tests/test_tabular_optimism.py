"""UCBVI: optimism that holds, exploration where greed stays, plans whose worth is exact."""

import pytest
import torch

from advrl.agents import q_learning, ucb_vi
from advrl.tabular import MDP, backward_induction
from advrl.tabular.problems import garnet, gridworld


def deep_sea(size: int = 6) -> MDP:
    """A row of states: a step right costs a little, and only the last one pays. After Osband et al. (2019)."""
    P, R = torch.zeros(size, 2, size, dtype=torch.float64), torch.zeros(size, 2, dtype=torch.float64)
    for s in range(size):
        P[s, 0, max(s - 1, 0)], P[s, 1, min(s + 1, size - 1)] = 1.0, 1.0
    R[:, 1], R[-1, 1] = -0.01, 1.0
    return MDP(P, R, 1.0, p0=torch.eye(size, dtype=torch.float64)[0])


def test_it_finds_what_greed_does_not():
    mdp, common = deep_sea(), {"agents": 60, "episodes": 80, "max_steps": 8}
    found = ucb_vi(mdp, **common)
    assert found.best == pytest.approx(backward_induction(mdp, 8).V[0, 0].item()) == pytest.approx(2.95)
    loss = found.best - found.achieved
    assert (loss > -1e-9).all() and (loss < 0.1).double().mean() > 0.9
    greedy = q_learning(mdp, **common)
    assert greedy.returns[:, -20:].mean() < 0.2 * found.returns[:, -20:].mean()


def test_what_is_promised_is_never_less_than_the_best_and_comes_down_to_it():
    mdp = garnet(5, 2, 2, 0.9, seed=4)
    mdp = MDP(mdp.P, mdp.R.sigmoid(), 0.9, p0=torch.full((5,), 0.2, dtype=torch.float64))
    found = ucb_vi(mdp, bonus=1.0, agents=40, episodes=150, max_steps=6)
    assert (found.promised >= found.best - 1e-9).all()  # with probability 0.95 for each agent, by a loose bound
    assert (found.promised.diff(dim=1) <= 1e-12).all()
    little = ucb_vi(mdp, bonus=0.02, agents=40, episodes=150, max_steps=6)
    assert (little.promised[:, -1] < found.promised[:, -1]).all()
    assert (little.best - little.achieved).mean() < 0.05 * little.best


def test_the_worth_of_a_plan_is_that_of_backward_induction():
    mdp = garnet(5, 3, 2, 0.8, seed=5)
    found = ucb_vi(mdp, agents=3, episodes=4, max_steps=5)
    start = torch.full((5,), 0.2, dtype=torch.float64)
    for n in range(3):
        V = torch.zeros(5, dtype=torch.float64)
        for h in range(4, -1, -1):
            V = backward_induction(mdp, 1, V, policy=found.plan[n, h]).V[0]
        torch.testing.assert_close(found.achieved[n], V @ start)


def test_masks_ends_and_discounts(device):
    mdp = gridworld("S..\n...\n..G", 1.0, step_reward=-1.0, goal_reward=0.0)
    mask = torch.ones(9, 4, dtype=torch.bool)
    mask[0, 2] = False
    masked = MDP(mdp.P, mdp.R, 1.0, terminal=mdp.terminal, p0=mdp.p0, mask=mask, shape=(3, 3)).to(device)
    gamma = torch.tensor([0.5, 1.0], dtype=torch.float64).repeat(10)
    found = ucb_vi(masked, bonus=0.01, agents=20, episodes=60, max_steps=12, gamma=gamma)
    assert (found.plan[:, :, 0] != 2).all() and found.best == -4
    assert (found.lengths[:, -10:] <= 12).all() and (found.achieved == -4).double().mean() > 0.5


@pytest.mark.parametrize(("options", "message"), [({"bonus": -1.0}, "bonus"), ({"confidence": 1.0}, "below 1")])
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        ucb_vi(deep_sea(), **options)
