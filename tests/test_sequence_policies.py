"""Sequences: probabilities against enumeration and stepping, the two-level sampler, gradients, the oracles."""

from unittest.mock import patch

import pytest
import torch
from scipy.stats import chisquare
from torch.nn.functional import embedding_bag

from advrl.data import GrammarOracle, HMMOracle, LSTMOracle
from advrl.distributions import Sequence, relaxed_rsample, sample_categorical, sequence
from advrl.distributions.sequence import draw_step
from advrl.estimators import GumbelSoftmax, Path, Score, StraightThrough, leave_one_out, optimal_baseline
from advrl.nn import (
    CNNDiscriminator,
    GRUPolicy,
    LSTMPolicy,
    RecurrentDiscriminator,
    TransformerDiscriminator,
    TransformerPolicy,
    sequence_discriminators,
)
from advrl.nn.sequences import WritingPolicy
from tests.statistics import assert_unbiased

POLICIES: list[type[WritingPolicy]] = [GRUPolicy, LSTMPolicy, TransformerPolicy]
EOS = [False, True]


def policy_of(cls, eos, device="cpu", **options):
    torch.manual_seed(0)
    policy = cls(5, 4, 8, eos=eos, **options).double().to(device)
    with torch.no_grad():
        for weight in policy.parameters():
            weight.mul_(3.0)  # far from uniform
    return policy


@pytest.mark.parametrize("cls", POLICIES)
@pytest.mark.parametrize("eos", EOS)
@pytest.mark.parametrize("options", [{}, {"temperature": 0.5}, {"top_k": 2}, {"top_p": 0.6}])
def test_probabilities_sum_to_one(cls, eos, options, device):
    law = policy_of(cls, eos, device).distribution(**options)
    x = law.enumerate_support()
    assert len(x) == (sum(5**t for t in range(4)) + 5**4 if eos else 5**4)
    torch.testing.assert_close(law.log_prob(x).exp().sum().item(), 1.0, atol=1e-9, rtol=0)


@pytest.mark.parametrize("cls", POLICIES)
@pytest.mark.parametrize("eos", EOS)
@pytest.mark.parametrize("layers", [1, 2])
def test_cached_steps_equal_one_pass(cls, eos, layers, device):
    policy = policy_of(cls, eos, device, layers=layers, context=3)
    context = torch.randn(6, 3, dtype=torch.float64, device=device)
    law = policy.distribution(context)
    x = law.sample()
    state, tokens, chosen = policy.start(6, context), None, []
    for t in range(4):
        logits, state = policy.step(tokens, state)
        tokens = x[:, t]
        chosen.append(logits.log_softmax(-1).gather(-1, tokens.clamp(max=policy.outcomes - 1)[:, None])[:, 0])
    torch.testing.assert_close(torch.stack(chosen, -1) * law.mask(x), law.log_probs(x), atol=1e-12, rtol=0)
    assert all(part.shape[0] == 6 for part in state)


@pytest.mark.parametrize("eos", EOS)
def test_draws_follow_the_law(eos, device):
    law = policy_of(GRUPolicy, eos, device).distribution(top_k=2)
    support = law.enumerate_support()
    probs = law.log_prob(support).exp()
    torch.manual_seed(1)
    x = law.sample((20_000,))
    found = (x[:, None] == support[probs > 0]).all(-1)
    assert found.any(-1).all()
    assert_unbiased(found.double()[:, probs[probs > 0] > 1e-3], probs[(probs > 0) & (probs > 1e-3)].detach())


@pytest.mark.parametrize("eos", EOS)
@pytest.mark.parametrize("cls", POLICIES)
def test_pieces_of_a_step_are_the_step(cls, eos, monkeypatch):
    policy = policy_of(cls, eos)
    monkeypatch.setattr(sequence, "sample_categorical", lambda logits: logits.argmax(-1))
    state, tokens = policy.start(10), None
    for _ in range(3):
        whole = draw_step(policy, tokens, state, adjust=torch.neg)
        for rows, cached in ((3, 2**20), (None, 20), (None, 1)):  # pieces of 3, of 3 or 4 by the cache, of 1
            monkeypatch.setattr(sequence, "CACHED", cached)
            pieces = draw_step(policy, tokens, state, adjust=torch.neg, rows=rows)
            torch.testing.assert_close(pieces, whole)
        monkeypatch.setattr(sequence, "CACHED", 2**20)
        tokens, state = whole


@pytest.mark.parametrize("eos", EOS)
def test_relaxed_limits(eos, device):
    policy = policy_of(GRUPolicy, eos, device)
    law = policy.distribution()
    hard = relaxed_rsample(law, 50, 0.7, True)
    ids = torch.where(hard.sum(-1) > 0.5, hard.argmax(-1), law.padding)
    torch.testing.assert_close(hard, law.one_hot(ids).double())
    assert law.log_prob(ids).isfinite().all()
    torch.manual_seed(3)
    cold = law.relaxed(50, 1e-4)
    assert ((cold.amax(-1) > 1 - 1e-6) | (cold.sum(-1) == 0)).double().mean() > 0.99
    warm = law.relaxed(50, 1e6)[:, 0]
    torch.testing.assert_close(warm, torch.full_like(warm, 1 / law.outcomes), atol=1e-3, rtol=0)
    hard.square().sum().backward()
    assert policy.out.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("vocab", [1, 2, 3, 50, 101, 5000, 100_000])
def test_two_level_sampler(vocab, device):
    torch.manual_seed(2)
    logits = torch.randn(vocab, device=device) * 2
    n = 20_000 if vocab <= 5000 else 1_000
    draws = torch.cat([sample_categorical(logits.expand(500, -1)) for _ in range(n // 500)])
    assert draws.min() >= 0 and draws.max() < vocab
    groups = torch.arange(vocab, device=device) % min(vocab, 40)
    expected = torch.zeros(min(vocab, 40), dtype=torch.float64, device=device)
    expected.index_add_(0, groups, logits.double().softmax(-1))
    counts = groups[draws].bincount(minlength=len(expected)).cpu()
    assert vocab == 1 or chisquare(counts.numpy(), (expected * n).cpu().numpy()).pvalue > 1e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_extreme_logits(dtype, device):
    logits = torch.full((500, 77), -torch.inf, dtype=dtype, device=device)
    logits[:, 50] = 3e4
    assert (sample_categorical(logits) == 50).all()
    logits[:, 76] = 3e4
    assert set(sample_categorical(logits).tolist()) == {50, 76}
    assert sample_categorical(torch.full((3, 77), torch.nan, dtype=dtype, device=device)).max() < 77
    with pytest.raises(TypeError, match="floating"):
        sample_categorical(torch.zeros(3, dtype=torch.int64))


@pytest.mark.parametrize("eos", EOS)
@pytest.mark.parametrize("steps", [False, True], ids=["whole", "steps"])
@pytest.mark.parametrize("estimator", [Score(2), Score(3, leave_one_out)], ids=["score", "loo"])
def test_mean_gradient_is_exact(eos, steps, estimator):
    policy = policy_of(GRUPolicy, eos)
    law = policy.distribution()
    support, weight = law.enumerate_support(), policy.out.bias
    table = torch.randn(7, 4, dtype=torch.float64)

    def step_costs(x):
        return table[x, torch.arange(4)]  # not 0 on the padding, where costs must not count

    def cost(x):
        return step_costs(x) if steps else (step_costs(x) * law.mask(x)).sum(-1)

    exact_mean = (law.log_prob(support).exp() * (step_costs(support) * law.mask(support)).sum(-1)).sum()
    (exact,) = torch.autograd.grad(exact_mean, weight)
    values, draws = [], []
    for _ in range(250):
        value = estimator(law, cost)
        values.append(value.detach())
        draws.append(torch.autograd.grad(value, weight)[0])
    assert_unbiased(torch.stack(draws), exact)
    assert_unbiased(torch.stack(values)[:, None], exact_mean.detach()[None])


@pytest.mark.parametrize("eos", EOS)
def test_step_costs_give_less_variance(eos):
    """What was paid before a step is noise to it: with costs of the first step alone, the last scores must be still."""
    law = policy_of(GRUPolicy, eos).distribution()
    first = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64)

    def spread(cost):
        torch.manual_seed(0)
        rows = [torch.autograd.grad(Score(2)(law, cost), law.policy.out.bias)[0] for _ in range(60)]
        return torch.stack(rows).var(0).sum()

    assert spread(lambda x: x * first) < 0.7 * spread(lambda x: (x * first).sum(-1))


def test_sequence_costs_of_other_shapes_and_baselines():
    law = policy_of(GRUPolicy, False).distribution()
    with pytest.raises(ValueError, match="cost must map"):
        Score(2)(law, lambda x: x[..., :2].double())
    with pytest.raises(ValueError, match="no optimal baseline"):
        Score(2, optimal_baseline)(law, lambda x: x.double())
    with pytest.raises(ValueError, match="st treats"):
        StraightThrough(2).draw(law)
    with pytest.raises(ValueError, match="path needs"):
        Path(2).draw(law)


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("eos", EOS)
@pytest.mark.parametrize("cls", POLICIES)
def test_gumbel_softmax_of_a_sequence(cls, eos, hard):
    """A context (2, 3) gives batch shape (2,); the gradient is that of the same noise by finite differences."""
    policy = policy_of(cls, eos, context=3)
    law = policy.distribution(torch.randn(2, 3, dtype=torch.float64))
    table = torch.randn(4, law.outcomes, dtype=torch.float64)
    estimator = GumbelSoftmax(3, 0.8, hard)

    def estimate():
        torch.manual_seed(5)
        draw = estimator.draw(law)
        assert draw.x.shape == (3, 2, 4, law.outcomes)
        return estimator.surrogate(draw, lambda x: (x * table).sum((-2, -1))).mean()

    (gradient,) = torch.autograd.grad(estimate(), policy.out.bias)
    if hard:
        assert gradient.abs().sum() > 0
        return
    step = 1e-6
    for k in range(3):
        with torch.no_grad():
            policy.out.bias[k] += step
            above = estimate()
            policy.out.bias[k] -= 2 * step
            below = estimate()
            policy.out.bias[k] += step
        assert abs((above - below) / (2 * step) - gradient[k]) < 1e-6


def test_bad_input():
    law = policy_of(GRUPolicy, True).distribution(validate_args=True)  # torch.compile turns torch's default off
    with pytest.raises(ValueError, match="ids must lie"):
        law.log_prob(torch.tensor([0, 9, 0, 0]))
    with pytest.raises(ValueError, match="only the padding"):
        law.log_prob(torch.tensor([0, 5, 0, 0]))
    with pytest.raises(ValueError, match="must be"):
        law.log_prob(torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="temperature"):
        Sequence(law.policy, temperature=0.0)
    with pytest.raises(ValueError, match="takes no context"):
        law.policy.start(2, torch.zeros(2, 3))


def test_oracle_seeded_and_hmm():
    a, b = LSTMOracle(30, 6, 8, seed=3), LSTMOracle(30, 6, 8, seed=3)
    x = a.sample(100)
    assert x.shape == (100, 6) and torch.equal(a.log_prob(x), b.log_prob(x))
    hmm = HMMOracle(3, 4, 2)
    support = torch.cartesian_prod(*[torch.arange(3)] * 4)
    probs = hmm.log_prob(support).exp()
    torch.testing.assert_close(probs.sum(), torch.ones((), dtype=torch.float64))
    torch.manual_seed(0)
    index = hmm.sample(20_000) @ torch.tensor([27, 9, 3, 1])
    assert_unbiased((index[:, None] == torch.arange(81)).double()[:, probs > 1e-3], probs[probs > 1e-3])


def test_grammar():
    oracle = GrammarOracle(5)
    vocab = oracle.vocab_size
    prefixes = [torch.cartesian_prod(*[torch.arange(vocab)] * k).reshape(-1, k) for k in range(1, 6)]
    tails = [torch.tensor([vocab] + [vocab + 1] * 4)[: 5 - k].expand(len(p), -1) for k, p in enumerate(prefixes, 1)]
    support = torch.cat([torch.cat(pair, 1) for pair in zip(prefixes, tails, strict=True)])
    probs = oracle.log_prob(support).exp()
    assert int((probs > 0).sum()) == 1 + 4 + 4**2  # x, x o x, x o x o x
    torch.testing.assert_close(probs.sum(), torch.ones((), dtype=torch.float64))
    # S -> x with 1/2; S -> S R with 1/2; one derivation of x o x, two of x o x o x
    torch.testing.assert_close(probs[0], torch.tensor(0.5 / (0.5 + 0.125 + 2 * 0.5**5), dtype=torch.float64))
    torch.manual_seed(0)
    found = (oracle.sample(4_000)[:, None] == support[probs > 0]).all(-1)
    assert found.any(-1).all()
    assert_unbiased(found.double(), probs[probs > 0])
    spaced = torch.tensor([[0, 1, vocab + 1, vocab + 1, vocab + 1], [vocab, 6, 6, 6, 6], [0, vocab, 0, 0, 0]])
    assert (oracle.log_prob(spaced) == -torch.inf).all()
    assert oracle.decode(support[:1]) == ["x"]
    x = torch.cat([support[:1], support[probs > 0][1:2]])
    value, _ = oracle.nll(x)
    torch.testing.assert_close(value, float(-oracle.log_prob(x).sum() / (2 + 4)))  # ends are tokens
    with pytest.raises(ValueError, match="ids must lie"):
        oracle.log_prob(torch.full((1, 5), 9))
    with pytest.raises(ValueError, match="a rule has"):
        GrammarOracle(5, {"S": {"S Q": 1.0}})
    with pytest.raises(ValueError, match="no sentence"):
        GrammarOracle(5, {"S": {"S S": 1.0}})


def test_published_oracle(data_dir):
    """Nats per token by expectations over each next token, which leave only the prefixes to chance."""
    path = data_dir / "seqgan_oracle.npz"
    if not path.exists():
        pytest.skip("ADVRL_DATA has no seqgan_oracle.npz")
    oracle = LSTMOracle.from_npz(path)
    torch.manual_seed(0)
    x = oracle.sample(1200)
    counts = x.flatten().bincount(minlength=5000).float()
    shuffled = x.flatten()[torch.randperm(x.numel())].reshape(x.shape)

    def expected(rows, weight):
        with torch.no_grad():
            parts = [oracle.policy.logits(part).log_softmax(-1) for part in rows.split(300)]
        values = torch.cat([-(weight(log_p) * log_p).sum(-1).mean(-1) for log_p in parts])
        return values.mean(), values.std() / len(values) ** 0.5

    for rows, weight, known, within in (
        (x, torch.exp, 5.752, 0.02),
        (torch.randint(5000, (600, 20)), lambda log_p: torch.full((5000,), 1 / 5000), 11.43, 0.03),
    ):
        value, error = expected(rows, weight)
        assert error < within / 2.5 and abs(value - known) < within
    unigrams, error = expected(shuffled[:600], lambda log_p: counts / counts.sum())
    assert abs(unigrams - 10.285) < 5 * (error**2 + 2 * 0.242**2 / len(x)) ** 0.5  # its frequencies are counted, too
    own, error = oracle.nll(x[:200])
    assert abs(own - 5.752) < 5 * error


@pytest.fixture
def elsewhere():
    """torch's default device has no data: whatever is made without ``device=`` fails on the CPU's tensors."""
    yield lambda: torch.set_default_device("meta")
    torch.set_default_device(None)


@pytest.mark.parametrize("cls", POLICIES)
def test_nothing_is_made_on_the_default_device(cls, elsewhere):
    policy = policy_of(cls, True, context=3)
    context = torch.zeros(2, 3, dtype=torch.float64)
    critics = [TransformerDiscriminator(5, 4, 8, eos=True), RecurrentDiscriminator(5, 8, eos=True)]
    oracles = GrammarOracle(4), HMMOracle(3, 4, 2), LSTMOracle(5, 4, 4)
    elsewhere()
    law = policy.distribution(context, top_k=3, top_p=0.9)
    x = law.sample((6,))
    for estimator in (Score(3, leave_one_out), GumbelSoftmax(2)):
        estimator(law, lambda x: x.double().sum((-2, -1)) if x.dim() == 4 else x.double()).sum().backward()
    assert law.enumerate_support().device.type == "cpu"
    assert all(critic(x.flatten(0, 1)).device.type == "cpu" for critic in critics)
    for oracle in (*oracles, GrammarOracle(3), HMMOracle(3, 4, 2)):
        assert oracle.log_prob(oracle.sample(3)).device.type == "cpu"


@pytest.mark.parametrize("eos", EOS)
@pytest.mark.parametrize("cls", [CNNDiscriminator, RecurrentDiscriminator, TransformerDiscriminator])
def test_discriminators(cls, eos, device):
    law = policy_of(GRUPolicy, eos, device).distribution()
    x = law.sample((20,))
    arguments = {
        CNNDiscriminator: {"length": 4, "filters": ((1, 3), (2, 4), (9, 2))},
        RecurrentDiscriminator: {"hidden": 8},
        TransformerDiscriminator: {"length": 4, "hidden": 8},
    }
    critic = cls(5, **arguments[cls], eos=eos).double().to(device).eval()
    logits = critic(x)
    assert logits.shape == ((20, 4) if cls is RecurrentDiscriminator else (20,))
    torch.testing.assert_close(critic(law.one_hot(x).double()), logits)  # ids and one-hot rows are the same sequences
    if cls is RecurrentDiscriminator:
        assert (logits[~law.mask(x)] == 0).all()
        changed = x.clone()
        changed[:, -1] = 0
        torch.testing.assert_close(critic(changed)[:, 0], logits[:, 0])  # a prefix does not see what follows
    soft = law.relaxed(3)
    (gradient,) = torch.autograd.grad(critic(soft).sum(), soft)
    assert gradient.abs().sum() > 0
    with pytest.raises(ValueError, match="must"):
        critic(torch.zeros(2, 3, 9, device=device))


@pytest.mark.parametrize("eos", EOS)
def test_windows_by_table_are_the_convolutions(eos):
    """Without gradients and with far more windows than ids, the discriminator looks up what each id adds."""
    torch.manual_seed(0)
    critic = CNNDiscriminator(5, 4, 6, eos=eos, filters=((1, 3), (2, 4), (3, 2), (4, 5))).double().eval()
    x = torch.randint(0, 5, (700, 4))
    if eos:
        lengths = torch.randint(0, 5, (700, 1))
        x = torch.where(torch.arange(4) < lengths, x, torch.where(torch.arange(4) == lengths, 5, 6))
    with torch.no_grad(), patch.object(sequence_discriminators, "embedding_bag", wraps=embedding_bag) as lookup:
        critic(x[:5])
        assert not lookup.called
        table = critic(x)
        assert lookup.call_count == 8  # two pieces of four widths
    torch.testing.assert_close(table, critic(x).detach(), atol=1e-12, rtol=0)


def test_windows_of_padding_count_for_nothing():
    torch.manual_seed(0)
    long, short = (CNNDiscriminator(5, length, 4, eos=True, filters=((1, 3), (2, 4))).eval() for length in (6, 3))
    short.load_state_dict(long.state_dict())
    x = torch.tensor([[0, 5, 6, 6, 6, 6], [5, 6, 6, 6, 6, 6]])
    torch.testing.assert_close(long(x), short(x[:, :3]))
    assert long(x).diff().abs() > 1e-6
