"""Networks in bfloat16, and compiled: what stays float32, what a checkpoint holds, exact resume."""

import copy
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Independent

from advrl.agents import AdversarialTrainer, fit
from advrl.agents.forward import twin
from advrl.estimators import make_estimator
from advrl.nn import FAMILIES, MLP, Policy
from advrl.objectives import Objective, non_saturating, r1
from advrl.recipes import Digits
from advrl.recipes.config import differences
from advrl.recipes.parts import make_trainer
from tests.pairs import PAIRS

SHAPE = (1, 4, 4)
DYNAMO = "ignore:The .grad attribute"  # which it looks at, and hides the warning unless warnings are errors


def make(family: str = "binomial", estimator: str | None = None, device="cpu", **options) -> AdversarialTrainer:
    torch.manual_seed(0)
    policy = Policy(MLP(5, (FAMILIES[family].numbers, 4, 4), (16,), layer_norm=True), FAMILIES[family], 5)
    chosen = None if estimator is None else make_estimator(estimator)
    options = {"penalties": [(0.5, r1)], **options}
    return AdversarialTrainer(policy.to(device), MLP(SHAPE, (), (16,)).to(device), estimator=chosen, **options)


def reals(n: int, device: torch.device | str = "cpu") -> Tensor:
    return (torch.randint(0, 17, (n, *SHAPE)).float() / 8 - 1).to(device)


def tensors(state: object) -> list[Tensor]:
    if isinstance(state, Tensor):
        return [state]
    values = state.values() if isinstance(state, dict) else state if isinstance(state, list) else []
    return [tensor for value in values for tensor in tensors(value)]


@pytest.fixture
def aot(monkeypatch):
    """torch.compile without its slow last stage; double backward fails there too."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()


@pytest.mark.parametrize(("family", "estimator"), PAIRS)
def test_only_the_networks_run_in_bfloat16(family, estimator, device):
    inside, in_networks, elsewhere = [False], set(), set()

    def penalty(discriminator, real: Tensor, fake: Tensor) -> Tensor:
        inside[0] = True
        value = r1(discriminator, real, fake)
        inside[0] = False
        elsewhere.add(value.dtype)
        return value

    def d_loss(real: Tensor, fake: Tensor) -> Tensor:
        elsewhere.update({real.dtype, fake.dtype})
        return non_saturating.d_loss(real, fake)

    def cost(fake: Tensor, real: Tensor | None = None) -> Tensor:
        elsewhere.add(fake.dtype)
        return non_saturating.cost(fake)

    trainer = make(
        family, estimator, device, objective=Objective("watched", d_loss, cost), penalties=[(0.5, penalty)],
        precision="bf16",
    )  # fmt: skip
    for network in (trainer.generator, trainer.discriminator):
        for layer in network.modules():
            if isinstance(layer, nn.Linear):
                layer.register_forward_hook(lambda _, x, out: (elsewhere if inside[0] else in_networks).add(out.dtype))
    metrics = trainer.step(reals(6, device))
    draw = trainer.estimator.draw(trainer.distribution(trainer.noise(4)))
    elsewhere |= {m.dtype for m in metrics.values()} | {draw.x.dtype, draw.distribution.mean.dtype}
    assert in_networks == {torch.bfloat16}
    assert elsewhere == {torch.float32}
    assert {t.dtype for t in tensors(trainer.state_dict()) if t.is_floating_point()} == {torch.float32}


def test_a_step_in_bfloat16_is_near_one_in_float32(device):
    real, z = reals(64, device), torch.randn(64, 5).to(device)
    full, half = make("implicit", device=device), make("implicit", device=device, precision="bf16")
    full.step(real, z), half.step(real, z)
    for name in ("discriminator", "generator"):
        a, b = (torch.cat([p.grad.flatten() for p in getattr(trainer, name).parameters()]) for trainer in (full, half))
        error = ((a - b).norm() / a.norm()).item()
        assert 0 < error < 2**-5  # four layers' roundings of 2^-9 forward, as many backward


@pytest.mark.filterwarnings(DYNAMO)
@pytest.mark.parametrize("options", [{}, {"compile": True}])
def test_a_run_in_bfloat16_resumes_bit_for_bit(options, tmp_path, aot):
    keep = {"batch_size": 8, "checkpoint_every": 4, "log_every": 3, "progress": False}
    data = reals(32)
    whole = make(precision="bf16", **options)
    fit(whole, data, 8, out=tmp_path / "whole", **keep)
    fit(make(precision="bf16", **options), data, 4, out=tmp_path / "parts", **keep)
    again = make(precision="bf16", **options)
    fit(again, data, 8, out=tmp_path / "parts", resume=True, **keep)
    for a, b in zip(tensors(whole.state_dict()), tensors(again.state_dict()), strict=True):
        assert torch.equal(a, b)


@pytest.mark.filterwarnings(DYNAMO)
def test_compiled_steps_are_eager_steps_and_leave_the_modules_alone(aot):
    eager, compiled = make("implicit", penalty_every=2), make("implicit", penalty_every=2, compile=True)
    modules = [type(m) for m in compiled.generator.modules()]
    for _ in range(3):
        eager.load_state_dict(copy.deepcopy(compiled.state_dict()))  # Adam's first steps would make much of a rounding
        real, z = reals(6), torch.randn(6, 5)
        torch.testing.assert_close(compiled.step(real, z), eager.step(real, z))
        for name in ("generator", "discriminator"):
            for a, b in zip(getattr(compiled, name).parameters(), getattr(eager, name).parameters(), strict=True):
                torch.testing.assert_close(a.grad, b.grad)
    assert [type(m) for m in compiled.generator.modules()] == modules
    for name in ("generator", "discriminator", "average"):
        assert compiled.state_dict()[name].keys() == eager.state_dict()[name].keys()
    assert copy.deepcopy(compiled.generator).state_dict().keys() == eager.generator.state_dict().keys()


def test_a_policy_of_ones_own_stays_itself_around_its_networks():
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(3, 4), nn.Linear(4, 2)])
            self.memory, self.scale = nn.GRU(3, 4), nn.Parameter(torch.ones(2))

        def distribution(self, z: Tensor) -> Independent:
            hidden, _ = self.memory(z[None])
            hidden = hidden[0] + self.layers[0](z) * self.layers[0].out_features
            return Independent(Bernoulli(logits=self.layers[1](hidden) * self.scale), 1)

    torch.manual_seed(0)
    policy, z = Odd(), torch.randn(5, 3)
    exact = policy.distribution(z).mean
    same, half = (
        twin(policy, precision, False, torch.device("cpu")).distribution(z).mean for precision in ("fp32", "bf16")
    )
    torch.testing.assert_close(same, exact, rtol=0, atol=0)
    assert half.dtype == torch.float32
    assert 0 < (half - exact).abs().max() < 0.05
    half.sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in policy.parameters())


def test_what_cannot_be_is_said_before_the_first_step(monkeypatch):
    with pytest.raises(ValueError, match="unknown precision 'fp16'"):
        make(precision="fp16")
    with pytest.raises(ValueError, match=r"float32, got torch\.float64"):
        AdversarialTrainer(nn.Linear(3, 2).double(), nn.Linear(2, 1).double(), latent=3, precision="bf16")

    def broken(graph, inputs):
        raise RuntimeError("no such compiler")

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=broken))
    with pytest.raises(ValueError, match=r"does not work here for cpu: .*no such compiler.*g\+\+"):
        make(compile=True)


@pytest.mark.filterwarnings(DYNAMO)
def test_the_recipe_hands_both_options_on(aot):
    config = Digits(precision="bf16", compile=True, r1=0, width=8, latent=2, samples=2)
    trainer = make_trainer(config, config.policy_for(SHAPE), MLP(SHAPE, (), (16,)))
    trainer.step(reals(4))
    compiled = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    full = make_trainer(replace(config, precision="fp32"), config.policy_for(SHAPE), MLP(SHAPE, (), (16,)))
    full.step(reals(4))
    assert compiled >= 3, "the generator, the discriminator trained and frozen"
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > compiled, "under autocast it is another graph"
    with pytest.raises(ValueError, match="precision"):
        Digits(precision="half").validate()
    assert not differences(Digits(), Digits(compile=True))  # a run may go on with or without the compiler
    assert differences(Digits(), Digits(precision="bf16"))  # but not in another precision


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_steps_recorded_as_cuda_graphs_are_eager_steps(precision):
    options = {"device": "cuda", "precision": precision, "penalty_every": 2, "discriminator_steps": 2}
    eager, graphed = make("implicit", **options), make("implicit", compile=True, **options)
    for _ in range(6):  # the first steps record, the later ones replay
        real, z = reals(16, "cuda"), torch.randn(16, 5, device="cuda")
        torch.testing.assert_close(graphed.step(real, z), eager.step(real, z), rtol=2e-2, atol=2e-2)
