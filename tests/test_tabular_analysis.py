"""What follows from a policy: against closed forms, sums written out, finite differences and simulation."""

import itertools

import pytest
import torch

from advrl.tabular import (
    MDP,
    hitting_probability,
    hitting_times,
    occupancy,
    policy_evaluation,
    policy_gradient,
    solve,
    stationary_distribution,
    steps_to_end,
    success_probability,
    successor_representation,
)
from advrl.tabular.problems import cliff, gambler, garnet, gridworld, random_mdp, random_walk, special_grid, student
from tests.statistics import assert_unbiased


def close(actual, expected, atol=1e-9):
    torch.testing.assert_close(actual.double(), torch.as_tensor(expected, dtype=torch.float64), rtol=0, atol=atol)


def some_policy(mdp, seed=0):
    """Probabilities of all feasible actions, none of them equal."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.rand(mdp.num_states, mdp.num_actions, generator=generator, dtype=torch.float64) + 0.1
    if mdp.mask is not None:
        over = torch.zeros(mdp.num_states, 1, dtype=torch.bool) if mdp.terminal is None else mdp.terminal[:, None]
        weight = weight * (mdp.mask | over)
    return weight / weight.sum(-1, keepdim=True)


PROBLEMS = {
    "garnet": lambda: garnet(30, gamma=0.9), "random": lambda: random_mdp(8, 3, 0.8), "special": special_grid,
    "grid": lambda: gridworld("S..\n.#H\n..G", 0.95, slip=0.3), "gambler": lambda: gambler(goal=12),
    "walk": random_walk, "student": student, "batch": lambda: MDP.stack([random_mdp(5, 2, g) for g in (0.5, 0.9)]),
}  # fmt: skip
problems = pytest.mark.parametrize("make", [m for n, m in PROBLEMS.items() if n != "batch"],
                                   ids=[n for n in PROBLEMS if n != "batch"])  # fmt: skip


def start(mdp):
    generator = torch.Generator().manual_seed(5)
    p0 = torch.rand(mdp.num_states, generator=generator, dtype=torch.float64)
    return p0 / p0.sum()


def written_out(mdp, policy, p0, steps):
    """sum_t gamma^t P(s_t = s, a_t = a), term by term."""
    P, over = mdp.dense().P, torch.zeros(mdp.num_states, dtype=torch.bool) if mdp.terminal is None else mdp.terminal
    here, total = p0.masked_fill(over, 0.0), torch.zeros_like(mdp.R)
    for t in range(steps):
        flow = here[:, None] * policy
        total += float(mdp.discount) ** t * flow
        here = torch.einsum("sa,sat->t", flow, P).masked_fill(over, 0.0)
    return total


@problems
def test_occupancy(make):
    mdp = make()
    policy, p0 = some_policy(mdp), start(mdp)
    close(occupancy(mdp, policy, p0, horizon=5), written_out(mdp, policy, p0, 5))
    close(occupancy(mdp, policy, p0), written_out(mdp, policy, p0, 2000), 1e-8)
    value = (p0 * policy_evaluation(mdp, policy).V).sum()  # what is paid, weighted by how often
    close((occupancy(mdp, policy, p0) * mdp.R).sum(), value, 1e-8)


@problems
def test_successor_representation(make):
    mdp = make()
    policy = some_policy(mdp)
    found = successor_representation(mdp, policy)
    paid = (policy * mdp.R).sum(-1)
    close(found @ paid, policy_evaluation(mdp, policy).V, 1e-8)
    for s in (0, mdp.num_states - 1):
        p0 = torch.nn.functional.one_hot(torch.tensor(s), mdp.num_states).double()
        over = torch.zeros(mdp.num_states, dtype=torch.bool) if mdp.terminal is None else mdp.terminal
        if not over[s]:
            close(found[s].masked_fill(over, 0.0), occupancy(mdp, policy, p0).sum(-1), 1e-8)


def test_batches_are_stacked_singles():
    mdps = [random_mdp(5, 2, gamma, seed=i) for i, gamma in enumerate((0.5, 0.9, 0.99))]
    together, policy = MDP.stack(mdps), some_policy(mdps[0])
    p0, target = start(mdps[0]), torch.tensor([False, False, False, True, False])
    functions = [
        lambda m: occupancy(m, policy, p0), lambda m: successor_representation(m, policy),
        lambda m: stationary_distribution(m, policy), lambda m: hitting_times(m, policy, target),
        lambda m: hitting_probability(m, policy, target, horizon=3), lambda m: policy_gradient(m, policy.log(), p0),
    ]  # fmt: skip
    for f in functions:
        for i, mdp in enumerate(mdps):
            close(f(together)[i], f(mdp))


@pytest.mark.parametrize("n", [1, 5, 19])
def test_random_walk_in_closed_form(n):
    """Gambler's ruin: from i the right end is reached with chance i / (n + 1), an end after i (n + 1 - i) steps."""
    mdp, one = random_walk(n), torch.zeros(n + 2, dtype=torch.int64)
    i = torch.arange(n + 2, dtype=torch.float64)
    right = i == n + 1
    close(hitting_probability(mdp, one, right), i / (n + 1))
    close(steps_to_end(mdp, one), i * (n + 1 - i), 1e-7)
    either = right | (i == 0)
    close(hitting_times(mdp, one, either), i * (n + 1 - i), 1e-8)
    missed = hitting_times(mdp, one, right)
    assert missed[: n + 1].isinf().all() and missed[-1] == 0
    pays = torch.zeros(n + 2, 1, dtype=torch.float64)
    pays[n] = 0.5
    middle = torch.nn.functional.one_hot(torch.tensor((n + 1) // 2), n + 2).double()
    close(success_probability(mdp, one, pays, p0=middle), ((n + 1) // 2) / (n + 1))
    close(success_probability(mdp, one, right, p0=middle), ((n + 1) // 2) / (n + 1))


def test_success_grows_with_the_time_limit():
    mdp = gridworld("S...\n.H.H\n...H\nH..G", 0.99, slip=2 / 3)
    policy, goal = solve(mdp).policy, torch.arange(16) == 15
    chances = [float(success_probability(mdp, policy, goal, horizon=h)) for h in (1, 6, 20, 100, 1000)]
    assert chances == sorted(chances) and chances[0] == 0
    close(success_probability(mdp, policy, goal), chances[-1], 1e-6)
    for h in (6, 20):  # the goal pays 1 and nothing else does
        close(
            success_probability(mdp, policy, mdp.R, horizon=h), float(success_probability(mdp, policy, goal, horizon=h))
        )


def test_hitting_times_against_simulation():
    mdp = random_mdp(6, 2)
    policy, target = some_policy(mdp), torch.arange(6) >= 4
    P = torch.einsum("sa,sat->st", policy, mdp.P)
    exact = hitting_times(mdp, policy, target)
    generator = torch.Generator().manual_seed(0)
    n = 4000
    here = torch.arange(4).repeat(n, 1).flatten()
    steps, walking = torch.zeros(4 * n, dtype=torch.float64), torch.ones(4 * n, dtype=torch.bool)
    while walking.any():
        steps += walking
        here = torch.multinomial(P[here], 1, generator=generator).squeeze(1)
        walking &= ~target[here]
    assert_unbiased(steps.view(n, 4), exact[:4])


def test_steps_to_end_of_the_cliff():
    mdp = cliff()
    policy = solve(mdp).policy
    close(steps_to_end(mdp, policy), -policy_evaluation(mdp, policy).V, 1e-7)
    with pytest.raises(ValueError, match="never ends"):
        steps_to_end(mdp, torch.zeros(48, dtype=torch.int64))


def test_stationary_distribution():
    mdp = random_mdp(7, 2)
    policy = some_policy(mdp)
    P = torch.einsum("sa,sat->st", policy, mdp.P)
    found = stationary_distribution(mdp, policy)
    close(found @ P, found)
    close(found.sum(), 1.0)
    close(torch.linalg.matrix_power(P, 1000)[0], found)
    with pytest.raises(ValueError, match="ask for its occupancy"):
        stationary_distribution(random_walk(), torch.zeros(7, dtype=torch.int64))
    two = MDP(torch.eye(2).double()[:, None], torch.zeros(2, 1).double(), 0.9)
    with pytest.raises(ValueError, match="not unique"):
        stationary_distribution(two, torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize("name", ["random", "grid", "gambler", "student"])
def test_policy_gradient_against_finite_differences(name):
    mdp = PROBLEMS[name]()
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(mdp.num_states, mdp.num_actions, generator=generator, dtype=torch.float64)
    p0 = start(mdp)
    allowed = torch.ones_like(logits, dtype=torch.bool) if mdp.mask is None else mdp.mask
    over = torch.zeros(mdp.num_states, 1, dtype=torch.bool) if mdp.terminal is None else mdp.terminal[:, None]

    def value(logits):
        policy = logits.masked_fill(~(allowed | over), -torch.inf).softmax(-1)
        return float((p0 * policy_evaluation(mdp, policy, tol=1e-12).V).sum())

    found = policy_gradient(mdp, logits, p0)
    for s, a in itertools.product(range(min(mdp.num_states, 8)), range(mdp.num_actions)):
        unit = torch.zeros_like(logits)
        unit[s, a] = 1e-5
        close(found[s, a], (value(logits + unit) - value(logits - unit)) / 2e-5, 1e-7)
    close(found.sum(-1), torch.zeros(mdp.num_states), 1e-9)  # the softmax does not see a constant


def test_the_first_state_must_be_known():
    mdp = special_grid()
    with pytest.raises(ValueError, match="give p0"):
        occupancy(mdp, torch.zeros(25, dtype=torch.int64))
    with pytest.raises(ValueError, match="never ends"):
        successor_representation(cliff(), torch.zeros(48, dtype=torch.int64))
    with pytest.raises(ValueError, match="horizon must be at least 1"):
        occupancy(cliff(), torch.zeros(48, dtype=torch.int64), horizon=0)
