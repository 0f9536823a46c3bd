"""Estimators of continuous families, and those for any: the nine tests of each, by quadrature and enumeration."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import (
    Bernoulli,
    Beta,
    Distribution,
    Gamma,
    Independent,
    Laplace,
    MultivariateNormal,
    Normal,
    Poisson,
    Uniform,
)

from advrl.agents import AdversarialTrainer
from advrl.distributions import Implicit, OneHotCategorical, VonMises
from advrl.estimators import (
    Antithetic,
    AntitheticScore,
    ControlVariate,
    Critic,
    EvolutionStrategy,
    Importance,
    Lax,
    Measure,
    Path,
    Score,
    StickingTheLanding,
    Taylor,
    VarianceNormalised,
    fit_loss,
    grpo,
    leave_one_out,
    make_estimator,
    optimal_baseline,
    reflect,
)
from advrl.nn import FAMILIES as FAMILIES_OF_POLICIES
from advrl.nn import MLP, Policy
from tests.continuous_problems import (
    CASES,
    F64,
    FAMILIES,
    UNBIASED,
    Family,
    Slope,
    W,
    cost,
    estimates,
    normal,
    one_hot,
    tensor,
    wider,
)
from tests.statistics import assert_unbiased


@pytest.mark.parametrize(("name", "family"), CASES)
def test_unbiased(name, family):
    """Value, gradient in the distribution's and in the cost's parameters, each cell by itself."""
    torch.manual_seed(0)
    estimator, family = copy.deepcopy(UNBIASED[name][0]), FAMILIES[family]
    assert estimator.unbiased
    value, theta, w = estimates(estimator, family, 20_000)
    draws = torch.cat([value.detach()[:, None], *torch.autograd.grad(value.sum(), (theta, w))], 1)
    at = family.theta.clone().requires_grad_(), W.clone().requires_grad_()
    exact = family.expectation(*at)
    assert_unbiased(draws, torch.cat([exact.detach()[None], *torch.autograd.grad(exact, at)]))


def hessian(family: Family) -> Tensor:
    """Second derivatives in (theta, w), without those in w alone, which are 0."""
    k = len(family.theta)
    full = torch.autograd.functional.hessian(
        lambda both: family.expectation(both[:k], both[k:]), torch.cat([family.theta, W])
    )
    return full[:k]


@pytest.mark.parametrize(("name", "family"), CASES)
def test_second_and_mixed_derivatives(name, family):
    """Against the exact Hessian; an estimator that says that it cannot still has the mixed part right."""
    torch.manual_seed(0)
    estimator, family = copy.deepcopy(UNBIASED[name][0]), FAMILIES[family]
    value, theta, w = estimates(estimator, family, 20_000)
    first = torch.autograd.grad(value.sum(), theta, create_graph=True)[0]
    rows = []
    for k in range(first.shape[1]):
        parts = torch.autograd.grad(first[:, k].sum(), (theta, w), retain_graph=True, materialize_grads=True)
        rows.append(torch.cat(parts, 1))
    draws, exact, k = torch.stack(rows, 1), hessian(family), first.shape[1]
    if not estimator.higher_order:
        draws, exact = draws[..., k:], exact[:, k:]
    assert_unbiased(draws.flatten(1), exact.flatten())


def test_measure_is_right_to_say_that_it_has_no_second_derivatives():
    torch.manual_seed(0)
    family = FAMILIES["normal"]
    value, theta, _ = estimates(Measure(1), family, 2_000)
    first = torch.autograd.grad(value.sum(), theta, create_graph=True)[0]
    second = torch.autograd.grad(first[:, 0].sum(), theta)[0]
    with pytest.raises(AssertionError, match="biased"):
        assert_unbiased(second[:, :1] + 1e-9 * torch.randn(2_000, 1, dtype=F64), hessian(family)[:1, 0])


EVERY = {
    **{name: estimator for name, (estimator, _) in UNBIASED.items()},
    "sticking the landing": StickingTheLanding(2),
    "es": EvolutionStrategy(3),
    "grpo": Score(3, advantage=grpo),
    "nvil": Score(3, advantage=VarianceNormalised(Critic())),
    "importance, self-normalised": Importance(3, wider, normalised=True),
}


@pytest.mark.parametrize("name", EVERY)
def test_replicates_do_not_touch_each_other(name):
    torch.manual_seed(0)
    value, theta, w = estimates(copy.deepcopy(EVERY[name]), FAMILIES["normal"], 3)
    for leaf in (theta, w):
        gradient = torch.autograd.grad(value[1], leaf, retain_graph=True)[0]
        assert bool((gradient[[0, 2]] == 0).all()) and bool((gradient[1] != 0).any())


@pytest.mark.parametrize("name", EVERY)
def test_the_cost_is_evaluated_as_often_as_declared(name):
    torch.manual_seed(0)
    seen, estimator = [], copy.deepcopy(EVERY[name])
    theta = FAMILIES["normal"].theta.expand(5, 4).clone().requires_grad_()
    distribution = normal(theta)
    estimator(distribution, lambda x: seen.append(x.shape) or cost(x, W))
    assert len(seen) == 1 and seen[0] == (estimator.evaluations_of(distribution), 5, 2)


def test_evaluations_are_counted_by_hand():
    gaussian, fixed = normal(FAMILIES["normal"].theta.clone().requires_grad_()), Normal(W.clone().requires_grad_(), 1.0)
    assert Measure(3).evaluations_of(gaussian) == 3 * (1 + 4 * 2)
    assert Measure(3).evaluations_of(Independent(fixed, 1)) == 3 * (1 + 2 * 2)
    assert Measure(1).evaluations_of(one_hot(FAMILIES["one-hot"].theta)) == 1 + 3 * 2
    assert Taylor(3).evaluations_of(gaussian) == 5 and Taylor(3, order=1).evaluations_of(gaussian) == 4
    assert Antithetic(3).evaluations == EvolutionStrategy(3).evaluations == AntitheticScore(3).evaluations == 6
    assert Lax(3).evaluations == StickingTheLanding(3).evaluations == 3


@pytest.mark.parametrize("name", EVERY)
def test_the_value_is_the_mean_cost(name):
    """Of the samples that the draw shows, weighted where they are, with log q where that is part of it."""
    torch.manual_seed(0)
    estimator = copy.deepcopy(EVERY[name])
    theta = FAMILIES["normal"].theta.expand(5, 4).clone().requires_grad_()
    distribution = normal(theta)
    draw = estimator.draw(distribution)
    value = estimator.surrogate(draw, lambda x: cost(x, W))
    expected = cost(draw.x, W)
    if isinstance(estimator, Importance):
        weight = (distribution.log_prob(draw.x) - wider(distribution).log_prob(draw.x)).exp()
        expected = weight * expected * (len(weight) / weight.sum(0) if estimator.normalised else 1)
    if isinstance(estimator, StickingTheLanding):
        expected = expected + distribution.log_prob(draw.x)
    torch.testing.assert_close(value, expected.mean(0))


@pytest.mark.parametrize(
    "estimator", [Path(2), Antithetic(2), Importance(3, wider), Importance(3, wider, normalised=True)], ids=repr
)
def test_finite_differences_at_fixed_noise(estimator):
    """Where the draw or its weights follow the parameters, the gradient is the value's own."""
    family = FAMILIES["normal"]

    def value(theta: Tensor) -> Tensor:
        torch.manual_seed(0)
        if isinstance(estimator, Importance):  # its samples are the behaviour's, which stays
            fixed = Importance(3, wider(normal(family.theta)), normalised=estimator.normalised)
            return fixed(normal(theta), lambda x: cost(x, W))
        return estimator(normal(theta), lambda x: cost(x, W))

    assert torch.autograd.gradcheck(value, family.theta.clone().requires_grad_())


def test_the_score_of_every_sample():
    """The optimal baseline's part of the gradient, coordinate by coordinate, against a loop over the others."""
    torch.manual_seed(0)
    c, s = torch.randn(4, 3, dtype=F64), torch.randn(4, 3, 2, dtype=F64)
    b = optimal_baseline(c, s)
    for i in range(4):
        others = [j for j in range(4) if j != i]
        above = sum(c[j, :, None] * s[j] ** 2 for j in others)
        torch.testing.assert_close(b[i], above / sum(s[j] ** 2 for j in others))
    torch.testing.assert_close(optimal_baseline(c, torch.zeros_like(s))[..., 0], leave_one_out(c))
    mvn_loc = torch.zeros(5, 2, dtype=F64, requires_grad=True)
    value = Score(4, optimal_baseline)(MultivariateNormal(mvn_loc, torch.eye(2, dtype=F64)), lambda x: cost(x, W))
    assert torch.autograd.grad(value.sum(), mvn_loc)[0].isfinite().all()


def test_a_critic_learns_its_context():
    """V(z) comes near E[c | z], the gradient's variance falls; in evaluation mode nothing is left to minimise."""
    torch.manual_seed(0)
    critic = Critic(hidden=16).double()
    optimiser = None
    for _ in range(400):
        z = torch.rand(64, 1, dtype=F64) * 4 - 2
        estimator = Score(1, critic.at(z))
        estimator(Normal(z[:, 0], torch.full((64,), 0.5, dtype=F64)), lambda x: x**2)
        loss = fit_loss(estimator)
        optimiser = optimiser or torch.optim.Adam(critic.parameters(), 0.02)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    z = tensor(-1.5, 0.0, 1.0)[:, None]
    learned = critic.eval()(torch.zeros(1, 3, dtype=F64), z)
    assert (learned - (z[:, 0] ** 2 + 0.25)).abs().max() < 0.5
    assert critic.fit_loss is None
    same = Score(1, critic)
    assert same.baseline_of(same.draw(Normal(z[:, 0], 0.5)), torch.zeros(1, 3, dtype=F64)).shape == (3,)


def test_a_control_variate_learns_to_take_the_variance_away():
    torch.manual_seed(0)
    lax = Lax(4, ControlVariate(hidden=16))
    theta = torch.full((256,), 2.0, requires_grad=True)
    lax.check(Normal(theta, torch.ones_like(theta)))
    optimiser, spread = torch.optim.Adam(lax.control.parameters(), 0.02), []
    for step in range(301):
        value = lax(Normal(theta, torch.ones_like(theta)), lambda x: x.detach() ** 2)  # a black box
        loss = fit_loss(lax)
        if step % 300 == 0:
            spread.append(torch.autograd.grad(value.sum(), theta, retain_graph=True)[0].var())
        optimiser.zero_grad()
        loss.backward(inputs=list(lax.control.parameters()))
        optimiser.step()
    assert spread[1] < spread[0] / 4
    lax.control.eval()
    lax(Normal(theta, torch.ones_like(theta)), lambda x: x**2)
    assert fit_loss(lax) is None


def test_variance_normalisation_divides_by_the_past():
    torch.manual_seed(0)
    rule = VarianceNormalised(Critic(Slope()), decay=0.5)
    estimator = Score(2, advantage=rule)
    theta = torch.full((20_000,), 2.0, dtype=F64, requires_grad=True)
    dist = Normal(theta, torch.ones_like(theta))
    before = rule.variance.item()
    g = torch.autograd.grad(estimator(dist, lambda x: x**2).sum(), theta)[0]
    assert before == 1.0 and rule.variance > 1.0
    assert_unbiased(g[:, None], tensor(4.0))
    scale = rule.variance.sqrt().item()
    g = torch.autograd.grad(estimator(dist, lambda x: x**2).sum(), theta)[0]
    assert_unbiased(g[:, None], tensor(4.0 / scale))
    assert set(rule.state_dict()) == {"variance"} and fit_loss(estimator) is not None
    frozen = rule.eval().variance.clone()
    estimator(dist, lambda x: x**2)
    assert torch.equal(rule.variance, frozen)


@pytest.mark.parametrize(
    "distribution",
    [
        Normal(W, 2.0),
        Laplace(W, 2.0),
        Uniform(W - 2, W + 3),
        VonMises(W, W + 1),
        MultivariateNormal(W, torch.eye(2, dtype=F64)),
        Independent(Normal(W, 2.0), 1),
    ],
    ids=repr,
)
def test_a_mirror_image_is_as_likely(distribution):
    x = distribution.sample((4,))
    image = reflect(distribution, x)
    torch.testing.assert_close(distribution.log_prob(image), distribution.log_prob(x))
    torch.testing.assert_close(reflect(distribution, image), x)


def test_wrong_use_fails_with_a_sentence():
    binary, gaussian = Bernoulli(logits=torch.zeros(2)), Normal(torch.zeros(2), 1.0)
    wide = Normal(W.clone().requires_grad_(), 1.0)
    many = Independent(OneHotCategorical(logits=torch.zeros(64, 17)), 1)
    wrong = {
        "mirror images need a symmetric one": (lambda: Antithetic().draw(binary), "not Bernoulli: use loo"),
        "of a skewed one": (lambda: Antithetic().draw(Gamma(torch.ones(2), 1.0)), "not Gamma: use path"),
        "reflect": (lambda: reflect(binary, torch.zeros(2)), "symmetric"),
        "lax needs rsample": (lambda: Lax().draw(binary), "Bernoulli is none: use loo"),
        "stl needs rsample": (lambda: StickingTheLanding().draw(binary), "Bernoulli is none: use loo"),
        "stl needs a density": (lambda: StickingTheLanding().draw(Implicit(torch.zeros(2, 1))), "lacks: use path"),
        "no weak derivative": (lambda: Measure().draw(Beta(torch.ones(2), 1.0)), "Beta variables: use path"),
        "too many categories": (lambda: Measure().draw(many), "1,088 times.*above its limit of 256: use loo"),
        "too many dimensions": (lambda: Taylor().draw(many), "1,088 second derivatives.*use loo"),
        "es": (lambda: EvolutionStrategy().draw(Poisson(torch.ones(2))), "not of Poisson: use loo"),
        "es's step": (lambda: EvolutionStrategy(1, 0.0), "scale must be finite and above 0"),
        "order": (lambda: Taylor(order=3), "order must be 1 or 2, got 3"),
        "one sample": (lambda: Score(1, optimal_baseline), "n >= 2"),
        "one sample of grpo": (lambda: Score(1, advantage=grpo)(gaussian, lambda x: x), "n >= 2 samples"),
        "both": (lambda: Score(2, 1.0, grpo), "give one of them"),
        "an advantage of another shape": (
            lambda: Score(2, advantage=lambda c, x: c.mean(0))(gaussian, lambda x: x),
            r"cost \(2, 2\), advantage \(2,\)",
        ),
        "one weight": (lambda: Importance(1, gaussian, normalised=True), "n >= 2"),
        "two baselines": (lambda: Importance(2, gaussian, 1.0, normalised=True), "own baseline"),
        "another behaviour": (lambda: Importance(2, Normal(0.0, 1.0)).draw(gaussian), r"batch shape \(2,\)"),
        "a critic of another shape": (
            lambda: Score(2, Critic(nn.Linear(1, 3)))(gaussian, lambda x: x),
            r"critic \(2, 3\), cost_per_context \(2,\)",
        ),
        "a cost of another shape": (lambda: Measure()(wide, torch.sum), r"shape \(3, 2\) to one.*got \(\)"),
    }  # fmt: skip
    for call, words in wrong.values():
        with pytest.raises(ValueError, match=words):
            call()
    with pytest.raises(TypeError, match="behaviour must be a distribution"):
        Importance(2)


def test_argument_validation_is_left_as_it_is():
    before = Distribution._validate_args
    for estimator, families in UNBIASED.values():
        estimates(copy.deepcopy(estimator), FAMILIES[families[0]], 2)
    assert Distribution._validate_args is before


@pytest.mark.parametrize("name", ["nvil", "lax"])
def test_what_is_learned_survives_a_resume(name):
    """Four steps at once, and two, saved, loaded into fresh networks, and two more: the same weights, bit for bit."""

    def trainer() -> AdversarialTrainer:
        torch.manual_seed(0)
        family = FAMILIES_OF_POLICIES["gaussian"]
        return AdversarialTrainer(
            Policy(MLP(3, (2, 4, 4), (8,)), family, 3), MLP((1, 4, 4), (), (8,)), estimator=make_estimator(name)
        )

    real, z = torch.rand(4, 5, 1, 4, 4), torch.randn(4, 5, 3)

    def train(of: AdversarialTrainer, steps: range) -> AdversarialTrainer:
        for step in steps:
            torch.manual_seed(step)
            of.step(real[step], z[step])
        return of

    through = train(trainer(), range(4))
    half = train(trainer(), range(2))
    resumed = trainer()
    resumed.load_state_dict(half.state_dict())
    learned = train(resumed, range(2, 4)).state_dict()
    part = next(name for name in learned if name.startswith("estimator."))
    for other in (part, "generator"):
        assert all(torch.equal(a, learned[other][key]) for key, a in through.state_dict()[other].items())
    assert any(
        bool((a != b).any()) for a, b in zip(learned[part].values(), trainer().state_dict()[part].values(), strict=True)
    )
