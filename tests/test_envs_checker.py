"""``check_vector_env`` passes what is right, Gymnasium's own included, and names what is wrong with each broken one."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from advrl.envs import SequenceEnv, SequenceVectorEnv, TabularEnv, TabularVectorEnv, check_vector_env
from advrl.tabular.problems import gambler, garnet

SIZES = {"vocab": 3, "length": 4, "eos": True}


@pytest.mark.parametrize("mode", AutoresetMode)
def test_gymnasium_s_own_pass(mode):
    check_vector_env(SyncVectorEnv([lambda: gym.make("CartPole-v1")] * 3, autoreset_mode=mode))


@pytest.mark.parametrize("mode", AutoresetMode)
def test_our_tables_pass(mode):
    for mdp, limit in ((garnet(), 20), (gambler(), 4), (gambler(), None)):
        check_vector_env(TabularVectorEnv(mdp, 5, limit, autoreset_mode=mode), steps=150)
    check_vector_env(
        gym.make_vec("advrl/GridWorld-v0", num_envs=3, map="open", autoreset_mode=mode),
        lambda: gym.make("advrl/GridWorld-v0", map="open"),
    )


class Nested(gym.Env):
    """Observes a tuple of a dictionary and a number."""

    observation_space = gym.spaces.Tuple(
        [gym.spaces.Dict({"a": gym.spaces.Box(0, 1, (2,))}), gym.spaces.Discrete(3)]
    )  # fmt: skip
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return ({"a": np.zeros(2, np.float32)}, np.int64(0)), {}

    def step(self, action):
        self.t += 1
        return ({"a": np.ones(2, np.float32)}, np.int64(action)), float(action), self.t == 3, False, {}


@pytest.mark.parametrize("mode", AutoresetMode)
def test_observations_in_observations_pass(mode):
    check_vector_env(SyncVectorEnv([Nested] * 3, autoreset_mode=mode), Nested)


class Broken(SequenceVectorEnv):
    """Right, but for what a subclass changes."""

    def __init__(self, **options):
        super().__init__(4, **(SIZES | options))


class FloatTokens(Broken):
    def reset(self, **options):
        tokens, infos = super().reset(**options)
        return tokens.astype(np.float32), infos


class Tensors(Broken):
    def reset(self, **options):
        tokens, infos = super().reset(**options)
        return torch.from_numpy(tokens), infos


class Outside(Broken):
    def reset(self, **options):
        tokens, infos = super().reset(**options)
        return tokens + 1, infos


class Changing(Broken):
    """Hands out one array again and again."""

    seen = None

    def _same(self, tokens):
        self.seen = tokens if self.seen is None else self.seen
        self.seen[:] = tokens
        return self.seen

    def reset(self, **options):
        tokens, infos = super().reset(**options)
        return self._same(tokens), infos

    def step(self, actions):
        tokens, *rest = super().step(actions)
        return (self._same(tokens), *rest)


class Stepped(Broken):
    """What step returns goes through ``change(rewards, terminated, truncated, infos)``."""

    def step(self, actions):
        tokens, *rest = super().step(actions)
        return (tokens, *self.change(*rest))


class FlatRewards(Stepped):
    def change(self, rewards, terminated, truncated, infos):
        return rewards[:, None], terminated, truncated, infos


class NaNRewards(Stepped):
    def change(self, rewards, terminated, truncated, infos):
        rewards[2] = np.nan
        return rewards, terminated, truncated, infos


class IntegerEnds(Stepped):
    def change(self, rewards, terminated, truncated, infos):
        return rewards, terminated.astype(int), truncated, infos


class NoFinal(Stepped):
    def change(self, rewards, terminated, truncated, infos):
        return rewards, terminated, truncated, {k: v for k, v in infos.items() if "final" not in k}


class WrongFinal(Stepped):
    def change(self, rewards, terminated, truncated, infos):
        if "_final_obs" in infos:
            infos["_final_obs"] = ~infos["_final_obs"]
        return rewards, terminated, truncated, infos


class BadFinal(Stepped):
    def change(self, rewards, terminated, truncated, infos):
        for i in np.flatnonzero(infos.get("_final_obs", [])):
            infos["final_obs"][i] = infos["final_obs"][i][:-1]
        return rewards, terminated, truncated, infos


class Masked(Stepped):
    def change(self, rewards, terminated, truncated, infos):
        infos["action_mask"] = self.mask(infos["action_mask"])
        return rewards, terminated, truncated, infos


class NoWay(Masked):
    def mask(self, mask):
        mask[1] = 0
        return mask


class Twos(Masked):
    def mask(self, mask):
        return 2 * mask


class Narrow(Masked):
    def mask(self, mask):
        return mask[:, :-1]


class Disagreeing(Masked):
    def mask(self, mask):
        mask[:, 0] = 0
        return mask


class Unseeded(Stepped):
    def change(self, rewards, terminated, truncated, infos):
        return rewards + np.random.default_rng().normal(size=len(rewards)), terminated, truncated, infos


class GlobalNoise(Stepped):
    """Draws from torch's global generator, which is the same in two runs only by chance."""

    def change(self, rewards, terminated, truncated, infos):
        return rewards + torch.rand(len(rewards)).double().numpy(), terminated, truncated, infos


class EagerNextStep(Broken):
    """Says NEXT_STEP, but starts anew at once."""

    def __init__(self):
        super().__init__()
        self.metadata = self.metadata | {"autoreset_mode": AutoresetMode.NEXT_STEP}


class PaidNextStep(Stepped):
    def __init__(self):
        super().__init__(autoreset_mode="NextStep")

    def change(self, rewards, terminated, truncated, infos):
        return rewards + 1, terminated, truncated, infos


class Restless(Broken):
    """Says DISABLED, but starts anew on its own."""

    def __init__(self):
        super().__init__(autoreset_mode="Disabled")

    def step(self, actions):
        if self._over.any():
            super().reset(options={"reset_mask": self._over.copy()})
        return super().step(actions)


class Careless(Broken):
    """Resets all where some are named."""

    def __init__(self):
        super().__init__(autoreset_mode="Disabled")

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)


class NoMode(Broken):
    def __init__(self):
        super().__init__()
        self.metadata = {"render_modes": []}


class WrongSpace(Broken):
    def __init__(self):
        super().__init__()
        self.action_space = self.single_action_space


class Endless(Stepped):
    def __init__(self):
        super().__init__(vocab=3, length=200, eos=False)

    def change(self, *outcome):
        return outcome


BROKEN = {
    FloatTokens: r"reset\(\): the observation is not in observation_space .* array \(4, 4\) of float32",
    Tensors: "must be NumPy arrays, got Tensor on cpu: bring it to the host",
    Outside: "not in observation_space .* from 5 to 5",
    Changing: "the observation before step 1 changed with the step",
    FlatRewards: r"step 1: rewards must be a NumPy array \(4,\) of floats, got array \(4, 1\)",
    NaNRewards: r"rewards must be finite, those of environments \[2\] are not",
    IntegerEnds: r"terminated must be a NumPy array \(4,\) of bool",
    NoFinal: "with SAME_STEP infos must have 'final_obs'",
    WrongFinal: r"_final_obs marks environments .*, but the episodes of",
    BadFinal: r"final_obs of environment \d is not in single_observation_space",
    NoWay: r"leaves environments \[1\] no action",
    Twos: "must hold 0 and 1 alone",
    Narrow: r"must be an array \(4, 4\) of int8 or bool",
    Disagreeing: "must agree",
    Unseeded: "a second run with the same seed and actions differs in its rewards, after step 1",
    GlobalNoise: "a second run with the same seed and actions differs in its rewards, after step 1",
    EagerNextStep: "final_obs is for SAME_STEP",
    PaidNextStep: "with NEXT_STEP the step after an end begins the next episode, with reward 0",
    Restless: "with DISABLED, a step after the end of environments .* must be refused",
    Careless: r"reset_mask left environment \d out, but it was reset too",
    NoMode: r'metadata\["autoreset_mode"\] must be an AutoresetMode, got None',
    WrongSpace: "action_space must be 4 of single_action_space",
    Endless: "no episode ended within 100 steps",
}


@pytest.mark.parametrize(("broken", "message"), BROKEN.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_what_is_broken_is_refused(broken, message):
    with pytest.raises(AssertionError, match=message):
        check_vector_env(broken())


def test_the_unbroken_one_passes():
    check_vector_env(Broken(), lambda: SequenceEnv(**SIZES))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab": 4}, "the single environment observes"),
        ({"reward": lambda x: torch.full((len(x),), 7.0)}, "are paid"),
        ({"min_length": 3, "reward": "countdown"}, None),
    ],
)
def test_singles_that_differ_are_found(options, message):
    single = lambda: SequenceEnv(**(SIZES | options))  # noqa: E731
    if message is None:  # a mask that is not followed cannot go unnoticed
        with pytest.raises(ValueError, match="is masked out"):
            check_vector_env(Broken(), single)
    else:
        with pytest.raises(AssertionError, match=message):
            check_vector_env(Broken(), single)


def test_what_is_random_must_be_set():
    env = SequenceVectorEnv(3, **SIZES, context=2)
    single = lambda: SequenceEnv(**SIZES, context=2)  # noqa: E731
    with pytest.raises(AssertionError, match=r"starts elsewhere .* through options="):
        check_vector_env(env, single)
    check_vector_env(env, single, options={"context": np.zeros((3, 2), np.float32)})


def test_what_is_no_vector_environment_is_refused():
    with pytest.raises(TypeError, match="needs a gymnasium VectorEnv, got TabularEnv"):
        check_vector_env(TabularEnv(garnet()))
