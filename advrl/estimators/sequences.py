r"""Kernels for costs and rewards that come step by step, and for draws that are used again.

Rewards, values and advantages are those of reinforcement learning: high is good. Shapes: *batch whatever comes first,
T steps last. A mask (*batch, T) is 1 on the steps that an episode has and 0 on the padding behind them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from advrl.checks import number, same_shape


def reward_to_go(reward: Tensor, mask: Tensor | None = None, gamma: float = 1.0) -> Tensor:
    """What is still to come at each step, R_t = sum_{u >= t} gamma^(u - t) r_u: Williams (1992); Sutton et al. (2000).

    An action cannot change what was paid before it, so its score needs no more: sum_t grad log p(x_t) R_t is unbiased.
    With gamma < 1 that estimates a discounted problem's gradient up to its missing gamma^t.

    Args:
        reward: (*batch, T).
        mask: (*batch, T); rewards behind the end do not count, and the result is 0 there.
        gamma: discount, in [0, 1].

    Returns:
        (*batch, T), differentiable in the rewards.

    Raises:
        ValueError: if the shapes differ or gamma is out of range.
    """
    number("gamma", gamma, 0.0, 1.0)
    if mask is not None:
        same_shape(reward=reward, mask=mask)
        reward = torch.where(mask.bool(), reward, torch.zeros_like(reward))  # not a product: 0 * nan is nan
    if gamma == 1.0:
        total = reward.flip(-1).cumsum(-1).flip(-1)
    else:
        total = _discounted(reward, gamma)
    return total if mask is None else total * mask


def gae(
    reward: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    gamma: float = 1.0,
    lam: float = 0.95,
    bootstrap: Tensor | None = None,
) -> Tensor:
    """Generalised advantage estimates, A_t = sum_l (gamma lam)^l delta_{t+l}: Schulman et al. (2016), eq. 16.

    delta_t = r_t + gamma V_{t+1} - V_t. At lam = 1 it is the reward to go minus the value (unbiased for any V), at
    lam = 0 one step of temporal difference; in between, the bias is that of V.

    Args:
        reward: (*batch, T), one episode per row.
        value: (*batch, T), V of the state in which each step was taken.
        mask: (*batch, T), as above; the result is 0 behind the end.
        gamma: discount, in [0, 1].
        lam: in [0, 1].
        bootstrap: (*batch,) V of the state after the last step: 0 (the default) where the episode terminated, the
            critic's value where it was cut off by a time limit.

    Returns:
        (*batch, T), differentiable in rewards and values; detach it before it multiplies a score.

    Raises:
        ValueError: if the shapes differ or a number is out of range.
    """
    number("gamma", gamma, 0.0, 1.0)
    number("lam", lam, 0.0, 1.0)
    same_shape(reward=reward, value=value, **({} if mask is None else {"mask": mask}))
    end = torch.zeros_like(reward[..., :1]) if bootstrap is None else bootstrap.unsqueeze(-1)
    same_shape(bootstrap=end.squeeze(-1), rows=reward[..., 0])
    following = torch.cat([value[..., 1:], end], -1)
    if mask is None:
        return _discounted(reward + gamma * following - value, gamma * lam)
    real = mask.bool()
    continues = torch.cat([real[..., 1:], torch.zeros_like(real[..., :1])], -1)
    following = torch.where(continues, following, end)
    delta = torch.where(real, reward + gamma * following - value, torch.zeros_like(reward))
    return _discounted(delta, gamma * lam)


def ppo_clip(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip: float = 0.2) -> Tensor:
    """The clipped surrogate -min(w A, clip(w, 1 - clip, 1 + clip) A), w = p / p_old: Schulman et al. (2017), eq. 7.

    At p = p_old its gradient is that of -A log p. Biased away from there: a sample whose ratio has left the interval in
    the direction of its advantage no longer teaches.

    Args:
        log_prob: any shape, log p(x), differentiable.
        old_log_prob: the same shape, log-probabilities under which x was drawn; detached.
        advantage: the same shape, of the reward (high is good); detached.
        clip: > 0.

    Returns:
        the same shape, to be minimised.

    Raises:
        ValueError: if the shapes differ or clip is not positive.
    """
    number("clip", clip, 0.0, exclusive=True)
    same_shape(log_prob=log_prob, old_log_prob=old_log_prob, advantage=advantage)
    ratio = (log_prob - old_log_prob.detach()).exp()
    advantage = advantage.detach()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def _discounted(x: Tensor, factor: float) -> Tensor:
    """y_t = x_t + factor y_{t+1} along the last dimension."""
    steps = list(x.unbind(-1))
    for t in range(len(steps) - 2, -1, -1):
        steps[t] = steps[t] + factor * steps[t + 1]
    return torch.stack(steps, -1)
