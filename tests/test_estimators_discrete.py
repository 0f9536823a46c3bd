"""Estimators of discrete variables: unbiased to second order, values, counts, refusals, known mistakes."""

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution, Independent, Normal

from advrl.distributions import Implicit, OneHotCategorical
from advrl.estimators import (
    ESTIMATORS,
    Arm,
    ControlVariate,
    DisArm,
    Enumerate,
    Estimator,
    GumbelRao,
    Learned,
    MuProp,
    RaoBlackwell,
    Rebar,
    ReinMax,
    Relax,
    UnorderedSet,
    conditional_gumbel,
    make_estimator,
    reinmax,
)
from tests.discrete_problems import (
    ALL,
    CASES,
    COIN,
    EXACT,
    F64,
    PROBLEMS,
    REPLICATES,
    UNBIASED,
    Net,
    Problem,
    Stand,
    W,
    assert_columns,
    derivatives,
    estimates,
    hessian,
)
from tests.pairs import KINDS
from tests.statistics import assert_unbiased


@pytest.mark.parametrize(("name", "problem"), CASES)
def test_unbiased_to_second_order(name, problem):
    """Value, gradient in the distribution's and the cost's parameters, and the Hessian's rows, each cell by itself."""
    torch.manual_seed(0)
    estimator, problem = copy.deepcopy(UNBIASED[name][0]), PROBLEMS[problem]
    assert estimator.unbiased and estimator.higher_order
    value, first, second = derivatives(estimator, problem, REPLICATES)
    at = problem.theta.clone().requires_grad_(), W.clone().requires_grad_()
    exact = problem.expectation(*at)
    gradient = torch.cat(torch.autograd.grad(exact, at))
    assert_columns(torch.cat([value[:, None], first], 1), torch.cat([exact.detach()[None], gradient]))
    assert_columns(second.flatten(1), hessian(problem).flatten())


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", EXACT)
def test_sums_over_all_outcomes_are_exact(name, problem):
    problem = PROBLEMS[problem]
    value, first, second = derivatives(EXACT[name], problem, 2)
    at = problem.theta.clone().requires_grad_(), W.clone().requires_grad_()
    exact = problem.expectation(*at)
    torch.testing.assert_close(value, exact.detach().expand(2))
    torch.testing.assert_close(first, torch.cat(torch.autograd.grad(exact, at)).expand_as(first))
    torch.testing.assert_close(second, hessian(problem).expand_as(second))


@pytest.mark.parametrize(
    "estimator",
    [Rebar(2), Relax(2, control=Stand()), MuProp(2), DisArm(1), Arm(1), RaoBlackwell(2), UnorderedSet(3)],
    ids=repr,
)
def test_unbiased_on_ten_coins(estimator):
    """1,024 outcomes: what one or two variables forgive (a sum over the wrong dimension) shows in ten."""
    torch.manual_seed(0)
    theta = torch.linspace(-1.5, 1.2, 10, dtype=F64)
    problem = Problem(theta, lambda t: Independent(Bernoulli(logits=t), 1), COIN, 10)
    net, outcomes = Net(10), (torch.arange(1024)[:, None] >> torch.arange(10) & 1).to(F64)
    at = theta.clone().requires_grad_()
    exact = (problem.make(at).log_prob(outcomes).exp() * net(outcomes)).sum()
    copies = theta.expand(2_000, -1).clone().requires_grad_()
    value = copy.deepcopy(estimator)(problem.make(copies), net)
    gradient = torch.autograd.grad(value.sum(), copies)[0]
    assert_unbiased(gradient, torch.autograd.grad(exact, at)[0])
    assert_unbiased(value.detach()[:, None], exact.detach()[None])


@pytest.mark.parametrize("name", [n for n in ALL if not n.startswith(("enumerate", "rao", "unordered"))])
def test_the_value_is_the_mean_cost_of_the_draw_and_so_is_its_gradient_in_the_cost_s_parameters(name):
    torch.manual_seed(0)
    estimator, problem = copy.deepcopy(ALL[name][0]), PROBLEMS[ALL[name][1][0]]
    draw = estimator.draw(problem.make(problem.theta.expand(3, -1)))
    w = W.expand(3, 2).clone().requires_grad_()
    value, mean = estimator.surrogate(draw, lambda x: problem.cost(x, w)), problem.cost(draw.x, w).mean(0)
    torch.testing.assert_close(value, mean)
    torch.testing.assert_close(*(torch.autograd.grad(v.sum(), w)[0] for v in (value, mean)))


@pytest.mark.parametrize("name", ALL)
def test_what_the_discriminator_sees_is_a_draw_of_the_policy(name):
    """x[0] has the distribution's mean, also where the cost sees something else."""
    torch.manual_seed(0)
    estimator, problems = ALL[name]
    problem = PROBLEMS[problems[0]]
    x = copy.deepcopy(estimator).draw(problem.make(problem.theta.expand(REPLICATES, -1))).x.detach()
    assert x.shape[1:] == (REPLICATES, *problem.make(problem.theta).event_shape)
    assert_unbiased(x[0], problem.make(problem.theta).mean)


@pytest.mark.parametrize("name", ALL)
def test_entries_of_the_batch_do_not_touch_each_other(name):
    torch.manual_seed(0)
    estimator, problems = ALL[name]
    for problem in (PROBLEMS[p] for p in problems):
        theta = problem.theta.expand(2, 3, -1).clone().requires_grad_()
        value = copy.deepcopy(estimator)(problem.make(theta), lambda x, p=problem: p.cost(x, W))
        assert value.shape == (2, 3)
        gradient = torch.autograd.grad(value[1, 1], theta)[0]
        here = torch.zeros(2, 3, dtype=torch.bool)
        here[1, 1] = True
        assert bool((gradient[~here] == 0).all()), name
        alone = copy.deepcopy(estimator)(problem.make(problem.theta), lambda x, p=problem: p.cost(x, W))
        assert alone.shape == ()


@pytest.mark.parametrize("name", ALL)
def test_evaluations_are_counted_right(name):
    estimator, problems = ALL[name]
    for problem in (PROBLEMS[p] for p in problems):
        shapes = []
        dist = problem.make(problem.theta.expand(3, -1))

        def cost(x: Tensor, problem=problem, shapes=shapes) -> Tensor:
            shapes.append(x.shape)
            return problem.cost(x, W)

        own = copy.deepcopy(estimator)
        own(dist, cost)
        assert sum(s[0] for s in shapes) == own.evaluations_of(dist)
        if type(own).evaluations_of is Estimator.evaluations_of:
            assert own.evaluations == own.evaluations_of(dist)
        assert len(shapes) <= 1 + isinstance(own, (MuProp, Rebar))
        assert all(s[1:] == (3, *dist.event_shape) for s in shapes)


@dataclass(frozen=True)
class Naive(UnorderedSet):
    """Samples without replacement whose ratios are left out."""

    def draw(self, distribution: Distribution):
        draw = super().draw(distribution)
        n = len(draw.x)
        return type(draw)(
            draw.x,
            draw.distribution,
            draw.log_prob,
            torch.full_like(draw.ratio, 1 / n) / draw.log_prob.detach().exp(),
            draw.pairs,
        )


@dataclass(frozen=True)
class Loose(Rebar):
    """REBAR whose relaxed sample forgets the hard one."""

    def relaxed(self, draw):
        return draw.parts.relax(torch.cat([draw.z, draw.z]), self.temperature)


@dataclass(frozen=True)
class Faint(DisArm):
    """DisARM with a factor that should be sigma(|l|)."""

    def weigh(self, logits: Tensor, u: Tensor, difference: Tensor) -> Tensor:
        return difference * logits.sigmoid() / 2


@pytest.mark.parametrize(
    ("estimator", "problem"), [(Naive(3), "one-hot"), (Loose(1), "bernoulli"), (Faint(1), "bernoulli")], ids=repr
)
def test_known_mistakes_are_caught(estimator, problem):
    torch.manual_seed(0)
    problem = PROBLEMS[problem]
    value, theta, _ = estimates(estimator, problem, REPLICATES)
    at = problem.theta.clone().requires_grad_()
    exact = torch.autograd.grad(problem.expectation(at, W), at)[0]
    with pytest.raises(AssertionError, match="biased"):
        assert_unbiased(torch.autograd.grad(value.sum(), theta)[0], exact)


def test_validation_stays_as_it_is_and_is_not_waited_for(monkeypatch):
    """No estimator turns validation off for others, nor lets torch validate what it drew itself."""
    before = Distribution._validate_args
    problems = [PROBLEMS[p].make(PROBLEMS[p].theta) for p in ("bernoulli", "one-hots")]
    assert all(d._validate_args for d in problems)

    def refuse(*_):
        raise AssertionError("validated")

    monkeypatch.setattr(Distribution, "_validate_sample", refuse)
    for name in OURS:
        for dist in problems[: 1 if name in ("arm", "disarm") else 2]:
            make_estimator(name)(dist, lambda x, d=dist: x.flatten(-len(d.event_shape)).sum(-1))
    assert Distribution._validate_args == before


OURS = ["st-gumbel", "gumbel-rao", "reinmax", "rebar", "relax", "muprop", "arm", "disarm", "enumerate", "rao-blackwell",
        "unordered-set"]  # fmt: skip


@pytest.mark.parametrize("name", OURS)
def test_names_and_refusals(name):
    assert name in ESTIMATORS
    estimator = make_estimator(name, temperature=0.3)
    assert type(estimator) is KINDS[name] and estimator.n == ESTIMATORS[name].samples
    assert getattr(estimator, "temperature", 0.3) == 0.3
    if name == "unordered-set":
        estimator = make_estimator(name, n=2)
    for dist in (Normal(torch.zeros(2), 1.0), Implicit(torch.zeros(2, 1))):
        with pytest.raises(ValueError, match="use path"):
            estimator.check(dist)
        with pytest.raises(ValueError, match="use path"):
            estimator.draw(dist)
    with pytest.raises(ValueError, match=r"\(\d+, 2\).*got \(\d+, 2, 1\)"):
        estimator(Bernoulli(logits=torch.zeros(2)), lambda x: x.unsqueeze(-1))


def test_wrong_use_fails_with_a_sentence():
    die, index = OneHotCategorical(logits=torch.zeros(3)), Categorical(logits=torch.zeros(3))
    many = Independent(Bernoulli(logits=torch.zeros(64)), 1)
    for pairs in (Arm(), DisArm()):
        with pytest.raises(ValueError, match="treats Bernoulli and Binomial variables, not OneHotCategorical: use loo"):
            pairs.check(die)
    for relaxing in (Rebar(), Relax(), GumbelRao(), ReinMax(), MuProp()):
        with pytest.raises(ValueError, match="not Categorical: use loo, or a OneHotCategorical"):
            relaxing.check(index)
        relaxing.check(many)
    for listing in (Enumerate(), RaoBlackwell(), UnorderedSet(2)):
        with pytest.raises(ValueError, match=r"64 variables of 2 values have 2\^64, above its limit of 4,096: use loo"):
            listing.check(many)
        listing.check(index)
    with pytest.raises(ValueError, match=r"3\^1, above its limit of 2"):
        Enumerate(limit=2).check(die)
    for kind in (Rebar, Relax, GumbelRao, ReinMax):
        with pytest.raises(ValueError, match="temperature must be finite and above 0, got 0"):
            kind(1, 0.0)
    with pytest.raises(ValueError, match="temperature"):
        reinmax(torch.zeros(3), -1.0)
    with pytest.raises(ValueError, match=r"like the logits, got \(3, 1\)"):
        reinmax(torch.zeros(3), hard=torch.zeros(3, 1))
    with pytest.raises(ValueError, match=r"like the logits, got hard \(3,\)"):
        conditional_gumbel(torch.zeros(3), torch.zeros(3))
    with pytest.raises(ValueError, match="n = 2 to 10 samples, got n=1"):
        UnorderedSet(1)
    with pytest.raises(ValueError, match="n=4 samples needs as many outcomes, got 3: use enumerate"):
        UnorderedSet(4).check(die)
    with pytest.raises(ValueError, match="k must be at least 1"):
        RaoBlackwell(1, k=0)
    with pytest.raises(ValueError, match="value must be finite and above 0"):
        Learned(0.0)
    with pytest.raises(ValueError, match=r"cost \(2, 3\), control \(2, 1\)"):
        Relax(2, control=Odd())(Bernoulli(logits=torch.zeros(3)), lambda x: x)
    mixed = torch.distributions.Binomial(torch.tensor([2.0, 3.0]), logits=torch.zeros(2))
    with pytest.raises(ValueError, match="one total_count"):
        Rebar().check(mixed)


class Odd(ControlVariate):
    """Of a wrong shape."""

    def forward(self, x: Tensor, event_dim: int) -> Tensor:
        return x[..., :1]


@pytest.mark.parametrize("name", ALL)
def test_a_cost_that_is_not_finite_is_named(name):
    estimator, problem = copy.deepcopy(ALL[name][0]), PROBLEMS[ALL[name][1][0]]

    def cost(x: Tensor) -> Tensor:
        return torch.where(torch.arange(3) == 1, torch.nan, problem.cost(x, W))

    with pytest.raises(ValueError, match=r"cost must be finite, but entry \(0, 1\) is nan"):
        estimator(problem.make(problem.theta.expand(3, -1)), cost)


def test_a_trainer_s_surrogate_does_not_look_at_the_values():
    def cost(x: Tensor) -> Tensor:
        return torch.where(torch.arange(3) == 1, torch.nan, x)

    estimator = DisArm(2)
    draw = estimator.draw(Bernoulli(logits=torch.zeros(3)))
    assert bool(torch.isnan(estimator.surrogate(draw, cost)[1]))  # looking would make every step wait for the device
    with torch.autograd.set_detect_anomaly(True), pytest.raises(ValueError, match=r"entry \(0, 1\) is nan \(4 entr"):
        estimator.surrogate(draw, cost)
