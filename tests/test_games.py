"""Games: the vector field and its derivatives against hand-made and autograd's, classic games against closed forms."""

import pytest
import torch
from torch import nn
from torch.distributions import Normal
from torch.func import functional_call
from torch.nn.functional import softplus

from advrl import games
from advrl.games import (
    Game,
    bilinear,
    dirac_eigenvalues,
    dirac_gan,
    flatten,
    hessian_product,
    jacobian,
    jacobian_product,
    jacobian_transpose_product,
    quadratic,
    unflatten,
    vector_field,
    zero_sum,
)
from advrl.objectives import minimax

KIND = {"dtype": torch.float64}


def small_gan(device="cpu", dtype=torch.float64):
    """A GAN of two tiny networks as a game of two dictionaries of parameters."""
    torch.manual_seed(0)
    g = nn.Sequential(nn.Linear(1, 3), nn.Tanh(), nn.Linear(3, 1)).to(device, dtype)
    d = nn.Sequential(nn.Linear(1, 3), nn.Tanh(), nn.Linear(3, 1)).to(device, dtype)
    real, z = torch.randn(2, 8, 1, device=device, dtype=dtype)

    def losses(x, y):
        fake = functional_call(d, y, functional_call(g, x, z))
        return softplus(-fake).mean(), softplus(fake).mean() + softplus(-functional_call(d, y, real)).mean()

    x, y = ({k: v.detach() for k, v in net.named_parameters()} for net in (g, d))
    return Game("gan", losses), x, y


def test_bilinear_field_and_jacobian(device):
    a = torch.randn(2, 3, device=device)
    x, y = torch.randn(2, device=device), torch.randn(3, device=device)
    field = vector_field(bilinear(a), x, y)
    torch.testing.assert_close(field, (a @ y, -a.mT @ x))
    j = jacobian(bilinear(a), x, y)
    torch.testing.assert_close(
        j, torch.cat([torch.cat([torch.zeros_like(a @ a.mT), a], 1), torch.cat([-a.mT, torch.zeros_like(a.mT @ a)], 1)])
    )


def test_quadratic_jacobian():
    torch.manual_seed(1)
    a, b, c = torch.randn(2, 2, **KIND), torch.randn(2, 3, **KIND), torch.randn(3, 3, **KIND)
    a, c = a + a.mT, c + c.mT
    j = jacobian(quadratic(a, b, c), torch.randn(2, **KIND), torch.randn(3, **KIND))
    torch.testing.assert_close(j, torch.cat([torch.cat([a, b], 1), torch.cat([-b.mT, c], 1)]))
    with pytest.raises(ValueError, match="symmetric"):
        quadratic(torch.tensor([[0.0, 1.0], [0.0, 0.0]]), torch.zeros(2, 1), torch.zeros(1, 1))
    with pytest.raises(ValueError, match="own_x"):
        quadratic(a, b.mT, c)


def test_field_of_networks_is_autograd(device):
    game, x, y = small_gan(device)
    gx, gy = vector_field(game, x, y)
    for mine, params, loss in ((gx, x, 0), (gy, y, 1)):
        leaves = {k: v.clone().requires_grad_() for k, v in params.items()}
        value = game(leaves, y)[0] if loss == 0 else game(x, leaves)[1]
        torch.testing.assert_close(
            mine, dict(zip(leaves, torch.autograd.grad(value, list(leaves.values())), strict=True))
        )


def test_products_of_networks_are_the_dense_jacobians():
    game, x, y = small_gan()
    j = jacobian(game, x, y)
    n = len(flatten(x))
    w = torch.randn(len(j), **KIND)
    u, v = unflatten(w[:n], x), unflatten(w[n:], y)
    product = torch.cat([flatten(p) for p in jacobian_product(game, x, y, u, v)])
    torch.testing.assert_close(product, j @ w)
    transposed = torch.cat([flatten(p) for p in jacobian_transpose_product(game, x, y, u, v)])
    torch.testing.assert_close(transposed, j.mT @ w)
    parts = {"x": slice(0, n), "y": slice(n, None)}
    for block in ("xx", "xy", "yx", "yy"):
        got = flatten(hessian_product(game, x, y, block, u if block[1] == "x" else v))
        torch.testing.assert_close(got, j[parts[block[0]], parts[block[1]]] @ w[parts[block[1]]])


def test_jacobian_of_networks_is_the_finite_difference():
    game, x, y = small_gan()
    j, n, h = jacobian(game, x, y), len(flatten(x)), 1e-6
    w = torch.cat([flatten(x), flatten(y)])
    for k in range(len(w)):
        step = torch.zeros_like(w)
        step[k] = h
        ends = []
        for at in (w + step, w - step):
            ends.append(torch.cat([flatten(p) for p in vector_field(game, unflatten(at[:n], x), unflatten(at[n:], y))]))
        torch.testing.assert_close((ends[0] - ends[1]) / (2 * h), j[:, k], atol=1e-8, rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_dirac_gan_eigenvalues(gamma):
    zero = torch.zeros((), **KIND)
    found = torch.linalg.eigvals(jacobian(dirac_gan(gamma), zero, zero))
    exact = torch.tensor(dirac_eigenvalues(gamma), dtype=torch.complex128)
    for value in exact:  # a double eigenvalue is found to the root of the rounding
        assert (found - value).abs().min() < (1e-7 if gamma == 1 else 1e-12)


def test_dirac_gan_is_critically_damped_at_gamma_one():
    assert dirac_eigenvalues(0.0) == (0.5j, -0.5j)
    assert dirac_eigenvalues(1.0) == (0.5, 0.5)
    slowest = {g: min(v.real for v in dirac_eigenvalues(g)) for g in (0.2, 0.6, 0.99, 1.0, 1.01, 1.5, 3.0)}
    assert max(slowest, key=slowest.__getitem__) == 1.0


def test_zero_sum():
    game = zero_sum(lambda x, y: x * y**2)
    first, second = game(torch.tensor(3.0), torch.tensor(2.0))
    assert first == 12 and second == -12 and game.zero_sum and bilinear().zero_sum and not dirac_gan().zero_sum


def test_vectors_and_structures():
    params = {"a": torch.randn(2, 2), "b": torch.randn(())}
    vector = flatten(params)
    torch.testing.assert_close(unflatten(vector, params), params)
    assert isinstance(unflatten(vector, (params["a"], params["b"])), tuple)
    with pytest.raises(ValueError, match="5 numbers"):
        unflatten(torch.zeros(4), params)
    for wrong in (3.0, {}, {"a": 1.0}):
        with pytest.raises(TypeError, match="parameters are"):
            flatten(wrong)


@pytest.mark.usefixtures("meta")
def test_nothing_is_made_on_the_default_device():
    cost = games.matching_pennies(device="cpu")
    x, y = torch.tensor([0.7, 0.3], device="cpu"), torch.tensor([0.2, 0.8], device="cpu")
    two = bilinear(cost)
    inputs, labels = torch.rand(4, 2, device="cpu"), torch.ones(4, device="cpu")
    with torch.device("cpu"):
        g, d = nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 1), nn.Flatten(0))
    humps = Normal(torch.zeros((), device="cpu"), torch.ones((), device="cpu"))
    for value in (
        *vector_field(two, x, y),
        jacobian(two, x, y),
        *jacobian_product(two, x, y, x, y),
        hessian_product(quadratic(cost, cost, cost), x, y, "xx", x),
        games.spectrum(two, x, y),
        games.spectrum(*games.gan_game(g, d, minimax, inputs, inputs), 2),
        games.equilibrium(cost)[0],
        games.random_game(2, 3),
        games.duality_gap(cost, x, y),
        games.nash_gap(cost, cost, x, y),
        games.fictitious_play(cost, [1, 3]).gap,
        games.hedge(cost, [1, 3]).gap,
        games.regret_matching(cost, [1, 3]).gap,
        *vector_field(games.finite_gan(x), x, y),
        games.density_step(x, y),
        games.max_min_play(x, 3).values,
        games.gan_gap(x, y, y),
        games.ratio_value(x, x.log(), None, "mle"),
        games.fgsm(lambda x: x.sum(1), inputs, 0.1),
        games.pgd(lambda x: x.sum(1), inputs, 0.1),
        games.linear_worst_loss(inputs, labels, x, 0.0, 0.1),
        games.reverse_gradient(x),
        games.private_code(0.5, 1.0).direction,
        games.solve_tic_tac_toe().best_moves(torch.zeros(9, device="cpu")),
        *games.orbit(x, 1.0, 0.0),
        games.averaged_radius(x),
    ):
        assert value.device.type == "cpu"
    assert games.forward_kl_fit(humps).std == 1 and abs(games.reverse_kl_fit(humps.log_prob, 1.0).mean) < 1e-5


def test_wrong_use_says_so():
    one = torch.ones(2)
    with pytest.raises(ValueError, match="scalar"):
        vector_field(lambda x, y: (x * y, -x * y), one, one)
    with pytest.raises(ValueError, match="block"):
        hessian_product(bilinear(), one, one, "xz", one)
    with pytest.raises(ValueError, match="matrix"):
        bilinear(one)
    with pytest.raises(ValueError, match="gamma"):
        dirac_gan(-1.0)
