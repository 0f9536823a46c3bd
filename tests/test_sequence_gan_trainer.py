"""The trainer of sequence GANs: what a step does, what it learns, what it refuses, and how it goes on."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import softplus

from advrl.agents import (
    ActorCritic,
    Annealed,
    Constant,
    EmbeddingPath,
    Gumbel,
    ImportanceWeighted,
    LikelihoodTrainer,
    PrefixCritic,
    Reinforce,
    ScratchGAN,
    SeqGAN,
    SequenceGANTrainer,
    fit,
)
from advrl.agents.sequence_gan_losses import adam_variance
from advrl.agents.switched import at_rest
from advrl.nn import (
    CNNDiscriminator,
    EmbeddingGenerator,
    GRUPolicy,
    LSTMPolicy,
    RecurrentDiscriminator,
    TransformerDiscriminator,
    VectorDiscriminator,
)
from advrl.objectives import GAMES

V, T = 4, 3
FILTERS = ((1, 8), (2, 8), (3, 8))


def cnn(eos: bool = True) -> CNNDiscriminator:
    return CNNDiscriminator(V, T, 8, eos=eos, filters=FILTERS, dropout=0.1)


def recurrent(eos: bool = True) -> RecurrentDiscriminator:
    return RecurrentDiscriminator(V, 16, 8, eos=eos)


def vectors() -> VectorDiscriminator:
    return VectorDiscriminator(V, T, 8, eos=True, filters=FILTERS, dropout=0.1)


MADE: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "seqgan": (lambda: SeqGAN(4), cnn, {}),
    "reinforce": (Reinforce, cnn, {}),
    "scratchgan": (ScratchGAN, recurrent, {"reward": "2d-1"}),
    "maligan": (ImportanceWeighted, cnn, {}),
    "bsgan": (lambda: ImportanceWeighted(8), cnn, {}),
    "gumbel": (Gumbel, cnn, {"objective": GAMES["relativistic"].objective}),
    "gumbel, relaxed": (lambda: Gumbel(Annealed(1.0, 0.3, 50), hard=False), cnn, {}),
    "embedding": (lambda: EmbeddingPath(0.3), vectors, {}),
    "actor-critic": (lambda: ActorCritic(PrefixCritic(V, 8, eos=True)), recurrent, {"reward": "2d-1"}),
    "actor-critic, at the end": (lambda: ActorCritic(PrefixCritic(V, 8, eos=True)), cnn, {"reward": "d"}),
    "constant": (Constant, lambda: None, {}),
}


def make(name: str, device="cpu", **options) -> SequenceGANTrainer:
    algorithm, discriminator, usual = MADE[name]
    if name == "embedding":
        policy: nn.Module = EmbeddingGenerator(V, T, 16, embedding=8, noise=4, eos=True)
    else:
        policy = GRUPolicy(V, T, 16, eos=True, dropout=0.2)
    judge = discriminator()
    rates = {"lr_generator": 1e-2, "lr_discriminator": 1e-2}
    return SequenceGANTrainer(
        policy.to(device), judge if judge is None else judge.to(device), algorithm(), **(rates | usual | options)
    )


def data() -> torch.Tensor:
    """Two sentences out of more than a hundred: 2 1 end, and 0 end."""
    return torch.tensor([[2, 1, 4], [0, 4, 5]]).repeat(40, 1)


data_on_cpu = data()


@pytest.mark.parametrize("name", ["seqgan", "scratchgan", "bsgan", "gumbel", "embedding", "actor-critic"])
def test_every_algorithm_finds_the_data(name, device):
    """From nothing, in so many steps: what is written is mostly one of the two sentences of the data."""
    torch.manual_seed(0)
    trainer = make(name, device, lr_generator=1e-2 if name == "gumbel" else 3e-2)
    real = data().to(device)
    share = lambda: float((trainer.generator.sample(400)[:, None] == real[None, :2]).all(-1).any(1).float().mean())  # noqa: E731
    before = share()
    fit(trainer, real, 200 if name == "gumbel" else 100, batch_size=32, progress=False)
    assert before < 0.3 and share() > 0.6


def test_a_step_tells_what_is_logged(device):
    torch.manual_seed(0)
    for name in MADE:
        told = make(name, device).step(data()[:32].to(device))
        assert {"reward", "grad_norm", "grad_variance", "length"} <= told.keys()
        assert name == "constant" or {"d_loss", "d_accuracy", "logit_real", "logit_fake"} <= told.keys()
        assert all(value.shape == () and not value.requires_grad for value in told.values())


@pytest.mark.parametrize("name", MADE)
def test_no_tensor_is_made_on_the_default_device(name):
    """With torch's default device on the meta device, a tensor made without a device would have no values."""
    torch.manual_seed(0)
    options = {} if name == "embedding" else {"kl": 0.1, "entropy": 0.1}
    trainer = make(name, **options)
    with torch.device("meta"):
        told = trainer.step(data_on_cpu)
    assert all(value.device.type == "cpu" for value in told.values())


def test_the_discriminator_s_step_is_that_of_its_loss():
    """Means over sentences, or over the tokens there are, as written out here."""
    torch.manual_seed(0)
    real = data()[:8]
    for name in ("reinforce", "scratchgan"):
        trainer = make(name)
        for layer in trainer.discriminator.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0
        twin, fake = copy.deepcopy(trainer.discriminator), trainer.generator.sample(8)
        trainer.algorithm.fakes = lambda policy, n, step, fake=fake: fake
        told = trainer._discriminator_steps((real,))
        a, b = twin(real), twin(fake)
        if name == "reinforce":
            loss = softplus(-a).mean() + softplus(b).mean()
            right = ((a > 0).float().mean() + (b < 0).float().mean()) / 2
        else:
            loss = softplus(-a)[real < 5].mean() + softplus(b)[fake < 5].mean()
            right = ((a > 0)[real < 5].float().mean() + (b < 0)[fake < 5].float().mean()) / 2
        torch.testing.assert_close(told["d_loss"], loss.detach())
        torch.testing.assert_close(told["d_accuracy"], right)
        optimiser = torch.optim.Adam(twin.parameters(), lr=1e-2, betas=(0.5, 0.99))
        loss.backward()
        optimiser.step()
        for mine, theirs in zip(trainer.discriminator.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=0)


def test_pretraining_is_maximum_likelihood_and_what_comes_after_begins_there():
    torch.manual_seed(0)
    trainer = make("seqgan", pretrain=5, warmup=2, kl=0.1, discriminator_steps=2, lr_pretrain=1e-2, max_norm=1e9)
    twin = copy.deepcopy(trainer.generator)
    plain = LikelihoodTrainer(twin, lr=1e-2, max_norm=1e9)
    for _ in range(5):
        batch = data()[torch.randint(80, (16,))]
        state = torch.get_rng_state()
        assert set(trainer.step(batch)) == {"nll"}  # of the first of the two batches
        torch.set_rng_state(state)
        plain.step(batch[:8])
    for mine, theirs in zip(trainer.generator.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)
    for copied in (trainer.reference, trainer.algorithm.writer):
        assert all(torch.equal(a, b) for a, b in zip(copied.parameters(), trainer.generator.parameters(), strict=True))
    before = [p.clone() for p in trainer.generator.parameters()]
    for step in range(2):
        assert "reward" not in trainer.step(data()[:16]), step
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.generator.parameters(), strict=True))
    told = trainer.step(data()[:16])
    assert {"reward", "kl", "exact_entropy"} <= told.keys() and abs(told["kl"]) < 1e-6  # it has not moved yet
    assert not all(torch.equal(a, b) for a, b in zip(before, trainer.generator.parameters(), strict=True))
    assert trainer.step(data()[:16])["kl"] > 0


@pytest.mark.parametrize("name", MADE)
def test_a_resumed_run_is_the_uninterrupted_one(name, tmp_path):
    weights = []
    for stops in ((6,), (3, 6)):
        for stop in stops:
            torch.manual_seed(0)
            options = {} if name == "embedding" else {"pretrain": 2, "kl": 0.1, "entropy": 0.1}
            trainer = make(name, warmup=0 if name == "constant" else 1, ema=0.9, discriminator_steps=2, **options)
            fit(trainer, data(), stop, batch_size=16, out=tmp_path / str(len(stops)), resume=stop == 6 != stops[0],
                progress=False)  # fmt: skip
        weights.append([*trainer.generator.parameters(), *trainer.average.parameters(), *trainer.algorithm.parameters(),
                        *trainer.algorithm.buffers()])  # fmt: skip
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


def test_policies_and_discriminators_of_every_kind():
    torch.manual_seed(0)
    for policy in (LSTMPolicy(V, T, 8), LSTMPolicy(V, T, 8, layers=2, dropout=0.5)):
        for judge in (cnn(False), recurrent(False), TransformerDiscriminator(V, T, 8, eos=False)):
            trainer = SequenceGANTrainer(policy, judge, SeqGAN(2), kl=0.1)
            assert torch.stack(list(trainer.step(torch.zeros(4, T, dtype=torch.int64)).values())).isfinite().all()


def test_what_a_discriminator_says_of_real_sequences():
    torch.manual_seed(0)
    real = data()[:6]
    trainer = make("scratchgan")
    logits = trainer.discriminator.eval()(real)
    torch.testing.assert_close(trainer.mean_logit(real), logits[real < 5].mean().detach())
    trainer = make("reinforce")
    torch.testing.assert_close(trainer.mean_logit(real), trainer.discriminator.eval()(real).mean().detach())
    with pytest.raises(ValueError, match="Constant has no discriminator"):
        make("constant").mean_logit(real)


def test_dropout_rests_while_sequences_are_judged():
    net = nn.Sequential(nn.Dropout(0.5), nn.LSTM(2, 2, 2, dropout=0.3))
    with at_rest(net):
        assert net.training and net[0].p == 0.0 and net[1].dropout == 0.0
    assert net[0].p == 0.5 and net[1].dropout == 0.3


def test_the_variance_of_gradients_by_adam():
    """Of independent gradients N(2, 3^2), 50 weights: 9 each, less what the mean over few steps still has of it."""
    torch.manual_seed(0)
    weights = torch.zeros(50, requires_grad=True)
    optimiser = torch.optim.Adam([weights], lr=1e-3, betas=(0.99, 0.999))
    for _ in range(4000):
        weights.grad = 2 + 3 * torch.randn(50)
        optimiser.step()
    expected = 50 * 9 * (1 - 0.01 / 1.99)  # the first moment's own variance
    assert abs(float(adam_variance(optimiser)) - expected) < 0.1 * expected


def test_temperatures_fall_by_the_same_factor():
    schedule = Annealed(2.0, 0.5, 10)
    assert [round(schedule(step), 6) for step in (-3, 0, 5, 10, 99)] == [2.0, 2.0, 1.0, 0.5, 0.5]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: make("reinforce", reward="logd"), "did you mean 'log-d'"),
        (lambda: make("reinforce", kl=-1.0), "kl must be"),
        (lambda: make("reinforce", pretrain=-1), "pretrain must be at least 0"),
        (lambda: make("reinforce", discriminator_steps=0), "discriminator_steps"),
        (lambda: make("embedding", entropy=0.1), "EmbeddingGenerator has none"),
        (lambda: make("embedding", pretrain=3), "needs a likelihood"),
        (lambda: SequenceGANTrainer(GRUPolicy(V, T, 4), None, Reinforce()), "needs a discriminator"),
        (
            lambda: SequenceGANTrainer(GRUPolicy(V, T, 4), None, Constant(), warmup=2),
            "warmup=2 trains the discriminator",
        ),
        (lambda: SequenceGANTrainer(GRUPolicy(V, T, 4), cnn(False), ScratchGAN()), "a logit per prefix"),
        (lambda: SequenceGANTrainer(GRUPolicy(V, T, 4), nn.Embedding(V, 2), Reinforce()), r"logits \(B,\) or"),
        (lambda: make("scratchgan", objective=GAMES["relativistic"].objective), "compares whole sequences"),
        (lambda: SeqGAN(0), "rollouts"),
        (lambda: SeqGAN(update_rate=1.0), "update_rate"),
        (lambda: ScratchGAN(2.0), "discount"),
        (lambda: ImportanceWeighted(1), "group must be at least 2"),
        (lambda: make("bsgan").step(data()[:12]), "12 sentences cannot be weighed in groups of 8"),
        (lambda: ActorCritic(PrefixCritic(V), lam=2.0), "lam"),
        (lambda: EmbeddingPath(-1.0), "noise"),
        (lambda: Annealed(1.0, 0.0, 5), "last temperature"),
        (lambda: EmbeddingGenerator(V, T, 0), "hidden"),
        (lambda: vectors()(torch.zeros(2, T, 3)), "vectors must be"),
    ],
)
def test_bad_input_is_refused(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
