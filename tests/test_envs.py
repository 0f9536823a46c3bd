"""Generation environments: both checkers, the three ways of starting anew, rewards in one call, bad input by name."""

import json

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.env_checker import check_env as check_env_sb3
from torch import nn

from advrl.envs import (
    REWARDS,
    CanvasGeneration,
    DiscriminatorScore,
    GenerationVectorEnv,
    OneShotGeneration,
    OneShotVectorEnv,
    SequenceEnv,
    SequenceGeneration,
    SequenceVectorEnv,
    check_vector_env,
)
from advrl.objectives import GAMES, Objective, minimax, non_saturating, reverse_kl

CLASSES = torch.eye(3)
PAIRING = Objective("pairing", minimax.d_loss, lambda fake, real: fake - real, needs_real=True)


def first_token(tokens, *context):
    return tokens[:, 0].float()


CASES = {
    "sequence": ("advrl/Sequence-v0", {}),
    "with an end": ("advrl/Sequence-v0", {"vocab": 3, "length": 5, "eos": True}),
    "one place": ("advrl/Sequence-v0", {"vocab": 2, "length": 1}),
    "noise given": ("advrl/Sequence-v0", {"vocab": 3, "length": 4, "eos": True, "context": 2, "reward": first_token}),
    "class given": ("advrl/Sequence-v0", {"vocab": 3, "length": 4, "context": CLASSES, "reward": first_token}),
    "dense": ("advrl/Sequence-v0", {"vocab": 3, "length": 4, "eos": True, "dense": True}),
    "one shot": ("advrl/OneShot-v0", {}),
    "bits": ("advrl/OneShot-v0", {"kind": "binary", "shape": (1, 8, 8), "reward": "nearest-digit"}),
    "classes": ("advrl/OneShot-v0", {"latent": CLASSES}),
    "line": ("advrl/GAN1D-v0", {}),
    "digits": ("advrl/DigitsOneShot-v0", {}),
    "canvas": ("advrl/Canvas-v0", {}),
    "dots": ("advrl/Canvas-v0", {"brush": "pixel", "strokes": 3, "dense": True}),
}
cases = pytest.mark.parametrize(("id", "options"), CASES.values(), ids=CASES)
OURS = sorted(id for id in gym.registry if id.startswith("advrl/"))


def context_of(env, n):
    contexts = env.unwrapped.dynamics.contexts
    return {} if contexts is None else {"context": contexts.draw(n, torch.Generator().manual_seed(0)).numpy()}


@pytest.mark.parametrize("mode", [None, "ansi", "rgb_array"])
@cases
def test_both_checkers_pass(id, options, mode):
    env = gym.make(id, render_mode=mode, **options)
    check_env(env.unwrapped)
    check_env_sb3(env)


def test_every_id_is_made_from_its_name_and_its_json():
    assert {id for id, _ in CASES.values()} | {"advrl/GridWorld-v0"} == set(OURS)
    for id in OURS:
        env = gym.make(gym.envs.registration.EnvSpec.from_json(gym.make(id).spec.to_json()))
        env.reset(seed=0)
        env.step(env.action_space.sample())
        vector = gym.make_vec(id, num_envs=2)
        assert vector.num_envs == 2 and vector.single_observation_space == env.observation_space
        assert json.loads(vector.spec.to_json())["id"] == id


@pytest.mark.parametrize("mode", AutoresetMode)
@cases
def test_the_batch_is_its_singles_side_by_side(id, options, mode):
    env = gym.make_vec(id, num_envs=3, autoreset_mode=mode, **options)
    check_vector_env(env, lambda: gym.make(id, **options), options=context_of(env, 3), steps=30)


@cases
def test_a_run_is_that_of_gymnasium_s_own_vector_environment(id, options):
    """The same keys, dtypes and contents as SyncVectorEnv of the single environments, ends included."""
    options = options | {"latent": CLASSES[:1]} if "Shot" in id or "GAN" in id else options
    options = options | {"context": CLASSES[:1]} if "context" in options else options  # one context: nothing is random
    ours = gym.make_vec(id, num_envs=4, **options)
    theirs = SyncVectorEnv([lambda: gym.make(id, **options)] * 4, autoreset_mode=AutoresetMode.SAME_STEP)
    assert same(ours.reset(seed=1), theirs.reset(seed=1))
    ours.single_action_space.seed(0)
    infos = ours.reset(seed=1)[1]
    for _ in range(25):
        masks = infos.get("action_mask", [None] * 4)
        actions = np.stack([ours.single_action_space.sample(mask=mask) for mask in masks])
        mine, other = ours.step(actions), theirs.step(actions)
        infos = mine[-1]
        assert same(mine, other)


def same(one, other):
    """Whether two nests of tuples, dictionaries and arrays hold the same; dtypes too."""
    assert type(one) is type(other), (one, other)
    if isinstance(one, dict):
        assert one.keys() == other.keys(), (one.keys(), other.keys())
        return all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple):
        return all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, np.ndarray) and one.dtype == object:
        return all(a is b is None or same(a, b) for a, b in zip(one, other, strict=True))
    if not isinstance(one, np.ndarray):
        return one is other
    assert one.dtype == other.dtype, (one.dtype, other.dtype)
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    return True


def test_sequences_end_early_at_once_and_never():
    env = SequenceVectorEnv(3, vocab=3, length=3, eos=True, reward=lambda x: (x < 3).sum(1).float())
    tokens, _ = env.reset(seed=0)
    assert (tokens == 4).all() and env.single_observation_space.high.max() == 4 and env.single_action_space.n == 4
    _, reward, over, _, infos = env.step(np.array([3, 1, 2]))
    assert over.tolist() == [True, False, False] and reward.tolist() == [0, 0, 0]
    assert infos["final_obs"][0].tolist() == [3, 4, 4] and infos["final_obs"][1] is None
    tokens, reward, over, _, infos = env.step(np.array([0, 3, 2]))
    assert over.tolist() == [False, True, False] and reward.tolist() == [0, 1, 0]
    assert infos["final_obs"][1].tolist() == [1, 3, 4] and tokens.tolist() == [[0, 4, 4], [4, 4, 4], [2, 2, 4]]
    _, reward, over, cut, infos = env.step(np.array([0, 0, 0]))
    assert over.tolist() == [False, False, True] and reward.tolist() == [0, 0, 3] and not cut.any()
    assert infos["final_obs"][2].tolist() == [2, 2, 0]


def test_next_step_ignores_one_action_and_pays_nothing_for_it():
    env = SequenceVectorEnv(2, vocab=2, length=2, eos=True, dense=True, reward=lambda x: torch.ones(len(x)),
                            autoreset_mode="NextStep")  # fmt: skip
    env.reset(seed=0)
    _, reward, over, _, infos = env.step(np.array([2, 0]))
    assert over.tolist() == [True, False] and reward.tolist() == [1, 1] and "final_obs" not in infos
    tokens, reward, over, _, _ = env.step(np.array([99, 1]))  # the first one's is not looked at
    assert tokens.tolist() == [[3, 3], [0, 1]] and reward.tolist() == [0, 1] and over.tolist() == [False, True]
    tokens, reward, over, _, _ = env.step(np.array([1, 99]))
    assert tokens.tolist() == [[1, 3], [3, 3]] and reward.tolist() == [1, 0] and not over.any()


def test_disabled_waits_for_the_mask():
    env = SequenceVectorEnv(3, vocab=2, length=4, eos=True, autoreset_mode="Disabled")
    env.reset(seed=0)
    env.step(np.array([2, 1, 2]))
    with pytest.raises(ResetNeeded, match=r"environments \[0, 2\] are over"):
        env.step(np.array([0, 0, 0]))
    tokens, _ = env.reset(options={"reset_mask": np.array([True, False, False])})
    assert tokens.tolist() == [[3, 3, 3, 3], [1, 3, 3, 3], [2, 3, 3, 3]]
    with pytest.raises(ResetNeeded, match=r"environments \[2\] are over"):
        env.step(np.array([0, 0, 0]))
    env.reset(options={"reset_mask": np.array([False, False, True])})
    assert env.step(np.array([0, 0, 0]))[0][:, 0].tolist() == [0, 1, 0]


class Counting(nn.Module):
    """Logits from a batch norm and a dropout, and how often and in which mode it was asked."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1), nn.Flatten(0))
        self.body[0].eval()  # frozen, and to be left so
        self.asked = []

    def forward(self, x):
        assert not torch.is_grad_enabled() and not self.body[1].training
        self.asked.append(len(x))
        return self.body(x.float())


def test_a_discriminator_is_asked_once_for_all_that_finished():
    torch.manual_seed(0)
    discriminator = Counting()
    env = gym.make_vec(
        "advrl/Sequence-v0", num_envs=5, vocab=3, length=4, eos=True, reward=DiscriminatorScore(discriminator, minimax)
    )
    env.reset(seed=0)
    env.step(np.array([0, 1, 3, 2, 3]))
    assert discriminator.asked == [2]
    env.step(np.array([0, 1, 2, 2, 1]))
    assert discriminator.asked == [2]
    env.step(np.array([3, 3, 3, 3, 3]))
    assert discriminator.asked == [2, 5]
    assert discriminator.training and discriminator.body[1].training and not discriminator.body[0].training


@pytest.mark.parametrize("game", [name for name in GAMES if not GAMES[name].objective.needs_real])
def test_the_reward_is_minus_the_cost(game):
    torch.manual_seed(0)
    discriminator, objective = nn.Sequential(nn.Linear(2, 1), nn.Flatten(0)), GAMES[game].objective
    env = OneShotVectorEnv(6, reward=DiscriminatorScore(discriminator, objective))
    env.reset(seed=0)
    x = np.random.default_rng(0).uniform(-1, 1, (6, 2)).astype(np.float32)
    _, reward, *_ = env.step(x)
    expected = -objective.cost(discriminator(torch.from_numpy(x)))
    torch.testing.assert_close(torch.from_numpy(reward).float(), expected.detach())


def test_a_live_discriminator_is_the_user_s_own_module():
    reward = DiscriminatorScore(Counting(), reverse_kl)
    for env in (gym.make("advrl/Sequence-v0", reward=reward), gym.make_vec("advrl/Sequence-v0", reward=reward)):
        assert env.unwrapped.dynamics.reward is reward


def test_dense_rewards_are_those_of_prefixes():
    task = SequenceGeneration(3, 3, eos=True, dense=True, reward=lambda x: (x == 2).sum(1).float())
    state = task.init(2)
    paid = []
    for action in ([2, 0], [1, 2], [2, 3]):
        state, reward, ended = task.step(state, torch.tensor(action))
        paid.append(reward.tolist())
    assert paid == [[1, 0], [1, 1], [2, 1]] and ended.all()


@pytest.mark.parametrize("eos", [False, True])
@pytest.mark.parametrize("optimum", ["long", "short"])
def test_rewards_of_one_sign_favour_a_length(eos, optimum):
    """What the environments' page warns of: paid per step, -log(1 - D) > 0 wants no end, log D < 0 wants it at once."""
    from advrl.envs import to_mdp
    from advrl.tabular import backward_induction

    objective = minimax if optimum == "long" else non_saturating
    blind = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)).requires_grad_(False)
    for p in blind.parameters():
        p.zero_()

    score = DiscriminatorScore(blind, objective)
    env = SequenceEnv(vocab=2, length=4, eos=eos, dense=True, reward=lambda x: score(x.float()))
    mdp, _ = to_mdp(env)
    plan = backward_induction(mdp, 4)
    best = float(plan.V[0][0]) / (1 if optimum == "long" else -1)
    expected = 1 if eos and optimum == "short" else 4
    assert best == pytest.approx(expected * np.log(2)), "a discriminator that knows nothing should be indifferent"


def test_a_reward_at_the_end_alone_favours_no_length():
    from advrl.envs import to_mdp
    from advrl.tabular import backward_induction

    for sign in (1.0, -1.0):
        mdp, _ = to_mdp(SequenceEnv(vocab=2, length=4, eos=True, reward=lambda x, s=sign: s * torch.ones(len(x))))
        Q = backward_induction(mdp, 4).Q[0][0]
        assert torch.equal(Q, torch.full_like(Q, sign))


def test_masks_say_what_may_follow():
    def no_repeats(tokens):  # (n, L) -> (n, A)
        used = (tokens[:, :, None] == torch.arange(5)).any(1)
        return ~used

    env = SequenceVectorEnv(4, vocab=4, length=4, eos=True, min_length=2, allowed=no_repeats)
    check_vector_env(env)
    _, infos = env.reset(seed=0)
    assert infos["action_mask"].tolist() == [[1, 1, 1, 1, 0]] * 4
    _, _, _, _, infos = env.step(np.array([0, 1, 2, 3]))
    assert infos["action_mask"].tolist() == [[0, 1, 1, 1, 0], [1, 0, 1, 1, 0], [1, 1, 0, 1, 0], [1, 1, 1, 0, 0]]
    with pytest.raises(ValueError, match=r"action 2 of environment 2 is masked out: it may take \[0, 1, 3\] now"):
        env.step(np.array([1, 0, 2, 0]))
    with pytest.raises(ValueError, match="action 4 of environment 0 is masked out"):
        env.step(np.array([4, 0, 1, 0]))
    stuck = SequenceEnv(vocab=2, length=3, allowed=lambda x: (x[:, :1] == 2).expand(-1, 2))
    stuck.reset(seed=0)
    with pytest.raises(ValueError, match=r"no token may follow \[1, 2, 2\]"):
        stuck.step(1)


def test_the_one_shot_sample_is_decoded_to_minus_one_and_one():
    assert OneShotGeneration(kind="binary").decode(torch.tensor([[0, 1]])).tolist() == [[-1, 1]]
    assert OneShotGeneration(kind="levels", levels=5).decode(torch.tensor([[0, 1]])).tolist() == [[-1, -0.5]]
    assert OneShotGeneration().decode(torch.tensor([[0.25, -1]])).tolist() == [[0.25, -1]]
    assert OneShotGeneration(shape=(2, 3)).decode(torch.zeros(7, 6)).shape == (7, 2, 3)


def test_conditional_rewards_see_what_was_given():
    """A sample is paid for being near to its own z, and the sequence for opening with its own class."""
    bandit = OneShotVectorEnv(3, conditional=True, reward=lambda x, z: -(x - z).abs().sum(1))
    z, _ = bandit.reset(options={"context": np.array([[0.5, 0], [-1, 1], [0, 0]])})
    assert bandit.step(z)[1].tolist() == [0, 0, 0]
    env = SequenceVectorEnv(3, vocab=3, length=2, context=CLASSES, reward=lambda x, c: (x[:, 0] == c.argmax(1)).float())
    seen, _ = env.reset(options={"context": CLASSES.numpy()})
    assert seen["context"].tolist() == CLASSES.tolist()
    env.step(np.array([0, 2, 2]))
    _, paid, _, _, infos = env.step(np.array([0, 0, 0]))
    assert paid.tolist() == [1, 0, 1] and infos["final_obs"][1]["context"].tolist() == [0, 1, 0]
    drawn = env.dynamics.init(600, generator=torch.Generator().manual_seed(0))["context"].sum(0)
    assert drawn.sum() == 600 and (drawn - 200).abs().max() < 5.2 * (600 * 2 / 9) ** 0.5  # 6 sides, 1e-6 in all


def test_named_rewards_are_best_where_they_should_be():
    assert set(REWARDS) == {"countdown", "nearest-digit", "ring", "two-modes"}
    from advrl.data import digits

    real = 2 * digits().train[:5] - 1
    torch.testing.assert_close(REWARDS["nearest-digit"](real), torch.zeros(5), atol=1e-5, rtol=0)
    assert REWARDS["nearest-digit"](-torch.ones(1, 1, 8, 8)) < -0.1
    assert REWARDS["countdown"](torch.tensor([[3, 2, 1], [3, 2, 2], [1, 3, 4]])).tolist() == [1, 0.5, 0]
    x = torch.tensor([[0.5], [0.0]])
    inside, outside = REWARDS["two-modes"](x).tolist()
    assert inside == pytest.approx(0, abs=1e-6) and outside == pytest.approx(np.log(2) - 12.5)
    assert REWARDS["ring"](torch.tensor([[0.7, 0.0], [0.0, 0.0]])).tolist() == pytest.approx(
        [0, np.log(8) - 24.5], abs=1e-2
    )


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: SequenceGeneration(1, 3), ValueError, "vocab must be at least 2, got 1"),
        (lambda: SequenceGeneration(3, 0), ValueError, "length must be at least 1, got 0"),
        (lambda: SequenceGeneration(3, 3, min_length=1), ValueError, "min_length needs eos=True"),
        (lambda: SequenceGeneration(3, 3, reward="count"), ValueError, "did you mean 'countdown'"),
        (lambda: SequenceGeneration(3, 3, reward=1.0),  # type: ignore[arg-type]
         TypeError, "reward must be a name or a function"),
        (lambda: SequenceGeneration(3, 3, context=0), ValueError, "context must be at least 1, got 0"),
        (lambda: SequenceGeneration(3, 3, context=torch.eye(2).long()), ValueError, "must be floats"),
        (lambda: OneShotGeneration(kind="boxes"), ValueError, "did you mean 'box'"),
        (lambda: OneShotGeneration(levels=3), ValueError, "levels goes with kind='levels'"),
        (lambda: OneShotGeneration(shape=()), ValueError, "at least one dimension"),
        (lambda: CanvasGeneration(brush="pencil"), ValueError, "unknown brush 'pencil'"),
        (lambda: CanvasGeneration(strokes=0), ValueError, "strokes must be at least 1"),
        (lambda: SequenceEnv(render_mode="human"), ValueError, r"render_mode must be one of \['ansi', 'rgb_array'\]"),
        (lambda: SequenceVectorEnv(0), ValueError, "num_envs must be at least 1"),
        (lambda: SequenceVectorEnv(autoreset_mode="Never"), ValueError, "'Never' is not a valid AutoresetMode"),
        (lambda: DiscriminatorScore(nn.Linear(2, 1), PAIRING), ValueError, "compares fakes"),
        (lambda: OneShotGeneration(reward=DiscriminatorScore(nn.Linear(2, 1, device="meta"))), ValueError,
         "the discriminator is on meta, but the environment on cpu"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def stepped(env, actions, **reset):
    env.reset(seed=0, **reset)
    env.step(actions)


@pytest.mark.parametrize(
    ("options", "actions", "error", "message"),
    [
        ({}, [0, 9], ValueError, r"action 9 of environment 1 is outside of Discrete\(3\)"),
        ({}, [-1, 0], ValueError, "action -1 of environment 0"),
        ({}, [0, 1, 2], ValueError, r"actions must have shape \(2,\), got \(3,\)"),
        ({}, [0.0, 1.0], TypeError, "must be integers"),
        ({}, ["a", "b"], TypeError, "must be numbers"),
        ({}, torch.zeros(2, dtype=torch.int64, device="meta"), ValueError, "actions is on meta, but the environment"),
        ({"reward": lambda x: torch.ones(len(x), 1)}, [0, 1], ValueError, r"to \(2,\), one number each, got \(2, 1\)"),
        ({"reward": lambda x: np.ones(len(x))}, [0, 1], TypeError, "must return a tensor"),
        ({"reward": lambda x: torch.ones(len(x), device="meta")}, [0, 1], ValueError, "the rewards are on meta"),
        ({"reward": lambda x: x[:, 0].float().log()}, [1, 0], ValueError, r"samples 1 \(1 of 2\) are not: .* has -inf"),
        ({"reward": DiscriminatorScore(nn.Embedding(4, 2))}, [0, 1], ValueError, r"must give logits \(2,\)"),
    ],
)
def test_what_cannot_be_done_is_refused(options, actions, error, message):
    with pytest.raises(error, match=message):
        stepped(SequenceVectorEnv(2, **({"vocab": 3, "length": 1} | options)), actions)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"contexts": 1}, ValueError, r"unknown reset options \['contexts'\]"),
        ({"context": np.zeros((2, 3))}, ValueError, r"context must have shape \(2, 2\), got \(2, 3\)"),
        ({"context": np.full((2, 2), 9.0)}, ValueError, r"context 0 has 9.0 in place 0, outside of \[-5, 5\]"),
        ({"context": np.full((2, 2), np.nan)}, ValueError, "context 0 has nan"),
        ({"reset_mask": [True, False]}, TypeError, "must be a NumPy array of bool, got list"),
        ({"reset_mask": np.array([1, 0])}, TypeError, "got int64"),
        ({"reset_mask": np.array([True])}, ValueError, r"must have shape \(2,\)"),
        ({"reset_mask": np.array([False, False])}, ValueError, "be true somewhere"),
    ],
)
def test_reset_options_that_cannot_be_are_refused(given, error, message):
    env = OneShotVectorEnv(2)
    env.reset(seed=0)
    with pytest.raises(error, match=message):
        env.reset(options=given)


def test_order_is_enforced():
    single, vector = SequenceEnv(vocab=2, length=1), SequenceVectorEnv(2, vocab=2, length=1)
    for env, action in ((single, 0), (vector, np.array([0, 0]))):
        for call in (lambda env=env, action=action: env.step(action), env.render, env.action_masks):
            with pytest.raises(ResetNeeded):
                call()
    with pytest.raises(ResetNeeded, match="the first reset"):
        vector.reset(options={"reset_mask": np.array([True, False])})
    single.reset(seed=0)
    single.step(0)
    with pytest.raises(ResetNeeded, match="the episode is over"):
        single.step(0)
    bandit = OneShotVectorEnv(2)
    bandit.reset(seed=0)
    with pytest.raises(TypeError, match="no numbers that could be masked"):
        bandit.action_masks()
    with pytest.raises(ValueError, match="takes no context"):
        single.reset(options={"context": [0.0]})
    with pytest.raises(TypeError, match="seed must be one integer"):
        vector.reset(seed=[1, 2])


def test_text_and_pictures():
    env = SequenceVectorEnv(2, vocab=3, length=4, eos=True, render_mode="ansi")
    env.reset(seed=0)
    env.step(np.array([1, 3]))
    assert env.render() == ("1 _ _ _", "_ _ _ _")
    env = SequenceEnv(vocab=3, length=4, context=CLASSES[:1], eos=True, render_mode="ansi")
    env.reset(seed=0)
    env.step(3)
    assert env.render() == "[1.00 0.00 0.00] . _ _ _"
    canvas = gym.make("advrl/Canvas-v0", render_mode="ansi").unwrapped
    canvas.reset(seed=0)
    canvas.step(0)
    canvas.step(64 + 7)
    drawn = canvas.render().splitlines()
    assert drawn[0] == "#" * 8 and set("".join(drawn[2:])) == {" "}
    for id, size in (("advrl/Canvas-v0", 192), ("advrl/DigitsOneShot-v0", 192), ("advrl/GAN1D-v0", 192)):
        vector = gym.make_vec(id, num_envs=2, render_mode="rgb_array")
        vector.reset(seed=0)
        pictures = vector.render()
        assert len(pictures) == 2 and pictures[0].shape == (size, size, 3) and pictures[0].dtype == np.uint8


def test_strokes_are_where_they_are_drawn():
    """A line's ink is that of the many dots along it."""
    task = CanvasGeneration(size=6, strokes=2)
    torch.manual_seed(0)
    start, end = torch.randint(6, (20, 2)).float(), torch.randint(6, (20, 2)).float()
    share = torch.linspace(0, 1, 400)[:, None, None]
    dots = task.line((start + share * (end - start)).flatten(0, 1), (start + share * (end - start)).flatten(0, 1))
    torch.testing.assert_close(task.line(start, end), dots.unflatten(0, (400, 20)).amax(0), atol=1e-2, rtol=0)


def test_the_device_is_the_environment_s(device):
    """States are there, what comes out is NumPy, and the course is the CPU's where nothing is random."""
    reward = DiscriminatorScore(nn.Sequential(nn.Flatten(), nn.Linear(64, 1), nn.Flatten(0)).to(device))
    env = gym.make_vec("advrl/Canvas-v0", num_envs=3, device=str(device), reward=reward).unwrapped
    assert isinstance(env, GenerationVectorEnv) and env.device.type == device.type
    check_vector_env(env, steps=20)
    state = env.dynamics.init(5)
    state, paid, ended = env.dynamics.step(state, torch.zeros(5, dtype=torch.int64, device=device))
    assert {value.device.type for value in [*state.values(), paid, ended]} == {device.type}


@pytest.mark.usefixtures("meta")
def test_nothing_is_made_on_the_default_device():
    for id, options in CASES.values():
        env = gym.make_vec(id, num_envs=2, render_mode="rgb_array", **options)
        check_vector_env(env, steps=15)
        env.reset(seed=0)
        env.render()
