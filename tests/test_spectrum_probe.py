"""The spectrum of a running GAN's game: against dense matrices and exact games, harmless to the run."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import ArpackNoConvergence
from torch import Tensor, nn
from torch.func import functional_call

from advrl.agents import AdamRule, AdversarialTrainer, Alternating, DynamicsTrainer, SGDRule, Simultaneous
from advrl.agents.dynamics_around import Lookahead
from advrl.cli import main
from advrl.games import gan_game, spectrum
from advrl.lab.spectrum import SpectrumProbe, spectrum_plot, step_sizes
from advrl.nn import FAMILIES, MLP, Policy
from advrl.objectives import Objective, non_saturating, r1
from advrl.plots import read_metrics


def nets() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return MLP(2, 2, (4,), "tanh").double(), MLP(2, (), (4,), "tanh").double()


def trainers(**options: Any) -> list[AdversarialTrainer]:
    rules = AdamRule(2e-3), AdamRule(1e-3)
    return [
        AdversarialTrainer(*nets(), latent=2, lr_generator=2e-3, lr_discriminator=1e-3, **options),
        DynamicsTrainer(*nets(), latent=2, dynamics=Lookahead(Alternating(*rules, first="y")), **options),
    ]


def test_the_eigenvalues_are_those_of_the_dense_matrix():
    """With one learning rate, they are its multiples of those of the game that advrl.games makes of both networks."""
    trainer = DynamicsTrainer(*nets(), latent=2, dynamics=Simultaneous(SGDRule(0.1), SGDRule(0.1)))
    real = torch.randn(16, 2, dtype=torch.float64)
    probe = SpectrumProbe(trainer, real)
    game, x, y = gan_game(trainer.generator, trainer.discriminator, non_saturating, real, probe.z)
    exact = 0.1 * spectrum(game, x, y)
    row = probe.measure()
    assert row["modulus"] == pytest.approx(float(exact.abs().max()), rel=1e-7)
    assert row["real"] == pytest.approx(float(exact.real.min()), rel=1e-7)
    assert row["turn"] == pytest.approx(float(exact.imag.abs().max()), rel=1e-7)


def test_adam_s_step_sizes_are_the_same_in_both_trainers_and_scale_the_matrix():
    real, z = torch.randn(16, 2, dtype=torch.float64), torch.randn(16, 2, dtype=torch.float64)
    plain, ours = trainers(penalties=[(0.5, r1)])
    found = []
    for trainer in (plain, ours):
        for side, rate in zip(step_sizes(trainer), (2e-3, 1e-3), strict=True):
            assert all(bool((size == rate).all()) for size in side)  # nothing is known before the first step
        for _ in range(3):
            trainer.step(real, z)
        found.append([s for side in step_sizes(trainer) for s in side])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=0)
    probe = SpectrumProbe(ours, real)
    generator, discriminator = ours.generator, ours.discriminator
    names = [list(dict(net.named_parameters())) for net in (generator, discriminator)]
    params = [p.detach() for net in (generator, discriminator) for p in net.parameters()]
    split = [p.numel() for p in params]

    def field(w: Tensor) -> Tensor:
        parts = [v.view_as(p) for v, p in zip(w.split(split), params, strict=True)]
        x, y = dict(zip(names[0], parts, strict=False)), dict(zip(names[1], parts[len(names[0]) :], strict=True))
        points = real.clone().requires_grad_()
        fake = functional_call(discriminator, y, (functional_call(generator, x, (probe.z,)),))
        true = functional_call(discriminator, y, (points,))
        slope = torch.autograd.grad(true.sum(), points, create_graph=True)[0]
        loss = nn.functional.softplus(-true).mean() + nn.functional.softplus(fake).mean()
        loss = loss + 0.5 * slope.square().sum(1).mean()
        down = torch.autograd.grad(nn.functional.softplus(-fake).mean(), list(x.values()), create_graph=True)
        own = torch.autograd.grad(loss, list(y.values()), create_graph=True)
        return torch.cat([g.flatten() for g in (*down, *own)])

    w = torch.cat([p.flatten() for p in params]).requires_grad_()
    jacobian = torch.autograd.functional.jacobian(field, w)
    scaled = torch.cat([s.flatten() for s in found[1]])[:, None] * jacobian
    exact = torch.linalg.eigvals(scaled)
    row = probe.measure()
    assert row["modulus"] == pytest.approx(float(exact.abs().max()), rel=1e-6)
    assert row["real"] == pytest.approx(float(exact.real.min()), rel=1e-6, abs=1e-9)


class Point(nn.Module):
    """A generator of one number, whatever z is: Dirac-GAN's."""

    def __init__(self) -> None:
        super().__init__()
        self.at = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, z: Tensor) -> Tensor:
        return self.at.expand(len(z), 1)


@pytest.mark.parametrize(("gamma", "rate"), [(0.0, 0.1), (0.5, 0.1), (1.0, 3.9), (1.0, 4.1)])
def test_dirac_gan_and_a_step_beyond_the_limit_is_reported(gamma, rate):
    """Eigenvalues gamma/2 +- sqrt(gamma^2/4 - 1/4), 1/2 the slope of softplus at 0: without R1 no step is stable."""
    minimax = Objective("minimax", non_saturating.d_loss, lambda fake, real=None: -nn.functional.softplus(fake))
    judge = nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(judge.weight)
    trainer = DynamicsTrainer(
        Point(), judge, latent=1, dynamics=Simultaneous(SGDRule(rate), SGDRule(rate)), objective=minimax,
        penalties=[(gamma / 2, r1)],
    )  # fmt: skip
    probe = SpectrumProbe(trainer, torch.zeros(4, 1, dtype=torch.float64))
    found = np.sort_complex(probe.eigenvalues().numpy() / rate)
    root = np.sqrt(complex(gamma**2 / 4 - 0.25))
    np.testing.assert_allclose(found, np.sort_complex([gamma / 2 - root, gamma / 2 + root]), atol=1e-7)
    row = probe.measure()
    if gamma == 0:
        assert row["limit"] == 0 and row["beyond"] == 1
    else:
        limit = {0.5: 2 * 0.25 / 0.25, 1.0: 4.0}[gamma]  # 2 Re z / |z|^2
        assert row["limit"] == pytest.approx(limit / rate, rel=1e-5)
        assert row["beyond"] == float(rate > limit)


def test_a_run_with_a_probe_is_the_run_without(tmp_path):
    words = ["train", "ring", "--steps", "12", "--batch-size", "16", "--width", "8", "--quiet", "--picture-every", "12"]
    found = []
    for name, more in (("plain", []), ("probed", ["--probe-spectrum", "--probe-every", "6"])):
        out = tmp_path / name
        assert main([*words, *more, "--out", str(out)]) == 0
        found.append(torch.load(out / "checkpoint.pt", weights_only=True)["trainer"]["generator"])
    for a, b in zip(found[0].values(), found[1].values(), strict=True):
        assert torch.equal(a, b)
    table = read_metrics(out / "spectrum.csv")
    assert list(table["step"]) == [6, 12]
    assert {"modulus", "real", "turn", "limit", "beyond"} <= set(table)
    assert (out / "plots" / "spectrum.png").stat().st_size > 5000
    assert spectrum_plot(out) == out / "plots" / "spectrum.png"


def test_what_has_no_spectrum_is_refused():
    policy = Policy(MLP(3, (FAMILIES["bernoulli"].numbers, 2, 2), (8,)), FAMILIES["bernoulli"], 3)
    with pytest.raises(ValueError, match="samples with a gradient"):
        SpectrumProbe(AdversarialTrainer(policy, MLP((1, 2, 2), (), (8,))), torch.zeros(4, 1, 2, 2))


def test_a_run_does_not_wait_for_what_does_not_settle(monkeypatch):
    """What Arnoldi's method has after its restarts will do, and where nothing is finite the row is NaN."""
    trainer = trainers()[0]
    probe = SpectrumProbe(trainer, torch.randn(16, 2, dtype=torch.float64))

    def impatient(*args: Any, **options: Any) -> np.ndarray:
        assert options["maxiter"] <= 1000
        raise ArpackNoConvergence("in %d of %d", np.array([2 - 1j, 2 + 1j]), np.empty((0, 2)))

    monkeypatch.setattr("scipy.sparse.linalg.eigs", impatient)
    assert probe.measure() == {"modulus": 5**0.5, "real": 2, "turn": 1, "limit": pytest.approx(0.8), "beyond": 1}
    with torch.no_grad():
        next(trainer.generator.parameters()).fill_(torch.nan)
    assert all(np.isnan(value) for value in probe.measure().values())
