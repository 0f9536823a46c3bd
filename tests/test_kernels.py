"""The kernels for sequences and reused draws: against plain loops, closed forms and enumeration."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli

from advrl.estimators import dice, gae, ppo_clip, reward_to_go, score_function
from tests.statistics import assert_unbiased

F64 = torch.float64


def rows(batch: tuple[int, ...] = (5, 3), length: int = 7) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rewards and values of episodes of different lengths, their mask, and the value after the end; nan as padding."""
    generator = torch.Generator().manual_seed(0)
    reward, value = torch.randn(2, *batch, length, dtype=F64, generator=generator)
    ends = torch.randint(0, length + 1, batch, generator=generator)
    ends.view(-1)[0], ends.view(-1)[1] = 0, length
    mask = (torch.arange(length) < ends[..., None]).to(F64)
    bootstrap = torch.randn(batch, dtype=F64, generator=generator) * (torch.rand(batch, generator=generator) < 0.5)
    padding = torch.full_like(reward, float("nan"))
    return torch.where(mask.bool(), reward, padding), torch.where(mask.bool(), value, padding), mask, bootstrap


def gae_of_one_episode(reward: list, value: list, last: float, gamma: float, lam: float) -> list[float]:
    """Schulman et al.'s definition, term by term."""
    values = [*value, last]
    delta = [r + gamma * values[t + 1] - values[t] for t, r in enumerate(reward)]
    return [sum((gamma * lam) ** (u - t) * delta[u] for u in range(t, len(delta))) for t in range(len(delta))]


@pytest.mark.parametrize("gamma", [1.0, 0.9, 0.0])
@pytest.mark.parametrize("lam", [1.0, 0.7, 0.0])
def test_gae_is_that_of_each_episode_by_itself(gamma, lam):
    reward, value, mask, bootstrap = rows()
    result = gae(reward, value, mask, gamma, lam, bootstrap)
    assert result.shape == reward.shape
    for b in torch.cartesian_prod(torch.arange(5), torch.arange(3)).tolist():
        i, j = b
        end = int(mask[i, j].sum())
        own = gae_of_one_episode(
            reward[i, j, :end].tolist(), value[i, j, :end].tolist(), bootstrap[i, j].item(), gamma, lam
        )
        torch.testing.assert_close(result[i, j], torch.tensor(own + [0.0] * (7 - end), dtype=F64))
    terminated = gae(reward, value, mask, gamma, lam)
    assert torch.equal(terminated, gae(reward, value, mask, gamma, lam, torch.zeros_like(bootstrap)))


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_gae_at_lambda_one_is_the_monte_carlo_advantage(gamma):
    reward, value, mask, _ = rows()
    advantage = reward_to_go(reward, mask, gamma) - torch.where(mask.bool(), value, torch.zeros_like(value))
    torch.testing.assert_close(gae(reward, value, mask, gamma, 1.0), advantage)
    full, estimate = torch.randn(2, 4, 6, dtype=F64)
    torch.testing.assert_close(gae(full, estimate, None, gamma, 1.0), reward_to_go(full, None, gamma) - estimate)


@pytest.mark.parametrize("gamma", [1.0, 0.9, 0.0])
def test_reward_to_go_is_a_sum_over_what_is_left(gamma):
    reward, _, mask, _ = rows()
    result = reward_to_go(reward, mask, gamma)
    for t in range(7):
        left = torch.where(mask[..., t:].bool(), reward[..., t:], torch.zeros(1, dtype=F64))
        expected = (left * gamma ** torch.arange(7 - t, dtype=F64)).sum(-1) * mask[..., t]
        torch.testing.assert_close(result[..., t], expected)
    assert result.isfinite().all()


def test_gradients_of_the_kernels():
    reward, value, log_prob, old = (torch.randn(2, 4, dtype=F64, requires_grad=True) for _ in range(4))
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]], dtype=F64)
    end = torch.randn(2, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda r: reward_to_go(r, mask, 0.9), reward)
    assert torch.autograd.gradcheck(lambda *a: gae(a[0], a[1], mask, 0.9, 0.7, a[2]), (reward, value, end))
    advantage = torch.randn(2, 4, dtype=F64)
    assert torch.autograd.gradcheck(lambda p: ppo_clip(p, old.detach(), advantage), log_prob)


def test_ppo_is_the_policy_gradient_at_the_old_policy_and_stops_outside():
    old, advantage = torch.randn(6, dtype=F64), torch.tensor([1.0, -2.0, 0.5, -0.5, 1.0, -1.0], dtype=F64)
    here = old.clone().requires_grad_()
    loss = ppo_clip(here, old, advantage)
    torch.testing.assert_close(loss, -advantage)
    torch.testing.assert_close(torch.autograd.grad(loss.sum(), here)[0], -advantage)

    shift = torch.tensor([1.3, 1.3, 0.7, 0.7, 1.1, 0.9], dtype=F64).log()
    there = (old + shift).requires_grad_()
    slope = torch.autograd.grad(ppo_clip(there, old, advantage, 0.2).sum(), there)[0]
    stopped = torch.tensor([True, False, False, True, False, False])  # gone where the advantage wanted it, too far
    torch.testing.assert_close(slope, torch.where(stopped, 0.0, -advantage * shift.exp()))
    by_hand = [
        -min(r * a, min(max(r, 0.8), 1.2) * a) for r, a in zip(shift.exp().tolist(), advantage.tolist(), strict=True)
    ]
    torch.testing.assert_close(ppo_clip(there, old, advantage, 0.2), torch.tensor(by_hand, dtype=F64))


def test_the_box_is_right_to_third_order():
    """E[x] and its derivatives in the logit, by the sum over both outcomes with the weights held fixed."""
    logit = torch.tensor(0.4, dtype=F64, requires_grad=True)
    x = torch.tensor([0.0, 1.0], dtype=F64)
    log_prob = Bernoulli(logits=logit).log_prob(x)
    assert torch.equal(dice(log_prob), torch.ones(2, dtype=F64))
    ours, truth = (log_prob.exp().detach() * dice(log_prob) * x).sum(), logit.sigmoid()
    for _ in range(3):
        ours, truth = (torch.autograd.grad(y, logit, create_graph=True)[0] for y in (ours, truth))
        torch.testing.assert_close(ours, truth)
    usual = (log_prob.exp().detach() * log_prob * x).sum()  # without the box: first order only
    second = torch.autograd.grad(torch.autograd.grad(usual, logit, create_graph=True)[0], logit)[0]
    assert (second - logit.sigmoid() * (1 - logit.sigmoid()) * (1 - 2 * logit.sigmoid())).abs() > 0.05


def credit(length: int, p: float) -> dict[str, float]:
    """Variance of one rollout's gradient in the shared logit, with reward sum_t x_t: the closed forms."""
    t, q = length, 1 - p
    own = 3 * t * (t - 1) * (p * q) ** 2 + t * p * q * (1 - 3 * p * q)
    return {
        "total": own + 2 * t**2 * p**2 * q * (q - p) + t**3 * p**3 * q - (t * p * q) ** 2,
        "total, baseline": own - (t * p * q) ** 2,
        "to go": p * q * sum((q - p + p * k) ** 2 for k in range(1, t + 1)) + t * (t - 1) * (p * q) ** 2 / 2,
        "to go, baseline": t * (q - p) ** 2 * p * q + t * (t - 1) * (p * q) ** 2 / 2,
    }


@pytest.mark.parametrize("p", [0.5, 0.3])
def test_variance_of_credit_assignment(p):
    """Ten steps: 73.75 for the total, 26.875 for what is left, 11.25 and 2.8125 with their means as baselines."""
    torch.manual_seed(0)
    length, closed = 10, credit(10, p)
    if p == 0.5:
        assert [closed[k] for k in ("total", "to go", "to go, baseline")] == [73.75, 26.875, 2.8125]
        closed["total, baseline"] = 11.25
    theta = torch.full((200_000, 1), p, dtype=F64).logit().requires_grad_()
    policy = Bernoulli(logits=theta.expand(-1, length))
    reward = policy.sample()
    log_prob = policy.log_prob(reward)
    left = p * torch.arange(length, 0, -1, dtype=F64)
    costs = {
        "total": (reward.sum(-1, keepdim=True).expand_as(reward), 0.0),
        "total, baseline": (reward.sum(-1, keepdim=True).expand_as(reward), length * p),
        "to go": (reward_to_go(reward), 0.0),
        "to go, baseline": (reward_to_go(reward), left),
    }
    for name, (cost, baseline) in costs.items():
        surrogate = score_function(log_prob, cost, baseline).sum()
        g = torch.autograd.grad(surrogate, theta, retain_graph=True)[0]
        mean = torch.tensor([length * p * (1 - p)], dtype=F64)
        assert_unbiased(g, mean)
        assert_unbiased((g - mean) ** 2, torch.tensor([closed[name]], dtype=F64))


def test_wrong_use_fails_with_a_sentence():
    a, b = torch.zeros(2, 3), torch.zeros(2, 4)
    with pytest.raises(ValueError, match=r"reward \(2, 3\), mask \(2, 4\)"):
        reward_to_go(a, b)
    with pytest.raises(ValueError, match="gamma must be"):
        reward_to_go(a, None, 1.1)
    with pytest.raises(ValueError, match="lam must be"):
        gae(a, a, None, 0.9, -0.1)
    with pytest.raises(ValueError, match=r"reward \(2, 3\), value \(2, 4\)"):
        gae(a, b)
    with pytest.raises(ValueError, match=r"bootstrap \(3,\), rows \(2,\)"):
        gae(a, a, bootstrap=torch.zeros(3))
    with pytest.raises(ValueError, match="advantage"):
        ppo_clip(a, a, b)
    with pytest.raises(ValueError, match="clip must be"):
        ppo_clip(a, a, a, 0.0)
