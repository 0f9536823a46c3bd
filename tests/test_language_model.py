"""Language models as judges: against a source of known entropy, against a plain loop, and nobody's generator moved."""

import pytest
import torch

from advrl.agents import train_language_model
from advrl.data import HMMOracle
from advrl.metrics import mean_estimate, step_nll
from advrl.nn import GRUPolicy, TransformerPolicy
from advrl.seeding import isolated

VOCAB, LENGTH = 6, 8
ORACLE = HMMOracle(VOCAB, LENGTH, 3, seed=0)


@pytest.fixture(scope="module")
def taught():
    with isolated(0):
        x = ORACLE.sample(1500)
    return x, train_language_model(x, VOCAB, eos=False)


@pytest.fixture(scope="module")
def ended(taught):
    """Sequences of several lengths, with ends and padding, and a model of them."""
    x, _ = taught
    length = 2 + torch.arange(len(x)) % (LENGTH - 2)
    place = torch.arange(LENGTH)
    x = torch.where(place < length[:, None], x, torch.where(place == length[:, None], VOCAB, VOCAB + 1))
    return x, train_language_model(x[:300], VOCAB, rounds=2)


def test_it_learns_a_known_law_and_stays_above_its_entropy(taught):
    """E[log O - log p] is a divergence: not negative; and below that of single tokens by frequency."""
    with isolated(1):
        fresh = ORACLE.sample(6000)
    model = taught[1]
    mine, exact = model.policy.log_probs(fresh).sum(1).double(), ORACLE.log_prob(fresh)
    counts = torch.bincount(taught[0].flatten(), minlength=VOCAB).double()
    single = (counts / counts.sum()).log()[fresh].sum(1)
    assert mean_estimate(exact - mine, 1 - 1e-6).high > 0
    assert mean_estimate(mine - single, 1 - 1e-6).low > 0
    assert model.held_out == pytest.approx(float(model.score(fresh).value), abs=0.2)
    assert (model.sentences, model.rounds >= 1) == (1500, True)


def test_the_score_is_the_likelihood_of_the_steps_there_are(ended):
    x, model = ended
    expected = step_nll(model.policy.log_probs(x), x <= VOCAB)
    told = model.score(x)
    assert (told.value, told.error) == pytest.approx((expected.value, expected.error), rel=1e-5)


def test_features_are_the_mean_state_of_a_plain_loop(ended):
    x, model = ended
    x = x[:20]
    state, tokens, found = model.policy.start(len(x)), None, []
    with torch.no_grad():
        for t in range(LENGTH):
            _, state = model.policy.step(tokens, state)
            found.append(state[0][:, -1])
            tokens = x[:, t].clamp_max(VOCAB + 1)
    mask = (x <= VOCAB).unsqueeze(-1)
    expected = (torch.stack(found, 1) * mask).sum(1) / mask.sum(1)
    torch.testing.assert_close(model.features(x), expected, atol=1e-5, rtol=1e-5)


def test_repetition_pays_by_the_first_score_and_costs_by_the_reverse(taught):
    x, model = taught
    likely = x[ORACLE.log_prob(x).argmax()].expand(300, -1)
    with isolated(2):
        test = ORACLE.sample(500)
    assert model.score(likely).high < model.score(test).low
    narrow = train_language_model(likely, VOCAB, eos=False, rounds=3)
    assert narrow.score(test).low > model.score(test).high


def test_its_seed_is_its_own(taught):
    x = taught[0][:200]
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one, other = (train_language_model(x, VOCAB, eos=False, rounds=1) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.policy.parameters(), other.policy.parameters(), strict=True))
    another = train_language_model(x, VOCAB, eos=False, rounds=1, seed=1)
    assert not torch.equal(one.policy.out.weight, another.policy.out.weight)


def test_it_stops_where_the_held_out_part_is_predicted_best():
    """Noise can only be learned by heart: the first rounds are the best."""
    with isolated(4):
        noise = torch.randint(50, (120, 20))
    assert train_language_model(noise, 50, eos=False, rounds=30).rounds < 25


@pytest.mark.parametrize("x", [torch.zeros(5, 4).long(), torch.zeros(20, 4), torch.zeros(20).long()])
def test_it_refuses_what_it_cannot_learn_from(x):
    with pytest.raises(ValueError, match="at least 10 sequences"):
        train_language_model(x, 3)


@pytest.mark.parametrize("policy", [GRUPolicy, TransformerPolicy])
def test_a_likelihood_without_the_logits_of_padding_is_the_law_s(policy, ended):
    torch.manual_seed(0)
    x, writer = ended[0][:30], policy(VOCAB, LENGTH, 8, eos=True)
    mine, theirs = writer.log_probs(x), writer.distribution().log_probs(x)
    torch.testing.assert_close(mine, theirs)
    slopes = [
        torch.autograd.grad(found.sum(), list(writer.parameters()), retain_graph=True) for found in (mine, theirs)
    ]
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="behind the end"):
        writer.log_probs(torch.tensor([[0, VOCAB, 0, 0, 0, 0, 0, 0]]))
