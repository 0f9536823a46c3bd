"""Two-player dynamics against exact answers: rates on V = x y, invariants, thresholds, derivatives, dense solves."""

import copy
import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from advrl.agents import (
    DYNAMICS,
    AdamRule,
    Alternating,
    Averaging,
    Competitive,
    Consensus,
    Extragradient,
    GameOptimizer,
    Lookahead,
    OptimisticRule,
    PastExtragradient,
    SGDRule,
    Simultaneous,
    Symplectic,
    Unrolled,
    make_dynamics,
    negative_momentum,
    optimistic,
)
from advrl.agents.dynamics_field import Field
from advrl.games import rate
from advrl.nn import MLP

RATES = (0.01, 0.1, 0.25)


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def bilinear(x: Any, y: Any) -> tuple[Tensor, Tensor]:
    """V(x, y) = x y: x minimises it, y maximises."""
    value = (x * y).sum()
    return value, -value


def tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    inside = [value[k] for k in sorted(value)] if isinstance(value, dict) else value
    return [t for item in inside for t in tensors(item)] if isinstance(inside, (list, tuple)) else []


def filled(value: Any, source: Any) -> Any:
    if isinstance(value, Tensor):
        return next(source)
    if isinstance(value, dict):
        return {k: filled(value[k], source) for k in sorted(value)}
    return tuple(filled(item, source) for item in value) if isinstance(value, tuple) else value


def step_matrix(dynamics: Any, losses: Any = bilinear, steps: int = 1) -> Tensor:
    """The linear map that ``steps`` steps are, of both players and the state, from its values on a basis."""
    field = Field(lambda x, y: losses(x[0], y[0]))
    x, y = (double(0.3),), (double(-0.4),)
    state = dynamics.init(x, y)
    for _ in range(2 * steps):  # the state fills up, and a cycle of lookahead ends
        x, y, state = dynamics.step(field, x, y, state)
    parts = tensors((x, y, state))
    columns = []
    for unit in torch.eye(sum(p.numel() for p in parts), dtype=torch.float64):
        source = iter([u.view_as(p) for u, p in zip(unit.split([p.numel() for p in parts]), parts, strict=True)])
        at, to, inside = filled((x, y, state), source)
        for _ in range(steps):
            at, to, inside = dynamics.step(field, at, to, inside)
        columns.append(torch.cat([t.flatten() for t in tensors((at, to, inside))]))
    return torch.stack(columns, 1)


def squared_radius(dynamics: Any, steps: int = 1) -> float:
    return float(torch.linalg.eigvals(step_matrix(dynamics, steps=steps)).abs().max() ** 2)


def rule(eta: float) -> SGDRule:
    return SGDRule(eta)


TABLE = {
    "simultaneous": (lambda r: Simultaneous(r, r), lambda e: 1 + e**2),
    "alternating": (lambda r: Alternating(r, r), lambda e: 1.0),
    "alternating, y first": (lambda r: Alternating(r, r, first="y"), lambda e: 1.0),
    "two rates at once": (lambda r: Simultaneous(r, r, 4.0), lambda e: 1 + 4 * e**2),
    "two rates in turn": (lambda r: Alternating(r, r, 4.0), lambda e: 1.0),
    "extragradient": (lambda r: Extragradient(r, r), lambda e: 1 - e**2 + e**4),
    "optimistic": (lambda r: optimistic(r, r), lambda e: (1 + math.sqrt(1 - 4 * e**2)) / 2),
    "past extragradient": (lambda r: PastExtragradient(r, r), lambda e: (1 + math.sqrt(1 - 4 * e**2)) / 2),
    "consensus": (lambda r: Consensus(r, r, 0.7), lambda e: (1 - 0.7 * e) ** 2 + e**2),
    "symplectic": (lambda r: Symplectic(r, r, 0.7), lambda e: (1 - 0.7 * e) ** 2 + e**2),
    "competitive": (lambda r: Competitive(r, r), lambda e: 1 / (1 + e**2)),
}


@pytest.mark.parametrize("eta", RATES)
@pytest.mark.parametrize("name", TABLE)
def test_rates_on_xy(name, eta):
    make, exact = TABLE[name]
    assert squared_radius(make(rule(eta))) == pytest.approx(exact(eta), abs=1e-10)


@pytest.mark.parametrize("eta", [0.01, 0.05, 0.1])
@pytest.mark.parametrize("k", [1, 2, 5, 10])
def test_unrolled_rates_and_determinants_on_xy(k, eta):
    """The determinant always; |lambda|^2 is it while the eigenvalues are complex."""
    forms = (
        (Unrolled(rule(eta), rule(eta), k), 1 - (2 * k - 1) * eta**2, 2 * k),
        (Unrolled(rule(eta), rule(eta), k, answer=True), 1 - 2 * k * eta**2, 2 * k + 1),
        (Unrolled(rule(eta), rule(eta), k, first_order=True), 1 - (k - 1) * eta**2, k),
    )
    for dynamics, exact, drop in forms:
        matrix = step_matrix(dynamics)
        assert float(torch.linalg.det(matrix)) == pytest.approx(exact, abs=1e-10)
        if drop * eta < 2:  # the trace is 2 - drop eta^2
            assert squared_radius(dynamics) == pytest.approx(exact, abs=1e-10)


@pytest.mark.parametrize("eta", RATES)
@pytest.mark.parametrize("k", [5, 10, 20])
def test_lookahead_rates_on_xy(k, eta):
    alpha = 0.5
    turn = k * math.acos(1 - eta**2 / 2)
    exact = 1 - 2 * alpha * (1 - alpha) * (1 - math.cos(turn))
    assert squared_radius(Lookahead(Alternating(rule(eta), rule(eta)), k, alpha), k) == pytest.approx(exact, abs=1e-10)
    spiral = abs(1 - alpha + alpha * complex(1, eta) ** k) ** 2
    found = squared_radius(Lookahead(Simultaneous(rule(eta), rule(eta)), k, alpha), k)
    assert found == pytest.approx(spiral, abs=1e-10)


@pytest.mark.parametrize("eta", RATES)
@pytest.mark.parametrize("beta", [-0.5, -0.25, 0.5])
def test_negative_momentum_rates_on_xy(beta, eta):
    """(lambda - 1)^2 (lambda - beta)^2 + eta^2 lambda^3 = 0: Gidel et al. (2019), "Negative momentum", theorem 5."""
    polynomial = np.polymul(np.polymul([1, -1], [1, -1]), np.polymul([1, -beta], [1, -beta]))
    polynomial = np.polyadd(polynomial, [eta**2, 0, 0, 0])
    exact = float(np.abs(np.roots(polynomial)).max() ** 2)
    found = squared_radius(negative_momentum(rule(eta), rule(eta), beta))
    assert found == pytest.approx(exact, abs=1e-10)
    assert (found < 1) == (beta < 0)


@pytest.mark.parametrize("eta", RATES)
def test_the_rules_have_the_rates_of_advrl_games(eta):
    r = rule(eta)
    for dynamics, steps, exact in (
        (Alternating(r, r, 2.0), 1, rate("alternating", eta, eta_y=2 * eta)),
        (optimistic(r, r), 1, rate("optimistic", eta)),
        (Consensus(r, r, 0.5), 1, rate("consensus", eta, gamma=0.5)),
        (Competitive(r, r), 1, rate("competitive", eta)),
        (negative_momentum(r, r, -0.3), 1, rate("momentum", eta, beta=-0.3)),
        (Unrolled(r, r, 3), 1, rate("unrolled", eta, k=3)),
        (Unrolled(r, r, 3, True, True), 1, rate("unrolled", eta, k=3, first_order=True, alternate=True)),
        (Lookahead(Alternating(r, r), 7, 0.3), 7, rate("lookahead", eta, k=7, alpha=0.3)),
    ):  # fmt: skip
        assert squared_radius(dynamics, steps) == pytest.approx(exact, abs=1e-10)


def test_printed_rates():
    """Numbers at eta = .1, to the digits that they are known by."""
    for beta, known in ((-0.5, 0.9970), (-0.25, 0.9974), (0.5, 1.066)):
        assert squared_radius(negative_momentum(rule(0.1), rule(0.1), beta)) == pytest.approx(known, abs=5e-4)
    for k, turns, known in ((5, 0.939, 0.963), (10, 0.770, 0.812), (20, 0.292, 0.329)):
        for inside, value in ((Alternating, turns), (Simultaneous, known)):
            found = squared_radius(Lookahead(inside(rule(0.1), rule(0.1)), k), k)
            assert found == pytest.approx(value, abs=6e-4)


def test_optimistic_converges_below_one_over_root_three_and_not_above():
    edge = 1 / math.sqrt(3)
    for margin, contracts in ((-1e-3, True), (1e-3, False)):
        for make in (optimistic, PastExtragradient):
            assert (squared_radius(make(rule(edge + margin), rule(edge + margin))) < 1) == contracts
    assert (
        squared_radius(Extragradient(rule(0.99), rule(0.99)))
        < 1
        < squared_radius(Extragradient(rule(1.01), rule(1.01)))
    )
    assert squared_radius(Alternating(rule(1.99), rule(1.99))) == pytest.approx(1, abs=1e-9)
    assert squared_radius(Alternating(rule(2.01), rule(2.01))) > 1.01
    gamma = 0.5
    limit = 2 * gamma / (1 + gamma**2)  # eta (1 + gamma^2) < 2 gamma
    assert squared_radius(Consensus(rule(limit - 1e-3), rule(limit - 1e-3), gamma)) < 1
    assert squared_radius(Consensus(rule(limit + 1e-3), rule(limit + 1e-3), gamma)) > 1


def test_alternating_keeps_its_invariant_and_simultaneous_spirals_as_it_should():
    eta = 0.3
    taking_turns = GameOptimizer(Alternating(rule(eta), rule(eta)), double(1.0), double(0.0))
    at_once = GameOptimizer(Simultaneous(rule(eta), rule(eta)), double(1.0), double(0.0))
    for step in range(1, 201):
        taking_turns.step(bilinear)
        at_once.step(bilinear)
        x, y = float(taking_turns.x), float(taking_turns.y)
        assert x**2 + y**2 - eta * x * y == pytest.approx(1.0, abs=1e-12)
        assert float(at_once.x**2 + at_once.y**2) == pytest.approx((1 + eta**2) ** step, rel=1e-10)


def test_averages_of_an_orbit_shrink_like_two_radii_over_time():
    eta, steps = 0.02, 6_000
    players = GameOptimizer(Averaging(Alternating(rule(eta), rule(eta))), double(1.0), double(0.0))
    total, largest = double(0.0, 0.0), 0.0
    for step in range(1, steps + 1):
        players.step(bilinear)
        total = total + torch.cat([players.x, players.y])
        if step > 1000:
            largest = max(largest, float(torch.cat(players.judged).norm()) * eta * step)
    torch.testing.assert_close(torch.cat(players.judged), total / steps, rtol=0, atol=1e-12)
    assert largest == pytest.approx(2.0, rel=2 * eta)  # sum of a unit orbit: at most its diameter, up to O(eta)
    assert float(torch.cat([players.x, players.y]).norm()) > 0.99


def test_past_extragradient_takes_gradients_where_optimistic_walks():
    """Its points ahead p follow p'' = p' - eta (2 F(p') - F(p)), in any game."""
    eta, seen, field = 0.1, list[Tensor](), list[Tensor]()

    def watched(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(torch.cat([x, y]).detach())
        field.append(dense(x.detach(), y.detach())[0])
        return quartic(x, y)

    players = GameOptimizer(PastExtragradient(rule(eta), rule(eta)), X, Y)
    for _ in range(5):
        players.step(watched)
    for t in range(3):
        expected = seen[t + 1] - eta * (2 * field[t + 1] - field[t])
        torch.testing.assert_close(seen[t + 2], expected, rtol=0, atol=1e-14)


RULES = [
    (SGDRule(0.1), lambda p: torch.optim.SGD(p, 0.1)),
    (SGDRule(0.1, 0.9), lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)),
    (AdamRule(0.1, (0.5, 0.99)), lambda p: torch.optim.Adam(p, 0.1, (0.5, 0.99))),
    (AdamRule(0.1, (0.0, 0.9), 1e-3), lambda p: torch.optim.Adam(p, 0.1, (0.0, 0.9), 1e-3)),
]


@pytest.mark.parametrize("differentiable", [False, True])
@pytest.mark.parametrize(("ours", "theirs"), RULES)
def test_rules_are_torch_s_optimisers(ours, theirs, differentiable, device):
    torch.manual_seed(0)
    start = [torch.randn(3, 2, device=device), torch.randn(4, device=device)]
    params = tuple(p.clone() for p in start)
    state = ours.init(params)
    reference = [nn.Parameter(p.clone()) for p in start]
    optimiser = theirs(reference)
    for step in range(6):
        gradient = tuple(torch.sin(p.detach() * 3 + step) * (p > 0) for p in reference)  # some are exactly 0
        factor = 1 / (1 + step)
        for p, g in zip(reference, gradient, strict=True):
            p.grad = g.clone()
        for group in optimiser.param_groups:
            group["lr"] = 0.1 * factor
        optimiser.step()
        given = tuple(g.clone().requires_grad_(differentiable) for g in gradient)
        change, state = ours.change(given, state, factor)
        params = tuple(p + c.detach() for p, c in zip(params, change, strict=True))
        for a, b in zip(params, reference, strict=True):
            torch.testing.assert_close(a, b.detach(), rtol=1e-5, atol=1e-6)


def quartic(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """A smooth game that is neither zero-sum nor quadratic."""
    mix = double(0.3, -0.7, 1.1)
    f = (x * mix[:2]).sum() * y.sum() + 0.1 * (x**4).sum() + (x[0] * y[1]).sin()
    g = -(x.sum() * (y * mix).sum()) + 0.2 * (y**2).sum() + (x[1] * y[2]).cos()
    return f, g


X, Y = double(0.4, -0.8), double(0.5, 0.2, -0.3)


@pytest.mark.parametrize("inner", [SGDRule(0.05), SGDRule(0.05, 0.5), AdamRule(0.05), OptimisticRule(SGDRule(0.05))])
def test_the_unrolled_gradient_is_that_of_finite_differences(inner):
    k, eta = 4, 1e-3

    def looked_ahead(x: Tensor) -> float:
        y, state = (Y,), inner.init((Y,))
        for _ in range(k):
            leaf = y[0].clone().requires_grad_()
            slope = torch.autograd.grad(quartic(x, leaf)[1], leaf)
            change, state = inner.change(slope, state)
            y = (y[0] + change[0],)
        return float(quartic(x, y[0])[0])

    players = GameOptimizer(Unrolled(SGDRule(eta), inner, k), X, Y)
    players.step(quartic)
    found = (X - players.x) / eta
    h = 1e-6
    exact = [(looked_ahead(X + h * e) - looked_ahead(X - h * e)) / (2 * h) for e in torch.eye(2, dtype=torch.float64)]
    torch.testing.assert_close(found, double(*exact), rtol=1e-6, atol=1e-7)
    first = GameOptimizer(Unrolled(SGDRule(eta), inner, k, first_order=True), X, Y)
    first.step(quartic)
    assert torch.equal(first.y, players.y)
    assert (first.x - players.x).abs().max() > 1e-3 * eta


def dense(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """F, its Jacobian, and the mixed blocks alone, at (x, y) of the quartic game."""

    def field(w: Tensor) -> Tensor:
        at, to = w[: len(x)], w[len(x) :]
        f, g = quartic(at, to)
        return torch.cat([
            torch.autograd.grad(f, at, create_graph=True)[0], torch.autograd.grad(g, to, create_graph=True)[0]
        ])  # fmt: skip

    w = torch.cat([x, y]).requires_grad_()
    jacobian = torch.autograd.functional.jacobian(field, w)
    mixed = jacobian.clone()
    mixed[: len(x), : len(x)], mixed[len(x) :, len(x) :] = 0, 0
    return field(w).detach(), jacobian, mixed


def moved(dynamics: Any) -> Tensor:
    players = GameOptimizer(dynamics, X, Y)
    players.step(quartic)
    return torch.cat([players.x, players.y]) - torch.cat([X, Y])


def test_second_order_dynamics_are_those_of_dense_matrices():
    eta, weight = 0.2, 0.6
    field, jacobian, mixed = dense(X, Y)
    identity = torch.eye(5, dtype=torch.float64)
    exact = -torch.linalg.solve(identity + eta * mixed, eta * field)
    torch.testing.assert_close(moved(Competitive(rule(eta), rule(eta))), exact, rtol=1e-9, atol=1e-12)
    scale = double(eta, eta, 3 * eta, 3 * eta, 3 * eta)
    exact = -torch.linalg.solve(identity + scale[:, None] * mixed, scale * field)
    torch.testing.assert_close(moved(Competitive(rule(eta), rule(3 * eta))), exact, rtol=1e-9, atol=1e-12)
    adam = AdamRule(eta, (0.0, 0.99))
    scale = eta / (field.abs() + 1e-8)  # its first step
    exact = -torch.linalg.solve(identity + scale[:, None] * mixed, scale * field)
    torch.testing.assert_close(moved(Competitive(adam, adam, 40)), exact, rtol=1e-7, atol=1e-10)
    exact = -eta * (field + weight * jacobian.T @ field)
    torch.testing.assert_close(moved(Consensus(rule(eta), rule(eta), weight)), exact, rtol=1e-10, atol=1e-13)
    turn = (jacobian - jacobian.T) / 2
    exact = -eta * (field + weight * turn.T @ field)
    found = moved(Symplectic(rule(eta), rule(eta), weight, align=False))
    torch.testing.assert_close(found, exact, rtol=1e-10, atol=1e-13)
    slope = jacobian.T @ field
    sign = torch.sign((field @ slope) * ((turn.T @ field) @ slope) / 5 + 0.1)
    exact = -eta * (field + weight * sign * turn.T @ field)
    torch.testing.assert_close(moved(Symplectic(rule(eta), rule(eta), weight)), exact, rtol=1e-10, atol=1e-13)


def test_sign_alignment_leaves_an_unstable_point_that_the_plain_adjustment_is_drawn_to():
    """f = g = -(x^2 + y^2)/2 with a turn: 0 is a maximum of both, and Balduzzi et al. flip the sign there."""

    def unstable(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        turn = 3 * (x * y).sum()
        return turn - (x**2).sum() / 2, -turn - (y**2).sum() / 2

    ends = []
    for align in (False, True):
        players = GameOptimizer(Symplectic(rule(0.01), rule(0.01), 1.0, align), double(1.0), double(1.0))
        for _ in range(300):
            players.step(unstable)
        ends.append(float(torch.cat([players.x, players.y]).norm()))
    assert ends[0] < 1e-3 < 10 < ends[1]


def networks(dtype: torch.dtype, device: torch.device) -> tuple[dict[str, Tensor], dict[str, Tensor], Any]:
    """A small GAN as a game on two dictionaries of parameters."""
    torch.manual_seed(0)
    generator, discriminator = MLP(2, 2, (8,), "tanh").to(device, dtype), MLP(2, (), (8,), "tanh").to(device, dtype)
    real, z = (torch.randn(16, 2).to(device, dtype) for _ in range(2))  # the same numbers in every precision

    def losses(x: dict[str, Tensor], y: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        fake = functional_call(discriminator, y, (functional_call(generator, x, (z,)),))
        true = functional_call(discriminator, y, (real,))
        softplus = nn.functional.softplus
        return softplus(-fake).mean(), softplus(-true).mean() + softplus(fake).mean()

    return dict(generator.named_parameters()), dict(discriminator.named_parameters()), losses


@pytest.mark.parametrize("name", DYNAMICS)
def test_every_dynamics_plays_networks_in_single_precision_and_resumes_bit_for_bit(name, device):
    x, y, losses = networks(torch.float32, device)
    make = lambda: GameOptimizer(make_dynamics(name, AdamRule(1e-2), AdamRule(1e-2)), x, y)  # noqa: E731
    straight, broken = make(), make()
    for _ in range(7):
        straight.step(losses)
    for _ in range(3):
        broken.step(losses)
    buffer = io.BytesIO()
    torch.save(copy.deepcopy(broken.state_dict()), buffer)
    for _ in range(2):
        broken.step(losses)  # what was saved is not what goes on
    again = make()
    buffer.seek(0)
    again.load_state_dict(torch.load(buffer, weights_only=True))
    assert again.steps == 3
    for _ in range(4):
        again.step(losses)
    assert isinstance(straight.x, dict) and list(straight.x) == list(x)
    for a, b in zip(tensors(straight.state_dict()), tensors(again.state_dict()), strict=True):
        assert torch.equal(a, b) and not a.requires_grad and bool(torch.isfinite(a).all())
    if device.type != "cpu":
        return  # no double precision on some; and what single precision does is what the mathematics says, to rounding
    moved = []
    for dtype in (torch.float32, torch.float64):
        x, y, losses = networks(dtype, device)
        players = GameOptimizer(make_dynamics(name, SGDRule(0.1), SGDRule(0.1)), x, y)
        for _ in range(3):
            players.step(losses)
        moved.append(tensors((players.x, players.y)))
    for a, b in zip(*moved, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=0, atol=1e-6)


def test_wrong_use_is_refused_with_a_sentence():
    x, y = double(1.0), double(2.0)
    with pytest.raises(TypeError, match=r"SGDRule or an AdamRule, got Adam: .*in place"):
        Unrolled(torch.optim.Adam, SGDRule(0.1))
    with pytest.raises(TypeError, match="got SGD"):
        Simultaneous(SGDRule(0.1), torch.optim.SGD([x.requires_grad_()], 0.1))
    with pytest.raises(ValueError, match="did you mean 'extragradient'"):
        make_dynamics("extragradients", SGDRule(0.1), SGDRule(0.1))
    detached = lambda x, y: ((x * y.detach()).sum(), -(x.detach() * y).sum())  # noqa: E731
    for name, said in (("competitive", "mixed second derivatives"), ("consensus", "consensus needs second derivatives"),
                       ("symplectic", "second derivatives"), ("unrolled", "unrolled-first-order")):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            GameOptimizer(make_dynamics(name, SGDRule(0.1), SGDRule(0.1)), x, y).step(detached)
    GameOptimizer(make_dynamics("unrolled-first-order", SGDRule(0.1), SGDRule(0.1)), x, y).step(detached)
    with pytest.raises(ValueError, match="must be a scalar"):
        GameOptimizer(Simultaneous(SGDRule(0.1), SGDRule(0.1)), x, y).step(lambda x, y: (x * y, -x * y))
    with pytest.raises(ValueError, match="cannot be differentiated"):
        GameOptimizer(Simultaneous(SGDRule(0.1), SGDRule(0.1)), x, y).step(lambda x, y: (x.detach().sum(), -y.sum()))
    with pytest.raises(TypeError, match="y must be floating-point tensors"):
        GameOptimizer(Simultaneous(SGDRule(0.1), SGDRule(0.1)), x, torch.arange(3))
    with pytest.raises(TypeError, match="dynamics must be a Dynamics"):
        GameOptimizer("optimistic", x, y)
    with pytest.raises(TypeError, match="inside must be a Dynamics"):
        Lookahead("alternating")
    for make, said in (
        (lambda: SGDRule(0.0), "lr"), (lambda: SGDRule(0.1, -1.0), "momentum must be above -1"),
        (lambda: AdamRule(1e-3, (0.5, 1.0)), r"betas\[1\]"), (lambda: Unrolled(rule(1.0), rule(1.0), 0), "k must be"),
        (lambda: Lookahead(Simultaneous(rule(1.0), rule(1.0)), 5, 1.5), "alpha"),
        (lambda: Alternating(rule(1.0), rule(1.0), first="z"), "first"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            make()
    state = GameOptimizer(make_dynamics("lookahead", rule(0.1), rule(0.1)), x, y).state_dict()
    with pytest.raises(ValueError, match="another dynamics"):
        GameOptimizer(make_dynamics("optimistic", rule(0.1), rule(0.1)), x, y).load_state_dict(state)
    with pytest.raises(ValueError, match="shapes"):
        GameOptimizer(make_dynamics("lookahead", rule(0.1), rule(0.1)), double(1.0, 2.0), y).load_state_dict(state)
