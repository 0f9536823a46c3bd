"""Every estimator against the exact gradient, by enumeration or closed form."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Independent, Normal

from advrl.distributions import Binomial, Implicit, OneHotCategorical
from advrl.estimators import (
    ESTIMATORS,
    Arm,
    DisArm,
    GumbelSoftmax,
    MovingAverage,
    Path,
    Score,
    StraightThrough,
    fitting,
    leave_one_out,
    make_estimator,
    score_function,
)
from advrl.estimators.boxed import boxed_mean, boxed_score
from advrl.estimators.enumeration import RaoBlackwell
from advrl.estimators.quick import log_prob_of, rsample_of, sample_of
from advrl.estimators.unordered import UnorderedSet
from tests.pairs import KINDS
from tests.statistics import assert_unbiased

REPLICATES = 20_000
TRIALS = 4
WEIGHTS = torch.tensor([0.7, -1.2], dtype=torch.float64)


def cost(x: Tensor) -> Tensor:
    """A cost of two counts that is neither linear nor separable, (*, 2) -> (*)."""
    return ((x @ WEIGHTS) - 1.3) ** 2 + x.prod(-1).sin()


def exact(logits: Tensor) -> Tensor:
    """E[cost] of two independent Binomial(TRIALS) by the sum over all outcomes."""
    k = torch.arange(TRIALS + 1, dtype=torch.float64)
    outcomes = torch.cartesian_prod(k, k)
    log_prob = Independent(Binomial(TRIALS, logits), 1).log_prob(outcomes)
    return (log_prob.exp() * cost(outcomes)).sum()


def draws(estimator, logits: Tensor, replicates: int = REPLICATES) -> tuple[Tensor, Tensor]:
    """Values (replicates,) and gradients (replicates, 2) of independent estimates: a copy of the leaf per replicate."""
    theta = logits.detach().expand(replicates, 2).clone().requires_grad_()
    value = estimator(Independent(Binomial(TRIALS, theta), 1), cost)
    return value.detach(), torch.autograd.grad(value.sum(), theta)[0]


UNBIASED = {
    "score": Score(1),
    "constant": Score(2, 5.0),
    "tensor": Score(2, torch.tensor(3.0, dtype=torch.float64)),
    "leave-one-out, 2": Score(2, leave_one_out),
    "leave-one-out, 5": Score(5, leave_one_out),
}


@pytest.mark.parametrize("name", UNBIASED)
def test_score_function_is_unbiased(name):
    torch.manual_seed(0)
    logits = torch.tensor([0.4, -0.8], dtype=torch.float64, requires_grad=True)
    truth = exact(logits)
    value, gradient = draws(UNBIASED[name], logits)
    assert_unbiased(gradient, torch.autograd.grad(truth, logits)[0])
    assert_unbiased(value[:, None], truth.detach()[None])


def test_a_mean_that_includes_the_sample_is_caught():
    """The test above can fail: the mean of all S samples shrinks the gradient by (S - 1) / S."""
    torch.manual_seed(0)
    logits = torch.tensor([0.4, -0.8], dtype=torch.float64, requires_grad=True)
    _, gradient = draws(Score(2, lambda c: c.mean(0)), logits)
    truth = torch.autograd.grad(exact(logits), logits)[0]
    with pytest.raises(AssertionError, match="biased"):
        assert_unbiased(gradient, truth)
    assert_unbiased(2 * gradient, truth)


def test_moving_average_uses_earlier_costs_only():
    torch.manual_seed(0)
    average = MovingAverage(decay=0.8).double()
    first, second = torch.tensor([4.0, 6.0]).double(), torch.tensor([1.0, 3.0]).double()
    assert average(first).item() == 0.0
    assert average(second).item() == pytest.approx(5.0)  # the first batch's mean, corrected for the start from 0
    assert average(second).item() == pytest.approx((0.16 * 5 + 0.2 * 2) / 0.36)

    replayed = MovingAverage(decay=0.8).double()
    replayed.load_state_dict(average.state_dict())
    assert torch.equal(replayed(first), average(first))


def test_moving_average_is_unbiased_given_its_past():
    """A baseline fixed by the past shifts no expectation; one that takes the present in first would, by 1 - (1-d)/n."""
    torch.manual_seed(0)
    logits = torch.tensor([0.4, -0.8], dtype=torch.float64, requires_grad=True)
    past = MovingAverage(decay=0.9).double()
    past(torch.full((3,), 40.0, dtype=torch.float64))
    _, gradient = draws(Score(1, past), logits)
    assert_unbiased(gradient, torch.autograd.grad(exact(logits), logits)[0])


def test_leave_one_out_is_the_mean_of_the_others():
    c = torch.randn(5, 3, dtype=torch.float64)
    b = leave_one_out(c)
    for i in range(5):
        torch.testing.assert_close(b[i], c[[j for j in range(5) if j != i]].mean(0))
    with pytest.raises(ValueError, match=r"at least 2 samples.*\(1, 3\)"):
        leave_one_out(c[:1])


def test_score_function_variance_matches_the_closed_form():
    """z ~ N(theta, 1), cost z^2, theta = 2: variance 87 bare, 42 with b = 5, 38 with b = 7, path 4."""
    torch.manual_seed(0)
    n = 200_000
    cases = {
        (Score(1), 0): 87.0,
        (Score(1, 5.0), 1): 42.0,
        (Score(1, 7.0), 2): 38.0,
        (Score(2, leave_one_out), 3): (42 + 34 / 1) / 2,
        (Path(1), 4): 4.0,
    }
    for (estimator, _), variance in cases.items():
        theta = torch.full((n,), 2.0, dtype=torch.float64, requires_grad=True)
        g = torch.autograd.grad(estimator(Normal(theta, 1.0), lambda x: x**2).sum(), theta)[0]
        squares = (g - 4.0) ** 2  # the mean of these is the variance; their own spread bounds the error
        assert_unbiased(g[:, None], torch.tensor([4.0], dtype=torch.float64))
        assert_unbiased(squares[:, None], torch.tensor([variance], dtype=torch.float64))


def test_path_is_unbiased_on_a_gaussian():
    torch.manual_seed(0)
    mean = torch.tensor([0.3, -0.2], dtype=torch.float64)
    theta = mean.expand(REPLICATES, 2).clone().requires_grad_()
    value = Path(2)(Independent(Normal(theta, 0.5), 1), lambda x: (x**3).sum(-1))
    gradient = torch.autograd.grad(value.sum(), theta)[0]
    assert_unbiased(gradient, 3 * (mean**2 + 0.25))  # d/dm E x^3 = 3 (m^2 + s^2)


def test_straight_through_is_exact_for_a_linear_cost_and_biased_for_a_square():
    torch.manual_seed(0)
    logits = torch.tensor([0.4, -0.8], dtype=torch.float64)
    p = logits.sigmoid()
    theta = logits.expand(REPLICATES, 2).clone().requires_grad_()
    estimator, dist = StraightThrough(1), Independent(Bernoulli(logits=theta), 1)
    linear = torch.autograd.grad(estimator(dist, lambda x: x @ WEIGHTS).sum(), theta, retain_graph=True)[0]
    torch.testing.assert_close(linear, (WEIGHTS * p * (1 - p)).expand_as(linear))

    # x^2 = x for a Bernoulli, so the truth is p(1-p); straight-through gives 2 x p(1-p), of mean 2 p p(1-p)
    square = torch.autograd.grad(estimator(dist, lambda x: (x**2).sum(-1)).sum(), theta)[0]
    assert_unbiased(square, 2 * p * p * (1 - p))


def test_gumbel_softmax_has_the_bias_that_quadrature_gives():
    """E over u of the relaxed gradient, by quadrature, at two temperatures; the bias falls with the temperature."""
    logit = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
    p = logit.sigmoid().detach()
    u = (torch.arange(400_000, dtype=torch.float64) + 0.5) / 400_000
    bias = []
    for temperature in (1.0, 0.3, 0.03):
        relaxed = ((logit + u.logit()) / temperature).sigmoid()
        mean = torch.autograd.grad(((relaxed - 0.45) ** 2).mean(), logit)[0]
        torch.manual_seed(0)
        theta = logit.detach().expand(REPLICATES, 1).clone().requires_grad_()
        dist = Independent(Bernoulli(logits=theta), 1)
        value = GumbelSoftmax(2, temperature)(dist, lambda x: ((x - 0.45) ** 2).sum(-1))
        assert_unbiased(torch.autograd.grad(value.sum(), theta)[0], mean[None])
        bias.append((mean - p * (1 - p) * 0.1).abs())
    assert bias[2] < min(bias[:2]) / 5


def test_gumbel_approaches_the_truth_for_a_categorical():
    """The value (not the gradient) of the hard estimator is the exact expectation at every temperature."""
    torch.manual_seed(0)
    logits = torch.tensor([0.2, -0.4, 1.0], dtype=torch.float64)
    f = torch.tensor([1.0, 5.0, -2.0], dtype=torch.float64)
    dist = OneHotCategorical(logits=logits.expand(REPLICATES, 3))
    value = GumbelSoftmax(1, 0.5, hard=True)(dist, lambda x: x @ f)
    assert_unbiased(value[:, None], (logits.softmax(0) @ f)[None])


@pytest.mark.parametrize("estimator", [Score(64), Score(64, leave_one_out), Score(64, 2.0)], ids=repr)
def test_gradients_of_both_players_are_right_to_second_order(estimator):
    """The mixed derivative between policy and cost parameters is exact, where a detached reward gives 0."""
    torch.manual_seed(0)
    logit = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    weight = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    p = logit.sigmoid()
    truth = p * weight**2  # E[(w x)^2], x ~ Bernoulli(p)
    cross = torch.autograd.grad(torch.autograd.grad(truth, logit, create_graph=True)[0], weight)[0].detach()
    second = p * (1 - p) * (1 - 2 * p) * weight**2

    replicates = 4_000
    theta = logit.detach().expand(replicates).clone().requires_grad_()
    phi = weight.detach().expand(replicates).clone().requires_grad_()
    value = estimator(Bernoulli(logits=theta), lambda x: (phi * x) ** 2)
    first = torch.autograd.grad(value.sum(), theta, create_graph=True)[0]
    mixed = torch.autograd.grad(first.sum(), phi, retain_graph=True)[0]
    assert_unbiased(mixed[:, None], cross[None])
    assert_unbiased(torch.autograd.grad(first.sum(), theta)[0][:, None], second.detach()[None])


def test_cost_parameters_get_their_gradient():
    weight = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    dist = Bernoulli(logits=torch.zeros(3, dtype=torch.float64))
    for estimator in (Score(4, leave_one_out), GumbelSoftmax(4), StraightThrough(4)):
        torch.manual_seed(0)
        draw = estimator.draw(dist)
        loss = estimator.surrogate(draw, lambda x: weight * x)
        assert loss.shape == (3,)
        grad = torch.autograd.grad(loss.sum(), weight)[0]
        torch.testing.assert_close(grad, draw.x.mean(0).sum())
        torch.testing.assert_close(loss, (weight * draw.x).mean(0))


def test_gradcheck_of_the_kernel():
    log_prob = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    c = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    surrogate = score_function(log_prob, c, 0.3)
    torch.testing.assert_close(surrogate, c)
    dlp, dc = torch.autograd.grad(surrogate.sum(), (log_prob, c))
    torch.testing.assert_close(dlp, c - 0.3)
    torch.testing.assert_close(dc, torch.ones_like(c))


def test_replicates_do_not_touch_each_other():
    torch.manual_seed(0)
    theta = torch.zeros(3, 2, dtype=torch.float64, requires_grad=True)
    value = Score(4, leave_one_out)(Independent(Binomial(TRIALS, theta), 1), cost)
    gradient = torch.autograd.grad(value[1], theta)[0]
    assert bool((gradient[[0, 2]] == 0).all()) and bool((gradient[1] != 0).any())


def test_the_cost_is_evaluated_once_on_all_samples():
    seen = []
    Score(6, leave_one_out)(Bernoulli(logits=torch.zeros(2)), lambda x: seen.append(x.shape) or x)
    assert seen == [(6, 2)]


def test_wrong_use_fails_with_a_sentence():
    binary, normal = Bernoulli(logits=torch.zeros(2)), Normal(torch.zeros(2), 1.0)
    with pytest.raises(ValueError, match="n >= 2"):
        Score(1, leave_one_out)
    with pytest.raises(ValueError, match="Bernoulli is none: use loo"):
        Path()(binary, lambda x: x)
    with pytest.raises(ValueError, match="not Normal: use path"):
        GumbelSoftmax()(normal, lambda x: x)
    with pytest.raises(ValueError, match="not Normal: use path"):
        StraightThrough()(normal, lambda x: x)
    with pytest.raises(ValueError, match="Implicit lacks: use path"):
        Score()(Implicit(torch.zeros(2, 1), 1), lambda x: x.sum(-1))
    with pytest.raises(ValueError, match=r"\(4, 2\).*got \(4, 2, 1\)"):
        Score(4)(binary, lambda x: x[..., None])
    with pytest.raises(ValueError, match="temperature"):
        GumbelSoftmax(1, 0.0)
    with pytest.raises(ValueError, match=r"log_prob \(3, 1\), cost \(3,\)"):
        score_function(torch.zeros(3, 1), torch.zeros(3))
    with pytest.raises(TypeError, match="n must be an integer"):
        Score(2.0)


def test_names_make_their_estimators():
    assert set(KINDS) == set(ESTIMATORS), "a new estimator name needs a row here"
    for name, kind in KINDS.items():
        estimator = make_estimator(name)
        assert isinstance(estimator, kind) and estimator.n == ESTIMATORS[name].samples
        assert dataclasses.is_dataclass(estimator)
    assert make_estimator("loo", n=4) == Score(4, leave_one_out)
    assert make_estimator("gumbel", temperature=0.5, n=3) == GumbelSoftmax(3, 0.5)
    assert make_estimator("score", baseline="constant", constant=0.7) == Score(1, 0.7)
    assert make_estimator("score", baseline="loo") == Score(8, leave_one_out)
    assert isinstance(make_estimator("score", baseline="moving-average").baseline, nn.Module)
    assert fitting(Normal(0.0, 1.0)) == "path" and fitting(Bernoulli(0.5)) == "loo"
    with pytest.raises(ValueError, match="did you mean 'gumbel'"):
        make_estimator("gumble")
    with pytest.raises(ValueError, match="goes with --estimator score"):
        make_estimator("path", baseline="loo")


@pytest.mark.parametrize("make", [
    lambda t: Independent(Bernoulli(logits=t), 1),
    lambda t: Bernoulli(probs=t.sigmoid()),
    lambda t: Independent(Bernoulli(logits=t), 2),
    lambda t: Independent(Normal(t, t.exp()), 1),
    lambda t: OneHotCategorical(logits=t),
])  # fmt: skip
def test_quick_draws_and_log_probabilities_are_torch_s(make):
    torch.manual_seed(0)
    theta = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    dist = make(theta)
    x = sample_of(dist, 5000)
    assert not x.requires_grad and x.shape == (5000, *dist.batch_shape, *dist.event_shape)
    assert_unbiased(x.flatten(1), dist.mean.detach().flatten())
    ours, torchs = log_prob_of(dist, x[:7]), dist.log_prob(x[:7])
    torch.testing.assert_close(ours, torchs)
    torch.testing.assert_close(*(torch.autograd.grad(v.sum(), theta, retain_graph=True) for v in (ours, torchs)))
    if isinstance(dist, OneHotCategorical):
        other = torch.distributions.OneHotCategorical(logits=theta)
        torch.testing.assert_close(ours, other.log_prob(x[:7]))
    with pytest.raises(ValueError, match="support"):
        log_prob_of(dist, x[:7] * torch.nan)
    if dist.has_rsample:
        slopes = []
        for draw in (rsample_of, lambda dist, n: dist.rsample((n,))):
            torch.manual_seed(1)
            slopes.append(torch.autograd.grad((draw(dist, 7) ** 3).sum(), theta, retain_graph=True)[0])
        torch.testing.assert_close(*slopes)


# ------------------------------------------------------------------- derivatives that are written out


def derivatives(f, leaf: Tensor, order: int) -> list[Tensor]:
    """The value of f(leaf), summed, and its derivatives along a fixed direction, up to an order."""
    found = [f(leaf).sum()]
    for k in range(1, order + 1):
        direction = torch.linspace(-1, 1, leaf.numel(), dtype=leaf.dtype).reshape(leaf.shape)
        (slope,) = torch.autograd.grad(found[-1], leaf, create_graph=k < order)
        found.append((slope * direction).sum())
    return [value.detach() for value in found]


@pytest.mark.parametrize("baseline", [0.0, 0.7, "tensor"])
def test_the_boxed_mean_has_every_derivative_of_the_surrogate(baseline):
    torch.manual_seed(0)
    leaf = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    b = torch.randn(5, 3, dtype=torch.float64) if baseline == "tensor" else baseline
    ways = [
        lambda t, mean=mean: mean(t.sin() - t**2, (2 * t).cos() + t**3)
        for mean in (lambda lp, c: score_function(lp, c, b).mean(0), lambda lp, c: boxed_mean(lp, c, b))
    ]
    torch.testing.assert_close(derivatives(ways[0], leaf, 4), derivatives(ways[1], leaf, 4), rtol=1e-10, atol=1e-10)
    rows = torch.eye(3, dtype=torch.float64)
    batched = [torch.autograd.grad(way(leaf), leaf, rows, is_grads_batched=True)[0] for way in ways]
    torch.testing.assert_close(*batched)


@pytest.mark.parametrize("make", [
    lambda t: Normal(t[..., 0], 0.7),
    lambda t: Independent(Normal(t, (t / 2).exp()), 1),
    lambda t: Independent(Bernoulli(logits=t), 1),
    lambda t: OneHotCategorical(logits=t),
    lambda t: Independent(OneHotCategorical(logits=t), 1),
])  # fmt: skip
@pytest.mark.parametrize("baseline", [0.0, 0.4, "tensor"])
def test_scores_written_out_have_every_derivative_of_the_surrogate(make, baseline):
    torch.manual_seed(0)
    leaf = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    x = make(leaf).sample((5,))
    batch = make(leaf).batch_shape
    f, b = torch.randn(5, *batch, dtype=torch.float64), baseline
    if baseline == "tensor":
        b = torch.randn(5, *batch, dtype=torch.float64)

    def ours(t: Tensor) -> Tensor:
        return boxed_score(make(t), x, f + t.mean() ** 2, b)

    def plain(t: Tensor) -> Tensor:
        return score_function(make(t).log_prob(x), f + t.mean() ** 2, b).mean(0)

    torch.testing.assert_close(derivatives(ours, leaf, 3), derivatives(plain, leaf, 3), rtol=1e-9, atol=1e-9)
    first = [torch.autograd.grad(way(leaf).sum(), leaf)[0] for way in (ours, plain)]  # without a graph: by hand
    torch.testing.assert_close(*first)


def test_outcomes_that_cannot_be_give_numbers_to_second_order():
    """Sums over few outcomes may list some of probability 0: their weight is 0, and their log-odds make no nan."""
    for estimator in (RaoBlackwell(2, 3), UnorderedSet(3)):
        t = torch.tensor([[0.0, -1.0, -torch.inf, -torch.inf]], dtype=torch.float64, requires_grad=True)
        value = estimator(OneHotCategorical(logits=t, validate_args=False), lambda x: x[..., 0] ** 2 + x[..., 1] * 3)
        (slope,) = torch.autograd.grad(value.sum(), t, create_graph=True)
        (second,) = torch.autograd.grad(slope.square().sum(), t)
        assert slope.isfinite().all() and second.isfinite().all() and slope.abs().sum() > 0


@pytest.mark.parametrize("estimator", [Score(4), Score(4, leave_one_out), Arm(2), DisArm(3)], ids=repr)
def test_derivatives_written_out_are_those_inside_torch_func(estimator):
    """``torch.func`` sees the plain operations instead."""
    logits = torch.tensor([[0.3, -1.0], [0.5, 2.0]], dtype=torch.float64)

    def loss(t: Tensor, w: Tensor) -> Tensor:
        torch.manual_seed(0)  # the same draw each time
        dist = Independent(Bernoulli(logits=t, validate_args=False), 1, validate_args=False)
        return estimator(dist, lambda x: (w * x.cumsum(-1)[..., -1] - 0.4) ** 2 + w).sum()

    w = torch.tensor(0.8, dtype=torch.float64)
    leaves = [logits.clone().requires_grad_(), w.clone().requires_grad_()]
    first = torch.autograd.grad(loss(*leaves), leaves, create_graph=True)
    torch.testing.assert_close(tuple(torch.func.grad(loss, argnums=(0, 1))(logits, w)), first)
    mixed = torch.func.grad(lambda t: torch.func.grad(loss, argnums=1)(t, w))(logits)
    torch.testing.assert_close(mixed, torch.autograd.grad(first[1], leaves[0], retain_graph=True)[0])
    hessian = torch.func.jacrev(torch.func.grad(loss))(logits, w)
    rows = [torch.autograd.grad(entry, leaves[0], retain_graph=True)[0] for entry in first[0].flatten()]
    torch.testing.assert_close(hessian.flatten(0, 1), torch.stack(rows))


@pytest.mark.parametrize("estimator", [Score(4), Arm(2), DisArm(3)], ids=repr)
def test_a_cost_made_of_the_node_is_counted_once(estimator):
    """The gradient with a graph behind it, for higher orders, is the one without."""
    theta = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(3, 4).requires_grad_()
    found = []
    for create_graph in (False, True):
        torch.manual_seed(0)
        coins = Bernoulli(logits=theta)
        value = estimator(Independent(coins, 1), lambda x, node=coins.logits: (x * node).sum(-1) ** 2)
        found.append(torch.autograd.grad(value.sum(), theta, create_graph=create_graph)[0])
    torch.testing.assert_close(*found)
