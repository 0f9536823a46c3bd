"""The game of ``advrl train digits`` and the one-shot environment are one: the same noise gives the same gradient."""

import copy

import gymnasium as gym
import pytest
import torch
from torch.distributions import Bernoulli, Independent

from advrl.envs import DiscriminatorScore, OneShotVectorEnv
from advrl.estimators import Score, leave_one_out, score_function
from advrl.recipes import Digits
from advrl.seeding import isolated

BATCH = 12


@pytest.mark.parametrize("objective", ["non-saturating", "minimax", "wasserstein-gp"])
def test_a_reinforce_step_is_one_batch_of_the_environment(objective):
    """Weights' gradients from the trainer's own step, and from actions, rewards and log-probs alone, to 1e-6."""
    with isolated(0):
        trainer = Digits(objective=objective, width=32, latent=6, lr_generator=1e-4).build(torch.device("cpu")).trainer
        estimator = trainer.estimator
        assert isinstance(estimator, Score) and estimator.baseline is leave_one_out
        real = 2 * Digits().load_data().train[:BATCH] - 1
        z = torch.randn(BATCH, 6)
        policy = copy.deepcopy(trainer.generator)
        torch.manual_seed(1)
        actions = estimator.draw(policy.distribution(z)).x.detach()  # (n, B, 1, 8, 8) counts of ink
        torch.manual_seed(1)
        trainer.step(real, z)
        theirs = [p.grad for p in trainer.generator.parameters()]

        n = len(actions)
        reward = DiscriminatorScore(trainer.discriminator, trainer.objective)
        env = gym.make_vec("advrl/DigitsOneShot-v0", num_envs=n * BATCH, latent=6, reward=reward)
        seen, _ = env.reset(seed=0, options={"context": z.repeat(n, 1).numpy()})
        _, paid, over, _, _ = env.step(actions.flatten(0, 1).flatten(1).long().numpy())
        assert over.all()
        cost = -torch.from_numpy(paid).float().view(n, BATCH)
        log_prob = policy.distribution(torch.from_numpy(seen)[:BATCH]).log_prob(actions)
        score_function(log_prob, cost, leave_one_out(cost)).mean().backward()
        ours = [p.grad for p in policy.parameters()]
    scale = max(float(g.abs().max()) for g in theirs)
    assert scale > 1e-4
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-6)


def test_bits_too():
    """A Bernoulli policy on the bandit of bits has the gradient of the estimator's surrogate."""
    with isolated(0):
        score = DiscriminatorScore(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6, 1)))
        logits = torch.randn(5, 6, requires_grad=True)
        estimator = Score(4, leave_one_out)
        draw = estimator.draw(Independent(Bernoulli(logits=logits), 1))
        loss = estimator.surrogate(draw, lambda x: -score((2 * x - 1).flatten(0, 1)).view(x.shape[:2])).mean()
        (exact,) = torch.autograd.grad(loss, logits)
        env = OneShotVectorEnv(20, shape=(6,), kind="binary", reward=score)
        env.reset(seed=0)
        cost = -torch.from_numpy(env.step(draw.x.flatten(0, 1).to(torch.int8).numpy())[1]).float().view(4, 5)
        log_prob = Independent(Bernoulli(logits=logits), 1).log_prob(draw.x)
        (ours,) = torch.autograd.grad(score_function(log_prob, cost, leave_one_out(cost)).mean(), logits)
    torch.testing.assert_close(ours, exact, rtol=0, atol=1e-6)
