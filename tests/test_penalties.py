"""Slope penalties against discriminators whose gradient is known."""

import pytest
import torch
from torch import nn

from advrl.objectives import gradient_penalty, r1


def test_r1_of_a_linear_and_a_quadratic_discriminator(device):
    torch.manual_seed(0)
    x, w = torch.randn(4, 2, 3, device=device), torch.randn(2, 3, device=device)
    torch.testing.assert_close(r1(lambda x: (x * w).sum((1, 2)), x, x), w.square().sum().expand(4))
    torch.testing.assert_close(r1(lambda x: x.square().sum((1, 2)), x, x), 4 * x.square().sum((1, 2)))


def test_gradient_penalty_of_a_linear_discriminator():
    torch.manual_seed(0)
    x, y = torch.randn(4, 3), torch.randn(4, 3)
    w = torch.tensor([3.0, 0.0, 4.0])  # norm 5
    torch.testing.assert_close(gradient_penalty(lambda x: x @ w, x, y), torch.full((4,), 16.0))


def test_gradient_penalty_looks_between_the_two():
    """At 2 |x| the norm tells where it was taken: between the ends of each pair, each with its own share."""
    torch.manual_seed(0)
    real, fake = torch.zeros(1000, 1), torch.ones(1000, 1)
    norm = gradient_penalty(lambda x: x.square().sum(1), real, fake).sqrt()  # | |2 t| - 1 |, t uniform
    assert norm.min() >= 0 and norm.max() <= 1
    assert abs(norm.mean() - 0.5) < 5 / (12 * 1000) ** 0.5  # five standard errors of a uniform's mean
    with pytest.raises(ValueError, match=r"\(4, 1\) and \(3, 1\)"):
        gradient_penalty(lambda x: x.sum(1), real[:4], fake[:3])


@pytest.mark.parametrize("penalty", [r1, gradient_penalty])
def test_double_backward_is_right(penalty):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1), nn.Flatten(0)).double()
    real, fake = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)

    def loss() -> torch.Tensor:
        torch.manual_seed(1)
        return penalty(net, real, fake).mean()

    weight = net[0].weight
    exact = torch.autograd.grad(loss(), weight)[0]
    step = 1e-6
    for i, j in ((0, 0), (2, 1), (4, 2)):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                weight[i, j] += sign * step
            values.append(loss().item())
            with torch.no_grad():
                weight[i, j] -= sign * step
        assert exact[i, j].item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5, abs=1e-8)


def test_a_flat_discriminator_gives_finite_gradients():
    weight = torch.zeros(3, requires_grad=True)
    for penalty in (r1, gradient_penalty):
        value = penalty(lambda x: x @ weight, torch.randn(4, 3), torch.randn(4, 3)).mean()
        assert torch.isfinite(torch.autograd.grad(value, weight)[0]).all()
