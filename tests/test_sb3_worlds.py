"""Stable-Baselines3 on advrl's own environments: what finished, masks, log-probabilities, the exact optimum."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3 import A2C, DQN, PPO, SAC
from stable_baselines3.common.vec_env import VecMonitor
from torch import nn

import advrl.envs  # noqa: F401  registers
from advrl.agents.sb3 import (
    DiscriminatorCallback,
    DiscriminatorReward,
    GeneratorPolicy,
    RelabelDictReplayBuffer,
    RelabelReplayBuffer,
    SB3VecEnv,
    TokenFeatures,
    generate,
    load_agent,
    save_agent,
)
from advrl.data import Batches, digits
from advrl.nn import FAMILIES, MLP, Policy, ReconstructionEnergy
from advrl.objectives import NAMES, make_game, r1, reverse_kl, wasserstein
from advrl.tabular import LayeredTree, jensen_shannon

IDS = [name for name in gym.registry if name.startswith("advrl/")]


@pytest.mark.parametrize("name", IDS)
def test_every_environment_is_adapted(name):
    """Random actions: the rewards of episodes' ends come with their last observations, in the observation space."""
    env = SB3VecEnv(gym.make_vec(name, 3))
    env.seed(0)
    obs, ends = env.reset(), 0
    for _ in range(300):
        if env.has_attr("action_masks"):
            actions = np.array(
                [env.action_space.sample(mask.astype(np.int8)) for mask in env.env_method("action_masks")]
            )
        else:
            actions = np.stack([env.action_space.sample() for _ in range(3)])
        obs, rewards, dones, infos = env.step(actions)
        assert np.isfinite(rewards).all() and rewards.dtype == np.float32
        for i in range(3):
            assert env.observation_space.contains(obs[i])
            assert dones[i] == bool(infos[i])
            if dones[i]:
                assert env.observation_space.contains(infos[i]["terminal_observation"])
                ends += 1
    assert ends


class Look(nn.Module):
    """Logit: the mean of what it is shown; keeps it."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))
        self.seen = []

    def forward(self, x):
        self.seen.append(x)
        return self.weight * x.float().flatten(1).mean(1)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Sequence", {"vocab": 4, "length": 3}),
        ("Sequence", {"vocab": 4, "length": 3, "eos": True}),
        ("Sequence", {"vocab": 4, "length": 3, "context": 2}),
        ("OneShot", {}),
        ("OneShot", {"shape": (1, 2, 2), "kind": "binary", "reward": lambda x: x.flatten(1).sum(1)}),
        ("DigitsOneShot", {}),
        ("Canvas", {"size": 8, "strokes": 3}),
    ],
)
def test_the_discriminator_sees_what_the_environment_s_reward_sees(name, options):
    shown = []
    env = gym.make_vec(f"advrl/{name}-v0", 8, **options)
    task = env.unwrapped.dynamics
    paid = task.reward
    task.reward = lambda *given: shown.append(given[0]) or paid(given[0])
    judge = Look()
    wrapped = DiscriminatorReward(SB3VecEnv(env), judge, wasserstein)
    wrapped.reset()
    for _ in range(9):
        _, rewards, dones, _ = wrapped.step(np.stack([wrapped.action_space.sample() for _ in range(8)]))
        if dones.any():
            np.testing.assert_allclose(rewards[dones], judge.seen[-1].float().flatten(1).mean(1), atol=1e-6)
    assert len(shown) == len(judge.seen) > 2
    for a, b in zip(shown, judge.seen, strict=True):
        assert torch.equal(a, b) and a.dtype == b.dtype


def live(env, real, **options):
    """A wrapper with a small discriminator, and its callback."""
    shape = tuple(next(real).shape[1:])
    judge = nn.Sequential(nn.Flatten(), MLP(int(np.prod(shape)), (), (16,)))
    reward = DiscriminatorReward(SB3VecEnv(env), Numbers(judge))
    return reward, DiscriminatorCallback(reward, real, steps=2, min_samples=16, **options)


class Numbers(nn.Module):
    """A network that is shown its input as floats."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x.float())


@pytest.mark.parametrize(
    ("cls", "policy", "name", "options"),
    [
        (PPO, "MlpPolicy", "Sequence", {"eos": True}),
        (PPO, "MultiInputPolicy", "Sequence", {"context": 3}),
        (A2C, "MlpPolicy", "OneShot", {"latent": 3}),
        (DQN, "MlpPolicy", "Sequence", {}),
        (DQN, "MultiInputPolicy", "Sequence", {"context": 3}),
        (SAC, "MlpPolicy", "OneShot", {}),
        (DQN, "MlpPolicy", "Canvas", {"strokes": 3}),
        (MaskablePPO, "MlpPolicy", "Canvas", {"strokes": 3}),
        (MaskablePPO, "MlpPolicy", "Sequence", {"eos": True, "min_length": 2}),
        (RecurrentPPO, "MlpLstmPolicy", "Sequence", {}),
        (RecurrentPPO, "MlpLstmPolicy", "OneShot", {}),
        (RecurrentPPO, "MlpLstmPolicy", "Canvas", {"strokes": 3}),
        (PPO, "MlpPolicy", "OneShot", {"kind": "binary"}),
        (A2C, "MlpPolicy", "OneShot", {"kind": "levels", "levels": 5}),
    ],
)
def test_algorithms_train_on_the_environments_that_fit_them(cls, policy, name, options):
    torch.manual_seed(0)
    sizes = {"vocab": 4, "length": 3} if name == "Sequence" else {}
    env = gym.make_vec(f"advrl/{name}-v0", 16, **sizes, **options)
    data = {"Sequence": torch.randint(4, (64, 3)), "OneShot": torch.rand(64, 2), "Canvas": torch.rand(64, 1, 8, 8)}[
        name
    ]
    off = cls in (DQN, SAC)
    reward, callback = live(env, Batches(data, 16), reward_timing="relabel")
    given = {"policy_kwargs": {"net_arch": [16]}, "gamma": 1.0, "seed": 0, "device": "cpu"}
    if off:
        kind = RelabelDictReplayBuffer if "context" in options else RelabelReplayBuffer
        given |= {"learning_starts": 32, "replay_buffer_class": kind, "train_freq": 4}
    else:
        given |= {"n_steps": 6, **({} if cls is A2C else {"batch_size": 96, "n_epochs": 2})}
    model = cls(policy, VecMonitor(reward), **given)
    before = [p.detach().clone() for p in model.policy.parameters()]
    model.learn(96 * 4, callback=callback)
    assert callback.rounds >= 2
    assert any(not torch.equal(a, b) for a, b in zip(before, model.policy.parameters(), strict=True))
    samples = generate(model, 20)
    assert samples.shape == (20, *data.shape[1:]) and samples.dtype == data.dtype
    if options.get("min_length"):
        assert (samples[:, :2] < 4).all()


@pytest.mark.parametrize("name", NAMES)
def test_every_game_is_played_or_refused(name, tmp_path):
    """Penalties, clipped weights and controllers of a game go with it, into the checkpoint too."""
    torch.manual_seed(0)
    game = make_game(name)
    energies = not getattr(getattr(game, "objective", None), "high_is_real", True)
    judge = ReconstructionEnergy(MLP((2,), (2,), (8,))) if energies else MLP((2,), (), (8,))
    env = SB3VecEnv(gym.make_vec("advrl/OneShot-v0", 16))
    if name in ("relativistic", "r3gan", "bs-gan", "relativistic-average"):
        with pytest.raises((TypeError, ValueError), match=r"compares each fake|weighs several|no cost per sample"):
            DiscriminatorReward(env, judge, game)
        return
    reward = DiscriminatorReward(env, judge, game)
    callback = DiscriminatorCallback(reward, Batches(torch.rand(64, 2), 16), steps=3, min_samples=16)
    model = PPO("MlpPolicy", reward, n_steps=2, batch_size=32, n_epochs=1, device="cpu")
    if name == "began":
        game.controller.k.fill_(0.25)
    model.learn(64, callback=callback)
    assert callback.rounds == 2
    largest = max(float(p.detach().abs().max()) for p in judge.parameters())
    assert (largest <= 0.01 + 1e-6) == (name == "wasserstein-clip")
    if name == "began":
        k = float(game.controller.k)
        assert k not in (0.25, 0.0)
        save_agent(tmp_path, model, callback)
        game.controller.k.zero_()
        load_agent(tmp_path, PPO, callback, device="cpu")
        assert float(game.controller.k) == k


def test_a_digits_policy_is_the_environment_s_generator():
    """The very policy of ``advrl train digits``: its actions are the counts, its log-probabilities the same."""
    torch.manual_seed(0)
    generator = Policy(MLP(16, (1, 8, 8), (32,)), FAMILIES["binomial"], 16)
    env = gym.make_vec("advrl/DigitsOneShot-v0", 32)
    real = Batches(FAMILIES["binomial"].prepare(digits().train), 32)
    reward, callback = live(env, real)
    model = PPO(GeneratorPolicy, VecMonitor(reward), n_steps=2, batch_size=64, device="cpu", seed=0,
                policy_kwargs={"generator": generator})  # fmt: skip
    z = generator.noise(6)
    with torch.no_grad():
        actions, _, log_prob = model.policy(z)
        exact = generator.distribution(z).log_prob(actions.float().reshape(6, 1, 8, 8))
        torch.testing.assert_close(log_prob, exact, atol=1e-5, rtol=0)
        shown = reward.samples(z, actions)
        torch.testing.assert_close(shown, generator.decode(actions.float().reshape(6, 1, 8, 8)))
    model.learn(64 * 2, callback=callback)
    images = generate(model, 40)
    assert images.shape == (40, 1, 8, 8) and images.abs().max() <= 1


def test_ppo_reaches_the_exact_optimum_of_the_environment():
    """Within 5 % of the best there is, by summing over all 125 words; its greedy words are a best one."""
    torch.manual_seed(0)
    vector = gym.make_vec("advrl/Sequence-v0", 64, vocab=5, length=3)
    tree = LayeredTree(5, 3, lambda words: vector.unwrapped.dynamics.reward(words).double())
    model = PPO("MlpPolicy", SB3VecEnv(vector), n_steps=3, batch_size=192, n_epochs=4, gamma=1.0, gae_lambda=1.0,
                learning_rate=5e-3, seed=0, device="cpu",
                policy_kwargs={"features_extractor_class": TokenFeatures})  # fmt: skip
    model.learn(20_000)

    def logits(prefix):
        obs = torch.full((len(prefix), 3), 5)
        obs[:, : prefix.shape[1]] = prefix
        return model.policy.get_distribution(obs).distribution.logits.double()

    with torch.no_grad():
        achieved, best = float(tree.expected_reward(logits)), float(tree.optimal().value)
    assert 0.95 * best < achieved <= best
    assert vector.unwrapped.dynamics.reward(generate(model, 1, deterministic=True)) == pytest.approx(best)


@pytest.mark.filterwarnings("ignore:You are trying to run PPO on the GPU")  # small networks would rather not
@pytest.mark.parametrize("name", ["Sequence", "DigitsOneShot"])
def test_on_every_device(name, device, tmp_path):
    """Discriminator and policy on one device, environment and samples on the CPU; saved and read again."""
    torch.manual_seed(0)
    tokens = name == "Sequence"
    sizes = {"vocab": 4, "length": 3} if tokens else {}
    env = gym.make_vec(f"advrl/{name}-v0", 16, **sizes)
    real = Batches(torch.randint(4, (64, 3)) if tokens else torch.rand(64, 1, 8, 8), 16)
    reward, callback = live(env, real, reward_timing="relabel", history=40, penalties=[] if tokens else [(1.0, r1)])
    reward.discriminator.to(device)
    kwargs = {} if tokens else {"generator": Policy(MLP(16, (1, 8, 8), (8,)), FAMILIES["binomial"], 16)}
    model = PPO("MlpPolicy" if tokens else GeneratorPolicy, VecMonitor(reward), n_steps=6, batch_size=96, device=device,
                policy_kwargs=kwargs)  # fmt: skip
    model.learn(96 * 2, callback=callback)
    save_agent(tmp_path, model, callback)
    loaded = load_agent(tmp_path, PPO, callback, env=VecMonitor(reward), device=device)
    samples, log_prob = generate(loaded, 5, return_log_prob=True)
    assert samples.device.type == log_prob.device.type == "cpu" and callback.history.device.type == device.type


@pytest.mark.parametrize("timing", ["stale", "relabel"])
def test_ppo_comes_close_to_data_that_it_never_sees(timing):
    """Jensen-Shannon divergence to a law over 64 words, exactly: less than a tenth of that of uniform letters."""
    torch.manual_seed(0)
    tree = LayeredTree(4, 3, lambda words: torch.zeros(len(words)))
    law = (3 * torch.randn(64)).softmax(0).double()
    real = Batches(tree.prefixes(3)[torch.multinomial(law, 20_000, replacement=True)], 256)
    reward = DiscriminatorReward(SB3VecEnv(gym.make_vec("advrl/Sequence-v0", 256, vocab=4, length=3)), Table(4, 3),
                                 reverse_kl)  # fmt: skip
    callback = DiscriminatorCallback(reward, real, steps=15, lr=2e-2, reward_timing=timing)
    model = PPO("MlpPolicy", VecMonitor(reward), n_steps=3, batch_size=384, n_epochs=4, gamma=1.0, gae_lambda=1.0,
                learning_rate=2e-3, normalize_advantage=False, seed=0, device="cpu",
                policy_kwargs={"features_extractor_class": TokenFeatures})  # fmt: skip
    model.learn(30 * 256 * 3, callback=callback)

    def logits(prefix):
        obs = torch.full((len(prefix), 3), 4)
        obs[:, : prefix.shape[1]] = prefix
        return model.policy.get_distribution(obs).distribution.logits.double()

    with torch.no_grad():
        reached = jensen_shannon(law, tree.occupancy(logits)[-1])
    assert reached < 0.1 * jensen_shannon(law, torch.full_like(law, 1 / 64))


class Table(nn.Module):
    """A logit of its own for each word: the discriminator can be the optimal one."""

    def __init__(self, vocab, length):
        super().__init__()
        self.places = vocab ** torch.arange(length - 1, -1, -1)
        self.logits = nn.Parameter(torch.zeros(vocab**length))

    def forward(self, words):
        return self.logits[(words * self.places).sum(1)]


def test_no_tensor_is_made_on_the_default_device():
    """With agents and data on the CPU, and another default device under which a forgotten ``device=`` would fail."""
    torch.manual_seed(0)
    generator = Policy(MLP(16, (1, 8, 8), (8,)), FAMILIES["binomial"], 16)
    env = gym.make_vec("advrl/DigitsOneShot-v0", 16)
    reward, callback = live(env, Batches(FAMILIES["binomial"].prepare(digits().train), 16), reward_timing="relabel")
    model = PPO(GeneratorPolicy, VecMonitor(reward), n_steps=2, batch_size=32, device="cpu",
                policy_kwargs={"generator": generator})  # fmt: skip
    sequences = gym.make_vec("advrl/Sequence-v0", 16, vocab=4, length=3)
    reward2, callback2 = live(sequences, Batches(torch.randint(4, (64, 3)), 16), reward_timing="relabel")
    dqn = DQN("MlpPolicy", VecMonitor(reward2), learning_starts=32, replay_buffer_class=RelabelReplayBuffer,
              device="cpu", policy_kwargs={"features_extractor_class": TokenFeatures})  # fmt: skip
    with torch.device("meta"):
        model.learn(32, callback=callback)
        dqn.learn(96, callback=callback2)
        samples, log_prob = generate(model, 5, return_log_prob=True)
        words = generate(dqn, 5)
    assert samples.device.type == log_prob.device.type == words.device.type == "cpu"
    assert callback.rounds and callback2.rounds
