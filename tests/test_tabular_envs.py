"""MDPs as environments and back: Gymnasium's and Stable-Baselines3's checkers, the table, and sampled against exact."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.env_checker import check_env as check_env_sb3

import advrl.envs
from advrl.envs import MAPS, Dynamics, GridWorldEnv, TabularEnv, TabularVectorEnv
from advrl.tabular import MDP, backward_induction, from_gymnasium, solve
from advrl.tabular.problems import cliff, gambler, garnet, gridworld, random_mdp, random_walk, special_grid, student
from tests.statistics import assert_unbiased

PROBLEMS = {
    "cliff": cliff, "slippery cliff": lambda: cliff(slippery=True), "garnet": garnet, "random": random_mdp,
    "walk": random_walk, "special": special_grid, "student": student,
    "gridworld": lambda: gridworld(MAPS["pits"], slip=0.3, step_reward=-0.1),
    "lake": lambda: from_gymnasium(gym.make("FrozenLake-v1"), 0.9),
    "taxi": lambda: from_gymnasium(gym.make("Taxi-v4"), 0.9),
}  # fmt: skip
problems = pytest.mark.parametrize("make", PROBLEMS.values(), ids=PROBLEMS)


def close(actual, expected, atol=1e-9):
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


@problems
def test_there_and_back(make):
    """MDP -> environment -> MDP has the same values."""
    mdp = make()
    back = from_gymnasium(TabularEnv(mdp), mdp.gamma)
    close(solve(back).V, solve(mdp).V)
    close(solve(back).Q, solve(mdp).Q)
    close(back.p0, Dynamics(mdp).start)
    assert back.shape == mdp.shape and back.action_labels == (mdp.action_labels and tuple(mdp.action_labels))


@problems
def test_both_checkers_pass(make, recwarn):
    check_env(TabularEnv(make()), skip_render_check=True)
    check_env_sb3(TabularEnv(make()))


@pytest.mark.parametrize("options", [{}, {"map": "pits", "slip": 0.2}, {"map": "S.\n#G", "step_reward": -1.0}])
@pytest.mark.parametrize("mode", [None, "ansi", "rgb_array"])
def test_gridworld_passes_both_checkers(options, mode):
    env = gym.make("advrl/GridWorld-v0", render_mode=mode, **options)
    check_env(env.unwrapped)
    check_env_sb3(env)
    assert gym.spec("advrl/GridWorld-v0").to_json()


@pytest.mark.parametrize("map", MAPS)
def test_gridworld_exports_its_table(map):
    options = {"map": map, "slip": 0.2, "step_reward": -0.1, "pit_reward": -1.0}
    env = gym.make("advrl/GridWorld-v0", **options)
    mdp = from_gymnasium(env, 0.9)
    close(solve(mdp).V, solve(gridworld(MAPS[map], 0.9, slip=0.2, step_reward=-0.1, pit_reward=-1.0)).V)
    goal = [(p, r) for actions in env.unwrapped.P.values() for row in actions.values() for p, _, r, done in row if done]
    assert (0.8, 0.9) in [(round(p, 6), round(r, 6)) for p, r in goal]


def test_gridworld_s_pictures():
    env = GridWorldEnv("open", render_mode="ansi")
    env.reset(options={"state": 5})
    assert env.render() == "S...\n.@..\n....\n...G"
    env = GridWorldEnv("S#\n.G", render_mode="rgb_array")
    env.reset(seed=0)
    picture = env.render()
    assert picture.shape == (48, 48, 3) and picture.dtype == np.uint8
    assert tuple(picture[12, 12]) == (0, 114, 178) and tuple(picture[12, 36]) == (64, 64, 64)
    assert tuple(picture[36, 36]) == (0, 158, 115)
    assert GridWorldEnv().render() is None


@problems
def test_one_step_has_the_law_of_the_mdp(make, device):
    """From one state, 20,000 steps of the vector environment's dynamics: next states, ends and rewards."""
    mdp = make().to(device)
    dynamics, n = Dynamics(mdp), 20_000
    state = int((~dynamics.over).nonzero()[0])
    generator = torch.Generator(device).manual_seed(0)
    P = mdp.dense().P[state, 0]
    following, reward, ended = dynamics.step(
        torch.full((n,), state, device=device), torch.zeros(n, dtype=torch.int64, device=device), generator
    )
    going = ~ended | dynamics.over[following]
    drawn = torch.nn.functional.one_hot(following, mdp.num_states).double() * going[:, None]
    possible = (P > 0) & (P < 1)
    if possible.any():
        assert_unbiased(drawn[:, possible].cpu(), P[possible].cpu())
    assert (drawn[:, P == 0] == 0).all() and (drawn[:, P == 1] == 1).all()
    assert (reward == mdp.R[state, 0]).all()


@pytest.mark.parametrize("name", ["lake", "gridworld", "garnet"])
def test_returns_have_the_policy_s_value(name):
    mdp, n, steps = PROBLEMS[name](), 4000, 60
    uniform = torch.full((mdp.num_states, mdp.num_actions), 1 / mdp.num_actions)
    env = TabularVectorEnv(mdp, n)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    total, alive = np.zeros(n), np.ones(n, dtype=bool)
    for t in range(steps):
        _, reward, terminated, _, _ = env.step(rng.integers(0, mdp.num_actions, n))
        total += float(mdp.discount) ** t * reward * alive
        alive &= ~terminated
    exact = env.dynamics.start @ backward_induction(mdp, steps, policy=uniform).V[0]
    assert_unbiased(torch.as_tensor(total)[:, None], exact[None])


def test_the_single_environment_samples_the_same_law():
    mdp = gridworld(MAPS["pits"], 0.9, slip=0.3, step_reward=-0.1)
    env = TabularEnv(mdp)
    env.reset(seed=0)
    n = 6000
    drawn = torch.zeros(n, 16, dtype=torch.float64)
    for i in range(n):
        env.reset(options={"state": 1})
        drawn[i, env.step(1)[0]] = 1
    P = mdp.dense().P[1, 1]
    assert_unbiased(drawn[:, P > 0], P[P > 0])
    assert (drawn[:, P == 0] == 0).all()


def test_vector_episodes_end_and_begin_in_one_step():
    env = gym.make_vec("advrl/GridWorld-v0", num_envs=3, map="SG")
    assert env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    observations, infos = env.reset(seed=0)
    assert observations.tolist() == [0, 0, 0] and infos["action_mask"].shape == (3, 4)
    observations, rewards, terminated, truncated, infos = env.step(np.array([2, 0, 2]))
    assert observations.tolist() == [0, 0, 0] and rewards.tolist() == [1, 0, 1]
    assert terminated.tolist() == infos["_final_obs"].tolist() == [True, False, True]
    assert infos["final_obs"].tolist() == [1, 0, 1] and not truncated.any()
    env = gym.make_vec("advrl/GridWorld-v0", num_envs=2, map="SG", max_episode_steps=3)
    env.reset(seed=0)
    cuts = [env.step(np.array([0, 0]))[3].tolist() for _ in range(6)]
    assert cuts == [[False] * 2, [False] * 2, [True] * 2] * 2


def test_the_next_step_begins_an_episode_where_that_is_asked_for():
    env = gym.make_vec("advrl/GridWorld-v0", num_envs=2, map="SG", autoreset_mode="NextStep")
    env.reset(seed=0)
    observations, rewards, terminated, _, infos = env.step(np.array([2, 0]))
    assert observations.tolist() == [1, 0] and rewards.tolist() == [1, 0] and "final_obs" not in infos
    observations, rewards, terminated, _, _ = env.step(np.array([2, 2]))
    assert observations.tolist() == [0, 1] and rewards.tolist() == [0, 1] and terminated.tolist() == [False, True]


def test_a_mask_says_which_begin_anew():
    env = gym.make_vec("advrl/GridWorld-v0", num_envs=2, map="S.G", autoreset_mode="Disabled")
    with pytest.raises(ResetNeeded, match="not begun"):
        env.step(np.array([2, 2]))
    with pytest.raises(ResetNeeded, match="first reset"):
        env.reset(options={"reset_mask": np.array([True, False])})
    env.reset(seed=0)
    env.step(np.array([2, 0]))
    env.step(np.array([2, 2]))
    with pytest.raises(ResetNeeded, match=r"environments \[0\] are over"):
        env.step(np.array([2, 2]))
    assert env.reset(options={"reset_mask": np.array([True, False])})[0].tolist() == [0, 1]
    assert env.step(np.array([2, 2]))[2].tolist() == [False, True]
    with pytest.raises(ValueError, match="unknown reset options"):
        env.reset(options={"mask": 1})


def test_seeds_repeat_vector_episodes():
    def play(seed):
        env = TabularVectorEnv(garnet(), 5)
        seen = [env.reset(seed=seed)[0]]
        return [*seen, *(env.step(np.zeros(5, dtype=int))[0] for _ in range(9))]

    assert np.array_equal(play(1), play(1)) and not np.array_equal(play(1), play(2))


def test_actions_that_are_not_feasible_are_refused():
    env = TabularEnv(gambler())
    _, info = env.reset(options={"state": 3})
    assert info["action_mask"].nonzero()[0].tolist() == env.action_masks().nonzero()[0].tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match="action 4 is not feasible in state 3"):
        env.step(4)
    vector = TabularVectorEnv(gambler(), 2)
    vector.reset(seed=0)
    with pytest.raises(ValueError, match="action 0 is not feasible in state"):
        vector.step(np.array([0, 0]))
    with pytest.raises(ValueError, match=r"actions must be in 0\.\.50"):
        vector.step(np.array([0, 51]))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: TabularEnv(MDP.stack([student(), student()])), "plays one MDP"),
        (lambda: TabularEnv(student(), render_mode="human"), "render_mode"),
        (lambda: TabularEnv(student()).reset(options={"state": 9}), r"in 0\.\.4, got 9"),
        (lambda: GridWorldEnv("room"), "unknown map 'room'"),
        (lambda: GridWorldEnv("S.\n..."), "lines of one length"),
        (lambda: TabularVectorEnv(student(), 0), "num_envs"),
        (lambda: TabularVectorEnv(student(), 2).step(np.zeros(3)), r"shape \(2,\)"),
    ],
)
def test_wrong_environments_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


def test_importing_registers():
    assert "advrl/GridWorld-v0" in gym.registry and advrl.envs.MAPS is MAPS
