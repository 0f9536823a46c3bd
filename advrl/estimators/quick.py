"""Draws and log-probabilities of the common distributions, the same as ``torch.distributions`` gives, but sooner.

An estimator on a small batch spends most of its time between the kernels. ``Normal.sample`` looks at every deviation
whether it is positive, for which the host waits; ``Bernoulli`` draws from a table of probabilities copied n times, and
its log-probability goes through a loss. Other distributions are asked themselves.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Normal, OneHotCategorical
from torch.nn.functional import softplus

from advrl.estimators.base import base_of


def sample_of(distribution: Distribution, n: int) -> Tensor:
    """``distribution.sample((n,))``: (n, *batch, *event) without gradient."""
    base = base_of(distribution)
    if type(base) is Normal:
        with torch.no_grad():
            return rsample_of(distribution, n)
    if type(base) is Bernoulli:
        p = base.probs.detach()
        return torch.rand(n, *p.shape, dtype=p.dtype, device=p.device).lt_(p)
    return distribution.sample((n,))


def rsample_of(distribution: Distribution, n: int) -> Tensor:
    """``distribution.rsample((n,))``: (n, *batch, *event), differentiable in the parameters."""
    base = base_of(distribution)
    if type(base) is not Normal:
        return distribution.rsample((n,))
    loc = base.loc
    return torch.addcmul(loc, torch.randn(n, *loc.shape, dtype=loc.dtype, device=loc.device), base.scale)


def log_prob_of(distribution: Distribution, x: Tensor) -> Tensor:
    """``distribution.log_prob(x)`` for draws x (n, *batch, *event): (n, *batch).

    In single precision the value of many coins with large log-odds is rounded a little more than torch's; the
    derivatives, which are all that a surrogate uses, are not.
    """
    base = base_of(distribution)
    if type(base) is not Normal and not isinstance(base, (Bernoulli, OneHotCategorical)):
        return distribution.log_prob(x)
    if distribution._validate_args:
        base._validate_sample(x)
    event = len(distribution.event_shape)
    if isinstance(base, Normal):
        level = base.scale.log() + math.log(2 * math.pi) / 2
        each = torch.sub(-level, ((base.loc - x) / base.scale).square(), alpha=0.5)
        return each.flatten(each.dim() - event).sum(-1) if event else each
    logits = base.logits
    if isinstance(base, OneHotCategorical):  # impossible outcomes, of logit -inf, are not drawn, and 0 x inf is nan
        each = x * logits.clamp(min=torch.finfo(logits.dtype).min)
        return each.flatten(each.dim() - event).sum(-1) if event > 1 else each.sum(-1)
    if not event:
        return x * logits - softplus(logits)
    batch = logits.dim() - event
    return (x * logits).flatten(1 + batch).sum(-1) - softplus(logits).flatten(batch).sum(-1)
