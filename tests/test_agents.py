"""Batched agents: their episodes, their gradients against exact ones, the optimum they reach, what they leave."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from advrl.agents import (
    ActorCriticTrainer,
    Episodes,
    PolicyGradientTrainer,
    PPOTrainer,
    ReinforceTrainer,
    actor_for,
    pay,
    play,
)
from advrl.envs import (
    DiscriminatorScore,
    OneShotGeneration,
    SequenceGeneration,
    SequenceVectorEnv,
    to_mdp,
)
from advrl.estimators import Critic, MovingAverage, leave_one_out
from advrl.nn import GRUPolicy
from advrl.objectives import minimax, non_saturating
from advrl.tabular import backward_induction
from tests.statistics import assert_unbiased

V, T = 3, 3


def weights(x: Tensor) -> Tensor:
    """A reward of both signs that depends on every place, the end and the padding among them."""
    table = torch.sin(1.7 * torch.arange(1, 1 + T * (V + 2), device=x.device).view(T, V + 2) ** 2)
    return table.gather(1, x.T).T.prod(1) + table.gather(1, x.T).T.sum(1)


def sequences(dense: bool = False, **options) -> SequenceGeneration:
    return SequenceGeneration(V, T, weights, eos=True, dense=dense, **options)


def small(seed: int = 0, policy: type = GRUPolicy) -> GRUPolicy:
    torch.manual_seed(seed)
    made = policy(V, T, 3, eos=True).double()
    for p in made.parameters():
        p.data.mul_(2)  # away from uniform
    return made


def exact(policy: GRUPolicy, task: SequenceGeneration, entropy: float = 0.0) -> Tensor:
    """-(E[return] + entropy H) by the sum over all sequences, differentiable."""
    law = policy.distribution()
    x = law.enumerate_support()
    log_prob = law.log_prob(x)
    if task.dense:
        steps = [x.masked_fill(torch.arange(T) > t, V + 1) for t in range(T)]
        value = (torch.stack([weights(part) for part in steps], 1) * law.mask(x)).sum(1)
    else:
        value = weights(x)
    return -(log_prob.exp() * (value - entropy * log_prob)).sum()


def gradients(trainer: PolicyGradientTrainer, draws: int, size: int) -> Tensor:
    """(draws, k) the gradients of as many steps that do not move (lr=0)."""
    found = []
    for _ in range(draws):
        trainer.step(torch.zeros(size, 1))
        found.append(torch.cat([p.grad.flatten() for p in trainer.generator.parameters() if p.grad is not None]))
    return torch.stack(found)


class Exact(nn.Module):
    """V of a policy's prefixes by the sum over all sequences: a critic without error."""

    def __init__(self, policy: GRUPolicy, value) -> None:
        super().__init__()
        law = policy.distribution()
        with torch.no_grad():
            self.x = law.enumerate_support()
            self.p, self.paid = law.log_prob(self.x).exp(), value(self.x)
        self.unused = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, prefix: Tensor) -> Tensor:
        written = prefix != V + 1
        agrees = ((prefix[:, None] == self.x) | ~written[:, None]).all(-1)
        return (agrees * self.p * self.paid).sum(1) / (agrees * self.p).sum(1) + 0 * self.unused


class Random(nn.Module):
    """A critic that is wrong, but a function of the state."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.linspace(-1, 1, T, dtype=torch.float64))

    def forward(self, prefix: Tensor) -> Tensor:
        return prefix.double() @ self.w


AGENTS = {
    "reinforce": (lambda p, t, **o: ReinforceTrainer(p, t, **o, lr=0.0), {}),
    "leave-one-out": (lambda p, t, **o: ReinforceTrainer(p, t, **o, lr=0.0, baseline=leave_one_out), {}),
    "constant": (lambda p, t, **o: ReinforceTrainer(p, t, **o, lr=0.0, baseline=-0.7), {}),
    "moving average": (lambda p, t, **o: ReinforceTrainer(p, t, **o, lr=0.0, baseline=MovingAverage(0.9)), {}),
    "to go": (lambda p, t, **o: ReinforceTrainer(p, t, **o, lr=0.0, baseline=leave_one_out), {"dense": True}),
    "actor-critic, lambda 1": (
        lambda p, t, **o: ActorCriticTrainer(p, t, **o, lr=0.0, critic=Random(), lam=1.0, lr_critic=0.0),
        {},
    ),
    "actor-critic, exact": (
        lambda p, t, **o: ActorCriticTrainer(p, t, **o, lr=0.0, critic=Exact(p, weights), lam=0.3, lr_critic=0.0),
        {},
    ),
    "PPO": (
        lambda p, t, **o: PPOTrainer(p, t, **o, lr=0.0, lam=1.0, epochs=1, minibatches=1, normalise=False),
        {"dense": True},
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "entropy"), [*((name, 0.0) for name in AGENTS), ("leave-one-out", 0.7), ("to go", 0.7), ("PPO", 0.7)]
)
def test_the_mean_gradient_is_the_exact_one(name, entropy):
    """z-tests on every weight of a recurrent policy over sequences that may end."""
    make, options = AGENTS[name]
    policy, task = small(), sequences(**options)
    trainer = make(policy, task, entropy=entropy)
    torch.manual_seed(1)
    draws = gradients(trainer, 250, 32)
    wanted = torch.autograd.grad(exact(policy, task, entropy), list(policy.parameters()), allow_unused=True)
    wanted = torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten()
                        for p, g in zip(policy.parameters(), wanted, strict=True)])  # fmt: skip
    moving = draws.std(0) > 0
    torch.testing.assert_close(draws[0, ~moving], wanted[~moving])  # the padding's row, and what follows the last step
    assert moving.sum() > 40
    assert_unbiased(draws[:, moving], wanted[moving])


def test_a_baseline_with_its_own_sample_is_found_out():
    """The test above can fail: the mean of all costs shrinks the gradient by (n - 1) / n."""
    policy, task = small(), sequences()
    trainer = ReinforceTrainer(policy, task, lr=0.0, baseline=lambda cost: cost.mean(0))
    torch.manual_seed(1)
    draws = gradients(trainer, 1500, 2)
    wanted = torch.autograd.grad(exact(policy, task), list(policy.parameters()))
    wanted = torch.cat([g.flatten() for g in wanted])
    moving = draws.std(0) > 0
    with pytest.raises(AssertionError, match="biased"):
        assert_unbiased(draws[:, moving], wanted[moving])


class Bell(nn.Module):
    """x ~ N(W z, s^2), one number for each of two contexts."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.tensor([[0.2], [-0.3]], dtype=torch.float64))

    def distribution(self, z: Tensor) -> Independent:
        return Independent(Normal(z @ self.mean, 0.3), 1)


@pytest.mark.parametrize("critic", [None, "critic", "leave-one-out", "actor-critic", "PPO"])
def test_one_shot_gradients_are_the_closed_form(critic):
    """r = -(x - 1/2)^2 with x ~ N(m_z, s^2) and two contexts: d E[r] / d m_z = -(m_z - 1/2), each half of the time."""
    task = OneShotGeneration(torch.eye(2), (1,), lambda x: -(x[:, 0] - 0.5).square())
    policy = Bell()
    value = nn.Linear(2, 1)
    if critic in ("actor-critic", "PPO"):
        value = value.double()
        options = {"epochs": 1, "minibatches": 1, "normalise": False} if critic == "PPO" else {}
        cls = PPOTrainer if critic == "PPO" else ActorCriticTrainer
        trainer: PolicyGradientTrainer = cls(policy, task, lr=0.0, critic=value, lr_critic=0.01, **options)
    else:
        baseline = {"critic": Critic(), "leave-one-out": leave_one_out}.get(critic or "")
        trainer = ReinforceTrainer(policy, task, lr=0.0, baseline=baseline, samples=4, lr_baseline=0.01)
    torch.manual_seed(0)
    draws = gradients(trainer, 500, 16)
    assert_unbiased(draws, (policy.mean.detach() - 0.5).flatten())
    if critic == "critic":
        known = trainer.baseline.net(torch.eye(2, dtype=torch.float64)).detach()[:, 0]
        assert (known - (policy.mean.detach()[:, 0] - 0.5).square() - 0.09).abs().max() < 0.05  # costs, learned


# Episodes


class Ending(nn.Module):
    """Ends after ``at`` tokens, or never; always writes token 1."""

    vocab_size, eos = V, True

    def __init__(self, at: int, length: int = T) -> None:
        super().__init__()
        self.at, self.length = at, length
        self.p = nn.Parameter(torch.zeros(1))

    def start(self, n, context=None):
        return (torch.zeros(n, dtype=torch.int64),)

    def step(self, tokens, state):
        (steps,) = state
        logits = torch.full((len(steps), V + 1), -1e9) + self.p
        logits = logits.scatter(1, torch.where(steps >= self.at, V, 1)[:, None], 0.0)
        return logits, (steps + 1,)

    def logits(self, x, context=None):
        state, found = self.start(len(x)), []
        for _ in range(x.shape[1]):
            out, state = self.step(None, state)
            found.append(out)
        return torch.stack(found, 1)


@pytest.mark.parametrize(
    ("at", "written", "length"),
    [(0, [V, V + 1, V + 1], 1), (1, [1, V, V + 1], 2), (2, [1, 1, V], 3), (9, [1, 1, 1], 3)],
)
@pytest.mark.parametrize("dense", [False, True])
def test_sequences_that_end_at_once_early_and_never(at, written, length, dense):
    task = sequences(dense=dense)
    actor = actor_for(Ending(at), task)
    episodes = play(actor, task, 5, observe=True)
    assert episodes.sample.tolist() == [written] * 5
    assert episodes.mask.sum(1).tolist() == [length] * 5
    assert episodes.observation[:, 0].eq(V + 1).all()
    reward = pay(task, episodes)
    steps = [weights(torch.tensor([written[: t + 1] + [V + 1] * (T - t - 1)])) for t in range(length)]
    wanted = [float(r) for r in steps] if dense else [0.0] * (length - 1) + [float(steps[-1])]
    assert reward.tolist() == [pytest.approx(wanted + [0.0] * (T - length))] * 5
    assert actor.log_prob(episodes).abs().max() == 0  # certain, and nothing behind the end
    for cls in (ReinforceTrainer, ActorCriticTrainer, PPOTrainer):
        trainer = cls(Ending(at), task)
        trainer.steps = 1  # past the warning that comes with the first
        assert all(math.isfinite(v) for v in trainer.step(torch.zeros(4, 1)).values())


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("made", [{}, {"min_length": 2}, {"allowed": "no repetition"}])
def test_episodes_are_the_vector_environment_s(dense, made):
    """The same actions in the NumPy view: observations, rewards, ends; and masked actions are never taken."""
    if made.get("allowed"):
        made = {"allowed": lambda x: torch.stack([(x != a).all(1) | (x == V).any(1) for a in range(V)]
                                                 + [torch.ones(len(x), dtype=torch.bool)], 1)}  # fmt: skip
    task, policy = sequences(dense=dense, **made), small().float()
    torch.manual_seed(2)
    episodes = play(actor_for(policy, task), task, 64, observe=True)
    reward = pay(task, episodes)
    env = SequenceVectorEnv(64, vocab=V, length=T, reward=weights, eos=True, dense=dense, autoreset_mode="Disabled",
                            **made)  # fmt: skip
    seen, _ = env.reset(seed=0)
    over = torch.zeros(64, dtype=torch.bool)
    for t in range(T):
        assert torch.equal(episodes.mask[:, t], ~over)
        assert torch.equal(episodes.observation[~over, t], torch.from_numpy(seen)[~over])
        action = torch.where(over, torch.zeros(64, dtype=torch.int64), episodes.action[:, t])
        if over.any():  # a view of what goes on alone
            break
        seen, paid, ended, _, _ = env.step(action.numpy())
        over = torch.from_numpy(ended)
        torch.testing.assert_close(reward[:, t].float(), torch.from_numpy(paid).float())
    if made.get("min_length"):
        assert (episodes.mask.sum(1) > 2).all()
    if made.get("allowed"):
        tokens = [[a for a in row if a < V] for row in episodes.sample.tolist()]
        assert all(len(set(row)) == len(row) for row in tokens)
    if not made:
        log_prob = actor_for(policy, task).log_prob(episodes).sum(1)
        torch.testing.assert_close(log_prob, policy.distribution().log_prob(episodes.sample))


def test_masked_probabilities_sum_to_one():
    task, policy = sequences(min_length=1), small()
    x = policy.distribution().enumerate_support()
    x = x[x[:, 0] != V]
    mask = policy.distribution().mask(x)
    allowed = torch.ones(len(x), T, V + 1, dtype=torch.bool)
    allowed[:, 0, V] = False
    log_prob = actor_for(policy, task).log_prob(Episodes(x.clamp(max=V), mask, x, allowed=allowed))
    assert float(log_prob.detach().sum(1).exp().sum()) == pytest.approx(1)


# The optimum


@pytest.mark.parametrize(
    ("make", "dense"),
    [
        (lambda p, t: ReinforceTrainer(p, t, baseline=leave_one_out, lr=0.03), False),
        (lambda p, t: ReinforceTrainer(p, t, baseline=leave_one_out, lr=0.03), True),
        (lambda p, t: ActorCriticTrainer(p, t, lr=0.03, lr_critic=0.01), False),
        (lambda p, t: PPOTrainer(p, t, lr=0.01, lr_critic=0.01), False),
    ],
    ids=["reinforce", "reinforce to go", "actor-critic", "PPO"],
)
def test_the_optimum_of_the_mdp_is_reached(make, dense):
    """The exact return of the trained policy within 1 % of the range between the uniform policy's and the optimum."""
    task = sequences(dense=dense)
    mdp, _ = to_mdp(task)
    best = float(backward_induction(mdp, T).V[0][0])
    torch.manual_seed(3)
    policy = GRUPolicy(V, T, 8, eos=True).double()
    trainer = make(policy, task)
    start = -float(exact(policy, task).detach())
    for _ in range(60 if isinstance(trainer, PPOTrainer) else 150):
        trainer.step(torch.zeros(64, 1))
    assert best - 0.01 * (best - start) < -float(exact(policy, task).detach()) <= best + 1e-9


def test_entropy_leads_to_the_distribution_itself():
    """r = log p and entropy 1 minimise KL(pi || p), whose minimum is pi = p."""
    oracle = small(5)
    task = SequenceGeneration(V, T, lambda x: oracle.distribution().log_prob(x), eos=True)
    torch.manual_seed(0)
    policy = GRUPolicy(V, T, 8, eos=True).double()
    trainer = ReinforceTrainer(policy, task, baseline=leave_one_out, entropy=1.0, lr=0.02)
    with torch.no_grad():
        x = policy.distribution().enumerate_support()

        def divergence() -> float:
            log_prob = policy.distribution().log_prob(x)
            return float((log_prob.exp() * (log_prob - oracle.distribution().log_prob(x))).sum())

        before = divergence()
    for _ in range(150):
        trainer.step(torch.zeros(64, 1))
    with torch.no_grad():
        assert before > 0.5 and divergence() < 0.02


# Lengths


@pytest.mark.parametrize(("objective", "length"), [(minimax, 6.0), (non_saturating, 1.0)])
def test_rewards_of_one_sign_choose_the_length(objective, length):
    """A discriminator that knows nothing pays each step log 2, or minus it: the best policy never ends, or at once."""
    blind = nn.Linear(6, 1)
    for p in blind.parameters():
        nn.init.zeros_(p)
    score = DiscriminatorScore(blind, objective)

    def reward(x: Tensor) -> Tensor:
        return score(x.float())

    torch.manual_seed(0)
    for dense in (True, False):
        task = SequenceGeneration(2, 6, reward, eos=True, dense=dense)
        trainer = ReinforceTrainer(GRUPolicy(2, 6, 8, eos=True), task, baseline=leave_one_out, lr=0.03)
        if dense:
            with pytest.warns(UserWarning, match="longer" if length > 1 else "shorter"):
                trainer.step(torch.zeros(64, 1))
        before = float(play(trainer.actor, task, 2000).mask.sum(1).float().mean())
        for _ in range(60):
            last = trainer.step(torch.zeros(64, 1))
        if dense:
            assert float(last["length"]) == pytest.approx(length, abs=0.2)
        else:
            assert float(last["length"]) == pytest.approx(before, abs=1.0)  # nothing to learn from
