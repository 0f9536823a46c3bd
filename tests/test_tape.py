"""The tape: costs charged to the draws before them, against enumeration, to second order."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Normal

from advrl.estimators import (
    Antithetic,
    Critic,
    EvolutionStrategy,
    Measure,
    MovingAverage,
    Path,
    Score,
    Tape,
    grpo,
    leave_one_out,
    optimal_baseline,
)
from tests.statistics import assert_unbiased

F64 = torch.float64
REPLICATES = 20_000
# theta: logit of a; logit of b for a = 0 and 1; mean of y and log std of y. w: weights inside the costs.
THETA = torch.tensor([0.4, -0.5, 0.9, 0.3, -0.4], dtype=F64)
W = torch.tensor([1.2, -0.7], dtype=F64)


def first_cost(a: Tensor, w: Tensor) -> Tensor:
    return w[..., 0] * a**2 - 0.3 * a


def last_cost(a: Tensor, b: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return w[..., 1] * (a - 2 * b + y) ** 2 + (w[..., 0] * y).sin() * b


def logit_of_b(a: Tensor, theta: Tensor) -> Tensor:
    return theta[..., 1] * (1 - a) + theta[..., 2] * a


def mean_of_y(a: Tensor, b: Tensor, theta: Tensor) -> Tensor:
    return theta[..., 3] + a * b - 0.5 * b


def exact(theta: Tensor, w: Tensor) -> Tensor:
    """E of both costs, summed over a and b and the 40 points of a Gauss-Hermite rule for y."""
    import numpy as np

    t, weight = (torch.from_numpy(x) for x in np.polynomial.hermite_e.hermegauss(40))
    weight, total = weight / weight.sum(), torch.zeros((), dtype=F64)
    for a in (torch.zeros((), dtype=F64), torch.ones((), dtype=F64)):
        p = Bernoulli(logits=theta[0]).log_prob(a).exp()
        total = total + p * first_cost(a, w)
        for b in (torch.zeros((), dtype=F64), torch.ones((), dtype=F64)):
            q = p * Bernoulli(logits=logit_of_b(a, theta)).log_prob(b).exp()
            y = mean_of_y(a, b, theta) + theta[4].exp() * t
            total = total + q * (weight * last_cost(a, b, y, w)).sum()
    return total


def graph(theta: Tensor, w: Tensor, estimators, after: bool = False) -> Tensor:
    """The loss of one tape over a -> b -> y with a cost after a and one at the end, one per row of theta."""
    with Tape() as t:
        a = t.sample(Bernoulli(logits=theta[..., 0]), estimators[0])
        t.cost(first_cost(a, w))
        b = t.sample(Bernoulli(logits=logit_of_b(a, theta)), estimators[1])
        y = t.sample(Normal(mean_of_y(a, b, theta), theta[..., 4].exp()), estimators[2])
        if after:
            t.cost(torch.zeros_like(a), after=[a])
        t.cost(last_cost(a, b, y, w))
    return t.loss()


GRAPHS = {
    "score, score, path": (Score(), Score(), Path()),
    "score everywhere": (Score(), Score(), Score()),
    "leave-one-out, constant, path": (Score(3, leave_one_out), Score(1, 0.8), Path()),
    "leave-one-out in the middle": (Score(), Score(3, leave_one_out), Score(1, 0.5)),
    "both leave-one-out": (Score(2, leave_one_out), Score(2, leave_one_out), Antithetic()),
    "moving average": (Score(1, MovingAverage()), Score(2), Path(2)),
    "critic": (Score(1, Critic(torch.nn.Linear(1, 1).double())), Score(), Path()),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_two_orders_of_derivatives(name):
    """Value, gradient, Hessian and mixed second derivatives of every parameter: one tape on independent rows."""
    torch.manual_seed(0)
    theta = THETA.expand(REPLICATES, -1).clone().requires_grad_()
    w = W.expand(REPLICATES, 2).clone().requires_grad_()
    loss = graph(theta, w, GRAPHS[name]) * REPLICATES  # a mean over the rows: each row by itself again
    first = torch.cat(torch.autograd.grad(loss, (theta, w), create_graph=True), 1)
    second = [torch.cat(torch.autograd.grad(first[:, k].sum(), (theta, w), retain_graph=True), 1) for k in range(7)]
    both = torch.cat([THETA, W]).requires_grad_()
    truth = lambda at: exact(at[:5], at[5:])  # noqa: E731
    assert_unbiased(first.detach(), torch.autograd.grad(truth(both), both)[0])
    draws = torch.stack(second, 1).flatten(1).detach()
    cells = torch.autograd.functional.hessian(truth, both.detach()).flatten()
    random = draws.std(0) > 1e-9  # some cells are the same in every draw
    torch.testing.assert_close(draws[:, ~random], cells[~random].expand(REPLICATES, -1))
    assert_unbiased(draws[:, random], cells[random])


def test_the_value_is_the_mean_of_the_costs():
    torch.manual_seed(0)
    with Tape() as t:
        a = t.sample(Bernoulli(logits=torch.zeros(5, dtype=F64)), Score(4, leave_one_out))
        b = t.sample(Bernoulli(logits=a), Score(3, 1.0))
        t.cost(a, after=[a])
        t.cost(a * b + 1)
    assert a.shape == (4, 5) and b.shape == (3, 4, 5)
    torch.testing.assert_close(t.loss(), a.mean() + (a * b + 1).mean())


def test_a_cost_is_charged_to_the_draws_before_it():
    """Of two independent coins each pays its own cost: the later draw has no part in the earlier cost."""
    torch.manual_seed(0)
    logits = torch.zeros(2, 50, dtype=F64, requires_grad=True)
    with Tape() as t:
        a = t.sample(Bernoulli(logits=logits[0]), Score())
        t.cost(7 * a)
        b = t.sample(Bernoulli(logits=logits[1]), Score())
        t.cost(5 * b, after=[b])
    g = 50 * torch.autograd.grad(t.loss(), logits)[0]
    torch.testing.assert_close(g, torch.stack([7 * a * (a - 0.5), 5 * b * (b - 0.5)]))


@pytest.mark.parametrize("p", [0.5, 0.3])
def test_order_alone_gives_the_reward_to_go(p):
    """Ten steps with a cost after each: variance 26.875 at p = 1/2, and 2.8125 with the mean of what is left."""
    torch.manual_seed(0)
    length, q, n = 10, 1 - p, 100_000
    bare = p * q * sum((q - p + p * k) ** 2 for k in range(1, length + 1)) + length * (length - 1) * (p * q) ** 2 / 2
    held = length * (q - p) ** 2 * p * q + length * (length - 1) * (p * q) ** 2 / 2
    for variance, baseline in ((bare, 0.0), (held, p)):
        theta = torch.full((n,), p, dtype=F64).logit().requires_grad_()
        t = Tape()
        for step in range(length):
            t.cost(t.sample(Bernoulli(logits=theta), Score(1, baseline * (length - step))))
        g = n * torch.autograd.grad(t.loss(), theta)[0]
        mean = torch.tensor([length * p * q], dtype=F64)
        assert_unbiased(g[:, None], mean)
        assert_unbiased((g[:, None] - mean) ** 2, torch.tensor([variance], dtype=F64))


def test_a_gradient_goes_through_one_draw_into_the_next_one_s_score():
    """y ~ N(m, 1) by its path, then b ~ Bernoulli(y) by its score: d E[b] / dm = E[b'(y)]."""
    torch.manual_seed(0)
    m = torch.full((50_000,), 0.4, dtype=F64, requires_grad=True)
    with Tape() as t:
        y = t.sample(Normal(m, 1.0), Path())
        b = t.sample(Bernoulli(logits=y), Score(1, 0.5))
        t.cost(b)
    g = 50_000 * torch.autograd.grad(t.loss(), m)[0]
    grid = torch.linspace(-9, 9, 4001, dtype=F64) + 0.4
    sigmoid = grid.sigmoid()
    weight = Normal(torch.tensor(0.4, dtype=F64), 1.0).log_prob(grid).exp()
    assert_unbiased(g[:, None], ((weight * sigmoid * (1 - sigmoid)).sum() / weight.sum())[None])


def test_wrong_use_fails_with_a_sentence():
    coin = Bernoulli(logits=torch.zeros(3))
    for estimator in (Measure(), EvolutionStrategy(), Score(2, advantage=grpo), Score(2, optimal_baseline)):
        with pytest.raises(TypeError, match=r"whose gradient goes through the draw .* not"):
            Tape().sample(coin, estimator)
    with pytest.raises(ValueError, match="Bernoulli is none: use loo"):
        Tape().sample(coin, Path())
    with pytest.raises(ValueError, match="no cost"):
        Tape().loss()
    t = Tape()
    a = t.sample(coin, Score())
    with pytest.raises(ValueError, match=r"shape \(3,\).*got \(\): keep it per sample"):
        t.cost(a.mean())
    b = t.sample(Bernoulli(logits=a), Score(4))
    with pytest.raises(ValueError, match=r"shape \(4, 3\).*got \(3,\).*after="):
        t.cost(a)
    t.cost(a, after=[a])
    with pytest.raises(ValueError, match="what this tape's sample"):
        t.cost(b, after=[b + 0])
