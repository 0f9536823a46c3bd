"""Entropy of a whole sample as pay for Stable-Baselines3's agents, and ``advrl bench agents``, which has need of it."""

import csv
import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback, CallbackList

import advrl.envs  # noqa: F401  registers the environments
from advrl.agents.sb3 import EntropyReward, GeneratorPolicy, SB3VecEnv, TokenFeatures
from advrl.cli import main
from advrl.data import LSTMOracle
from advrl.lab.agents_table import read_rows
from advrl.lab.bench_agents import METHODS, entropy_of, marks, relaxed_divergence
from advrl.metrics import interquartile_mean
from advrl.nn import GRUPolicy

V, T = 3, 2


# p(x_2 | x_1): of 0 one token follows, of the others any may. The first token is one of three.
SECOND = torch.tensor([[0.98, 0.01, 0.01], [1 / 3, 1 / 3, 1 / 3], [1 / 3, 1 / 3, 1 / 3]])


def log_p(x):
    return SECOND.to(x.device)[x[:, 0], x[:, 1]].log() - math.log(3)


def worlds(n):
    return SB3VecEnv(gym.make_vec("advrl/Sequence-v0", n, vocab=V, length=T, reward=log_p))


class Keep(BaseCallback):
    """Holds what the buffer was before the next callback."""

    def _on_step(self):
        return True

    def _on_rollout_end(self):
        self.rewards = self.model.rollout_buffer.rewards.copy()


@pytest.mark.parametrize("cls", [PPO, A2C])
def test_each_step_is_paid_what_it_says_and_advantages_follow(cls):
    options = {"batch_size": 64, "n_epochs": 1} if cls is PPO else {}
    agent = cls(GeneratorPolicy, worlds(32), n_steps=2 * T, gamma=1.0, gae_lambda=1.0, learning_rate=0.0,
                policy_kwargs={"generator": GRUPolicy(V, T, 4)}, device="cpu", seed=0, **options)  # fmt: skip
    before = Keep()
    agent.learn(32 * 2 * T, callback=CallbackList([before, EntropyReward(0.7)]))
    buffer = agent.rollout_buffer

    def table(values):  # as it was collected, whether or not it has been cut into batches
        return values if values.shape[0] == 2 * T else values.reshape(32, 2 * T).T

    rewards, log_prob, returns = table(buffer.rewards), table(buffer.log_probs), table(buffer.returns)
    np.testing.assert_allclose(rewards, before.rewards - 0.7 * log_prob, rtol=1e-5, atol=1e-6)
    togo = rewards.reshape(2, T, 32)[:, ::-1].cumsum(1)[:, ::-1].reshape(2 * T, 32)
    np.testing.assert_allclose(returns, togo, rtol=1e-4, atol=1e-5)  # lambda 1, and nothing follows an end


@pytest.mark.parametrize("whole", [True, False])
def test_the_best_policy_is_the_law_itself(whole):
    """r = log p and beta = 1 minimise KL(pi || p). With ``ent_coef=1`` the first token does not know of the entropy
    that it leaves to the second: pi(x_1) is as exp E[log p(x)], .57 for 0 and not a third."""
    torch.manual_seed(0)
    policy = GRUPolicy(V, T, 16)
    agent = PPO(GeneratorPolicy, worlds(128), n_steps=T, gamma=1.0, gae_lambda=1.0, learning_rate=0.02, seed=0,
                batch_size=128, n_epochs=2, device="cpu", policy_kwargs={"generator": policy}, max_grad_norm=10.0,
                normalize_advantage=False, ent_coef=float(not whole))  # fmt: skip
    agent.learn(40 * 128 * T, callback=EntropyReward() if whole else None)
    x = policy.distribution().enumerate_support()
    with torch.no_grad():
        ours = policy.distribution().log_prob(x)
    divergence = float((ours.exp() * (ours - log_p(x))).sum())
    left = (SECOND * SECOND.log()).sum(1).exp()
    expected = 1 / 3 if whole else float(left[0] / left.sum())
    assert float(ours.exp()[x[:, 0] == 0].sum()) == pytest.approx(expected, abs=0.08)
    assert divergence < 0.03 if whole else divergence > 0.08


def test_who_keeps_no_log_probabilities_is_refused():
    env = worlds(2)
    with pytest.raises(ValueError, match="DQN keeps no log-probabilities"):
        DQN("MlpPolicy", env, policy_kwargs={"features_extractor_class": TokenFeatures}).learn(
            4, callback=EntropyReward()
        )
    with pytest.raises(ValueError, match="beta"):
        EntropyReward(-1.0)


# The study


FEW = ["--seeds", "2", "--seconds", "0.02", "--vocab", "4", "--length", "3", "--hidden", "4"]


def test_the_study_runs_every_method_and_goes_on(tmp_path, capsys):
    folder = ["--out", str(tmp_path)]
    assert main(["bench", "agents", *FEW, *folder]) == 0
    told = capsys.readouterr().out
    assert "14/14 sb3-ppo-gru, seed 1" in told and "the oracle's own entropy" in told
    runs = list(csv.DictReader((tmp_path / "runs.csv").read_text().splitlines()))
    assert {row["method"] for row in runs} == set(METHODS) and len(runs) == 2 * len(METHODS) * len(marks(0.02))
    for row in runs:
        assert float(row["spent"]) >= float(row["mark"]) and float(row["nll"]) > 0
    table = list(csv.DictReader((tmp_path / "curves.csv").read_text().splitlines()))
    row = next(row for row in table if row["method"] == "ppo" and row["mark"] == "0")
    values = [float(r["nll"]) for r in runs if r["method"] == "ppo" and r["mark"] == "0"]
    assert float(row["nll"]) == pytest.approx(float(interquartile_mean(torch.tensor(values))), rel=1e-4)
    assert float(row["nll_low"]) == pytest.approx(min(values)) and float(row["nll_high"]) == pytest.approx(max(values))
    assert (tmp_path / "agents.png").stat().st_size > 10_000
    before = (tmp_path / "runs.csv").read_text()
    assert main(["bench", "agents", *FEW, *folder]) == 0  # nothing is left to run
    assert (tmp_path / "runs.csv").read_text() == before and "14/14" not in capsys.readouterr().out
    assert main(["bench", "agents", *FEW[:-2], *folder]) == 2  # another size is another study
    assert "give another --out" in capsys.readouterr().err


def test_what_gumbel_softmax_follows_is_the_divergence_on_hard_rows():
    oracle, policy = LSTMOracle(5, 4, 8), GRUPolicy(5, 4, 8)
    x = policy.sample(50)
    rows = policy.distribution().one_hot(x).float()
    wanted = policy.log_probs(x).sum(1) - oracle.log_prob(x)
    torch.testing.assert_close(relaxed_divergence(policy, oracle, rows), wanted)


def test_the_floor_is_the_oracle_s_entropy():
    oracle = LSTMOracle(4, 3, 8)
    x = oracle.law.enumerate_support()
    log_p = oracle.log_prob(x).double()
    exact = float(-(log_p.exp() * log_p).sum()) / 3
    assert entropy_of(oracle) == pytest.approx(
        exact, abs=5 * 1.0 / 50_000**0.5
    )  # entropies of steps are within [0, 1.4]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--methods", "reinfroce"], "did you mean 'reinforce'"),
        (["--seconds", "0"], "--seconds"),
        (["--seeds", "0"], "--seeds"),
        (["--vocab", "1"], "--vocab"),
        (["--lr", "-1"], "--lr"),
    ],
)
def test_what_cannot_be_studied_is_refused(words, message, tmp_path, capsys):
    assert main(["bench", "agents", *words, "--out", str(tmp_path / "none")]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "none").exists()


def test_another_table_is_not_gone_on_with(tmp_path):
    (tmp_path / "runs.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="give another --out"):
        read_rows(tmp_path / "runs.csv", {"vocab": "20"})
