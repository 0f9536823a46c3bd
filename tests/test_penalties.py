"""Slope penalties against discriminators whose gradient is known."""

import pytest
import torch

from advrl.objectives import clip_weights, consistency, dragan, gradient_penalty, r1, r2


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
    for penalty in (r1, r2, gradient_penalty, dragan):
        value = penalty(lambda x: x @ weight, torch.randn(4, 3), torch.randn(4, 3)).mean()
        assert torch.isfinite(torch.autograd.grad(value, weight)[0]).all()


@pytest.mark.parametrize("penalty", [r1, r2, gradient_penalty, dragan, consistency(torch.tanh)])
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


def test_r2_is_r1_at_the_fakes(device):
    torch.manual_seed(0)
    real, fake = torch.randn(4, 2, 3, device=device), torch.randn(5, 4, 2, 3, device=device)
    judge = lambda x: x.pow(3).sum((1, 2))  # noqa: E731
    torch.testing.assert_close(r2(judge, real, fake[0]), r1(judge, fake[0], real))
    torch.testing.assert_close(r2(judge, real, fake), r2(judge, real, fake[0]))  # of several to each, the first
    with pytest.raises(ValueError, match=r"\(4, 2, 3\) and \(3, 2, 3\)"):
        r2(judge, real, fake[0, :3])


def test_dragan_looks_beside_the_real_samples():
    """|2 x| tells where: at x + d, d uniform between 0 and half the batch's standard deviation."""
    torch.manual_seed(0)
    real = torch.cat([torch.full((500, 1), 1.0), torch.full((500, 1), 3.0)])
    norm = 1 + dragan(lambda x: x.square().sum(1), real, real).sqrt()  # |2 (x + d)| > 1 here
    share = (norm / 2 - real[:, 0]) / (0.5 * real.std())
    assert share.min() >= -1e-5
    assert share.max() <= 1 + 1e-5
    assert abs(share.mean() - 0.5) < 5 / (12 * 1000) ** 0.5  # five standard errors of a uniform's mean
    w = torch.tensor([3.0, 0.0, 4.0])
    torch.testing.assert_close(dragan(lambda x: x @ w, torch.randn(4, 3), torch.zeros(4, 3)), torch.full((4,), 16.0))


def test_consistency_is_the_squared_change_of_the_logit():
    x = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
    penalty = consistency(lambda x: x.flip(1) + 1)
    assert penalty.__name__ == "consistency"
    w = torch.tensor([1.0, 10.0])
    assert penalty(lambda x: x @ w, x, x).tolist() == [(23 - 21) ** 2, (0 + 40 - -7) ** 2]
    assert consistency(lambda x: x)(lambda x: x @ w, x, x).tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match=r"keep the shape \(2, 2\), got \(2, 1\)"):
        consistency(lambda x: x[:, :1])(lambda x: x @ w, x, x)


def test_weights_are_clipped_in_place():
    weights = [torch.tensor([-3.0, 0.005, 3.0], requires_grad=True), torch.tensor([[0.5]], requires_grad=True)]
    clip_weights(weights, 0.01)
    assert weights[0].tolist() == pytest.approx([-0.01, 0.005, 0.01])
    assert weights[1].tolist() == [[pytest.approx(0.01)]]
