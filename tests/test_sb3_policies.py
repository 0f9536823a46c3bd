"""Our generators as policies of Stable-Baselines3, and samples drawn from any of its agents."""

import itertools
import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.vec_env import VecMonitor
from torch.distributions import Bernoulli, Categorical, Independent, Normal, Poisson

import advrl.envs  # noqa: F401  registers
from advrl.agents.sb3 import DiscriminatorReward, GeneratorPolicy, SB3VecEnv, TokenFeatures, generate
from advrl.agents.sb3_generate import tempered
from advrl.distributions import OneHotCategorical
from advrl.nn import FAMILIES, MLP, GRUPolicy, LSTMPolicy, Policy, TransformerPolicy
from tests.sb3_envs import Bandit, Tokens
from tests.statistics import assert_unbiased

SHAPE = (1, 2, 3)
ACTIONS = {
    "binomial": gym.spaces.MultiDiscrete([17] * 6),
    "bernoulli": gym.spaces.MultiBinary(6),
    "categorical": gym.spaces.MultiDiscrete([17] * 6),
    "gaussian": gym.spaces.Box(-1, 1, (6,), np.float32),
}


def one_shot(family, latent=3):
    torch.manual_seed(0)
    return Policy(MLP(latent, (FAMILIES[family].numbers, *SHAPE[1:]), (8,)), FAMILIES[family], latent)


@pytest.mark.parametrize("algorithm", [PPO, A2C])
@pytest.mark.parametrize("family", ACTIONS)
def test_log_probabilities_are_the_generator_s(family, algorithm):
    generator = one_shot(family)
    env = SB3VecEnv(Bandit(16, ACTIONS[family]))
    model = algorithm(GeneratorPolicy, env, n_steps=4, policy_kwargs={"generator": generator}, device="cpu", seed=0)
    assert model.policy.generator is generator
    obs = torch.randn(50, 3)
    with torch.no_grad():
        actions, values, log_prob = model.policy(obs)
        law = generator.distribution(obs)
        x = actions.float()
        if family == "categorical":
            x = torch.nn.functional.one_hot(actions, 17)
        torch.testing.assert_close(log_prob, law.log_prob(x.reshape(50, *law.event_shape).float()), atol=1e-5, rtol=0)
        values2, again, entropy = model.policy.evaluate_actions(obs, actions)
    torch.testing.assert_close(again, log_prob, atol=1e-5, rtol=0)
    torch.testing.assert_close(values, values2)
    assert values.shape == (50, 1) and actions.shape == (50, 6)
    if family != "binomial":  # whose entropy has no closed form
        torch.testing.assert_close(entropy, law.entropy())
    before = generator.net.net[0].weight.clone()
    model.learn(64)
    assert not torch.equal(before, generator.net.net[0].weight)


@pytest.mark.parametrize("kind", [GRUPolicy, LSTMPolicy, TransformerPolicy])
@pytest.mark.parametrize("context", [None, 2])
@pytest.mark.parametrize("eos", [False, True])
def test_a_sequence_generator_s_steps_are_those_of_the_whole_sequence(eos, context, kind):
    """The log-probability that ``generate`` tells is the generator's own, run once over each finished sequence."""
    torch.manual_seed(0)
    options = {} if context is None else {"context": context}
    env = SB3VecEnv(gym.make_vec("advrl/Sequence-v0", 16, vocab=4, length=5, eos=eos, **options))
    generator = kind(4, 5, 8, eos=eos, context=context or 0)
    model = PPO(GeneratorPolicy, env, n_steps=10, batch_size=80, device="cpu", seed=0,
                policy_kwargs={"generator": generator})  # fmt: skip
    seen = {} if context is None else {"sample": lambda obs, _: torch.cat([obs["tokens"], obs["context"]], 1)}
    words, told = generate(model, 60, return_log_prob=True, **seen)
    words, given = (words, None) if context is None else (words[:, :5].long(), words[:, 5:].float())
    padding, total = 4 + eos, generator.log_probs(words, given).sum(1)
    torch.testing.assert_close(told, total.detach(), atol=1e-5, rtol=0)
    assert (words == padding).any() == eos
    before = generator.out.weight.clone()
    model.learn(160)
    assert not torch.equal(before, generator.out.weight)


def test_what_a_generator_draws_is_what_its_policy_does():
    """Frequencies of all outcomes of two coins, against the generator's probabilities."""
    family = FAMILIES["bernoulli"]
    torch.manual_seed(1)
    generator = Policy(MLP(3, (1, 1, 2), (8,)), family, 3)
    model = PPO(GeneratorPolicy, SB3VecEnv(Bandit(4, gym.spaces.MultiBinary(2))), device="cpu",
                policy_kwargs={"generator": generator})  # fmt: skip
    z = torch.randn(1, 3)
    with torch.no_grad():
        actions = model.policy(z.expand(20_000, 3))[0]
        outcomes = torch.tensor(list(itertools.product([0.0, 1.0], repeat=2)))
        exact = generator.distribution(z.expand(4, 3)).log_prob(outcomes.reshape(4, 1, 1, 2)).exp()
    assert_unbiased((actions[:, None] == outcomes).all(-1).double(), exact.double())


def test_a_generator_is_saved_with_its_agent(tmp_path):
    model = PPO(GeneratorPolicy, SB3VecEnv(Bandit(4, ACTIONS["binomial"])), n_steps=8, batch_size=8, device="cpu",
                policy_kwargs={"generator": one_shot("binomial")})  # fmt: skip
    model.learn(32)
    model.save(tmp_path / "agent")
    loaded = PPO.load(tmp_path / "agent", device="cpu")
    z = torch.randn(5, 3)
    with torch.no_grad():
        law, other = model.policy.distribution(z), loaded.policy.generator.distribution(z)
        torch.testing.assert_close(law.mean, other.mean)
        torch.testing.assert_close(model.policy.predict_values(z), loaded.policy.predict_values(z))


def test_generators_that_do_not_fit_are_refused():
    def policy(generator, space, **options):
        return PPO(GeneratorPolicy, SB3VecEnv(Bandit(2, space)), policy_kwargs={"generator": generator}, device="cpu",
                   **options)  # fmt: skip

    with pytest.raises(ValueError, match="no log-probability"):
        policy(one_shot("implicit"), ACTIONS["gaussian"])
    with pytest.raises(ValueError, match=r"samples have shape \(1, 2, 3\), but actions are MultiBinary\(5\)"):
        policy(one_shot("bernoulli"), gym.spaces.MultiBinary(5))
    with pytest.raises(ValueError, match=r"has 5 tokens, but actions are Discrete\(3\)"):
        PPO(GeneratorPolicy, SB3VecEnv(Tokens(2)), policy_kwargs={"generator": GRUPolicy(5, 4)}, device="cpu")
    with pytest.raises(ValueError, match="use_sde must be False"):
        policy(one_shot("gaussian"), ACTIONS["gaussian"], use_sde=True)
    with pytest.raises(ValueError, match="tokens are observed as Box"):
        TokenFeatures(gym.spaces.Box(0, 1, (3,)))


def trained(name, **env):
    torch.manual_seed(0)
    venv = SB3VecEnv(Tokens(32, **env))
    options = {"seed": 0, "device": "cpu"}
    if name == "DQN":
        return DQN("MlpPolicy", venv, **options)
    if name == "RecurrentPPO":
        return RecurrentPPO("MlpLstmPolicy", venv, policy_kwargs={"lstm_hidden_size": 8}, **options)
    cls = {"PPO": PPO, "A2C": A2C, "MaskablePPO": MaskablePPO}[name]
    model = cls("MlpPolicy", venv, policy_kwargs={"features_extractor_class": TokenFeatures}, **options)
    with torch.no_grad():
        model.policy.action_net.weight.mul_(200)  # far from uniform
    return model


def log_probs(model, prefixes, temperature=1.0, masks=None):
    """(N, V) log-probabilities of the next token after prefixes (N, t)."""
    obs = torch.full((len(prefixes), 4), 3)
    obs[:, : prefixes.shape[1]] = prefixes
    with torch.no_grad():
        law = model.policy.get_distribution(obs, **({} if masks is None else {"action_masks": masks}))
    return (law.distribution.logits / temperature).log_softmax(-1)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("name", ["PPO", "MaskablePPO"])
def test_samples_follow_the_policy_at_any_temperature(name, temperature):
    """Probabilities of the 39 words that a token 0 ends or length 3 does, by enumeration; and the log-probs told."""
    model = trained(name, ends=True, length=4, cut=None, masks=name == "MaskablePPO")
    n = 6000
    words, told = generate(model, n, temperature=temperature, return_log_prob=True)
    assert words.shape == (n, 4) and told.shape == (n,)
    exact, hot = {}, {}

    def grow(prefix, log_prob, log_hot):
        if len(prefix) == 4 or prefix[-1:] == (0,):
            word = prefix + (3,) * (4 - len(prefix))
            exact[word], hot[word] = log_prob, log_hot
            return
        masks = None
        if name == "MaskablePPO":
            masks = np.array([[not prefix or token != prefix[-1] for token in range(3)]])
        tokens = torch.tensor([prefix], dtype=torch.int64).reshape(1, -1)
        plain, warm = log_probs(model, tokens, 1.0, masks)[0], log_probs(model, tokens, temperature, masks)[0]
        for token in range(3):
            if masks is None or masks[0, token]:
                grow((*prefix, token), log_prob + float(plain[token]), log_hot + float(warm[token]))

    grow((), 0.0, 0.0)
    assert sum(map(math.exp, hot.values())) == pytest.approx(1, abs=1e-5)
    listed = torch.tensor(list(hot))
    p = torch.tensor(list(hot.values())).exp().double()
    often = n * p > 25  # where a z-test applies
    assert often.sum() >= 4
    assert_unbiased((words[:, None] == listed[often]).all(-1).double(), p[often])
    expected = torch.tensor([exact[tuple(word)] for word in words.tolist()], dtype=torch.float64)
    torch.testing.assert_close(told.double(), expected, atol=1e-4, rtol=0)


def test_short_samples_are_not_favoured():
    """32 environments, 40 samples asked for: each plays two episodes, however long they take."""
    model = trained("PPO", ends=True)
    plays = []
    env = Tokens(32, ends=True)
    step = env.step
    env.step = lambda actions: plays.append(env.t.copy()) or step(actions)
    words = generate(model, 40, env)
    assert len(words) == 40 and len(plays) <= 8 and len(plays) > 4  # the longest take four steps


def test_greedy_samples_are_one_and_the_likeliest():
    model = trained("PPO")
    words = generate(model, 20, deterministic=True)
    assert len(words.unique(dim=0)) == 1
    prefix = words[:1, :0]
    for _ in range(4):
        prefix = torch.cat([prefix, log_probs(model, prefix).argmax(-1, keepdim=True)], 1)
    assert torch.equal(words[:1], prefix)


@pytest.mark.parametrize("name", ["A2C", "RecurrentPPO", "DQN"])
def test_every_agent_generates(name):
    model = trained(name)
    assert generate(model, 50).shape == (50, 4)
    if name == "DQN":
        with pytest.raises(ValueError, match="policy of DQN has no distribution"):
            generate(model, 5, temperature=0.5)
        with pytest.raises(ValueError, match="policy of DQN has no distribution"):
            generate(model, 5, return_log_prob=True)
        return
    words, told = generate(model, 30, temperature=0.3, return_log_prob=True)
    assert words.shape == (30, 4) and (told < 0).all() and (told > -4 * 5).all()


def test_a_recurrent_policy_remembers_the_sample_that_it_writes():
    """Log-probabilities told are those of the sequence run through the LSTM from its beginning."""
    model = trained("RecurrentPPO")
    words, told = generate(model, 40, return_log_prob=True)
    state = tuple(torch.zeros(1, 40, 8) for _ in range(2))
    total = torch.zeros(40)
    with torch.no_grad():
        for t in range(4):
            obs = torch.full((40, 4), 3)
            obs[:, :t] = words[:, :t]
            law, state = model.policy.get_distribution(obs, state, torch.full((40,), float(t == 0)))
            total += law.log_prob(words[:, t])
    torch.testing.assert_close(told, total, atol=1e-5, rtol=0)


def test_generating_leaves_the_discriminator_s_rewards_alone():
    reward = DiscriminatorReward(SB3VecEnv(Bandit(8, ACTIONS["gaussian"])), MLP(6, (), (8,)), sample="action",
                                 normalise=0.5)  # fmt: skip
    model = PPO(GeneratorPolicy, VecMonitor(reward), n_steps=4, batch_size=32, device="cpu",
                policy_kwargs={"generator": one_shot("gaussian")})  # fmt: skip
    model.learn(32)
    reward.take()
    moments = reward.scale.moments.copy()
    images = generate(model, 20)
    assert images.shape == (20, 6) and (images.abs() <= 1).all()  # as the environment got them
    assert not reward.finished and np.array_equal(moments, reward.scale.moments)
    model.learn(32, reset_num_timesteps=False)  # from new episodes


@pytest.mark.parametrize(
    ("law", "power"),
    [
        (Categorical(logits=torch.tensor([[0.2, -1.0, 2.0]])), None),
        (Independent(Bernoulli(logits=torch.tensor([[0.7, -2.0]])), 1), None),
        (OneHotCategorical(logits=torch.tensor([[0.2, -1.0, 2.0]])), None),
        (Normal(torch.tensor([0.5]), torch.tensor([2.0])), None),
    ],
)
def test_a_tempered_distribution_is_the_power_of_it(law, power):
    other = tempered(law, 0.4)
    if isinstance(law, Normal):
        x = torch.linspace(-3, 4, 9)[:, None]
    elif isinstance(law, Independent):
        x = torch.tensor(list(itertools.product([0.0, 1.0], repeat=2)))[:, None]
    elif isinstance(law, Categorical):
        x = torch.arange(3)[:, None]
    else:
        x = torch.eye(3)[:, None]
    ratio = other.log_prob(x) - law.log_prob(x) / 0.4  # the same constant everywhere
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), atol=1e-5, rtol=0)


def test_requests_out_of_range_are_refused():
    model = trained("PPO")
    with pytest.raises(ValueError, match="temperature must be"):
        generate(model, 5, temperature=0.0)
    with pytest.raises(ValueError, match="n must be at least 1"):
        generate(model, 0)
    with pytest.raises(ValueError, match="did you mean 'action'"):
        generate(model, 5, sample="acton")
    with pytest.raises(TypeError, match="Poisson has no temperature"):
        tempered(Poisson(torch.ones(1)), 0.5)
    with pytest.raises(ValueError, match="cut off by a time limit and none finished"):
        generate(model, 5, Tokens(2, cut=2))
    model.env = None
    with pytest.raises(ValueError, match="give env="):
        generate(model, 5)
