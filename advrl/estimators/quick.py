"""Draws and log-probabilities of the common distributions, the same as ``torch.distributions`` gives, but sooner.

An estimator on a small batch spends most of its time between the kernels. ``Normal.sample`` looks at every deviation
whether it is positive, for which the host waits; ``Bernoulli`` draws from a table of probabilities copied n times, and
its log-probability goes through a loss. Other distributions are asked themselves.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Normal

from advrl.estimators.base import base_of, transformed
from advrl.estimators.laws import law_of


def sample_of(distribution: Distribution, n: int) -> Tensor:
    """``distribution.sample((n,))``: (n, *batch, *event) without gradient."""
    base = base_of(distribution)
    if type(base) is Normal:
        with torch.no_grad():
            if transformed():
                return rsample_of(distribution, n)
            x = torch.randn(n, *base.loc.shape, dtype=base.loc.dtype, device=base.loc.device)
            return torch.addcmul(base.loc, x, base.scale, out=x)  # a fresh page of memory costs more than the sum
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
    found = law_of(distribution)
    if found is None:
        return distribution.log_prob(x)
    if distribution._validate_args:
        base_of(distribution)._validate_sample(x)
    law, nodes = found
    return law.log_prob(x, *nodes)
