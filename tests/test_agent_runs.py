"""What batched agents leave behind, and do beyond sequences: resumed runs, discriminators, canvases, contexts."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advrl.agents import (
    ActorCriticTrainer,
    Adversary,
    Player,
    PolicyGradientTrainer,
    PPOTrainer,
    ReinforceTrainer,
    Turns,
    ValueNet,
    actor_for,
    fit,
)
from advrl.envs import (
    CanvasGeneration,
    DiscriminatorScore,
    OneShotGeneration,
    SequenceGeneration,
)
from advrl.estimators import Critic, MovingAverage, leave_one_out
from advrl.nn import MLP, GRUPolicy, LSTMPolicy
from advrl.objectives import least_squares, r1
from tests.test_agents import T, V, sequences, small

# What a run leaves behind


def critic_of_sequences() -> nn.Module:
    return nn.Sequential(nn.Embedding(V + 2, 4), nn.Flatten(), nn.Linear(4 * T, 1))


def adversarial(kind: str, seed: int = 0) -> PolicyGradientTrainer:
    torch.manual_seed(seed)
    score = DiscriminatorScore(critic_of_sequences())
    adversary = Adversary(score, updates=2)
    task = SequenceGeneration(V, T, score, eos=True)
    policy = LSTMPolicy(V, T, 4, eos=True)
    common: dict[str, Any] = {
        "adversary": adversary,
        "entropy": 0.01,
        "ema": 0.9,
        "max_norm": 1.0,
        "schedule": lambda step: 0.5,
    }
    if kind == "reinforce":
        return ReinforceTrainer(policy, task, baseline=MovingAverage(), **common)
    return (PPOTrainer if kind == "PPO" else ActorCriticTrainer)(policy, task, **common)


@pytest.mark.parametrize("kind", ["reinforce", "actor-critic", "PPO"])
def test_a_lost_run_goes_on_bit_for_bit(kind, tmp_path):
    real = torch.randint(V, (40, T))
    options = {"batch_size": 8, "progress": False, "log_every": 2, "checkpoint_every": 3}
    straight = adversarial(kind)
    fit(straight, real, 9, out=tmp_path / "straight", **options)
    lost = adversarial(kind)
    step = lost.step

    def losing(batch: Tensor) -> dict[str, Tensor]:
        if lost.steps == 5:
            raise KeyboardInterrupt
        return step(batch)

    lost.step = losing
    with pytest.raises(KeyboardInterrupt):
        fit(lost, real, 9, out=tmp_path / "lost", **options)
    again = adversarial(kind, seed=7)
    fit(again, real, 9, out=tmp_path / "lost", resume=True, **options)
    one, other = straight.state_dict(), again.state_dict()
    assert one.keys() == other.keys() >= {"generator", "average", "discriminator", "g_opt", "d_opt"}
    for part in one:
        for a, b in zip(tensors(one[part]), tensors(other[part]), strict=True):
            assert torch.equal(a, b), part
    assert (tmp_path / "straight" / "metrics.csv").read_text().splitlines()[0].count("reward") == 1


def tensors(value) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [t for item in inside for t in tensors(item)]


def test_a_live_discriminator_teaches(device):
    """Real sequences are all 2, 1, 0: REINFORCE against a discriminator finds them."""
    torch.manual_seed(0)
    with device:
        score = DiscriminatorScore(nn.Sequential(nn.Embedding(4, 8), nn.Flatten(), MLP(24, (), (16,))))
        policy = GRUPolicy(3, 3, 8)
    adversary = Adversary(score, lr=5e-3, penalties=[(0.0, r1)][:0])
    task = SequenceGeneration(3, 3, score, device=device)
    trainer = ReinforceTrainer(policy, task, adversary=adversary, baseline=leave_one_out, lr=0.02)
    real = torch.tensor([2, 1, 0], device=device).expand(64, 3)
    for _ in range(150):
        trainer.step(real)
    assert (Player(policy, task).sample(200) == real[0]).all(1).float().mean() > 0.95


def test_runs_without_data_take_turns(tmp_path):
    task = sequences()
    fit(ReinforceTrainer(small().float(), task), Turns(8), 3, out=tmp_path, progress=False)
    assert (tmp_path / "checkpoint.pt").exists()


@pytest.mark.parametrize("brush", ["stroke", "pixel"])
def test_a_policy_that_looks_draws(brush, device):
    """It sees the canvas alone: ink is paid, so that it comes to draw more than at first."""
    task = CanvasGeneration(4, 3, brush, lambda x: x.flatten(1).mean(1), device=device)
    torch.manual_seed(0)
    with device:
        policy = MLP(19, int(task.action_space.n), (32,), "silu")
    trainer = PPOTrainer(policy, task, lr=5e-3)
    first = float(trainer.step(torch.zeros(64, 1))["reward"])
    for _ in range(25):
        last = trainer.step(torch.zeros(64, 1))
    if brush == "pixel":
        assert float(last["reward"]) == pytest.approx(2 * 3 / 16 - 1, abs=0.005)  # three dots on pixels of their own
    else:
        assert float(last["reward"]) > first + 0.2
    assert Player(policy, task).sample(5).shape == (5, 1, 4, 4)


def test_contexts_reach_policy_reward_and_critic():
    """Two classes, each with a token of its own to write."""
    table = torch.eye(2)
    task = SequenceGeneration(2, 2, lambda x, c: (x == c.argmax(1, keepdim=True)).float().mean(1), context=table)
    torch.manual_seed(0)
    for cls, options in ((ReinforceTrainer, {"samples": 4, "baseline": leave_one_out}), (PPOTrainer, {}),
                         (ReinforceTrainer, {"samples": 2, "baseline": Critic()})):  # fmt: skip
        trainer = cls(GRUPolicy(2, 2, 8, context=2), task, lr=0.02, **options)
        for _ in range(60):
            last = trainer.step(torch.zeros(32, 1))
        assert float(last["reward"]) > 0.95
    given = trainer.play(3, torch.eye(2)[[0, 1, 0]])
    assert given.context.tolist() == [[1, 0], [0, 1], [1, 0]] * 2


def test_value_nets_take_every_observation():
    for task in (sequences(), sequences(context=3), CanvasGeneration(4, 2, reward=lambda x: x.mean((1, 2, 3))),
                 OneShotGeneration(2, (2,), "ring")):  # fmt: skip
        net = ValueNet(task, 8)
        seen = task.observe(task.init(6))
        value = net(seen)
        assert value.shape == (6,) and not value.any()
        nn.init.ones_(net.last[-1].weight)
        net(seen).sum().backward()
        assert all(p.grad is not None for p in net.parameters())
    tokens = torch.tensor([[0, 1, 2], [0, 2, 1]])
    net = ValueNet(sequences(), 8)
    nn.init.ones_(net.last[-1].weight)
    assert float(net(tokens).detach().diff()) != 0  # places matter


@pytest.mark.usefixtures("meta")
def test_agents_make_nothing_on_the_default_device():
    with torch.device("cpu"):
        policy, blind = GRUPolicy(V, T, 4, eos=True), critic_of_sequences()
    score = DiscriminatorScore(blind)
    task = SequenceGeneration(V, T, score, eos=True, min_length=1)
    for cls in (ReinforceTrainer, ActorCriticTrainer, PPOTrainer):
        trainer = cls(policy, task, adversary=Adversary(score), ema=0.9)
        fit(trainer, torch.zeros(8, T, dtype=torch.int64, device="cpu"), 2, batch_size=4, progress=False)
    fit(ActorCriticTrainer(policy, sequences()), Turns(4), 2, progress=False)


# What cannot be


class Blurred(nn.Module):
    """Logits of what it sees, as many as one likes."""

    def __init__(self, outcomes: int) -> None:
        super().__init__()
        self.out = nn.Linear(T, outcomes)

    def forward(self, tokens):
        return self.out(tokens.to(self.out.weight.dtype))


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: actor_for(MLP(2, 2), OneShotGeneration(2)), TypeError, "distribution(z)"),
        (lambda: actor_for(GRUPolicy(5, T, 4), sequences()), ValueError, "(5, 3, False), but the task has (3, 3, True"),
        (lambda: actor_for(GRUPolicy(5, T, 4), CanvasGeneration(reward=lambda x: x)), TypeError, "takes none"),
        (lambda: ReinforceTrainer(small(), sequences(), samples=0), ValueError, "samples"),
        (lambda: ReinforceTrainer(small(), sequences(), entropy=-1.0), ValueError, "entropy"),
        (lambda: ReinforceTrainer(small(), sequences(), baseline=Critic()), ValueError, "contexts"),
        (lambda: ActorCriticTrainer(small(), sequences(), lam=2.0), ValueError, "lam"),
        (lambda: PPOTrainer(small(), sequences(), clip=0.0), ValueError, "clip"),
        (lambda: PPOTrainer(small(), sequences(), epochs=0), ValueError, "epochs"),
        (
            lambda: ReinforceTrainer(
                small(), sequences(), adversary=Adversary(DiscriminatorScore(nn.Linear(3, 1), least_squares))
            ),
            ValueError,
            "does not pay",
        ),
        (
            lambda: ReinforceTrainer(
                small(), SequenceGeneration(V, T, lambda x: x.float().log().sum(1), eos=True)
            ).step(torch.zeros(4, 1)),
            ValueError,
            "rewards must be finite",
        ),
        (lambda: adversarial("PPO").load_state_dict({"steps": 1}), ValueError, "the state has parts"),
        (lambda: ReinforceTrainer(small(), sequences()).step(torch.zeros(0, 1)), ValueError, "at least 1 rows"),
        (lambda: ReinforceTrainer(Blurred(3), sequences()).step(torch.zeros(4, 1)), ValueError,
         "a logit for each action, (4, 4), got (4, 3)"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(make, error, words):
    with pytest.raises(error, match=re.escape(words)):
        make()
