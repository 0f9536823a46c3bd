"""Stable-Baselines3 agents as generators: the discriminator between rollouts, relabelling, saving, learning."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3 import A2C, DQN, PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize
from torch import nn
from torch.nn.functional import one_hot

from advrl.agents import CheckpointError
from advrl.agents.sb3 import (
    DiscriminatorCallback,
    DiscriminatorReward,
    RelabelDictReplayBuffer,
    RelabelReplayBuffer,
    SB3VecEnv,
    TokenFeatures,
    generate,
    load_agent,
    save_agent,
)
from advrl.data import Batches
from advrl.nn import MLP
from advrl.objectives import r1, wasserstein
from advrl.tabular import LayeredTree
from tests.sb3_envs import Bandit, Tokens

ON_POLICY = {"PPO": PPO, "A2C": A2C, "MaskablePPO": MaskablePPO, "RecurrentPPO": RecurrentPPO}


class Judge(nn.Module):
    """Tokens (B, L) to logits (B,); remembers on how many samples it was trained."""

    def __init__(self, vocab=3, length=4):
        super().__init__()
        self.ids, self.net = vocab + 1, MLP(length * (vocab + 1), (), (32,), dropout=0.1)
        self.seen = []

    def forward(self, x):
        if self.training:
            self.seen.append(x)
        return self.net(one_hot(x, self.ids).flatten(1).float())


def ones(batch=32):
    """Real data: 1 1 1 1."""
    return Batches(torch.ones(8, 4, dtype=torch.int64), batch)


def agent(name, n=16, judge=None, seed=0, steps=8, reward=None, options=None, **env):
    """(model, wrapper) on token sequences with a live discriminator."""
    torch.manual_seed(seed)
    cls = ON_POLICY.get(name, DQN)
    reward = DiscriminatorReward(SB3VecEnv(Tokens(n, **env)), judge or Judge(), **(reward or {}))
    policy = "MultiInputPolicy" if env.get("nested") else "MlpLstmPolicy" if name == "RecurrentPPO" else "MlpPolicy"
    settings = {"policy_kwargs": {"net_arch": [16]}, "seed": seed, "device": "cpu", "gamma": 1.0}
    if not env.get("nested"):
        settings["policy_kwargs"]["features_extractor_class"] = TokenFeatures
    if name == "RecurrentPPO":
        settings["policy_kwargs"]["lstm_hidden_size"] = 8
    if name in ON_POLICY:
        settings |= {"n_steps": steps, "gae_lambda": 1.0}
        settings |= {"n_epochs": 1, "batch_size": n * steps} if name != "A2C" else {}
    else:
        settings |= {"learning_starts": 64, "train_freq": 4, "buffer_size": 2000}
    return cls(policy, VecMonitor(reward), **settings | (options or {})), reward


class Fill(nn.Module):
    """Nothing to learn: one weight, and the logit is the number of ones times it."""

    def __init__(self, weight=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, x):
        return self.weight * (x == 1).sum(1).float()


@pytest.mark.parametrize("timing", ["stale", "relabel"])
@pytest.mark.parametrize("name", [*ON_POLICY, "DQN"])
def test_every_algorithm_trains_beside_a_discriminator(name, timing, tmp_path):
    options = {} if name in ON_POLICY else {"replay_buffer_class": RelabelReplayBuffer}
    model, reward = agent(name, masks=name == "MaskablePPO", ends=name == "PPO", options=options)
    before = [p.clone() for p in reward.discriminator.parameters()]
    policy = [p.clone() for p in model.policy.parameters()]
    callback = DiscriminatorCallback(reward, ones(), steps=2, reward_timing=timing, history=100, min_samples=16)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(512, callback=callback, log_interval=1)
    model.logger.close()
    assert callback.rounds >= 3
    assert not all(torch.equal(a, b) for a, b in zip(before, reward.discriminator.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(policy, model.policy.parameters(), strict=True))
    logged = (tmp_path / "progress.csv").read_text().splitlines()[0].split(",")
    assert {
        "disc/loss", "disc/acc_real", "disc/acc_fake", "disc/reward_mean", "rollout/ep_rew_wrapped_mean",
        "rollout/ep_rew_env_mean", "rollout/ep_rew_mean"} <= set(logged)  # fmt: skip


@pytest.mark.parametrize("timing", ["stale", "relabel"])
def test_sac_trains_on_one_step_samples(timing):
    torch.manual_seed(0)
    space = gym.spaces.Box(-1, 2, (4,), np.float32)
    reward = DiscriminatorReward(SB3VecEnv(Bandit(8, space)), MLP(4, (), (16,)), wasserstein, sample="action")
    model = SAC("MlpPolicy", VecMonitor(reward), learning_starts=64, train_freq=4, seed=0, device="cpu",
                policy_kwargs={"net_arch": [16]}, replay_buffer_class=RelabelReplayBuffer)  # fmt: skip
    real = Batches(torch.full((4, 4), 1.5), 32)
    callback = DiscriminatorCallback(reward, real, penalties=[(1.0, r1)], reward_timing=timing, steps=2)
    model.learn(400, callback=callback)
    assert callback.rounds >= 3
    batch = model.replay_buffer.sample(50)
    actions = -1 + 3 * (batch.actions + 1) / 2  # as the environment knows them
    with torch.no_grad():
        now = reward.discriminator.eval()(actions)
    assert torch.allclose(batch.rewards.flatten(), now, atol=1e-5) == (timing == "relabel")
    assert generate(model, 5).shape == (5, 4)


@pytest.mark.parametrize("nested", [False, True])
def test_replay_pays_by_the_discriminator_of_today(nested):
    kind = RelabelDictReplayBuffer if nested else RelabelReplayBuffer
    reward = {"sample": lambda obs, action: obs["tokens"]} if nested else {}
    model, wrapper = agent("DQN", judge=Fill(), nested=nested, options={"replay_buffer_class": kind}, reward=reward,
                           ends=True, cut=3)  # fmt: skip
    callback = DiscriminatorCallback(wrapper, ones(), reward_timing="relabel", lr=1e-9)
    model.learn(400, callback=callback)
    wrapper.discriminator.weight.data.fill_(-3.0)
    batch = model.replay_buffer.sample(300)
    last = batch.next_observations["tokens"] if nested else batch.next_observations
    over = batch.dones.flatten() > 0  # not those that were cut off
    count = (last == 1).sum(1)
    expected = torch.where(over, -torch.nn.functional.softplus(3.0 * count), torch.zeros(()))
    torch.testing.assert_close(batch.rewards.flatten(), expected)
    assert over.any() and len(count[over].unique()) > 1
    model.replay_buffer.reward = None
    assert (model.replay_buffer.sample(300).rewards > -1).all()  # as they were paid at the time


@pytest.mark.parametrize("name", ON_POLICY)
def test_relabelling_by_the_same_discriminator_changes_nothing(name):
    """... and by another, rewards, returns and advantages follow it; episodes cut off keep what they were paid."""
    model, reward = agent(name, judge=Fill(), steps=7, ends=True, cut=3)  # not a multiple of the length
    seen = {}

    class Look(DiscriminatorCallback):
        def _round(self, new):
            self.reward.discriminator.weight.data.fill_(self.new_weight)

        def _on_rollout_end(self):
            buffer = model.rollout_buffer
            before = {key: getattr(buffer, key).copy() for key in ("rewards", "returns", "advantages")}
            super()._on_rollout_end()
            seen["starts"] = buffer.episode_starts.copy()
            seen.update({key: (before[key], getattr(buffer, key).copy()) for key in before})

    callback = Look(reward, ones(), reward_timing="relabel", min_samples=1)
    callback.new_weight = 1.0
    model.learn(7 * 16, callback=callback)
    for key in ("rewards", "returns", "advantages"):
        np.testing.assert_allclose(*seen[key], atol=1e-5, err_msg=key)
    callback.new_weight = -2.0
    model.learn(7 * 16, callback=callback, reset_num_timesteps=False)
    old, new = seen["rewards"]
    moved = old != new
    assert moved.any() and (new[moved] <= old[moved]).all()
    softplus = torch.nn.functional.softplus
    possible = [float(-softplus(torch.tensor(2.0 * k))) for k in range(5)]
    assert all(min(abs(x - y) for y in possible) < 1e-5 for x in new[moved])
    # with gamma = lambda = 1 the change of a step's return is the change of rewards until its episode's end
    np.testing.assert_allclose(seen["returns"][1] - seen["returns"][0], tail(new - old, seen["starts"]), atol=1e-4)


def tail(rewards, starts):
    """Sums of rewards until the episode's end, (T, n)."""
    sums, ahead = np.zeros_like(rewards), np.zeros(rewards.shape[1])
    for t in range(len(rewards))[::-1]:
        ahead = rewards[t] + (ahead * (1 - starts[t + 1]) if t + 1 < len(rewards) else 0)
        sums[t] = ahead
    return sums


@pytest.mark.parametrize("timing", ["stale", "relabel"])
def test_what_is_logged_is_what_was_paid(timing):
    model, reward = agent("PPO", judge=Fill(), reward={"normalise": 0.5})
    callback = DiscriminatorCallback(reward, ones(), reward_timing=timing, lr=0.3)
    seen = []

    class Look(BaseCallback):
        def _on_step(self):
            return True

        def _on_rollout_end(self):
            rewards = model.rollout_buffer.rewards
            paid = self.logger.name_to_value["rollout/ep_rew_wrapped_mean"]
            own = self.logger.name_to_value["rollout/ep_rew_env_mean"]
            seen.append((paid, rewards[3::4].mean(), own))  # words of four letters, eight steps
            assert (np.delete(rewards, [3, 7], axis=0) == 0).all()

    model.learn(16 * 8 * 3, callback=[callback, Look()])
    assert len(seen) == 3
    for paid, buffered, own in seen:
        assert paid == pytest.approx(buffered, abs=1e-6) and 0 <= own <= 4


def test_held_out_samples_wait_until_they_are_paid():
    """A round shows half of the new words; the other half follows a round later, with those from before."""
    model, reward = agent("PPO", n=32, steps=4, vocab=60, judge=Judge(60))  # 60^4 words: none comes twice
    callback = DiscriminatorCallback(reward, ones(64), steps=30, held_out=0.5, history=100, min_samples=1)
    rollouts, shown = [], []
    own = callback._round

    def spied(new):
        rollouts.append(new)
        reward.discriminator.seen.clear()
        own(new)
        words = torch.cat(reward.discriminator.seen[1::2])  # real, fake, real, fake
        shown.append([sum(bool((words == row).all(1).any()) for row in batch) for batch in rollouts])

    callback._round = spied
    model.learn(32 * 4 * 2, callback=callback)
    assert shown == [[16], [32, 16]]  # of 1,920 draws from 48 words, one is missing with a chance of 1e-15


def test_history_holds_the_newest():
    model, reward = agent("PPO", n=8, steps=8)
    callback = DiscriminatorCallback(reward, ones(), held_out=1.0, history=20, min_samples=1, steps=1)
    model.learn(64, callback=callback)
    assert len(callback.history) == 16 and callback.rounds == 0  # nothing older to learn from yet
    model.learn(64, callback=callback, reset_num_timesteps=False)
    assert len(callback.history) == 20 and callback.rounds == 1


def test_a_round_waits_for_enough_samples():
    model, reward = agent("PPO", n=4, steps=4)
    callback = DiscriminatorCallback(reward, ones(), min_samples=10)
    model.learn(4 * 4 * 2, callback=callback)
    assert callback.rounds == 0 and sum(map(len, callback.fresh)) == 8
    model.learn(4 * 4, callback=callback, reset_num_timesteps=False)
    assert callback.rounds == 1 and not callback.fresh


def test_an_update_is_the_gradient_of_the_game_with_its_penalty():
    """A linear critic w: loss w.(fake - real) + 5 |w|^2, one step of plain gradient descent."""
    space = gym.spaces.Box(-1, 1, (4,), np.float32)
    critic = nn.Linear(4, 1)
    reward = DiscriminatorReward(SB3VecEnv(Bandit(8, space)), critic, wasserstein, sample="action")
    fake, real = torch.tensor([0.1, -0.2, 0.3, 0.0]), torch.full((4,), 0.9)
    modes = []

    def penalty(discriminator, real, fake):
        modes.append(critic.training)
        return r1(discriminator, real, fake)

    callback = DiscriminatorCallback(reward, Batches(real[None], 32), penalties=[(5.0, penalty)],
                                     optimiser=torch.optim.SGD(critic.parameters(), 0.01))  # fmt: skip
    w = critic.weight.detach().clone()
    critic.eval()
    callback._update(fake[None])
    torch.testing.assert_close(critic.weight.detach(), w - 0.01 * (fake - real + 10 * w))
    assert modes == [True] and not critic.training  # trained in training mode, then put back


def test_wrong_set_ups_are_refused():
    model, reward = agent("PPO")
    with pytest.raises(ValueError, match="does not contain this DiscriminatorReward"):
        model.learn(16, callback=DiscriminatorCallback(DiscriminatorReward(reward.venv, Judge()), ones()))
    dqn, off = agent("DQN")
    with pytest.raises(ValueError, match="DQN relabels when it samples"):
        dqn.learn(16, callback=DiscriminatorCallback(off, ones(), reward_timing="relabel"))
    scaled = PPO("MlpPolicy", VecNormalize(reward, norm_obs=False), device="cpu")
    with pytest.raises(ValueError, match="never forget"):
        scaled.learn(16, callback=DiscriminatorCallback(reward, ones()))
    with pytest.raises(ValueError, match="did you mean 'relabel'"):
        DiscriminatorCallback(reward, ones(), reward_timing="relable")
    with pytest.raises(ValueError, match="give history="):
        DiscriminatorCallback(reward, ones(), held_out=1.0)
    with pytest.raises(ValueError, match="held_out must be"):
        DiscriminatorCallback(reward, ones(), held_out=1.2)


@pytest.mark.parametrize("name", ["PPO", "DQN"])
def test_the_whole_agent_is_saved(name, tmp_path):
    options = {} if name == "PPO" else {"replay_buffer_class": RelabelReplayBuffer}
    model, reward = agent(name, reward={"normalise": 0.9}, options=options)
    callback = DiscriminatorCallback(reward, ones(), history=50, reward_timing="relabel", min_samples=16)
    model.learn(512, callback=callback)
    save_agent(tmp_path / "run", model, callback)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"agent.zip", "discriminator.pt"}

    fresh = DiscriminatorReward(SB3VecEnv(Tokens(16)), Judge(), normalise=0.9)
    other = DiscriminatorCallback(fresh, ones(), history=50, reward_timing="relabel", min_samples=16)
    loaded = load_agent(tmp_path / "run", type(model), other, env=VecMonitor(fresh), device="cpu")
    x = torch.randint(0, 3, (20, 4))
    np.testing.assert_array_equal(reward.pay(x, update=False), fresh.pay(x, update=False))
    assert other.rounds == callback.rounds and torch.equal(other.history, callback.history)
    assert torch.equal(next(callback.real), next(other.real))
    for a, b in zip(model.policy.parameters(), loaded.policy.parameters(), strict=True):
        assert torch.equal(a, b)
    loaded.learn(128, callback=other, reset_num_timesteps=False)

    plain = DiscriminatorCallback(DiscriminatorReward(SB3VecEnv(Tokens(16)), Judge()), ones(), history=50)
    with pytest.raises(ValueError, match="scale"):
        load_agent(tmp_path / "run", type(model), plain)
    (tmp_path / "run" / "discriminator.pt").write_bytes(b"no")
    with pytest.raises(CheckpointError):
        load_agent(tmp_path / "run", type(model), other)


def words(x):
    """Paid for every token that follows its predecessor."""
    return (x[:, 1:] == (x[:, :-1] + 1) % 3).sum(1) + 0.5 * (x[:, 0] == 2)


def test_ppo_reaches_the_exact_optimum():
    """Its greedy policy is the best there is, and its random one is within 5 % of it, by summing over all 81 words."""
    tree = LayeredTree(3, 4, lambda x: words(x).double())
    torch.manual_seed(0)
    env = SB3VecEnv(Tokens(64, reward=lambda x: words(x).astype(float)))
    model = PPO("MlpPolicy", env, n_steps=4, batch_size=256, n_epochs=4, gamma=1.0, gae_lambda=1.0, learning_rate=5e-3,
                seed=0, device="cpu", policy_kwargs={"features_extractor_class": TokenFeatures})  # fmt: skip
    model.learn(20_000)
    best = tree.optimal()

    def logits(prefix):
        obs = torch.full((len(prefix), 4), 3)
        obs[:, : prefix.shape[1]] = prefix
        return model.policy.get_distribution(obs).distribution.logits.double()

    with torch.no_grad():
        achieved = float(tree.expected_reward(logits))
    assert achieved > 0.95 * float(best.value)
    assert generate(model, 1, deterministic=True)[0].tolist() == best.best().tolist()
