"""How writers of sequences learn, against exact gradients: the sum over all sequences of a small space."""

from typing import Any

import pytest
import torch
from torch import nn

from advrl.agents import (
    ActorCritic,
    Constant,
    EmbeddingPath,
    Gumbel,
    ImportanceWeighted,
    LeaveOneOut,
    MovingAverage,
    NoBaseline,
    PrefixCritic,
    Reinforce,
    ScratchGAN,
    SeqGAN,
)
from advrl.agents.sequence_gan_losses import pull
from advrl.agents.sequence_gan_rewards import REWARDS, Judge, whole, written
from advrl.nn import CNNDiscriminator, EmbeddingGenerator, GRUPolicy, RecurrentDiscriminator, VectorDiscriminator
from advrl.objectives import GAMES
from tests.statistics import assert_unbiased

V, T, B = 5, 4, 8
GAME = GAMES["non-saturating"].objective


def loud(net: nn.Module) -> Any:
    """The net with weights three times as large, in double precision: tokens matter to it."""
    with torch.no_grad():
        for weight in net.double().parameters():
            weight.mul_(3)
    return net.eval()


def players(eos: bool, prefix: bool = False, seed: int = 0, vocab: int = V, length: int = T) -> tuple:
    torch.manual_seed(seed)
    policy = loud(GRUPolicy(vocab, length, 3, eos=eos))
    discriminator: Any
    if prefix:
        discriminator = loud(RecurrentDiscriminator(vocab, 4, 4, eos=eos))
    else:
        discriminator = loud(CNNDiscriminator(vocab, length, 4, eos=eos, filters=((1, 4), (2, 4))))
    with torch.no_grad():  # logits around 0, some above 1 and some below -1
        logits = discriminator(policy.distribution().enumerate_support())
        discriminator.out.weight /= logits.std() / 1.5
        discriminator.out.bias += -discriminator(policy.distribution().enumerate_support()).mean()
    return policy, discriminator


def judge_of(policy, discriminator, reward="d", real=None) -> Judge:
    return Judge(discriminator, GAME, policy.outcomes, reward, real)


def flat(loss, policy) -> torch.Tensor:
    found = torch.autograd.grad(loss, list(policy.parameters()), allow_unused=True, retain_graph=True)
    parts = [torch.zeros_like(p) if g is None else g for g, p in zip(found, policy.parameters(), strict=True)]
    return torch.cat([part.flatten() for part in parts])


def support(policy) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """All sequences (N, T), log p of their steps (N, T), and p (N,), differentiable."""
    x = policy.distribution().enumerate_support()
    log_probs = policy.log_probs(x)
    return x, log_probs, log_probs.sum(1).exp()


def draws(algorithm, policy, judge, n: int, batch: int = B) -> torch.Tensor:
    """(n, k) gradients of as many lessons, of the coordinates that move at all."""
    torch.manual_seed(1)
    return torch.stack([flat(algorithm.lesson(policy, judge, batch, 0).loss, policy) for _ in range(n)])


def check(found: torch.Tensor, exact: torch.Tensor) -> None:
    moving = found.std(0) > 1e-12
    assert moving.sum() > 20 and exact[~moving].abs().max() < 1e-9
    assert_unbiased(found[:, moving], exact[moving])


SENTENCE = {
    "reinforce": lambda policy: Reinforce(),
    "reinforce, ewma": lambda policy: Reinforce(MovingAverage(0.5)),
    "seqgan": lambda policy: SeqGAN(2, 0.0),
    "seqgan, no baseline": lambda policy: SeqGAN(1, 0.0, NoBaseline()),
    "actor-critic, lam 1": lambda policy: ActorCritic(PrefixCritic(V, 4, eos=policy.eos).double(), lam=1.0),
}


@pytest.mark.parametrize("eos", [False, True], ids=["cut", "ends"])
@pytest.mark.parametrize("name", SENTENCE)
def test_the_mean_gradient_of_a_sentence_s_reward_is_the_exact_one(name, eos):
    policy, discriminator = players(eos)
    judge = judge_of(policy, discriminator)
    x, _, p = support(policy)
    exact = flat(-(p * judge.sentence(x)).sum(), policy)
    check(draws(SENTENCE[name](policy), policy, judge, 150), exact)


@pytest.mark.parametrize("eos", [False, True], ids=["cut", "ends"])
@pytest.mark.parametrize(
    ("make", "discount"),
    [
        (lambda eos: ScratchGAN(1.0, LeaveOneOut()), 1.0),
        (lambda eos: ScratchGAN(0.23), None),
        (lambda eos: ActorCritic(PrefixCritic(V, 4, eos=eos).double(), lam=1.0), 1.0),
    ],
    ids=["scratchgan, discount 1", "scratchgan", "actor-critic, lam 1"],
)
def test_the_mean_gradient_of_rewards_at_every_step(make, discount, eos):
    """At discount 1 that of E sum_t r_t; below, the sum that the estimate is meant to be, which is another."""
    policy, discriminator = players(eos, prefix=True)
    judge = judge_of(policy, discriminator, "2d-1")
    x, log_probs, p = support(policy)
    rewards = judge.steps(x, written(x, policy.outcomes))
    true = flat(-(p * rewards.sum(1)).sum(), policy)
    if discount == 1.0:
        exact = true
    else:
        to_go = sum(rewards.roll(-k, 1) * 0.23**k * (torch.arange(T) < T - k) for k in range(T))
        exact = flat(-(p.detach() * (log_probs * to_go).sum(1)).sum(), policy)
        assert (exact - true).norm() > 0.05 * true.norm()  # its bias
    check(draws(make(eos), policy, judge, 150), exact)


@pytest.mark.parametrize(("entropy", "kl"), [(0.7, 0.0), (0.0, 0.4), (0.7, 0.4)])
def test_entropy_and_divergence_from_a_reference(entropy, kl):
    """Their mean gradient and their value, by the sum over all sequences."""
    policy, _ = players(True)
    reference, _ = players(True, seed=5)
    x, log_probs, p = support(policy)
    log_p, log_q = log_probs.sum(1), reference.log_probs(x).sum(1).detach()
    exact = flat((p * (entropy * log_p + kl * (log_p - log_q))).sum(), policy)
    torch.manual_seed(1)
    found, told = [], []
    for _ in range(150):
        loss, spoken = pull(policy, policy.sample(B), entropy, kl, reference)
        found.append(flat(loss, policy))
        told.append(spoken["exact_entropy"])
    check(torch.stack(found), exact)
    told = torch.stack(told)
    steps = (p * written(x, policy.outcomes).sum(1)).sum()
    assert abs(told.mean() - (-(p * log_p).sum() / steps).detach()) < 0.05  # of a batch, a ratio of two means


def test_a_copy_that_lags_is_a_bias():
    """SeqGAN's rollouts by a copy: the mean gradient is that of the copy's Q, and not the exact one."""
    policy, discriminator = players(True)
    judge = judge_of(policy, discriminator, "logit")
    algorithm = SeqGAN(2, 0.8)
    algorithm.follow(policy, begin=True)
    assert all(torch.equal(a, b) for a, b in zip(algorithm.writer.parameters(), policy.parameters(), strict=True))
    before = [p.clone() for p in policy.parameters()]
    other, _ = players(True, seed=9)
    policy.load_state_dict(other.state_dict())
    algorithm.follow(policy)
    for old, new, copy in zip(before, policy.parameters(), algorithm.writer.parameters(), strict=True):
        torch.testing.assert_close(copy, 0.8 * old + 0.2 * new)
    x, log_probs, p = support(policy)
    reward = judge.sentence(x)
    true = flat(-(p * reward).sum(), policy)
    theirs = algorithm.writer.log_probs(x).detach()
    expected = torch.zeros_like(log_probs)
    for t in range(T):  # Q by the copy: over all sequences with the same beginning
        same = (x[:, None, : t + 1] == x[None, :, : t + 1]).all(-1)
        chance = same * theirs[:, t + 1 :].sum(1).exp()
        expected[:, t] = (chance * reward).sum(1) / chance.sum(1)
    expected = torch.where(written(x, policy.outcomes), expected, torch.zeros_like(expected))
    exact = flat(-(p.detach() * (log_probs * expected).sum(1)).sum(), policy)
    assert (exact - true).norm() > 0.1 * true.norm()
    found = draws(algorithm, policy, judge, 150)
    check(found, exact)
    with pytest.raises(AssertionError, match="biased"):
        check(found, true)


@pytest.mark.parametrize("algorithm", [ImportanceWeighted(), ImportanceWeighted(2)], ids=["maligan", "bsgan"])
def test_importance_weights_are_biased_by_their_normaliser(algorithm):
    """At M = 2 the mean is that over all pairs; at larger M it nears that of likelihood, grad E_p[e^a] / E_p[e^a]."""
    policy, discriminator = players(True, vocab=2, length=3)
    judge = judge_of(policy, discriminator)
    x, log_probs, p = support(policy)
    logits = judge.logits(x).detach()
    ideal = flat(-(p * logits.exp()).sum() / (p * logits.exp()).sum().detach(), policy)

    def of_pairs() -> torch.Tensor:
        first, second = torch.meshgrid(torch.arange(len(x)), torch.arange(len(x)), indexing="ij")
        weights = torch.stack([logits[first], logits[second]]).softmax(0) - 0.5
        scores = torch.stack([log_probs.sum(1)[first], log_probs.sum(1)[second]])
        return flat(-((p[first] * p[second]).detach() * (weights * scores).sum(0)).sum(), policy)

    exact = of_pairs()
    assert (exact - ideal).norm() > 0.1 * ideal.norm()
    batch = 2 if algorithm.group is None else 6
    found = draws(algorithm, policy, judge, 400, batch)
    check(found, exact)
    larger = draws(ImportanceWeighted(), policy, judge, 100, 128).mean(0)
    assert (larger - ideal).norm() < 0.5 * (exact - ideal).norm()


def test_weights_and_their_baseline():
    """w - b / M, M w from the softmax of the logits; all equal logits teach nothing at b = 1."""
    policy, discriminator = players(True)
    judge = judge_of(policy, discriminator)
    x = policy.sample(6)
    mask = written(x, policy.outcomes)
    values, _ = ImportanceWeighted(3, baseline=0.25).values(policy, judge, x, mask)
    weights = judge.logits(x).reshape(2, 3).softmax(1).flatten() * 3 - 0.25
    torch.testing.assert_close(values, (weights[:, None] * mask).detach())
    even = Judge(lambda x: torch.zeros(len(x), dtype=torch.float64), GAME, policy.outcomes)
    assert ImportanceWeighted().values(policy, even, x, mask)[0].abs().max() < 1e-12


def test_straight_through_is_biased_and_a_constant_reward_teaches_nothing_on_average():
    policy, discriminator = players(False)
    judge = Judge(discriminator, GAMES["reverse-kl"].objective, policy.outcomes)
    x, _, p = support(policy)
    exact = flat((p * -judge.logits(x).detach()).sum(), policy)
    with pytest.raises(AssertionError, match="biased"):
        check(draws(Gumbel(), policy, judge, 150), exact)
    check(draws(Constant(), policy, judge, 150), torch.zeros_like(exact))


def test_a_critic_that_is_wrong_is_a_bias_below_lam_1():
    policy, discriminator = players(True, prefix=True)
    judge = judge_of(policy, discriminator, "2d-1")
    x, _, p = support(policy)
    exact = flat(-(p * judge.steps(x, written(x, policy.outcomes)).sum(1)).sum(), policy)
    critic = PrefixCritic(V, 4, eos=True).double()
    with torch.no_grad():
        critic.net.out.weight *= 20
    with pytest.raises(AssertionError, match="biased"):
        check(draws(ActorCritic(critic, lam=0.0), policy, judge, 150), exact)


def test_the_critic_goes_to_the_value():
    """The least of its loss at lam = 1 is V: what is still to come from each prefix, here of a reward at the end."""
    policy, discriminator = players(True)
    judge = judge_of(policy, discriminator)
    torch.manual_seed(2)
    algorithm = ActorCritic(PrefixCritic(V, 16, eos=True).double(), lam=1.0)
    optimiser = torch.optim.Adam(algorithm.parameters(), lr=1e-2)
    for _ in range(100):
        optimiser.zero_grad()
        algorithm.lesson(policy, judge, 128, 0).fit.backward()
        optimiser.step()
    x, _, p = support(policy)
    mean = (p * judge.sentence(x)).sum().detach()
    assert abs(float(algorithm.critic(x[:1])[0, 0].detach() - mean)) < 0.02


def test_the_embedding_s_gradient_is_that_of_its_game():
    """Finite differences with the same noise, in double precision."""
    torch.manual_seed(0)
    policy = EmbeddingGenerator(V, T, 6, embedding=4, noise=3, eos=True).double()
    discriminator = loud(VectorDiscriminator(V, T, 4, eos=True, filters=((1, 4), (2, 4))))
    judge = judge_of(policy, discriminator)

    def cost() -> torch.Tensor:
        torch.manual_seed(3)
        return EmbeddingPath(0.1).lesson(policy, judge, 6, 0).loss

    exact = flat(cost(), policy)
    weight, step = policy.out.weight, 1e-6
    for place in ((0, 0), (2, 3), (3, 5)):
        with torch.no_grad():
            weight[place] += step
            above = cost()
            weight[place] -= 2 * step
            below = cost()
            weight[place] += step
        start = sum(p.numel() for name, p in policy.named_parameters() if name.startswith("cell"))
        index = start + place[0] * weight.shape[1] + place[1]
        torch.testing.assert_close((above - below) / (2 * step), exact[index], rtol=1e-4, atol=1e-7)


def test_an_embedding_is_read_as_its_nearest_token():
    torch.manual_seed(0)
    policy = EmbeddingGenerator(V, T, 6, embedding=8, eos=True)
    vectors = policy(policy.noise(50))
    x = policy.read(vectors)
    distances = torch.cdist(vectors.flatten(0, 1), policy.table)
    mask = written(x, policy.outcomes).flatten()
    assert torch.equal(distances.argmin(1)[mask], x.flatten()[mask])
    ended = (x == V).cumsum(1) - (x == V).long() > 0
    assert torch.equal(x == V + 1, ended) and (vectors[ended] == 0).all()
    assert torch.equal(policy.read(policy.vectors(x)), x)
    begun = torch.tensor([[2, 1]]).expand(20, 2)
    drawn = policy.continued(begun)
    assert torch.equal(drawn[:, :2], begun)
    policy.distribution = lambda: GRUPolicy(V, T, 2, eos=True).distribution()
    policy.distribution().log_prob(drawn)  # refuses anything but padding behind an end


def test_baselines():
    value = torch.tensor([[1.0, 2.0], [3.0, 9.0], [5.0, 0.0]])
    mask = torch.tensor([[True, True], [True, False], [True, False]])
    expected = torch.tensor([[4.0, 0.0], [3.0, 2.0], [2.0, 2.0]])
    assert torch.equal(LeaveOneOut()(value, mask), expected)
    average = MovingAverage(0.25)
    assert (average(value, mask) == 0).all()
    torch.testing.assert_close(average(value, mask), torch.full_like(value, 0.75 * 11 / 4))
    assert torch.equal(NoBaseline()(value, mask), torch.zeros_like(value))


def test_rewards_of_a_logit():
    a = torch.tensor([-2.0, 0.0, 1.5])
    d = a.sigmoid()
    for name, value in {"d": d, "log-d": d.log(), "logit": a, "2d-1": 2 * d - 1}.items():
        torch.testing.assert_close(REWARDS[name](a), value)
        torch.testing.assert_close(Judge(lambda x: a, GAME, 3, name).sentence(torch.zeros(3, 2).long()), value)
    paired = GAMES["relativistic"].objective
    real = torch.tensor([1.0, -1.0])
    judge = Judge(lambda x: a, paired, 3, "objective", real)
    expected = -torch.nn.functional.softplus(torch.tensor([1.0, -1.0, 1.0]) - a)
    torch.testing.assert_close(judge.sentence(torch.zeros(3, 2).long()), expected)
    with pytest.raises(ValueError, match="did you mean 'log-d'"):
        Judge(lambda x: a, GAME, 3, "logd")


def test_the_logit_of_a_sentence_is_that_of_its_last_step():
    logits = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    x = torch.tensor([[0, 2, 3], [1, 1, 0]])
    assert torch.equal(whole(logits, written(x, 3)), torch.tensor([2.0, 6.0]))
