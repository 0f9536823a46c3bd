"""Solutions as text and as pictures, and the judgement that accepts every optimal policy."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from PIL import Image

from advrl.plots import (
    action_map,
    animate_values,
    bounds_plot,
    gambler_plot,
    occupancy_map,
    q_triangles,
    save_figure,
    value_bars,
    value_map,
)
from advrl.tabular import (
    assert_policy_optimal,
    bounds_by_sweep,
    ended_states,
    from_gymnasium,
    occupancy,
    render_policy,
    render_solution,
    render_values,
    solve,
    value_iteration,
)
from advrl.tabular.problems import cliff, corner_grid, gambler, gridworld, special_grid, student

SIGNS = {"←": 0, "↓": 1, "→": 2, "↑": 3}


def test_text_can_be_read_back():
    mdp = special_grid()
    found = solve(mdp)
    read = [[float(cell) for cell in line.split()] for line in render_values(mdp, found.V).splitlines()]
    np.testing.assert_allclose(np.ravel(read), found.V, atol=5.1e-4)
    cells = [cell for line in render_policy(mdp, found.optimal_set).splitlines() for cell in line.split()]
    assert [{SIGNS[sign] for sign in cell} for cell in cells] == [
        set(row.nonzero().flatten().tolist()) for row in found.optimal_set
    ]
    assert cells[:5] == ["→", "←↓→↑", "←", "←↓→↑", "←"]


def test_text_of_a_corner_grid():
    mdp = corner_grid()
    text = render_solution(mdp, solve(mdp))
    assert text.splitlines()[1:5] == [
        " 0.000 -1.000 -2.000 -3.000",
        "-1.000 -2.000 -3.000 -2.000",
        "-2.000 -3.000 -2.000 -1.000",
        "-3.000 -2.000 -1.000  0.000",
    ]
    assert text.splitlines()[7] == "·    ←    ←    ←↓"
    assert text.startswith("Values (converged, no certified bound: gamma is 1 and some policy never ends")


def test_text_without_a_grid():
    mdp = student()
    assert render_policy(mdp, solve(mdp).policy).splitlines()[1] == "1 (Class 1)   1"
    assert render_values(mdp, solve(mdp).V, 1).splitlines()[-1] == "4 (Sleep)     0.0"
    assert render_policy(gambler(), solve(gambler()).optimal_set).splitlines()[75].split() == ["75", "25"]
    assert render_policy(gambler(), solve(gambler()).optimal_set).splitlines()[49].split() == ["49", "1|49"]


def test_where_an_episode_has_ended():
    lake = from_gymnasium(gym.make("FrozenLake-v1"), 0.9)
    assert ended_states(lake).nonzero().flatten().tolist() == [5, 7, 11, 12, 15]
    assert ended_states(corner_grid()).nonzero().flatten().tolist() == [0, 15]
    assert not ended_states(special_grid()).any()


@pytest.mark.parametrize(
    "mdp", [special_grid(), cliff(), gambler(), student()], ids=["grid", "cliff", "gambler", "student"]
)
def test_any_optimal_policy_passes(mdp):
    found = solve(mdp)
    assert_policy_optimal(mdp, found.policy)
    if mdp.discount < 1:  # where gamma is 1, some mixtures and tie-breaks never end
        spread = found.optimal_set.double()
        assert_policy_optimal(mdp, spread / spread.sum(-1, keepdim=True))
        last = mdp.num_actions - 1 - found.optimal_set.int().flip(-1).argmax(-1)
        assert_policy_optimal(mdp, last)


def test_a_wrong_policy_is_told_what_was_right():
    mdp = special_grid()
    policy = solve(mdp).policy
    policy[6] = 1
    with pytest.raises(AssertionError, match=r"state 6 \(1, 1\), where it takes 1 \(down\) and 3 \(up\) would be best"):
        assert_policy_optimal(mdp, policy)
    with pytest.raises(AssertionError, match=r"takes probabilities \[0.25"):
        assert_policy_optimal(mdp, torch.full((25, 4), 0.25))
    with pytest.raises(AssertionError, match="never ends"):
        assert_policy_optimal(corner_grid(), torch.zeros(16, dtype=torch.int64))
    with pytest.raises(ValueError, match="shape"):
        assert_policy_optimal(mdp, policy[:3])


def test_a_policy_that_never_takes_a_wrong_action_may_still_never_end():
    """Free steps at gamma 1: every action is optimal by the values, standing still is not."""
    mdp = gridworld("SG", 1.0)
    assert solve(mdp).optimal_set[0].all()
    assert_policy_optimal(mdp, torch.tensor([2, 0]))
    with pytest.raises(AssertionError, match="never ends"):
        assert_policy_optimal(mdp, torch.tensor([0, 0]))


def test_bounds_by_sweep_hold_the_truth_and_close():
    mdp = gridworld("S..\n.#.\nH.G", 0.9, slip=0.2)
    found = value_iteration(mdp, history=True, stop="max")
    lower, upper = bounds_by_sweep(mdp, found.history)
    truth = solve(mdp).V
    assert (lower <= truth + 1e-12).all() and (truth <= upper + 1e-12).all()
    assert (upper - lower)[-1].max() < 1e-7 < (upper - lower)[0].max()
    with pytest.raises(ValueError, match="history=True"):
        bounds_by_sweep(mdp, [])
    with pytest.raises(ValueError, match="gamma is 1"):
        bounds_by_sweep(corner_grid(), value_iteration(corner_grid(), history=True).history)


def arrows(figure) -> int:
    return sum(hasattr(text, "arrow_patch") for text in figure.axes[0].texts)


def test_an_arrow_for_every_optimal_action(tmp_path):
    mdp = special_grid()
    found = solve(mdp)
    figure = value_map(found.V, (5, 5), optimal_set=found.optimal_set, action_labels=mdp.action_labels)
    assert arrows(figure) == int(found.optimal_set.sum())
    figure = value_map(found.V, (5, 5), optimal_set=found.optimal_set, action_labels=mdp.action_labels,
                       ended=torch.arange(25) < 5)  # fmt: skip
    assert arrows(figure) == int(found.optimal_set[5:].sum())
    assert save_figure(figure, tmp_path / "values.png").stat().st_size > 5000


def test_pictures_of_a_solution(tmp_path):
    mdp = from_gymnasium(gym.make("FrozenLake-v1"), 0.9)
    found = value_iteration(mdp, history=True)
    triangles = q_triangles(found.Q, mdp.shape, mdp.action_labels, ended=ended_states(mdp))
    assert len(triangles.axes[0].texts) == 4 * 11
    bold = [text for text in triangles.axes[0].texts if text.get_fontweight() == "bold"]
    assert len(bold) == int(found.optimal_set[~ended_states(mdp)].sum())
    visits = occupancy(mdp, found.policy)
    assert float(visits.sum()) < 10
    assert occupancy_map(visits, mdp.shape).axes[0].texts[0].get_text() == f"{float(visits.sum(-1)[0]):.3g}"
    assert len(value_bars(student().R[:, 0], student().state_labels).axes[0].patches) == 5
    lower, upper = bounds_by_sweep(mdp, found.history)
    assert len(bounds_plot(lower, upper, found.V).axes[0].lines) == 2
    solved = solve(gambler())
    stakes = gambler_plot(solved.V, solved.optimal_set).axes[1].collections[0]
    assert len(stakes.get_offsets()) == int(solved.optimal_set[1:-1].sum())
    assert action_map(torch.tensor([0, 1, 2, 3]), (2, 2), "wxyz").axes[0].texts[3].get_text() == "z"


def test_the_animation_has_a_frame_per_sweep(tmp_path):
    mdp = corner_grid()
    found = value_iteration(mdp, history=True)
    path = animate_values(found.history, mdp.shape, tmp_path / "sweeps.gif", ended=ended_states(mdp))
    with Image.open(path) as film:
        assert film.n_frames == len(found.history)
    with Image.open(animate_values(found.history, mdp.shape, path, frames=2)) as film:
        assert film.n_frames == 2


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: value_map(torch.zeros(5), (2, 2)), "V must hold the 4 states"),
        (lambda: q_triangles(torch.zeros(4, 2), (2, 2), ("hit", "stick")), "none of the actions"),
        (lambda: q_triangles(torch.zeros(4, 2), (2, 2), ("left",)), "must name all 2 actions, got 1"),
        (lambda: animate_values([], (2, 2), "x.gif"), "no values to show"),
        (lambda: animate_values([torch.zeros(4)], (2, 2), "x.mp4"), r"written as \.gif"),
        (lambda: bounds_plot(torch.zeros(3), torch.zeros(3)), "must be"),
    ],
)
def test_wrong_pictures_are_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
