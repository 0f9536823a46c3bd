"""The compiled loops against tensors: the same values, from the same public functions."""

import numpy as np
import pytest
import torch

from advrl.tabular import MDP, Solution, Successors, fused, modified_policy_iteration, policy_iteration, small, solve
from advrl.tabular.problems import corner_grid, garnet

TOL = 1e-7


def tensors(monkeypatch, mdp: MDP, tol: float = TOL) -> Solution:
    """What comes without numba."""
    with monkeypatch.context() as patch:
        patch.setattr(fused, "INSTALLED", False)
        assert not fused.usable(mdp) and not small.usable(mdp)
        return policy_iteration(mdp, tol=tol)


def chain(states: int, gamma: float) -> MDP:
    """A corridor with an absorbing end, where values travel from far: the case of Gauss-Seidel."""
    here = np.arange(states)
    following = np.stack([np.maximum(here - 1, 0), np.minimum(here + 1, states - 1)], 1)
    both = np.stack([np.stack([following[:, a], following[:, 1 - a]], -1) for a in (0, 1)], 1)
    prob = torch.tensor([0.8, 0.2], dtype=torch.float64).expand(states, 2, 2).contiguous()
    R = torch.full((states, 2), -1.0, dtype=torch.float64)
    return MDP(Successors(torch.as_tensor(both), prob), R, gamma, terminal=torch.as_tensor(here == states - 1))


def masked(states: int) -> MDP:
    """A Garnet problem in which each state forbids one action."""
    mdp = garnet(states, 4, 3, 0.95, seed=3)
    mask = torch.ones(states, 4, dtype=torch.bool)
    mask[torch.arange(states), torch.arange(states) % 4] = False
    return MDP(mdp.P, mdp.R, 0.95, mask=mask)


PROBLEMS = {
    "garnet": lambda: garnet(700, 5, 4, 0.99, seed=1),
    "csr": lambda: garnet(700, 5, 4, 0.95, seed=2).sparse(),
    "chain": lambda: chain(600, 0.99),
    "masked": lambda: masked(600),
    "no discount to speak of": lambda: garnet(600, 3, 3, 0.0, seed=4),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_compiled_sweeps_agree_with_tensors(name, monkeypatch):
    pytest.importorskip("numba", reason="the compiled loops need numba: pip install 'advrl[fast]'")
    mdp = PROBLEMS[name]()
    assert fused.usable(mdp)
    found = solve(mdp, "modified-policy-iteration", tol=TOL)
    truth = tensors(monkeypatch, mdp).V
    assert found.status == "converged" and float(found.error_bound) <= TOL
    assert (found.V - truth).abs().max() <= 2 * TOL
    assert (found.lower - 1e-12 <= truth).all() and (truth <= found.upper + 1e-12).all()
    if mdp.mask is not None:
        assert mdp.mask.gather(1, found.policy[:, None]).all()


def test_gauss_seidel_takes_over_where_bounds_close_slowly(monkeypatch):
    pytest.importorskip("numba", reason="the compiled loops need numba: pip install 'advrl[fast]'")
    taken = []
    whole = fused._in_place
    monkeypatch.setattr(fused, "_in_place", lambda *args: taken.append(1) or whole(*args))
    quick = modified_policy_iteration(chain(600, 0.99), tol=TOL)
    assert taken and quick.status == "converged"
    taken.clear()
    modified_policy_iteration(garnet(700, 5, 4, 0.99), tol=TOL)
    assert not taken


def test_single_precision_is_solved_in_double_and_claims_no_more_than_it_can():
    pytest.importorskip("numba", reason="the compiled loops need numba: pip install 'advrl[fast]'")
    mdp = garnet(700, 5, 4, 0.99, seed=1)
    found = modified_policy_iteration(mdp.to(dtype=torch.float32), tol=1e-9)
    truth = policy_iteration(mdp.to(dtype=torch.float32).to(dtype=torch.float64), tol=0).V
    assert found.V.dtype == torch.float32 and found.status == "rounding"
    assert (found.lower.double() <= truth).all() and (truth <= found.upper.double()).all()


@pytest.mark.parametrize("batch", [(), (1,), (40,)])
def test_compiled_policy_iteration_agrees_with_tensors(batch, monkeypatch):
    pytest.importorskip("numba", reason="the compiled loops need numba: pip install 'advrl[fast]'")
    generator = torch.Generator().manual_seed(5)
    P = torch.rand(*batch, 12, 3, 12, generator=generator, dtype=torch.float64) ** 4
    mask = torch.rand(*batch, 12, 3, generator=generator) < 0.7
    mask[..., 0] |= ~mask.any(-1)
    gamma = torch.linspace(0.5, 0.999, 40, dtype=torch.float64)[: batch[0]] if batch else 0.9
    R = torch.randn(*batch, 12, 3, generator=generator, dtype=torch.float64)
    mdp = MDP(P / P.sum(-1, keepdim=True), R, gamma, mask=mask)
    assert small.usable(mdp)
    found = policy_iteration(mdp)
    plain = tensors(monkeypatch, mdp)
    assert (found.V - plain.V).abs().max() < 1e-9
    assert mdp.mask.gather(-1, found.policy[..., None]).all() and found.status == "converged"
    torch.testing.assert_close(found.Q, plain.Q, rtol=0, atol=1e-9)
    assert (found.policy == plain.policy).all() and (found.optimal_set == plain.optimal_set).all()
    for bound in (found.lower, found.upper):
        assert (bound - plain.V).abs().max() < 1e-9
    assert (found.lower <= plain.upper).all() and (plain.lower <= found.upper).all()
    assert (found.error_bound <= 2 * plain.error_bound + 1e-13).all()


@pytest.mark.parametrize("form", ["lists", "csr", "ends"])
def test_compiled_policy_iteration_follows_successor_lists(form, monkeypatch):
    pytest.importorskip("numba", reason="the compiled loops need numba: pip install 'advrl[fast]'")
    mdp = garnet(40, 3, 4, 0.97, seed=8)
    if form == "csr":
        mdp = mdp.sparse()
    elif form == "ends":
        assert isinstance(mdp.P, Successors)
        mdp = MDP(Successors(mdp.P.next.long(), mdp.P.prob), mdp.R, 0.97, terminal=torch.arange(40) % 9 == 0)
    assert small.usable(mdp)
    found, plain = policy_iteration(mdp), tensors(monkeypatch, mdp)
    torch.testing.assert_close(found.Q, plain.Q, rtol=0, atol=1e-11)
    assert (found.lower <= plain.upper).all() and (plain.lower <= found.upper).all()
    assert (found.policy == plain.policy).all() and (found.optimal_set == plain.optimal_set).all()


def test_the_loops_are_the_same_without_a_compiler(monkeypatch):
    """What numba compiles is plain Python: it can be read, and run, as it stands."""
    mdp = garnet(30, 3, 3, 0.9, seed=6)
    for name in ("backup", "take_rows", "follow", "sweep_in_place", "follow_in_place"):
        loop = getattr(fused, name)
        monkeypatch.setattr(fused, name, getattr(loop, "__wrapped__", loop))
    V, _, residuals, exhausted = fused.iterate(mdp, 1e-8, 1000)
    truth = tensors(monkeypatch, mdp).V
    change = (V - truth) - (V - truth).mean()  # one number may be wrong with all states: the planner takes it off
    assert not exhausted and change.abs().max() < 1e-8 and residuals == sorted(residuals, reverse=True)


def test_rough_sweeps_at_first_end_in_the_same_proof(monkeypatch):
    pytest.importorskip("numba", reason="the compiled loops need numba: pip install 'advrl[fast]'")
    mdp, rough = garnet(700, 5, 4, 0.99, seed=1), []
    monkeypatch.setattr(fused, "LARGE", 100)
    whole = fused.Problem.backup
    monkeypatch.setattr(fused.Problem, "backup", lambda self, *a, **k: rough.append(whole(self, *a, **k)) or rough[-1])
    found = modified_policy_iteration(mdp, tol=TOL)
    assert any(rough) and not rough[-1] and float(found.error_bound) <= TOL
    assert (found.V - tensors(monkeypatch, mdp).V).abs().max() <= TOL


def test_what_is_left_to_tensors():
    dense = garnet(30, 3, 3, 0.9).dense()
    assert not fused.usable(dense) and not fused.usable(corner_grid())  # gamma is 1
    wide = torch.zeros(30, 3, 30, dtype=torch.float64)
    wide[..., 0] = 1.0
    wide[0] = 1 / 30
    uneven = MDP(wide, torch.zeros(30, 3, dtype=torch.float64), 0.9).sparse()
    assert not fused.usable(uneven)  # padded, its rows would be nearly all padding
