"""The tree of prefixes against the generic solver, enumeration and autograd; the finite GAN against closed forms."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from advrl.objectives import (
    GAMES,
    Objective,
    from_cost,
    hinge,
    least_squares,
    maximum_likelihood,
    minimax,
    non_saturating,
    reverse_kl,
    wasserstein,
)
from advrl.tabular import (
    LayeredTree,
    discriminator_loss,
    generator_cost,
    generator_gradient,
    jensen_shannon,
    occupancy,
    optimal_discriminator,
    optimal_logit,
    policy_evaluation,
    soft_value_iteration,
    solve,
)

V, T = 3, 4


def reward(x: Tensor) -> Tensor:
    """Something without symmetry, of all the tokens."""
    place = torch.arange(1, x.shape[1] + 1, device=x.device, dtype=torch.float64)
    return ((x + 1.3) ** 2 * place).sum(1).sin()


def step_reward(prefix: Tensor) -> Tensor:
    last = prefix[:, -1:] if prefix.shape[1] else prefix.new_zeros(len(prefix), 1)
    return 0.1 * (last - torch.arange(V, device=prefix.device)).double().cos() * (prefix.shape[1] + 1)


def close(actual, expected, atol=1e-12):
    pair = (torch.as_tensor(x, dtype=torch.float64) for x in (actual, expected))
    torch.testing.assert_close(*pair, rtol=0, atol=atol)


class Recurrent(torch.nn.Module):
    """Logits that depend on all of the prefix, by two parameters."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.start = torch.nn.Parameter(torch.randn(V, generator=generator, dtype=torch.float64))
        self.weight = torch.nn.Parameter(torch.randn(V, V, generator=generator, dtype=torch.float64))

    def forward(self, prefix: Tensor) -> Tensor:
        place = torch.arange(1, prefix.shape[1] + 1, device=prefix.device).double()
        return self.start + (self.weight[prefix] / place[:, None]).sum(1)


KINDS = {
    "plain": {},
    "eos": {"eos": 1},
    "steps": {"step_reward": step_reward},
    "eos and steps": {"eos": 0, "step_reward": step_reward},
    "merged": {"merge": lambda prefix: (prefix * 3 ** torch.arange(prefix.shape[1])).sum(1)},
}
kinds = pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)


def joined(tree: LayeredTree, values: list[Tensor]) -> Tensor:
    return torch.cat(values[: tree.horizon])


@kinds
def test_the_tree_is_the_generic_solver(options):
    tree = LayeredTree(V, T, reward, **options)
    mdp = tree.to_mdp()
    best, generic = tree.optimal(), solve(mdp)
    close(joined(tree, best.V), generic.V)
    close(torch.cat([best.Q(t) for t in range(T)]), generic.Q)
    least = generic.V[:, None] - 1e-9
    assert torch.equal(torch.cat([best.optimal_set(t) for t in range(T)]), least <= generic.Q)
    soft, generic = tree.soft(0.3), soft_value_iteration(mdp, 0.3)
    close(joined(tree, soft.V), generic.V)
    policy = Recurrent()
    table = torch.cat([tree.probabilities(policy, t) for t in range(T)]).detach()
    values, generic = tree.evaluate(policy), policy_evaluation(mdp, table)
    close(joined(tree, values.V).detach(), generic.V)
    close(torch.cat([values.Q(t).detach() for t in range(T)]), generic.Q.masked_fill(~mdp.mask, -torch.inf))
    close(joined(tree, tree.occupancy(policy)).detach(), occupancy(mdp, table).sum(-1))


@kinds
def test_the_tree_is_enumeration(options):
    """Every sequence that can be written, with its probability and what it is paid on the way."""
    tree, policy = LayeredTree(V, T, reward, **options), Recurrent()
    eos = options.get("eos")
    total, best = 0.0, -math.inf
    for tokens in itertools.product(range(V), repeat=T):
        ended = [eos in tokens[:t] for t in range(T)]
        if any(e and token != eos for e, token in zip(ended, tokens, strict=True)):
            continue
        paid, probability = float(reward(torch.tensor([tokens]))[0]), 1.0
        for t in range(T):
            prefix = torch.tensor([tokens[:t]], dtype=torch.int64).view(1, t)
            if not ended[t]:
                probability *= float(policy(prefix).detach().softmax(-1)[0, tokens[t]])
                paid += float(options["step_reward"](prefix)[0, tokens[t]]) if "step_reward" in options else 0.0
        total += probability * paid
        best = max(best, paid)
    close(tree.expected_reward(policy).detach(), total)
    close(tree.optimal().value, best)
    sequence = tree.optimal().best()[None]
    if "step_reward" not in options:
        close(reward(sequence)[0], best)
    close(tree.occupancy(policy)[-1].sum().detach(), 1.0)


@kinds
def test_the_gradient_is_that_of_finite_differences(options):
    tree, policy = LayeredTree(V, T, reward, **options), Recurrent()
    found = tree.gradient(policy, list(policy.parameters()))
    for parameter, gradient in zip(policy.parameters(), found, strict=True):
        for index in itertools.product(*map(range, parameter.shape)):
            ends = []
            for step in (1e-5, -1e-5):
                with torch.no_grad():
                    parameter[index] += step
                    ends.append(float(tree.expected_reward(policy)))
                    parameter[index] -= step
            close(gradient[index], (ends[0] - ends[1]) / 2e-5, 1e-9)


@pytest.mark.parametrize("options", [KINDS["plain"], KINDS["eos and steps"]], ids=["plain", "eos and steps"])
@pytest.mark.parametrize("chunk", [3, 7, 9, 20, 80])
def test_chunks_change_nothing(options, chunk):
    whole, parts, policy = (
        LayeredTree(V, T, reward, **options),
        LayeredTree(V, T, reward, chunk=chunk, **options),
        Recurrent(),
    )
    for pair in zip(whole.optimal().V, parts.optimal().V, strict=False):
        close(*pair)
    close(whole.soft().value, parts.soft().value)
    close(whole.expected_reward(policy).detach(), parts.expected_reward(policy).detach())
    close(torch.cat(whole.occupancy(policy)[:2]).detach(), torch.cat(parts.occupancy(policy)[:2]).detach())
    for pair in zip(
        whole.gradient(policy, list(policy.parameters())),
        parts.gradient(policy, list(policy.parameters())),
        strict=True,
    ):
        close(*pair)
    assert 1 < len(parts.optimal().V) <= T
    with pytest.raises(ValueError, match="kept for prefixes"):
        parts.optimal().Q(T - 1)


def test_merging_makes_few_nodes():
    """A reward of the sum alone needs one node per sum."""

    def total(x):
        return (x.sum(1) - 7.0) ** 2

    merged, plain = LayeredTree(4, 8, total, merge=lambda prefix: prefix.sum(1)), LayeredTree(4, 8, total)
    assert [merged.size(t) for t in (0, 1, 8)] == [1, 4, 25]
    close(merged.optimal().value, plain.optimal().value)
    close(merged.soft().value, plain.soft().value)
    uniform = lambda prefix: torch.zeros(len(prefix), 4)  # noqa: E731
    close(merged.expected_reward(uniform), plain.expected_reward(uniform))


def test_soft_policy_draws_in_proportion_to_the_exponential_reward():
    tree = LayeredTree(V, T, reward)
    soft = tree.soft(0.5)
    law = tree.occupancy([soft.Q(t) / 0.5 for t in range(T)])[-1]
    close(law, (reward(tree.prefixes(T)) / 0.5).softmax(0))


def test_trees_live_on_a_device(device):
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(V, generator=generator, dtype=torch.float64)
    results = []
    for where in (torch.device("cpu"), device):
        tree, theta = LayeredTree(V, T, reward, eos=1, device=where), logits.to(where).clone().requires_grad_()
        policy = lambda prefix, theta=theta: theta.expand(len(prefix), V)  # noqa: E731
        found = (
            tree.optimal().value,
            tree.soft(0.5).value,
            *tree.gradient(policy, [theta]),
            tree.occupancy(policy)[-1],
        )
        assert all(value.device.type == where.type for value in found)
        results.append([value.detach().cpu() for value in found])
    for pair in zip(*results, strict=True):
        close(*pair)


def test_a_table_of_rewards():
    tree = LayeredTree(V, T, reward)
    leaves = reward(tree.prefixes(T))
    close(LayeredTree(V, T, leaves).optimal().value, tree.optimal().value)
    close(LayeredTree(V, T, leaves, eos=2).optimal().value, LayeredTree(V, T, reward, eos=2).optimal().value)
    assert LayeredTree(V, T, leaves.float()).optimal().value.dtype == torch.float32


def test_rollouts_estimate_q():
    """Monte-Carlo roll-outs of SeqGAN against the exact Q of the same policy."""
    from tests.statistics import assert_unbiased

    tree, policy, n = LayeredTree(V, T, reward), Recurrent(), 4000
    torch.manual_seed(0)
    x = torch.tensor([[2, 0]]).expand(n * V, 2)
    x = torch.cat([x, torch.arange(V).repeat(n)[:, None]], 1)
    while x.shape[1] < T:
        x = torch.cat([x, torch.multinomial(policy(x).softmax(-1).detach(), 1)], 1)
    assert_unbiased(reward(x).view(n, V), tree.evaluate(policy).Q(2)[2 * V].detach())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 3, reward), "vocab must be at least 2"),
        ((3, 0, reward), "horizon"),
        ((3, 2, torch.zeros(8)), r"shape \(9,\), got \(8,\)"),
        ((3, 2, torch.full((9,), torch.nan)), "finite"),
        ((10, 30, reward), "more than can be numbered"),
    ],
)
def test_wrong_trees_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        LayeredTree(*arguments)


def test_wrong_parts_are_refused():
    with pytest.raises(ValueError, match=r"eos must be a token, 0\.\.2, got 3"):
        LayeredTree(V, T, reward, eos=3)
    with pytest.raises(ValueError, match=r"to \(81,\) rewards, got \(81, 4\)"):
        LayeredTree(V, T, lambda x: x.double()).optimal()
    with pytest.raises(ValueError, match=r"logits of shape \(27, 3\) after 3 tokens, got \(27, 2\)"):
        LayeredTree(V, T, reward).evaluate(lambda prefix: torch.zeros(len(prefix), 2))
    with pytest.raises(ValueError, match="chunk must hold"):
        LayeredTree(V, T, reward, chunk=2)
    with pytest.raises(ValueError, match="temperature must be finite and above 0"):
        LayeredTree(V, T, reward).soft(0.0)
    with pytest.raises(ValueError, match="too many for an MDP"):
        LayeredTree(10, 8, reward, chunk=100).to_mdp()


P = torch.tensor([0.5, 0.2, 0.2, 0.1], dtype=torch.float64)
THETA = torch.tensor([0.3, -1.0, 0.8, 0.0], dtype=torch.float64)
Q = THETA.softmax(-1)


def kl(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p.log() - q.log())).sum()


def test_the_best_discriminator_and_its_loss():
    """Goodfellow et al. (2014), theorem 1."""
    close(optimal_discriminator(P, Q), optimal_logit(P, Q).sigmoid())
    close(discriminator_loss(P, Q, optimal_logit(P, Q)), math.log(4) - 2 * jensen_shannon(P, Q))
    middle = (P + Q) / 2
    close(jensen_shannon(P, Q), (kl(P, middle) + kl(Q, middle)) / 2)
    close(jensen_shannon(P, P), 0.0)
    apart = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    close(jensen_shannon(*apart), math.log(2))
    close(optimal_discriminator(torch.tensor([1.0, 0, 0]), torch.tensor([0, 1.0, 0])), torch.tensor([1, 0, 0.5]))


@pytest.mark.parametrize("objective", [minimax, least_squares, hinge], ids=lambda o: o.name)
def test_no_discriminator_is_better(objective):
    best = optimal_logit(P, Q, objective)
    least = discriminator_loss(P, Q, best, objective)
    for step in torch.randn(200, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64):
        assert discriminator_loss(P, Q, best + 0.3 * step, objective) >= least - 1e-12


@pytest.mark.parametrize(
    ("objective", "divergence"),
    [
        (minimax, lambda q: 2 * jensen_shannon(P, q)),
        (non_saturating, lambda q: kl(q, P) - 2 * jensen_shannon(P, q)),
        (maximum_likelihood, lambda q: kl(P, q)),
        (reverse_kl, lambda q: kl(q, P)),
    ],
    ids=lambda x: getattr(x, "name", ""),
)
def test_against_the_best_discriminator_each_cost_follows_its_divergence(objective, divergence):
    theta = THETA.clone().requires_grad_()
    exact = torch.autograd.grad(divergence(theta.softmax(-1)), theta)[0]
    close(generator_gradient(P, THETA, objective), exact)


PAIRING = Objective(
    "pairing", minimax.d_loss, lambda fake, real: torch.nn.functional.softplus(real - fake), needs_real=True
)
OBJECTIVES = [*(game.objective for game in GAMES.values()), PAIRING, from_cost(lambda a: a**2)]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: o.name)
def test_the_generator_s_gradient_is_that_of_finite_differences(objective):
    logit = torch.tensor([0.7, -0.2, 0.1, 1.9], dtype=torch.float64)
    found = generator_gradient(P, THETA, objective, logit)
    for k, unit in enumerate(torch.eye(4, dtype=torch.float64)):
        up, down = (generator_cost(P, (THETA + s * unit).softmax(-1), logit, objective) for s in (1e-5, -1e-5))
        close(found[k], (up - down) / 2e-5, 1e-9)
    if not objective.needs_real:
        cost = objective.cost(logit)
        close(found, Q * (cost - Q @ cost))


def test_outcomes_that_nobody_draws_cost_nothing():
    p, q = torch.tensor([0.5, 0.5, 0, 0]).double(), torch.tensor([0.5, 0, 0.5, 0]).double()
    logit = optimal_logit(p, q)
    assert logit.tolist() == [0.0, math.inf, -math.inf, 0.0]
    close(discriminator_loss(p, q, logit), math.log(4) - 2 * jensen_shannon(p, q))


def test_wrong_finite_games_are_refused():
    with pytest.raises(ValueError, match="wasserstein has no best discriminator"):
        optimal_logit(P, Q, wasserstein)
    with pytest.raises(ValueError, match="p must hold probabilities that sum to 1"):
        optimal_discriminator(P * 2, Q)
    with pytest.raises(ValueError, match="of one length"):
        optimal_discriminator(P[:2], Q)


def test_the_game_on_sequences():
    """The exact GAN's reward on the leaves of a tree: its gradient by the tree is the one by the finite set."""
    n = V**T
    p = torch.rand(n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    p = p / p.sum()
    blank = LayeredTree(V, T, torch.zeros(n, dtype=torch.float64))
    policy = Recurrent()
    law = blank.occupancy(policy)[-1]
    logit = optimal_logit(p, law.detach())
    tree = LayeredTree(V, T, non_saturating.reward(logit))
    found = tree.gradient(policy, list(policy.parameters()))
    exact = torch.autograd.grad(-generator_cost(p, law, logit, non_saturating), list(policy.parameters()))
    for pair in zip(found, exact, strict=True):
        close(*pair)
