"""Opponents: adversarial examples against the linear worst case, hidden attributes, and tic-tac-toe by brute force."""

import itertools
from functools import cache

import pytest
import torch
from torch.nn.functional import softplus

from advrl.games import (
    explained,
    fgsm,
    linear_worst_loss,
    pgd,
    private_code,
    reverse_gradient,
    solve_tic_tac_toe,
)
from advrl.nn import MLP

KIND = {"dtype": torch.float64}


def linear_problem(device="cpu"):
    torch.manual_seed(0)
    x, w, b = torch.randn(6, 5, **KIND), torch.randn(5, **KIND), torch.randn((), **KIND)
    labels = torch.tensor([1.0, -1, 1, -1, -1, 1], **KIND)
    return [t.to(device) for t in (x, labels, w, b)]


def test_worst_loss_of_a_linear_model_is_that_of_its_worst_corner():
    x, labels, w, b = linear_problem()
    corners = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=5)), **KIND)
    losses = softplus(-labels * ((x + 0.3 * corners[:, None]) @ w + b))
    torch.testing.assert_close(linear_worst_loss(x, labels, w, b, 0.3), losses.amax(0), rtol=1e-12, atol=0)
    clean = softplus(-labels * (x @ w + b))
    torch.testing.assert_close(linear_worst_loss(x, labels, w, b, 0.0), clean)


def test_attacks_reach_the_worst_loss_of_a_linear_model(device):
    x, labels, w, b = linear_problem(device)

    def loss(x):
        return softplus(-labels * (x @ w + b))

    worst = linear_worst_loss(x, labels, w, b, 0.3)
    for attack in (
        fgsm(loss, x, 0.3),
        pgd(loss, x, 0.3),
        pgd(loss, x, 0.3, 1, 0.6),
        pgd(loss, x, 0.3, random_start=False),
    ):
        torch.testing.assert_close(loss(attack), worst, rtol=1e-10, atol=1e-12)
        assert not attack.requires_grad and (attack - x).abs().max() <= 0.3 + 1e-12
    assert torch.equal(pgd(loss, x, 0.0), x)


def test_training_on_the_worst_loss_is_training_on_its_examples():
    """The gradient of a maximum is the gradient at the maximiser: Danskin (1967)."""
    x, labels, w, b = linear_problem()
    w, b = w.requires_grad_(), b.requires_grad_()
    attack = fgsm(lambda x: softplus(-labels * (x @ w + b)), x, 0.3)
    worst = linear_worst_loss(x, labels, w, b, 0.3).sum()
    same = softplus(-labels * (attack @ w + b)).sum()
    torch.testing.assert_close(torch.autograd.grad(worst, (w, b)), torch.autograd.grad(same, (w, b)))


def test_attacks_on_a_network_stay_inside_and_raise_its_loss(device):
    torch.manual_seed(0)
    model = MLP((1, 4, 4), (), (16,)).to(device)
    x = torch.rand(32, 1, 4, 4, device=device)

    def loss(x):
        return softplus(-model(x))

    clean = loss(x)
    climbs = [loss(pgd(loss, x, 0.1, steps, bounds=(0, 1), random_start=False)).mean() for steps in (1, 20)]
    assert clean.mean() < climbs[0] and clean.mean() < climbs[1]
    for attack in (fgsm(loss, x, 0.1, (0, 1)), pgd(loss, x, 0.1, bounds=(0, 1))):
        assert attack.min() >= 0 and attack.max() <= 1 and (attack - x).abs().max() <= 0.1 + 1e-6
        assert (loss(attack) > clean).all()
    assert all(p.grad is None for p in model.parameters())


def test_reversed_gradient_is_the_other_players(device):
    x = torch.randn(3, device=device, requires_grad=True)
    w = torch.randn(3, device=device, requires_grad=True)
    value = (w * reverse_gradient(x, 0.5) ** 2).sum()
    assert value == (w * x**2).sum()
    ours, theirs = torch.autograd.grad(value, (x, w))
    torch.testing.assert_close(ours, -0.5 * 2 * w * x)
    torch.testing.assert_close(theirs, x**2)


@pytest.mark.parametrize("rho", [0.0, 0.6, -0.9])
@pytest.mark.parametrize("weight", [0.0, 1.0, 5.0])
def test_private_code_is_the_best_direction(rho, weight):
    best = private_code(rho, weight, 0.2)
    angles = torch.linspace(0, torch.pi, 20_001, **KIND)
    values = torch.stack([angles.cos(), angles.sin()], 1)
    shares = [explained(w, rho, 0.2) for w in values[::40]]
    grid = torch.stack([u - weight * s for u, s in shares])
    assert best.value >= grid.max() - 1e-12 and best.value - grid.max() < 1e-3
    u, s = explained(best.direction, rho, 0.2)
    assert float(u - weight * s) == pytest.approx(best.value, abs=1e-12)
    assert (float(u), float(s)) == (best.useful, best.private)


def test_explained_is_a_squared_correlation():
    torch.manual_seed(0)
    rho, tau, n = 0.6, 0.3, 400_000
    u, other, noise = torch.randn(3, n, **KIND)
    s = rho * u + (1 - rho**2) ** 0.5 * other
    w = torch.tensor([2.0, -0.7], **KIND)
    h = w[0] * u + w[1] * s + (tau * (w @ w)).sqrt() * noise
    for exact, v in zip(explained(w, rho, tau), (u, s), strict=True):
        r = torch.corrcoef(torch.stack([h, v]))[0, 1]
        # sqrt(n) (r - exact) is near N(0, (1 - r^2)^2); five of its standard deviations: false alarms below 1e-6
        assert abs(float(r.abs() - exact.sqrt())) < 5 * (1 - float(exact)) / n**0.5


def test_a_heavy_weight_hides_the_private_variable():
    rho, tau = 0.6, 0.1
    code = private_code(rho, 1e4, tau)
    torch.testing.assert_close(code.direction[1] / code.direction[0], torch.tensor(-rho, **KIND), atol=1e-3, rtol=0)
    assert code.private < 1e-6
    assert code.useful == pytest.approx((1 - rho**2) ** 2 / (1 - rho**2 + tau * (1 + rho**2)), abs=1e-4)
    shares = [private_code(rho, weight, tau).private for weight in (0.0, 0.5, 1.0, 4.0)]
    assert shares == sorted(shares, reverse=True)


def test_descent_through_the_reversed_gradient_finds_the_private_code():
    """Encoder, ally and adversary in one backward pass each step; the readers are linear, the expectations exact."""
    rho, tau, weight = 0.6, 0.1, 2.0
    c = torch.tensor([[1.0, rho], [rho, 1.0]], **KIND)
    w, readers = torch.tensor([1.0, 0.0], **KIND, requires_grad=True), torch.zeros(2, **KIND, requires_grad=True)
    for _ in range(600):
        direction = w / w.norm()
        against = reverse_gradient(direction, weight)
        ally, adversary = (  # E(v - b h)^2 = 1 - 2 b w.c_v + b^2 (w.C w + tau)
            1 - 2 * b * d @ c[k] + b**2 * (d @ c @ d + tau)
            for k, (b, d) in enumerate(zip(readers, (direction, against), strict=True))
        )
        for p, g in zip((w, readers), torch.autograd.grad(ally + adversary, (w, readers)), strict=True):
            p.data -= 0.2 * g
    best = private_code(rho, weight, tau).direction
    torch.testing.assert_close((w / w.norm()).detach(), best, atol=1e-6, rtol=0)


def brute(board):
    """Minimax over tuples, depth first: all that the arrays are held against."""
    lines = [(0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6)]

    @cache
    def value(board):
        for line in lines:
            if abs(total := sum(board[k] for k in line)) == 3:
                return total // 3
        free = [k for k in range(9) if board[k] == 0]
        if not free:
            return 0
        mover = 1 if sum(board) == 0 else -1
        return mover * max(mover * value((*board[:k], mover, *board[k + 1 :])) for k in free)

    value(board)
    return value


def test_tic_tac_toe_is_a_draw():
    game = solve_tic_tac_toe()
    assert len(game.boards) == 5478 and game.values[0] == 0
    ended = (game.won != 0) | (game.boards != 0).all(1)
    assert [int((game.won == w).sum()) for w in (1, -1)] == [626, 316] and int((ended & (game.won == 0)).sum()) == 16
    value = brute((0,) * 9)
    assert value.cache_info().currsize == 5478
    assert game.values.tolist() == [value(tuple(board)) for board in game.boards.tolist()]


def test_best_moves():
    game = solve_tic_tac_toe()
    assert game.best_moves(torch.zeros(9)).all()  # every opening draws
    corner = torch.tensor([1, 0, 0, 0, 0, 0, 0, 0, 0])
    assert game.best_moves(corner).nonzero().flatten().tolist() == [4]  # only the centre holds a corner
    two = torch.tensor([1, 1, 0, -1, -1, 0, 0, 0, 0])
    assert game.value(two) == 1 and game.best_moves(two)[2]
    over = torch.tensor([1, 1, 1, -1, -1, 0, 0, 0, 0])
    assert game.value(over) == 1 and not game.best_moves(over).any()
    for wrong in ([1, 1, 0, 0, 0, 0, 0, 0, 0], [1, 1, 1, -1, -1, -1, 0, 0, 0]):
        with pytest.raises(ValueError, match="no play"):
            game.value(torch.tensor(wrong))


def test_wrong_use_says_so():
    x = torch.ones(2, 3)
    with pytest.raises(ValueError, match="one for each of 2"):
        fgsm(lambda x: x.sum(), x, 0.1)
    with pytest.raises(ValueError, match="epsilon"):
        pgd(lambda x: x.sum(1), x, -0.1)
    with pytest.raises(ValueError, match="labels"):
        linear_worst_loss(x, torch.ones(3), torch.ones(3), 0.0, 0.1)
    with pytest.raises(ValueError, match="weight"):
        reverse_gradient(x, -1.0)
    with pytest.raises(ValueError, match="rho"):
        private_code(2.0, 1.0)
