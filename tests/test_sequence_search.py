"""Beam search against the sorted list of all sequences, rollouts against exact values and a plain double loop."""

import pytest
import torch

from advrl.agents import rollout_values
from advrl.distributions import sequence
from advrl.estimators import Score
from advrl.nn import GRUPolicy, LSTMPolicy, TransformerPolicy, beam_search
from tests.statistics import assert_unbiased
from tests.test_sequence_policies import EOS, POLICIES, policy_of

TABLE = torch.linspace(-1, 2, 28, dtype=torch.float64).sin().reshape(7, 4)


def score_of(x):
    """No sum over steps: what comes later changes what came before."""
    return (TABLE.to(x.device)[x, torch.arange(4, device=x.device)].sum(-1) * 3).cos()


def exact_values(law, x):
    """Q of every prefix of x (n, T), by the sum over all sequences that begin with it."""
    support = law.enumerate_support()
    probs, scores = law.log_prob(support).exp(), score_of(support)
    columns = []
    for t in range(1, 5):
        same = (x[:, None, :t] == support[:, :t]).all(-1) * probs
        columns.append((same * scores).sum(1) / same.sum(1))
    return torch.stack(columns, 1) * law.mask(x)


@pytest.mark.parametrize("cls", POLICIES)
@pytest.mark.parametrize("eos", EOS)
def test_wide_beams_are_exact(cls, eos, device):
    policy = policy_of(cls, eos, device)
    law = policy.distribution()
    support = law.enumerate_support()
    best, order = law.log_prob(support).sort(descending=True)
    x, found = beam_search(policy, 400)
    torch.testing.assert_close(found[0, :50], best[:50])
    assert torch.equal(x[0, :20], support[order[:20]])
    torch.testing.assert_close(law.log_prob(x[0, :50]), found[0, :50])


@pytest.mark.parametrize("eos", EOS)
def test_a_beam_of_one_is_greedy(eos, device):
    policy = policy_of(LSTMPolicy, eos, device, context=3)
    context = torch.randn(6, 3, dtype=torch.float64, device=device)
    x, found = beam_search(policy, 1, 6, context)
    law = policy.distribution(context, top_k=1)
    assert torch.equal(x[:, 0], law.sample())
    torch.testing.assert_close(found[:, 0], policy.distribution(context).log_prob(x[:, 0]))
    with pytest.raises(ValueError, match="width"):
        beam_search(policy, 0)


@pytest.mark.parametrize("eos", EOS)
@pytest.mark.parametrize("cls", [GRUPolicy, TransformerPolicy])
def test_rollouts_have_the_exact_mean(cls, eos, device):
    policy = policy_of(cls, eos, device)
    with torch.no_grad():
        policy.out.weight.mul_(0.2)  # no outcome so rare that the mean of few draws is not normal
        policy.out.bias.mul_(0.2)
    law = policy.distribution()
    torch.manual_seed(0)
    x = law.sample((8,))
    exact = exact_values(law, x).detach()
    draws = torch.stack([rollout_values(policy, x, score_of, 4, rows=50) for _ in range(100)])
    torch.testing.assert_close(draws[:, :, -1], exact[:, -1].expand(100, -1))  # finished: as it is
    random = (x < 5) & (torch.arange(4, device=device) < 3)  # still open
    torch.testing.assert_close(draws.mean(0)[~random], exact[~random])
    assert_unbiased(draws[:, random], exact[random])


@pytest.mark.parametrize("eos", EOS)
def test_every_prefix_has_the_exact_mean(eos, device):
    policy = policy_of(LSTMPolicy, eos, device)
    with torch.no_grad():
        policy.out.weight.mul_(0.2)
        policy.out.bias.mul_(0.2)
    law = policy.distribution()
    x = law.enumerate_support()
    torch.manual_seed(5)
    draws = torch.stack([rollout_values(policy, x, score_of, 1) for _ in range(60)])
    exact = exact_values(law, x).detach()
    for t in range(1, 4):
        open_ = x[:, t - 1] < 5
        prefixes, which = x[open_, :t].unique(dim=0, return_inverse=True)
        assert len(prefixes) == 5**t
        ways = which.bincount()  # sequences that begin with the same prefix are draws of one number
        pooled = torch.zeros(60, len(ways), dtype=draws.dtype, device=device).index_add_(
            1, which, draws[:, open_, t - 1]
        )
        truth = torch.zeros(len(ways), dtype=draws.dtype, device=device).index_add_(0, which, exact[open_, t - 1])
        assert_unbiased(pooled / ways, truth / ways)


@pytest.mark.parametrize("eos", EOS)
@pytest.mark.parametrize("cls", POLICIES)
def test_rollouts_equal_a_plain_double_loop(cls, eos, device, monkeypatch):
    """The same random numbers: each outcome is drawn by a number that its logits alone decide."""

    def choose(logits):
        u = (logits * 1e3).sum(-1, keepdim=True).sin().abs() * 0.999
        return (logits.softmax(-1).cumsum(-1) < u).sum(-1).clamp(max=logits.shape[-1] - 1)

    policy = policy_of(cls, eos, device)
    x = policy.distribution().sample((9,))
    monkeypatch.setattr(sequence, "sample_categorical", choose)
    plain = torch.zeros(9, 4, dtype=torch.float64, device=device)
    for i in range(9):
        for t in range(4):
            row = x[i : i + 1].clone()
            for u in range(t + 1, 4):
                drawn = choose(policy.logits(row)[:, u].detach())
                row[:, u] = 6 if eos and row[0, u - 1] >= 5 else drawn
            plain[i, t] = score_of(row)[0] * (x[i, t] < 6 or not eos)
    for rows in (7, 1000):
        torch.testing.assert_close(rollout_values(policy, x, score_of, 2, rows=rows), plain)


def test_what_has_ended_is_not_stepped(monkeypatch):
    policy = policy_of(GRUPolicy, True)
    stepped, scored = [], []
    step = policy.step
    monkeypatch.setattr(policy, "step", lambda tokens, state: (stepped.append(len(state[0])), step(tokens, state))[1])

    def score(x):
        scored.append(len(x))
        return score_of(x)

    x = torch.tensor([[5, 6, 6, 6], [5, 6, 6, 6]])
    values = rollout_values(policy, x, score, 3)
    assert stepped == [2] and scored == [2]
    torch.testing.assert_close(values, score_of(x)[:, None] * torch.tensor([1.0, 0, 0, 0]))
    stepped.clear()
    rollout_values(policy, torch.tensor([[5, 6, 6, 6], [1, 2, 5, 6]]), score, 3)
    assert stepped[:2] == [2, 1 + 3] and scored[-1] == 2 + 3 + 3  # two prefixes of the second are open


@pytest.mark.parametrize("eos", EOS)
def test_the_rollout_gradient_is_exact_on_average(eos):
    """SeqGAN's gradient, with the rollouts as the advantage of Score, against the sum over all sequences."""
    policy = policy_of(GRUPolicy, eos)
    law, weight = policy.distribution(), policy.out.bias
    support = law.enumerate_support()
    (exact,) = torch.autograd.grad(-(law.log_prob(support).exp() * score_of(support)).sum(), weight)

    def cost(x):
        return torch.zeros(x.shape, dtype=torch.float64)  # whose value is not looked at here

    estimator = Score(4, advantage=lambda to_go, x: -rollout_values(policy, x, score_of, 1))
    torch.manual_seed(1)
    draws = [torch.autograd.grad(estimator(law, cost), weight)[0] for _ in range(250)]
    assert_unbiased(torch.stack(draws), exact)


def test_bad_rollouts():
    policy = policy_of(GRUPolicy, False)
    with pytest.raises(ValueError, match="rollouts"):
        rollout_values(policy, torch.zeros(2, 4, dtype=torch.int64), score_of, 0)
    with pytest.raises(ValueError, match="must be"):
        rollout_values(policy, torch.zeros(2, 3, dtype=torch.int64), score_of)
    for eos, wrong in ((False, 5), (True, 7), (True, -1)):
        with pytest.raises(ValueError, match="ids must lie"):
            rollout_values(policy_of(GRUPolicy, eos), torch.full((2, 4), wrong), score_of)
    with pytest.raises(ValueError, match="score must map"):
        rollout_values(policy, torch.zeros(2, 4, dtype=torch.int64), lambda x: x)
