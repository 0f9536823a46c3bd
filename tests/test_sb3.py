"""The adapter to Stable-Baselines3 against its own DummyVecEnv, and the discriminator's reward."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor
from torch import nn

from advrl.agents.sb3 import DiscriminatorReward, SB3VecEnv
from advrl.agents.sb3_env import chain
from advrl.agents.sb3_reward import RewardScale
from advrl.envs import TabularVectorEnv
from advrl.nn import MLP
from advrl.objectives import GAMES, Objective, non_saturating, reverse_kl, wasserstein
from advrl.tabular.problems import cliff
from tests.sb3_envs import Bandit, Tokens


class Ones(nn.Module):
    """Logit: how many tokens are 1, times a weight; counts its calls and the modes that it was called in."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))
        self.calls, self.modes = 0, set()

    def forward(self, x):
        self.calls += 1
        self.modes.add(self.training)
        return self.weight * (x == 1).sum(1)


def actions(env, rng, masks=False):
    return np.array([rng.integers(env.action_space.n) for _ in range(env.num_envs)])


def test_as_dummy_vec_env_does():
    """CartPole with a time limit of 15: some episodes fall, some are cut off; the same seed, the same actions."""
    limit = 15

    def make():
        return gym.make("CartPole-v1", max_episode_steps=limit)

    theirs = DummyVecEnv([make] * 3)
    ours = SB3VecEnv(SyncVectorEnv([make] * 3, autoreset_mode=AutoresetMode.SAME_STEP))
    theirs.seed(7), ours.seed(7)
    np.testing.assert_array_equal(theirs.reset(), ours.reset())
    rng, fell, cut = np.random.default_rng(0), 0, 0
    for _ in range(80):
        action = actions(ours, rng)
        (obs, reward, done, infos), (obs2, reward2, done2, infos2) = ours.step(action), theirs.step(action)
        np.testing.assert_array_equal(obs, obs2)
        np.testing.assert_array_equal(reward, reward2)
        np.testing.assert_array_equal(done, done2)
        assert reward.dtype == reward2.dtype and obs.dtype == obs2.dtype
        for i in np.flatnonzero(done):
            np.testing.assert_array_equal(infos[i]["terminal_observation"], infos2[i]["terminal_observation"])
            assert infos[i]["TimeLimit.truncated"] == infos2[i]["TimeLimit.truncated"]
            cut, fell = cut + infos[i]["TimeLimit.truncated"], fell + (not infos[i]["TimeLimit.truncated"])
    assert fell and cut


@pytest.mark.parametrize("nested", [False, True])
def test_an_end_is_told_as_stable_baselines_expects(nested):
    env = SB3VecEnv(Tokens(3, ends=True, cut=3, nested=nested))
    env.reset()
    assert env.reset_infos == [{"start": 0}, {"start": 1}, {"start": 2}]
    blank = env.step(np.array([1, 1, 2]))[3]
    assert blank == [{}, {}, {}]
    obs, rewards, dones, infos = env.step(np.array([0, 1, 1]))
    assert dones.tolist() == [True, False, False] and rewards.tolist() == [1.0, 0.0, 0.0]
    assert infos[1] is blank[1] and blank[0] == {}  # the empty ones are used again
    last = infos[0]["terminal_observation"]
    assert (last["tokens"] if nested else last).tolist() == [1, 0, 3, 3]
    assert infos[0]["when"] == 2 and infos[0]["TimeLimit.truncated"] is False
    assert (obs["tokens"] if nested else obs)[0].tolist() == [3, 3, 3, 3]
    infos = env.step(np.array([1, 1, 1]))[3]
    assert infos[1]["TimeLimit.truncated"] and infos[2]["TimeLimit.truncated"] and infos[0] == {}


def test_final_observations_may_be_an_object_array_of_dicts():
    class Nested(gym.Env):
        observation_space = gym.spaces.Dict({"x": gym.spaces.Box(-1, 1, (2,)), "n": gym.spaces.Discrete(9)})
        action_space = gym.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.n = 0
            return {"x": np.zeros(2, np.float32), "n": self.n}, {}

        def step(self, action):
            self.n += 1
            return {"x": np.full(2, 0.5, np.float32), "n": self.n}, 1.0, self.n == 2 + action, False, {"n": self.n}

    env = SB3VecEnv(SyncVectorEnv([Nested] * 2, autoreset_mode=AutoresetMode.SAME_STEP))
    env.reset(), env.step(np.array([0, 1]))
    obs, _, dones, infos = env.step(np.array([0, 1]))
    assert dones.tolist() == [True, False] and obs["n"].tolist() == [0, 2]
    assert infos[0]["terminal_observation"]["n"] == 2 and infos[0]["n"] == 2
    np.testing.assert_array_equal(infos[0]["terminal_observation"]["x"], np.full(2, 0.5))


def test_what_was_returned_does_not_change_later():
    env = Tokens(2)
    env._obs = lambda tokens: tokens  # writes into what it handed out
    adapted = SB3VecEnv(env)
    first = adapted.reset()
    second = adapted.step(np.array([1, 2]))[0]
    adapted.step(np.array([2, 2]))
    assert (first == 3).all() and second[:, :2].tolist() == [[1, 3], [2, 3]]


def test_one_mask_for_each_environment():
    env = SB3VecEnv(Tokens(3, masks=True))
    env.reset(), env.step(np.array([2, 1, 0]))
    expected = [[True, True, False], [True, False, True], [False, True, True]]
    assert env.has_attr("action_masks")
    assert [mask.tolist() for mask in env.env_method("action_masks")] == expected
    assert [mask.tolist() for mask in env.get_attr("action_masks", [2, 0])] == [expected[2], expected[0]]
    assert [mask.tolist() for mask in VecMonitor(env).env_method("action_masks", indices=1)] == [expected[1]]


def test_masks_may_come_from_infos_alone():
    mdp = cliff()
    env = SB3VecEnv(TabularVectorEnv(mdp, 4))
    env.seed(3)
    states = env.reset()
    expected = TabularVectorEnv(mdp).dynamics.allowed.numpy()
    np.testing.assert_array_equal(np.stack(env.env_method("action_masks")), expected[states])
    states = env.step(np.stack(env.env_method("action_masks")).argmax(1))[0]
    np.testing.assert_array_equal(np.stack(env.env_method("action_masks")), expected[states])
    assert not SB3VecEnv(Bandit(2, gym.spaces.Discrete(2))).has_attr("action_masks")


def test_seeds_and_options_are_for_the_next_reset_alone():
    inner = Tokens(4)
    env = SB3VecEnv(inner)
    assert env.seed(11) == [11, 12, 13, 14]
    env.set_options({"how": 1})
    env.reset()
    assert inner.seeds == [11] and inner.options == {"how": 1}
    env.reset()
    assert inner.seeds == [11, None] and inner.options is None
    env.set_options([{"how": i} for i in range(4)])
    with pytest.raises(ValueError, match="share their options"):
        env.reset()


def test_attributes_methods_and_pictures():
    env = SB3VecEnv(Tokens(4))
    env.reset()
    assert env.get_attr("vocab") == [3] * 4 and env.get_attr("length", 2) == [4]
    env.set_attr("length", 5)
    assert env.get_attr("length", [0, 1]) == [5, 5]
    with pytest.raises(ValueError, match="share length"):
        env.set_attr("length", 6, indices=0)
    with pytest.raises(AttributeError):
        env.get_attr("nothing")
    with pytest.raises(ValueError, match="one row for each of 4"):
        env.env_method("sizes")
    assert env.env_is_wrapped(gym.wrappers.TimeLimit) == [False] * 4
    assert env.render().shape == (4, 4, 3) and len(env.env_method("render")) == 4
    env.close()


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED, None])
def test_other_autoreset_modes_are_refused(mode):
    env = Tokens(2)
    env.metadata = {**env.metadata, "autoreset_mode": mode}
    with pytest.raises(ValueError, match=f"SAME_STEP, got {getattr(mode, 'name', None)}"):
        SB3VecEnv(env)


@pytest.mark.parametrize(
    ("space", "match"),
    [
        (gym.spaces.Text(5), "takes Box"),
        (gym.spaces.Tuple((gym.spaces.Discrete(2),)), "takes Box"),
        (gym.spaces.Discrete(3, start=1), "counts from 0"),
        (gym.spaces.MultiDiscrete(np.array([[2, 3], [4, 5]])), "one dimension"),
        (gym.spaces.Dict({"a": gym.spaces.Dict({"b": gym.spaces.Discrete(2)})}), "'a' is a Dict itself"),
        (gym.spaces.Dict({"a": gym.spaces.Text(5)}), "observation 'a' space"),
    ],
)
def test_spaces_that_stable_baselines_does_not_know_are_refused(space, match):
    env = Tokens(2)
    env.single_observation_space = space
    with pytest.raises(ValueError, match=match):
        SB3VecEnv(env)


def test_a_single_environment_is_refused():
    with pytest.raises(TypeError, match=r"VectorEnv.*got TimeLimit"):
        SB3VecEnv(gym.make("CartPole-v1"))


def test_an_end_without_its_observation_is_refused():
    env = Tokens(1, length=1)
    step = env.step
    env.step = lambda a: (*step(a)[:4], {})
    adapted = SB3VecEnv(env)
    adapted.reset()
    with pytest.raises(ValueError, match="final_obs"):
        adapted.step(np.array([1]))


# The discriminator's reward


def play(env, steps, seed=0):
    """What every step returned, under random actions."""
    rng = np.random.default_rng(seed)
    env.reset()
    return [env.step(actions(env, rng)) for _ in range(steps)]


@pytest.mark.parametrize("objective", [non_saturating, reverse_kl, GAMES["hinge"]])
def test_finished_samples_are_paid_minus_their_cost(objective):
    discriminator = Ones()
    env = DiscriminatorReward(SB3VecEnv(Tokens(6, ends=True)), discriminator, objective)
    cost = getattr(objective, "objective", objective).cost
    ends = 0
    for t, (_, rewards, dones, infos) in enumerate(play(env, 40)):
        assert (rewards[~dones] == 0).all() and rewards.dtype == np.float32, t
        for i in np.flatnonzero(dones):
            ones = (infos[i]["terminal_observation"] == 1).sum()
            assert rewards[i] == pytest.approx(-float(cost(torch.tensor(float(ones)))), abs=1e-6)
            assert infos[i]["original_env_rew"] == ones
        ends += bool(dones.any())
    assert discriminator.calls == ends and discriminator.modes == {False}  # one call a step, in evaluation mode
    assert discriminator.training and discriminator.weight.grad is None


def test_samples_that_were_cut_off_are_not_scored():
    env = DiscriminatorReward(SB3VecEnv(Tokens(3, cut=2)), Ones())
    played = play(env, 4)
    assert env.discriminator.calls == 0 and all((rewards == 0).all() for _, rewards, _, _ in played)
    assert played[1][2].all() and "original_env_rew" in played[1][3][0]


def test_the_sample_may_be_the_action_or_anything():
    space = gym.spaces.Box(-1, 1, (4,), np.float32)
    env = DiscriminatorReward(SB3VecEnv(Bandit(5, space)), MLP(4, (), (8,)), wasserstein, sample="action")
    env.reset()
    given = np.random.default_rng(0).uniform(-1, 1, (5, 4)).astype(np.float32)
    rewards = env.step(given)[1]
    with torch.no_grad():
        np.testing.assert_allclose(rewards, env.discriminator(torch.from_numpy(given)).numpy(), atol=1e-6)
    nested = DiscriminatorReward(SB3VecEnv(Tokens(5, nested=True)), Ones())
    with pytest.raises(TypeError, match="give sample="):
        play(nested, 4)
    nested.sample = lambda obs, action: torch.cat([obs["tokens"], action[:, None]], 1)
    *_, (_, rewards, dones, infos) = play(nested, 4)
    ones = np.array([(info["terminal_observation"]["tokens"][[0, 1, 2, 3, 3]] == 1).sum() for info in infos])
    np.testing.assert_allclose(rewards, -np.log1p(np.exp(-ones.astype(float))), rtol=1e-6)
    assert dones.all()


def test_monitor_outside_logs_the_discriminator_s_rewards():
    env = VecMonitor(DiscriminatorReward(SB3VecEnv(Tokens(2)), Ones()))
    *_, (_, rewards, _, infos) = play(env, 4)
    assert [info["episode"]["r"] for info in infos] == pytest.approx(rewards.tolist(), abs=1e-6)
    assert [info["episode"]["l"] for info in infos] == [4, 4]


def test_scaled_rewards_have_the_moments_of_a_long_memory():
    rng = np.random.default_rng(0)
    scale = RewardScale(0.9, n=8)
    assert scale(np.ones(3)).tolist() == [1, 1, 1]
    batches = [rng.normal(t / 50, 2.0, size=rng.integers(1, 9)) for t in range(200)]
    for batch in batches:
        scale.update(batch)
    ages = np.cumsum([len(batch) for batch in batches[::-1]])[::-1]  # the weights, written out
    begun = ages - np.array([len(batch) for batch in batches])
    weights = 0.9 ** (begun / 8) - 0.9 ** (ages / 8)
    weights /= weights.sum()
    mean = sum(w * b.mean() for w, b in zip(weights, batches, strict=True))
    square = sum(w * (b**2).mean() for w, b in zip(weights, batches, strict=True))
    x = np.array([0.0, 1.0, 5.0])
    np.testing.assert_allclose(scale(x), (x - mean) / np.sqrt(square - mean**2), rtol=1e-6)
    newest = RewardScale(0.0, n=8)
    for batch in batches:
        newest.update(batch)
    np.testing.assert_allclose(newest(x), (x - batches[-1].mean()) / batches[-1].std(), rtol=1e-6)


def test_rewards_are_scaled_on_request():
    env = DiscriminatorReward(SB3VecEnv(Tokens(64)), Ones(), wasserstein, normalise=0.9)
    paid = np.concatenate([rewards[dones] for _, rewards, dones, _ in play(env, 40)[20:]])
    raw = DiscriminatorReward(SB3VecEnv(Tokens(64)), Ones(), wasserstein)
    plain = np.concatenate([rewards[dones] for _, rewards, dones, _ in play(raw, 40)[20:]])
    assert plain.mean() > 1 and abs(paid.mean()) < 0.2 and abs(paid.std() - 1) < 0.1
    assert np.corrcoef(plain, paid)[0, 1] > 0.99


def test_what_cannot_be_paid_is_refused():
    env = SB3VecEnv(Tokens(2))
    pairing = Objective("pairing", non_saturating.d_loss, lambda fake, real: fake - real, needs_real=True)
    with pytest.raises(ValueError, match="pairing compares each fake with a real one"):
        DiscriminatorReward(env, Ones(), pairing)
    with pytest.raises(ValueError, match="did you mean 'action'"):
        DiscriminatorReward(env, Ones(), sample="acton")
    with pytest.raises(ValueError, match="normalise must be"):
        DiscriminatorReward(env, Ones(), normalise=1.5)
    broken = DiscriminatorReward(env, Ones())
    broken.discriminator.weight.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="sample 0 of 2 is paid nan"):
        play(broken, 4)
    wide = DiscriminatorReward(env, nn.Sequential(nn.Embedding(4, 3), nn.Flatten(), nn.Linear(12, 2)))
    with pytest.raises(ValueError, match="one logit per sample"):
        play(wide, 4)


def test_the_chain_is_walked_from_outside():
    inner = SB3VecEnv(Tokens(2))
    outer = VecMonitor(DiscriminatorReward(inner, Ones()))
    assert list(chain(outer)) == [outer, outer.venv, inner]
