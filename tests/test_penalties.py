"""Slope penalties against discriminators whose gradient is known."""

import pytest
import torch

from advrl.objectives import gradient_penalty, r1


def test_r1_of_a_linear_and_a_quadratic_discriminator(device):
    torch.manual_seed(0)
    x, w = torch.randn(4, 2, 3, device=device), torch.randn(2, 3, device=device)
    fake = torch.randn(4, 2, 3, device=device)  # plays no part
    torch.testing.assert_close(r1(lambda x: (x * w).sum((1, 2)), x, fake), w.square().sum().expand(4))
    torch.testing.assert_close(r1(lambda x: x.square().sum((1, 2)), x, fake), 4 * x.square().sum((1, 2)))


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
    assert norm.min() >= 0
    assert norm.max() <= 1
    assert abs(norm.mean() - 0.5) < 5 / (12 * 1000) ** 0.5  # five standard errors of a uniform's mean
    with pytest.raises(ValueError, match=r"\(4, 1\) and \(3, 1\)"):
        gradient_penalty(lambda x: x.sum(1), real[:4], fake[:3])


def test_gradient_penalty_takes_the_first_of_several_fakes():
    torch.manual_seed(0)
    real, fake = torch.randn(4, 2, 3), torch.randn(5, 4, 2, 3)

    def penalty(fake: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)
        return gradient_penalty(lambda x: x.pow(3).sum((1, 2)), real, fake)

    assert torch.equal(penalty(fake), penalty(fake[0]))
    with pytest.raises(ValueError, match=r"\(4, 2, 3\) and \(5, 3, 2, 3\)"):
        penalty(fake[:, :3])


def test_a_flat_discriminator_gives_finite_gradients():
    weight = torch.zeros(3, requires_grad=True)
    for penalty in (r1, gradient_penalty):
        value = penalty(lambda x: x @ weight, torch.randn(4, 3), torch.randn(4, 3)).mean()
        assert torch.isfinite(torch.autograd.grad(value, weight)[0]).all()


@pytest.mark.parametrize("penalty", [r1, gradient_penalty])
def test_double_backward_is_right(penalty):
    """In every parameter of a smooth network of images, against finite differences."""
    torch.manual_seed(0)
    real, fake = torch.randn(3, 1, 2, 2, dtype=torch.float64), torch.randn(3, 1, 2, 2, dtype=torch.float64)
    first = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    last = torch.randn(3, dtype=torch.float64, requires_grad=True)

    def value(first: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)  # the same interpolates each time
        return penalty(lambda x: (x.flatten(1) @ first).tanh() @ last, real, fake)

    assert value(first, last).shape == (3,)
    assert torch.autograd.gradcheck(value, (first, last))
