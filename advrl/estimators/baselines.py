r"""Baselines and advantages for the score function beyond a constant, a moving average and leave-one-out.

A baseline b leaves (c - b) grad log p unbiased as long as it does not depend on the sample it is subtracted from. The
one of least variance is, for each coordinate k of the parameters with score s_k,

    b_k* = E[c s_k^2] / E[s_k^2]                                 Greensmith, Bartlett & Baxter (2004), theorem 8

An advantage takes the place of (c - b) altogether and may be anything, so whether it is unbiased is its own affair.
Shapes: n samples, *batch whatever follows, k parameters.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from advrl.checks import integer, number, same_shape


def optimal_baseline(cost: Tensor, score: Tensor) -> Tensor:
    """The least-variance constant per coordinate of the parameters, estimated from the *other* samples.

    b_ik = sum_{j != i} c_j s_jk^2 / sum_{j != i} s_jk^2, independent of sample i, so that the estimate stays unbiased;
    what the finite number of others costs is variance alone. Where all the others' scores are 0, the mean of their
    costs. As ``Score(n, optimal_baseline)`` it needs n >= 2 (n = 2 is leave-one-out) and one score per sample.

    Args:
        cost: (n, *batch).
        score: (n, *batch, *k) the scores of each sample.

    Returns:
        (n, *batch, *k), without gradient.

    Raises:
        ValueError: with fewer than 2 samples, or a score of another leading shape.
    """
    if cost.dim() == 0 or cost.shape[0] < 2:
        raise ValueError(f"the optimal baseline needs at least 2 samples, got costs of shape {tuple(cost.shape)}")
    if score.shape[: cost.dim()] != cost.shape:
        raise ValueError(f"score must begin with the costs' shape {tuple(cost.shape)}, got {tuple(score.shape)}")
    c = cost.detach().reshape(*cost.shape, *[1] * (score.dim() - cost.dim()))
    square = score.detach() ** 2
    weighted, weight = c * square, square
    above, below = weighted.sum(0) - weighted, weight.sum(0) - weight
    mean = ((c.sum(0) - c) / (len(cost) - 1)).expand_as(above)
    some = below > torch.finfo(below.dtype).eps * weight.sum(0)  # else only the rounding of the subtraction is left
    return torch.where(some, above / torch.where(some, below, torch.ones_like(below)), mean)


def grpo(cost: Tensor, x: Tensor, eps: float = 1e-4) -> Tensor:
    """The advantage of group-relative policy optimisation: (c - mean) / (std + eps) over the n samples.

    Biased twice: the mean includes the sample itself, which alone shrinks the gradient by (n - 1) / n; and the division
    by each context's own standard deviation weighs contexts whose costs vary little up and the others down. Shao et al.
    (2024), eq. 3; the bias: Liu et al. (2025), section 3. To be given as ``Score(n, advantage=grpo)``.

    Args:
        cost: (n, *batch), n >= 2.
        x: the samples, which it does not need.
        eps: added to the standard deviation.

    Returns:
        (n, *batch)

    Raises:
        ValueError: with fewer than 2 samples.
    """
    if cost.shape[0] < 2:
        raise ValueError(f"the group's standard deviation needs at least 2 samples, got shape {tuple(cost.shape)}")
    return (cost - cost.mean(0)) / (cost.std(0) + eps)


class Learning(nn.Module):
    """What an estimator learns from its costs beside the policy.

    In training mode a surrogate leaves the loss in ``fit_loss``; minimise it with an optimiser of its own, as
    ``AdversarialTrainer`` does. Copies do not have it, since it belongs to the graph of one step.
    """

    fit_loss: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "fit_loss"}


class Fitted(Learning):
    """A network that is made when its inputs are known.

    Args:
        net: the network. If ``None``, a perceptron with one hidden layer, made by :meth:`build`, that starts from 0.
        hidden: units of that layer.
    """

    def __init__(self, net: nn.Module | None = None, hidden: int = 64) -> None:
        super().__init__()
        self.hidden = integer("hidden", hidden)
        self.net = net

    def build(self, distribution: Distribution) -> None:
        """Make the network for this distribution's events, flattened, if there is none yet."""
        if self.net is None:
            like = distribution.mean
            self.net = perceptron(distribution.event_shape.numel(), self.hidden).to(like.device, like.dtype)


class Critic(Fitted):
    """Baseline V(context), learned by least squares: an input-dependent baseline, NVIL's for instance.

    Mnih & Gregor (2014), section 2.3. ``Score(n, critic.at(z))`` gives the context; ``Score(n, critic)`` takes the
    mean of the distribution, flattened, which knows what the policy knows of its context. The loss is mean (V - c)^2.
    V is taken before it learns from the costs at hand, so the estimate is unbiased.

    Args:
        net: maps contexts (*batch, d) to (*batch,) or (*batch, 1). If ``None``, a perceptron with one hidden layer,
            made as soon as d is known, that starts from V = 0.
        hidden: units of that layer.
    """

    def at(self, context: Tensor) -> AtContext:
        """The baseline at a context (*batch, d)."""
        if self.net is None:
            self.net = perceptron(context.shape[-1], self.hidden).to(context.device, context.dtype)
        return AtContext(self, context.detach())

    def of(self, distribution: Distribution) -> AtContext:
        """The baseline at the mean of a distribution."""
        return self.at(distribution.mean.reshape(*distribution.batch_shape, -1))

    def forward(self, cost: Tensor, context: Tensor) -> Tensor:
        """V(context) without gradient, (*batch,); in training mode, leaves ``fit_loss``."""
        assert self.net is not None
        value: Tensor = self.net(context)
        if value.shape == (*cost.shape[1:], 1):
            value = value.squeeze(-1)
        same_shape(critic=value, cost_per_context=cost[0])
        self.fit_loss = ((value - cost.detach()) ** 2).mean() if self.training else None
        return value.detach()


class AtContext(nn.Module):
    """A critic at one context: a baseline (n, *batch) -> (*batch)."""

    def __init__(self, critic: Critic, context: Tensor) -> None:
        super().__init__()
        self.critic, self.context = critic, context

    @property
    def fit_loss(self) -> Tensor | None:
        """What the critic left to minimise."""
        return self.critic.fit_loss

    def forward(self, cost: Tensor) -> Tensor:
        """V(context), (*batch,)."""
        value: Tensor = self.critic(cost, self.context)
        return value


class VarianceNormalised(nn.Module):
    """Advantage (c - V) / max(1, std), std that of c - V in *earlier* calls: NVIL's normalisation.

    Mnih & Gregor (2014), section 2.3. Its bias is a factor 1 / max(1, std) on the whole gradient, known before the
    draw, so that the direction stays right. To be given as ``Score(n, advantage=VarianceNormalised(Critic()))``.

    Args:
        critic: the learned baseline.
        decay: of the running variance, in [0, 1).
    """

    variance: Tensor

    def __init__(self, critic: Critic, decay: float = 0.9) -> None:
        super().__init__()
        self.critic = critic
        self.decay = number("decay", decay, 0.0, 1.0 - 1e-9)
        self.register_buffer("variance", torch.ones((), device="cpu"))

    @property
    def fit_loss(self) -> Tensor | None:
        """What the critic left to minimise."""
        return self.critic.fit_loss

    def build(self, distribution: Distribution) -> None:
        """Make the critic's network, if there is none yet."""
        self.critic.build(distribution)

    def at(self, context: Tensor) -> NormalisedAt:
        """The advantage at a context (*batch, d)."""
        return NormalisedAt(self, self.critic.at(context))

    def of(self, distribution: Distribution) -> NormalisedAt:
        """The advantage at the mean of a distribution."""
        return NormalisedAt(self, self.critic.of(distribution))


class NormalisedAt(nn.Module):
    """A normalised advantage at one context."""

    def __init__(self, whole: VarianceNormalised, baseline: AtContext) -> None:
        super().__init__()
        self.whole, self.baseline = whole, baseline

    @property
    def fit_loss(self) -> Tensor | None:
        """What the critic left to minimise."""
        return self.baseline.fit_loss

    def forward(self, cost: Tensor, x: Tensor) -> Tensor:
        """(c - V) / max(1, std), (n, *batch)."""
        signal = cost - self.baseline(cost)
        whole = self.whole
        if whole.variance.device != cost.device or whole.variance.dtype != cost.dtype:
            whole.variance = whole.variance.to(device=cost.device, dtype=cost.dtype)
        scaled = signal / whole.variance.sqrt().clamp(min=1.0)
        if whole.training:
            with torch.no_grad():
                whole.variance.lerp_(signal.var(correction=0), 1 - whole.decay)
        return scaled


def perceptron(width: int, hidden: int) -> nn.Sequential:
    """Numbers (*, width) to (*, 1), one hidden layer, 0 everywhere to begin with."""
    last = nn.Linear(hidden, 1, device="cpu")
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(width, hidden, device="cpu"), nn.SiLU(), last)
