"""Samples from a Stable-Baselines3 agent, in batches, with temperature and log-probabilities."""

from __future__ import annotations

import inspect
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution, Independent, Normal, OneHotCategorical

from advrl.agents.sb3_env import MASKS, SB3VecEnv, chain
from advrl.agents.sb3_reward import DiscriminatorReward, Sample, sample_of, stacked
from advrl.checks import integer, number
from advrl.distributions import OneHotCategorical as ExactOneHot


def generate(
    model: BaseAlgorithm,
    n: int,
    env: VecEnv | VectorEnv | None = None,
    *,
    temperature: float = 1.0,
    deterministic: bool = False,
    return_log_prob: bool = False,
    sample: str | Sample | None = None,
) -> Any:
    """``n`` finished samples of an agent's policy.

    Every environment plays as many episodes: to stop at the first n that end would favour short ones. Episodes that a
    time limit cuts off are left out and played again.

    Args:
        model: the agent.
        n: how many.
        env: where it plays; by default the agent's own, whose episodes are lost: the next ``learn`` begins new ones.
            Not that one from inside a callback.
        temperature: each action is drawn from p^(1/temperature), renormalised: 0.5 is bolder than the policy. Only for
            policies that have a distribution, not for DQN or SAC.
        deterministic: take the likeliest action.
        return_log_prob: also return the log-probability of what was done under the policy at temperature 1, summed
            over the episode.
        sample: as for :class:`DiscriminatorReward`; by default as the one in ``env`` has it.

    Returns:
        (n, *event) samples, on the CPU; with ``return_log_prob`` also (n,) log-probabilities.

    Raises:
        ValueError, TypeError: for numbers out of range, an agent without an environment, a policy without a
            distribution where one is needed, a distribution that has no temperature, or episodes of which none
            finishes.
    """
    integer("n", n)
    number("temperature", temperature, 0.0, exclusive=True)
    venv = model.get_env() if env is None else SB3VecEnv(env) if isinstance(env, VectorEnv) else env
    if venv is None:
        raise ValueError("the agent has no environment: give env=")
    if not hasattr(model.policy, "get_distribution") and (temperature != 1 or return_log_prob):
        raise ValueError(f"the policy of {type(model).__name__} has no distribution to temper or to evaluate")
    rewards = [part for part in chain(venv) if isinstance(part, DiscriminatorReward)]
    finder = rewards[0].sample if rewards and sample is None else sample_of(venv, sample)
    model.policy.set_training_mode(False)
    with ExitStack() as stack, torch.no_grad():
        for part in rewards:
            stack.enter_context(part.paused())
        found, log_prob = _play(_Actor(model, temperature, deterministic), venv, -(-n // venv.num_envs), finder)
    if env is None:
        model._last_obs = None  # its episodes are not those that the agent had begun
    return (found[:n], log_prob[:n]) if return_log_prob else found[:n]


def _play(actor: _Actor, env: VecEnv, quota: int, find: Sample) -> tuple[Tensor, Tensor]:
    """``quota`` finished episodes of each environment, the first of all, then the second of all, and so on."""
    obs: Any = env.reset()
    actor.begin(env.num_envs)
    counts, sums = np.zeros(env.num_envs, dtype=np.int64), np.zeros(env.num_envs)
    found: dict[tuple[int, int], tuple[Tensor, float]] = {}
    lost = 0
    while counts.min() < quota:
        actions, log_prob = actor(obs, env)
        sums += log_prob
        obs, _, dones, infos = env.step(actions)
        actor.ended(dones)
        cut = np.array([info.get("TimeLimit.truncated", False) for info in infos])
        lost += int((dones & cut).sum())
        if lost > 100 * env.num_envs and not found:
            raise ValueError(f"{lost} episodes were cut off by a time limit and none finished: give a longer limit")
        whole = np.flatnonzero(dones & ~cut & (counts < quota))
        if len(whole):
            last = stacked([infos[i]["terminal_observation"] for i in whole])
            for i, x in zip(whole.tolist(), find(last, torch.from_numpy(actions[whole])), strict=True):
                found[int(counts[i]), i] = x, float(sums[i])
            counts[whole] += 1
        sums[dones] = 0
    order = sorted(found)
    return torch.stack([found[place][0] for place in order]), torch.tensor(
        [found[place][1] for place in order], device="cpu"
    )


class _Actor:
    """What a policy does with a batch of observations, whatever the algorithm."""

    def __init__(self, model: BaseAlgorithm, temperature: float, deterministic: bool) -> None:
        self.model, self.temperature, self.deterministic = model, temperature, deterministic
        self.policy: Any = model.policy
        own = getattr(self.policy, "get_distribution", None)
        arguments = inspect.signature(own).parameters if own else {}
        self.masked, self.recurrent, self.simple = MASKS in arguments, "lstm_states" in arguments, own is None

    def begin(self, n: int) -> None:
        self.starts = np.ones(n, dtype=bool)
        self.states: Any = None
        if self.recurrent:
            shape = (self.policy.lstm_actor.num_layers, n, self.policy.lstm_actor.hidden_size)
            self.states = tuple(torch.zeros(shape, device=self.policy.device) for _ in range(2))

    def ended(self, dones: np.ndarray) -> None:
        self.starts = dones

    def __call__(self, obs: Any, env: VecEnv) -> tuple[np.ndarray, np.ndarray | float]:
        """Actions (n, *shape) for the environment, and their log-probabilities (n,)."""
        if self.simple:
            return self.model.predict(obs, deterministic=self.deterministic)[0], 0.0
        tensors = obs_as_tensor(obs, self.policy.device)
        if self.recurrent:
            starts = torch.as_tensor(self.starts, dtype=torch.float32, device=self.policy.device)
            law, self.states = self.policy.get_distribution(tensors, self.states, starts)
        elif self.masked:
            law = self.policy.get_distribution(tensors, action_masks=np.stack(env.env_method(MASKS)))
        else:
            law = self.policy.get_distribution(tensors)
        if self.temperature != 1 and not self.deterministic:
            cold = law.distribution  # the policy's own is needed for its log-probability
            law.distribution = _tempered_all(cold, self.temperature)
            actions = law.get_actions()
            law.distribution = cold
        else:
            actions = law.get_actions(deterministic=self.deterministic)
        log_prob = law.log_prob(actions)
        space: Any = self.policy.action_space
        done = actions.cpu().numpy().reshape(-1, *space.shape)
        if hasattr(space, "low"):
            done = np.clip(done, space.low, space.high)
        return done, log_prob.cpu().numpy().astype(np.float64)


def _tempered_all(law: Any, temperature: float) -> Any:
    return [tempered(part, temperature) for part in law] if isinstance(law, list) else tempered(law, temperature)


def tempered(law: Distribution, temperature: float) -> Distribution:
    """The distribution whose density is p^(1/temperature), renormalised.

    Raises:
        TypeError: for one whose power is none of its kind.
    """
    if isinstance(law, Independent):
        return Independent(tempered(law.base_dist, temperature), law.reinterpreted_batch_ndims)
    if isinstance(law, Normal):
        return Normal(law.loc, law.scale * temperature**0.5)
    if isinstance(law, Categorical):  # masked ones of sb3-contrib too
        return Categorical(logits=law.logits / temperature)
    if isinstance(law, OneHotCategorical | ExactOneHot):
        return type(law)(logits=law.logits / temperature)
    if isinstance(law, Bernoulli):
        return Bernoulli(logits=law.logits / temperature)
    raise TypeError(f"{type(law).__name__} has no temperature: use temperature=1")
