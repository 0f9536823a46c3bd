"""Rates on V = x y: the table's formulas, and eigenvalues of steps taken by code that knows none of them."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from advrl.games import alternating_invariant, averaged_radius, eigenvalues, orbit, rate, threshold
from advrl.games.rates import RULES

# None at which two eigenvalues meet (k eta = 1, eta = 1/2): eigvals knows such only to the root of the rounding.
STEPS = [0.01, 0.12, 0.3, 0.45, 0.7, 0.9, 1.1, 1.7, 2.3, 3.0]
A = np.array([[0.0, 1.0], [-1.0, 0.0]])  # F(w) = A w: x minimises x y, y maximises it


def memoryless(step):
    """The matrix of a step on w = (x, y), column by column."""
    return lambda *args: np.stack([step(e, *args) for e in np.eye(2)], 1)


def with_memory(step):
    """The same of a step on (w, w before)."""

    def matrix(*args):
        return np.stack([np.concatenate([step(e[:2], e[2:], *args), e[:2]]) for e in np.eye(4)], 1)

    return matrix


def turns(w, x_step, y_step):
    """x moves, then y, each by what its function says of where they stand."""
    w = w + np.array([x_step(w), 0])
    return w + np.array([0, y_step(w)])


def look(w, eta, k, full):
    """x's gradient of V(x, y_k), from k steps of y taken one by one; without dy_k/dx if not full."""
    (x, y), slope = w, 0.0
    for _ in range(k):
        y, slope = y + eta * x, slope + eta
    return y + full * x * slope


def heavy_ball(w, old, eta, beta):
    x = w[0] - eta * w[1] + beta * (w[0] - old[0])
    return np.array([x, w[1] + eta * x + beta * (w[1] - old[1])])


def past_extragradient(half, eta):
    """w_t and the gradient at the last half step, on which both the half step and the step are taken."""
    w, memory = half[:2], half[2:]
    gradient = A @ (w - eta * memory)
    return np.concatenate([w - eta * gradient, gradient])


def power(matrix, k, alpha):
    return (1 - alpha) * np.eye(len(matrix)) + alpha * np.linalg.matrix_power(matrix, k)


alternating = memoryless(lambda w, a, b: turns(w, lambda w: -a * w[1], lambda w: b * w[0]))
simultaneous = memoryless(lambda w, a, b: w - [a * w[1], -b * w[0]])
consensus = memoryless(lambda w, eta, c: w - eta * (A @ w + c * A.T @ A @ w))
unrolled = memoryless(lambda w, eta, k, full: w + np.array([-eta * look(w, eta, k, full), eta * w[0]]))
unrolled_turns = memoryless(
    lambda w, eta, k, full: turns(w, lambda w: -eta * look(w, eta, k, full), lambda w: eta * w[0])
)
optimistic = with_memory(lambda w, old, eta: w - 2 * eta * A @ w + eta * A @ old)

# rule, settings, eta -> the matrix of its step
CASES = [
    ("simultaneous", {}, lambda e: simultaneous(e, e)),
    ("simultaneous", {"eta_y": 0.3}, lambda e: simultaneous(e, 0.3)),
    ("alternating", {}, lambda e: alternating(e, e)),
    ("alternating", {"eta_y": 0.3}, lambda e: alternating(e, 0.3)),
    ("extragradient", {}, memoryless(lambda w, e: w - e * A @ (w - e * A @ w))),
    ("optimistic", {}, optimistic),
    ("past-extragradient", {}, lambda e: np.stack([past_extragradient(c, e) for c in np.eye(4)], 1)),
    ("proximal", {}, lambda e: np.linalg.inv(np.eye(2) + e * A)),
    (
        "competitive",
        {},
        memoryless(lambda w, e: w - e * np.linalg.solve((1 + e**2) * np.eye(2), A @ w + e * np.array([w[0], w[1]]))),
    ),
    ("consensus", {"gamma": 0.5}, lambda e: consensus(e, 0.5)),
    ("symplectic", {"gamma": 1.5}, lambda e: consensus(e, 1.5)),
    *[("unrolled", {"k": k}, lambda e, k=k: unrolled(e, k, 1)) for k in (1, 5, 10)],
    *[("unrolled", {"k": k, "alternate": True}, lambda e, k=k: unrolled_turns(e, k, 1)) for k in (1, 5)],
    *[("unrolled", {"k": k, "first_order": True}, lambda e, k=k: unrolled(e, k, 0)) for k in (1, 5)],
    ("unrolled", {"k": 3, "first_order": True, "alternate": True}, lambda e: unrolled_turns(e, 3, 0)),
    *[("momentum", {"beta": b}, lambda e, b=b: with_memory(heavy_ball)(e, b)) for b in (-0.5, -0.25, 0.5)],
    *[("lookahead", {"k": k, "alpha": 0.5}, lambda e, k=k: power(alternating(e, e), k, 0.5)) for k in (5, 10, 20)],
    (
        "lookahead",
        {"k": 5, "alpha": 0.3, "inner": "simultaneous"},
        lambda e: power(simultaneous(e, e), 5, 0.3),
    ),
]


@pytest.mark.parametrize("eta", STEPS)
@pytest.mark.parametrize(("rule", "settings", "matrix"), CASES)
def test_rates_are_the_eigenvalues_of_a_step(rule, settings, matrix, eta):
    found = np.linalg.eigvals(matrix(eta))
    assert rate(rule, eta, **settings) == pytest.approx(max(abs(found)) ** 2, rel=1e-10)
    for z in eigenvalues(rule, eta, **settings):  # a double one is found to the root of the rounding
        assert min(abs(found - z)) < 1e-7 * max(abs(found))


def test_every_rule_has_a_case():
    assert {rule for rule, _, _ in CASES} == set(RULES)


@pytest.mark.parametrize("eta", np.linspace(0.02, 0.39, 20))
def test_the_table(eta):
    """Section 4 of the theory: every row's |z|^2 as it stands there."""
    s = eta**2
    table = {
        ("simultaneous", ()): 1 + s,
        ("simultaneous", (("eta_y", 0.2),)): 1 + 0.2 * eta,
        ("alternating", ()): 1,
        ("alternating", (("eta_y", 0.2),)): 1,
        ("extragradient", ()): 1 - s + s**2,
        ("optimistic", ()): (1 + math.sqrt(1 - 4 * s)) / 2,
        ("past-extragradient", ()): (1 + math.sqrt(1 - 4 * s)) / 2,
        ("proximal", ()): 1 / (1 + s),
        ("competitive", ()): 1 / (1 + s),
        ("consensus", (("gamma", 0.3),)): (1 - 0.3 * eta) ** 2 + s,
        ("symplectic", (("gamma", 0.3),)): (1 - 0.3 * eta) ** 2 + s,
        ("unrolled", (("k", 2),)): 1 - 3 * s,  # complex while k eta < 1
        ("unrolled", (("k", 2), ("alternate", True))): 1 - 4 * s,  # and up to 2 / 5
        ("unrolled", (("k", 2), ("first_order", True))): 1 - s,
        ("unrolled", (("k", 1), ("first_order", True))): 1,
    }
    turn = math.acos(1 - s / 2)
    for k in (5, 10, 20):
        table["lookahead", (("k", k), ("alpha", 0.4))] = 1 - 2 * 0.4 * 0.6 * (1 - math.cos(k * turn))
    for (rule, settings), exact in table.items():
        assert abs(rate(rule, eta, **dict(settings)) - exact) < 1e-10, rule


def test_the_page_prints_what_is_computed():
    page = (Path(__file__).parents[1] / "docs" / "games.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\|.*\| `rate\((.+?)\)` \| ([0-9.]+) \| ([0-9.]+) \| (.*?) ?\|$", page, re.MULTILINE)
    assert {row[0].split('"')[1] for row in rows} == set(RULES)
    for call, first, second, limit in rows:
        rule, settings = re.fullmatch(r'"([a-z-]+)", eta(?:, (.+))?', call).groups()
        options = eval(f"dict({settings or ''})", {"dict": dict})
        assert [f"{rate(rule, eta, **options):.4f}" for eta in (0.1, 0.3)] == [first, second], call
        if rule == "momentum":
            assert (rate(rule, 1e-3, **options) < 1) == (limit != "never")
        else:
            found = threshold(rule, **options)
            assert {0.0: "never", math.inf: "always"}.get(found, f"{found:.4f}") == limit, call


def test_the_printed_numbers():
    assert [round(rate("momentum", 0.1, beta=b), 4) for b in (-0.5, -0.25, 0.0)] == [0.997, 0.9974, 1.0]
    assert round(rate("momentum", 0.1, beta=0.5), 3) == 1.066
    ahead = {"alternating": [0.939, 0.770, 0.292], "simultaneous": [0.963, 0.812, 0.329]}
    for inner, numbers in ahead.items():
        assert [round(rate("lookahead", 0.1, k=k, alpha=0.5, inner=inner), 3) for k in (5, 10, 20)] == numbers
    assert min(rate("extragradient", e) for e in np.linspace(0.6, 0.8, 201)) == pytest.approx(0.75, abs=1e-6)
    assert rate("extragradient", math.sqrt(0.5)) == pytest.approx(0.75, abs=1e-15)


@pytest.mark.parametrize(
    ("rule", "settings"),
    [
        ("optimistic", {}),
        ("extragradient", {}),
        *[("consensus", {"gamma": g}) for g in (0.2, 1.0, 3.0)],
        *[("unrolled", {"k": k}) for k in (1, 2, 5, 10)],
        *[("unrolled", {"k": k, "alternate": True, "first_order": True}) for k in (1, 2, 5)],
        *[("unrolled", {"k": k, "first_order": True}) for k in (2, 5, 10)],
        *[("lookahead", {"k": k, "alpha": 0.5}) for k in (3, 5, 20)],
    ],
)
def test_thresholds(rule, settings):
    limit = threshold(rule, **settings)
    for share in np.linspace(0.01, 0.9999, 50):
        assert rate(rule, share * limit, **settings) < 1
    assert rate(rule, limit, **settings) == pytest.approx(1, abs=1e-12)
    if rule != "lookahead":  # which a full turn leaves where it was, and a little more brings in again
        assert rate(rule, 1.0001 * limit, **settings) > 1


def test_rules_that_never_and_always_converge():
    assert threshold("optimistic") == 1 / math.sqrt(3)
    for rule, limit in (("simultaneous", 0), ("alternating", 0), ("proximal", math.inf), ("competitive", math.inf)):
        assert threshold(rule) == limit
    assert threshold("unrolled", k=1, first_order=True) == 0
    assert all(rate("simultaneous", e) > 1 and rate("alternating", e) >= 1 - 1e-15 for e in STEPS)
    assert all(rate("proximal", e) < 1 for e in STEPS)
    with pytest.raises(ValueError, match="closed form"):
        threshold("momentum", beta=-0.5)


def test_rates_are_what_is_seen_over_many_steps():
    """x^2 + y^2 after t steps of w - eta A w is exactly rate^t."""
    w = np.array([1.0, 2.0])
    for _ in range(50):
        w = w - 0.1 * A @ w
    assert w @ w == pytest.approx(5 * rate("simultaneous", 0.1) ** 50, rel=1e-12)


def test_a_singular_value_scales_the_step():
    s, eta, gamma = 1.7, 0.2, 0.6
    step = np.eye(2) - eta * (s * A + gamma * s**2 * np.eye(2))
    assert rate("consensus", s * eta, gamma=s * gamma) == pytest.approx(
        max(abs(np.linalg.eigvals(step))) ** 2, rel=1e-12
    )


def test_orbit(device):
    t = torch.linspace(0, 20, 2001, device=device, dtype=torch.float64)
    x, y = orbit(t, 1.0, -2.0)
    torch.testing.assert_close(x**2 + y**2, torch.full_like(t, 5.0), rtol=1e-13, atol=0)
    assert x[0] == 1 and y[0] == -2
    h = float(t[1])
    for moves, field in ((x, -y), (y, x)):
        slope = (moves[2:] - moves[:-2]) / (2 * h)
        torch.testing.assert_close(slope, field[1:-1], atol=1e-3 * h, rtol=h**2)


def test_averaging_the_orbit():
    t = torch.linspace(0, 50, 500_001, dtype=torch.float64)
    x, y = orbit(t, 3.0, 4.0)
    for end in (1.0, 2 * math.pi, 10.0, 50.0):
        part = t <= end
        mean = [torch.trapezoid(v[part], t[part]) / t[part][-1] for v in (x, y)]
        assert math.hypot(*mean) == pytest.approx(float(averaged_radius(t[part][-1], 5.0)), abs=1e-6)
        assert averaged_radius(t[part][-1], 5.0) <= 10 / t[part][-1]


@pytest.mark.parametrize("eta", [0.01, 0.5, 1.0, 1.9])
@pytest.mark.parametrize("x_first", [True, False])
def test_alternating_steps_keep_their_invariant(eta, x_first):
    x, y = torch.tensor([1.0, -0.3, 2.0], dtype=torch.float64), torch.tensor([0.5, 2.0, -2.0], dtype=torch.float64)
    sign = 1 if x_first else -1
    before = alternating_invariant(x, y, sign * eta)
    for _ in range(1000):
        if x_first:
            x = x - eta * y
            y = y + eta * x
        else:
            y = y + eta * x
            x = x - eta * y
    torch.testing.assert_close(alternating_invariant(x, y, sign * eta), before, rtol=1e-10, atol=1e-10)


def test_wrong_use_says_so():
    with pytest.raises(ValueError, match="optimistic"):
        rate("optimist", 0.1)
    with pytest.raises(ValueError, match="eta"):
        rate("optimistic", 0.0)
    with pytest.raises(ValueError, match="k must"):
        rate("unrolled", 0.1, k=0)
    with pytest.raises(ValueError, match="alpha"):
        rate("lookahead", 0.1, k=5, alpha=0.0)
    for settings in ({}, {"gamma": 0.5, "beta": 0.1}):
        with pytest.raises(TypeError, match="argument"):
            threshold("consensus", **settings)
