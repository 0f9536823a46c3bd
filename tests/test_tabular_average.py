"""The average reward per step against every policy's, the limit of discounting, and periodic chains."""

import itertools
from dataclasses import replace

import pytest
import torch

from advrl.tabular import MDP, relative_value_iteration, solve, stationary_distribution
from advrl.tabular.problems import car_rental, garnet, random_mdp


def gains(mdp: MDP) -> torch.Tensor:
    """The average reward of every deterministic policy."""
    here = torch.arange(mdp.num_states)
    found = []
    for actions in itertools.product(range(mdp.num_actions), repeat=mdp.num_states):
        policy = torch.tensor(actions)
        if mdp.mask is None or bool(mdp.mask[here, policy].all()):
            found.append((stationary_distribution(mdp, policy) * mdp.R[here, policy]).sum())
    return torch.stack(found)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("form", ["dense", "sparse", "masked"])
def test_the_gain_is_that_of_the_best_policy(seed, form):
    mdp = random_mdp(4, 3, 0.9, seed=100 + seed)
    if form == "sparse":
        mdp = mdp.sparse()
    elif form == "masked":
        mask = torch.rand(4, 3, generator=torch.Generator().manual_seed(seed)) < 0.6
        mask[:, 0] |= ~mask.any(-1)
        mdp = replace(mdp, mask=mask)
    found = relative_value_iteration(mdp)
    best = gains(mdp).max()
    assert found.status == "converged" and found.lower <= best <= found.upper and found.upper - found.lower < 2e-8
    here = torch.arange(4)
    own = stationary_distribution(mdp, found.policy) @ mdp.R[here, found.policy]
    torch.testing.assert_close(own, best, rtol=0, atol=1e-8)
    assert found.optimal_set[here, found.policy].all() and found.bias[0] == 0
    torch.testing.assert_close(found.Q.amax(-1), found.bias, rtol=0, atol=1e-8)  # the optimality equation


def test_the_gain_is_the_limit_of_discounted_values():
    mdp = garnet(60, 4, 5, 0.9, seed=21)
    gain = relative_value_iteration(mdp, tol=1e-10).gain
    near = solve(replace(mdp, gamma=1 - 1e-6)).V * 1e-6
    assert (near - gain).abs().max() < 1e-4


def test_a_batch_is_its_elements():
    mdps = [random_mdp(5, 2, 0.9, seed=s) for s in range(3)]
    batch = relative_value_iteration(MDP.stack(mdps))
    for n, mdp in enumerate(mdps):
        torch.testing.assert_close(batch.gain[n], relative_value_iteration(mdp).gain, rtol=0, atol=1e-8)


def test_chains_with_a_period_converge():
    P = torch.zeros(3, 1, 3, dtype=torch.float64)
    for s in range(3):
        P[s, 0, (s + 1) % 3] = 1.0
    found = relative_value_iteration(MDP(P, torch.tensor([[1.0], [2.0], [6.0]], dtype=torch.float64)))
    torch.testing.assert_close(found.gain, torch.tensor(3.0, dtype=torch.float64), rtol=0, atol=1e-8)
    torch.testing.assert_close(found.bias, torch.tensor([0.0, 2.0, 3.0], dtype=torch.float64), rtol=0, atol=1e-7)


def test_single_precision_claims_what_it_can():
    mdp = car_rental(0.9).to(dtype=torch.float32)
    found = relative_value_iteration(mdp, tol=1e-12)
    truth = relative_value_iteration(mdp.to(dtype=torch.float64), tol=1e-10).gain
    assert found.status == "converged" and found.lower <= truth <= found.upper and found.upper - found.lower > 1e-6


def test_states_that_do_not_meet_keep_their_bounds():
    P = torch.eye(2, dtype=torch.float64)[:, None]
    found = relative_value_iteration(MDP(P, torch.tensor([[1.0], [3.0]], dtype=torch.float64)), max_sweeps=50)
    assert found.status == "max_iterations" and found.lower <= 1 and found.upper >= 3


def test_what_ends_is_refused():
    mdp = garnet(5, 2, 2, 0.9)
    ends = replace(mdp, terminal=torch.arange(5) == 3)
    with pytest.raises(ValueError, match=r"never ends: state 3, action 0 ends with probability 1; use solve"):
        relative_value_iteration(ends)
