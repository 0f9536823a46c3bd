"""Spectra: Arnoldi against dense, the stability limit against steps that are taken, and networks of advrl.nn."""

import math

import pytest
import torch
from torch import nn

from advrl.games import (
    bilinear,
    dirac_eigenvalues,
    dirac_gan,
    flatten,
    gan_game,
    jacobian,
    quadratic,
    spectrum,
    stability_limit,
    vector_field,
)
from advrl.nn import MLP, DCGANDiscriminator, DCGANGenerator
from advrl.objectives import GAMES, minimax, non_saturating

KIND = {"dtype": torch.float64}


def convex_concave(n, m, mixed=1.0):
    torch.manual_seed(0)
    a, c = torch.randn(n, n, **KIND), torch.randn(m, m, **KIND)
    return quadratic(a @ a.mT / n + torch.eye(n, **KIND), mixed * torch.randn(n, m, **KIND), c @ c.mT / m)


def small_gan(device, dtype=torch.float32, objective=non_saturating):
    torch.manual_seed(0)
    g, d = MLP(2, 2, (8,)).to(device, dtype), MLP((2,), (), (8,)).to(device, dtype)
    real, z = torch.randn(2, 32, 2, device=device, dtype=dtype)
    return gan_game(g, d, objective, real + 1, z)


@pytest.mark.parametrize("by", ["modulus", "real", "imaginary"])
def test_arnoldi_finds_the_outer_eigenvalues(by):
    game, x, y = convex_concave(14, 10), torch.zeros(14, **KIND), torch.zeros(10, **KIND)
    dense = torch.linalg.eigvals(jacobian(game, x, y))
    order = {"modulus": dense.abs(), "real": -dense.real, "imaginary": dense.imag.abs()}[by]
    wanted = dense[order.argsort(descending=True)]
    found = spectrum(game, x, y, 6, by)
    assert len(found) == 6
    for value in found:
        assert (wanted[:7] - value).abs().min() < 1e-8  # 7: half of a pair may be cut off
    torch.testing.assert_close(found.abs(), found.abs().sort(descending=True).values)


def test_all_of_them(device):
    zero = torch.zeros((), device=device, **KIND)
    for gamma in (0.0, 0.5, 2.0):
        values = spectrum(dirac_gan(gamma), zero, zero)
        for exact in dirac_eigenvalues(gamma):
            assert (values - exact).abs().min() < 1e-12
    game, x, y = small_gan(device)
    assert len(spectrum(game, x, y)) == len(flatten(x)) + len(flatten(y))
    assert len(spectrum(bilinear(), zero, zero, count=1)) == 2


@pytest.mark.parametrize("mixed", [0.0, 0.3, 3.0])
def test_steps_below_the_limit_converge_and_above_it_grow(mixed):
    game = convex_concave(4, 3, mixed)
    x, y = torch.randn(4, **KIND), torch.randn(3, **KIND)
    limit = stability_limit(spectrum(game, x, y))
    j = jacobian(game, x, y)
    assert limit > 0
    for share, below in ((0.999, True), (1.001, False)):
        radius = torch.linalg.eigvals(torch.eye(7, **KIND) - share * limit * j).abs().max()
        assert (radius < 1) == below
    w = torch.cat([x, y])
    size = {}
    for share in (0.9, 1.1):
        at = w
        for _ in range(2000):  # the field of this game is linear
            at = at - share * limit * (j @ at)
            if at.norm() > 1e6:
                break
        size[share] = at.norm()
    assert size[0.9] < 0.5 * w.norm() and size[1.1] > 10 * w.norm()
    torch.testing.assert_close(torch.cat(vector_field(game, x, y)), j @ w)


def test_what_has_not_settled_is_left_out():
    n = 200
    turn = torch.linspace(1, 1.001, n, **KIND).diag()  # eigenvalues +-i s, all but equal
    game, zero = bilinear(turn), torch.zeros(n, **KIND)
    few = spectrum(game, zero, zero, 4, "imaginary", restarts=1)
    assert len(few) < 4 and ((few.imag.abs() - 1).abs() < 2e-3).all()
    torch.testing.assert_close(spectrum(game, zero, zero).imag.abs().sort().values[::2], turn.diag())


def test_limits_in_closed_form():
    assert stability_limit(torch.tensor([1j, -1j])) == 0
    assert stability_limit(torch.tensor([2.0 + 0j, 0.5 + 0j])) == pytest.approx(1)
    assert stability_limit(torch.tensor([1 + 3j, 1 - 3j])) == pytest.approx(0.2)
    assert stability_limit(torch.tensor([1 + 0j, -1e-9 + 0j])) == pytest.approx(2)
    assert stability_limit(torch.tensor([1 + 0j, -1e-3 + 0j])) == 0
    assert stability_limit(torch.zeros(3, dtype=torch.complex64)) == math.inf
    gamma = 0.5
    first, second = dirac_eigenvalues(gamma)
    assert stability_limit(torch.tensor([first, second])) == pytest.approx(2 * gamma / 2 / 0.25)


@pytest.mark.parametrize("objective", GAMES)
def test_networks_in_float32(objective, device):
    """Matrix-free leading eigenvalues are the dense ones, for every objective, in the dtype that runs have."""
    game, x, y = small_gan(device, objective=GAMES[objective].objective)
    dense = spectrum(game, x, y)
    found = spectrum(game, x, y, 4)
    for value in found:
        assert (dense[:5] - value).abs().min() < 1e-3 * dense[0].abs()


def test_convolutions_and_batch_norm_and_nothing_is_changed():
    torch.manual_seed(0)
    g, d = DCGANGenerator(3, 1, 8, 2), DCGANDiscriminator(1, 8, 2)
    d = nn.Sequential(nn.BatchNorm2d(1), d)
    before = [{k: v.clone() for k, v in net.state_dict().items()} for net in (g, d)]
    game, x, y = gan_game(g, d, minimax, torch.randn(6, 1, 8, 8), torch.randn(6, 3))
    values = spectrum(game, x, y, 3)
    assert values.shape == (3,) and values.abs().isfinite().all()
    for net, state in zip((g, d), before, strict=True):
        torch.testing.assert_close(net.state_dict(), state, rtol=0, atol=0)
        assert all(p.grad is None for p in net.parameters())


def test_losses_of_a_gan_are_the_objectives(device):
    game, x, y = small_gan(device)
    zeros = {k: torch.zeros_like(v) for k, v in y.items()}
    cost, loss = game(x, zeros)  # a logit of 0: D = 1 / 2
    assert cost.item() == pytest.approx(math.log(2)) and loss.item() == pytest.approx(math.log(4))


def test_wrong_use_says_so():
    one = torch.ones(())
    with pytest.raises(ValueError, match="count"):
        spectrum(bilinear(), one, one, 0)
    with pytest.raises(ValueError, match="at least one"):
        stability_limit(torch.zeros(0))
    with pytest.raises(ValueError, match="modulus"):
        spectrum(bilinear(), one, one, 1, "mod")
