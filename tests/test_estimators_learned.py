"""Variances on a toy with closed forms, and what learned parts make of them."""

import copy
import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Independent

from advrl.agents import AdversarialTrainer, fit
from advrl.distributions import OneHotCategorical, relaxed_rsample
from advrl.estimators import (
    Arm,
    ControlVariate,
    DisArm,
    Draw,
    Enumerate,
    Estimator,
    GumbelSoftmax,
    Learned,
    MuProp,
    RaoBlackwell,
    Rebar,
    Relax,
    Score,
    StraightThrough,
    UnorderedSet,
    fit_loss,
    leave_one_out,
    make_estimator,
    modules_of,
)
from advrl.nn import FAMILIES as POLICIES
from advrl.nn import MLP, Policy
from advrl.seeding import rng_state, seed_everything
from tests.discrete_problems import (
    F64,
    PROBLEMS,
    REPLICATES,
    W,
    estimates,
    tensor,
)
from tests.statistics import assert_unbiased


def toy(estimator: Estimator, p: float, t: float, replicates: int = 40_000) -> Tensor:
    """Gradients (replicates, 1) of E[(b - t)^2], b ~ Bernoulli(p), in the logit. Tucker et al. (2017), section 5.1."""
    theta = torch.full((replicates,), p, dtype=F64).logit().requires_grad_()
    value = estimator(Bernoulli(logits=theta), lambda b: (b - t) ** 2)
    return torch.autograd.grad(value.sum(), theta)[0][:, None]


@dataclass(frozen=True)
class Toy:
    """Closed forms of the toy's variances."""

    p: float
    t: float

    def variances(self) -> dict[str, tuple[Estimator, float]]:
        p, q, a, b = self.p, 1 - self.p, (1 - self.t) ** 2, self.t**2
        m, d2 = min(p, q), (a - b) ** 2
        return {
            "score": (Score(1), p * q * (q * a + p * b) ** 2),
            "score, optimal": (Score(1, q * a + p * b), 0.0),
            "leave-one-out, 2": (Score(2, leave_one_out), d2 * p * q * (1 - 2 * p * q) / 2),
            "disarm": (DisArm(1), d2 * p * q * (max(p, q) / 2 - p * q)),
            "arm": (Arm(1), d2 * ((1 - (1 - 2 * m) ** 3) / 12 - m**2 * (1 - m) ** 2)),
            "relax, untrained": (Relax(1), p * q * (q * a + p * b) ** 2),
            "rebar, eta 0": (Rebar(1, eta=0.0), p * q * (q * a + p * b) ** 2),
            "muprop": (MuProp(1), p * q * (p**3 + q**3) ** 2),
            "enumerate": (Enumerate(), 0.0),
            "rao-blackwell": (RaoBlackwell(1, k=1), 0.0),
            "unordered set": (UnorderedSet(2), 0.0),
        }


TOYS = [Toy(0.5, 0.45), Toy(0.3, 0.45), Toy(0.7, 0.499)]


@pytest.mark.parametrize("name", TOYS[0].variances())
@pytest.mark.parametrize("toy_", TOYS, ids=repr)
def test_variance_on_tucker_s_toy(toy_, name):
    torch.manual_seed(0)
    estimator, variance = toy_.variances()[name]
    truth = toy_.p * (1 - toy_.p) * (1 - 2 * toy_.t)
    g = toy(estimator, toy_.p, toy_.t)
    if variance < 1e-20:
        torch.testing.assert_close(g, torch.full_like(g, truth))
        return
    assert_unbiased(g, tensor(truth))
    squares = (g - truth) ** 2  # the mean of these is the variance; their own spread bounds the error
    if squares.std() < 1e-12:  # the score at p = 1/2 takes two values as far from the mean
        torch.testing.assert_close(squares, torch.full_like(squares, variance))
    else:
        assert_unbiased(squares, tensor(variance))


def test_an_unordered_set_has_less_variance_than_as_many_independent_samples():
    problem = PROBLEMS["one-hot"]
    variances = []
    for estimator in (UnorderedSet(3), Score(3, leave_one_out)):
        torch.manual_seed(0)
        value, theta, _ = estimates(estimator, problem, REPLICATES)
        variances.append(torch.autograd.grad(value.sum(), theta)[0].var(0).sum())
    assert variances[0] < variances[1] / 2


def variance(estimator: Estimator) -> tuple[float, float]:
    """Of one estimate on the toy at p = 0.3, with its standard error."""
    for module in modules_of(estimator).values():
        module.eval()
    torch.manual_seed(1)
    squares = (toy(estimator, 0.3, 0.45) - 0.3 * 0.7 * 0.1) ** 2
    for module in modules_of(estimator).values():
        module.train()
    return squares.mean().item(), squares.std().item() / math.sqrt(len(squares))


@pytest.mark.parametrize(
    "estimator",
    [
        Relax(1, control=ControlVariate(hidden=16)),
        Relax(1, Learned(0.5), control=ControlVariate(hidden=16)),
        Rebar(1, Learned(3.0), Learned(0.2)),
        Rebar(1, 0.5, Learned(1.8)),
    ],
    ids=["relax", "relax, temperature", "rebar", "rebar, eta"],
)
def test_learning_reduces_the_variance_and_leaves_the_expectation(estimator):
    torch.manual_seed(0)
    estimator = copy.deepcopy(estimator)
    estimator.check(Bernoulli(logits=torch.zeros(1, dtype=F64)))
    before, _ = variance(estimator)
    learned = [p for module in modules_of(estimator).values() for p in module.parameters()]
    optimiser = torch.optim.Adam(learned, 0.03)
    for _ in range(150):
        theta = torch.full((128,), 0.3, dtype=F64).logit().requires_grad_()
        estimator(Bernoulli(logits=theta), lambda b: (b - 0.45) ** 2)
        loss = fit_loss(estimator)
        optimiser.zero_grad()
        loss.backward(inputs=learned)
        optimiser.step()
    after, error = variance(estimator)
    assert after + 6 * error < before / 2
    torch.manual_seed(2)
    for module in modules_of(estimator).values():
        module.eval()
    assert_unbiased(toy(estimator, 0.3, 0.45), tensor(0.3 * 0.7 * 0.1))
    assert fit_loss(estimator) is None, "after eval() there is nothing to fit"


@pytest.mark.parametrize("problem", ["bernoulli", "binomial", "one-hots"])
@pytest.mark.parametrize("kind", ["rebar", "relax"])
def test_the_fit_loss_is_the_squared_gradient(kind, problem):
    torch.manual_seed(0)
    problem = PROBLEMS[problem]
    estimator: Estimator = Rebar(2, Learned(0.6), Learned(0.8)) if kind == "rebar" else Relax(2)
    theta = problem.theta.expand(3, -1).clone().requires_grad_()
    dist = problem.make(theta)
    value = estimator(dist, lambda x: problem.cost(x, W))
    gradient = torch.autograd.grad(value.sum(), theta, retain_graph=True)[0]
    loss = fit_loss(estimator)
    torch.testing.assert_close(loss, gradient.square().sum() / 3)
    learned = [p for module in modules_of(estimator).values() for p in module.parameters()]
    assert all(p is not None for p in torch.autograd.grad(loss, learned, allow_unused=kind == "relax"))


def test_learned_state_survives_a_round_trip():
    torch.manual_seed(0)
    dist = Independent(Bernoulli(logits=torch.zeros(5, 3)), 1)
    first, second = Relax(2, Learned(0.4)), Relax(2, Learned(2.0))
    for estimator in (first, second):
        estimator.check(dist)
    for p in first.control.parameters():
        nn.init.normal_(p)
    for name, module in modules_of(first).items():
        modules_of(second)[name].load_state_dict(module.state_dict())
    values = []
    for estimator in (first, second):
        torch.manual_seed(1)
        theta = torch.zeros(5, 3, requires_grad=True)
        value = estimator(Independent(Bernoulli(logits=theta), 1), lambda x: x.prod(-1))
        values.append(torch.autograd.grad(value.sum(), theta)[0])
    assert torch.equal(*values)


def make_trainer(seed: int) -> AdversarialTrainer:
    seed_everything(seed)
    policy = Policy(MLP(4, (1, 3, 3), (8,)), POLICIES["binomial"], 4)
    return AdversarialTrainer(
        policy, MLP((1, 3, 3), (), (8,)), estimator=Relax(2, Learned(0.5), control=ControlVariate(hidden=4))
    )


def test_a_run_with_relax_resumes_bit_for_bit(tmp_path):
    data = (torch.arange(90).view(10, 1, 3, 3) % 17).float() / 8 - 1
    options = {"progress": False, "batch_size": 8, "checkpoint_every": 20}
    straight = make_trainer(0)
    start = copy.deepcopy(straight.state_dict()["estimator.control"])
    fit(straight, data, 40, out=tmp_path / "a", **options)
    after = rng_state()["torch"]
    fit(make_trainer(0), data, 20, out=tmp_path / "b", **options)
    resumed = make_trainer(123)
    torch.randn(17)
    fit(resumed, data, 40, out=tmp_path / "b", resume=True, **options)
    for part in ("generator", "estimator.control", "estimator.temperature"):
        one, other = straight.state_dict()[part], resumed.state_dict()[part]
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert not all(torch.equal(start[key], straight.state_dict()["estimator.control"][key]) for key in start)
    assert torch.equal(after, rng_state()["torch"])


def test_straight_through_gumbel_sees_hard_samples():
    estimator = make_estimator("st-gumbel", temperature=0.4)
    assert estimator == GumbelSoftmax(1, 0.4, hard=True)
    torch.manual_seed(0)
    draw = estimator.draw(OneHotCategorical(logits=torch.zeros(100, 3)))
    torch.manual_seed(0)
    assert torch.equal(draw.x, relaxed_rsample(OneHotCategorical(logits=torch.zeros(100, 3)), 1, 0.4, hard=True))
    assert isinstance(draw, Draw) and isinstance(StraightThrough(), Estimator)
