r"""One Gaussian for a density of two humps: what each direction of the Kullback-Leibler divergence takes for near.

KL(p || q) is least where q has the mean and the variance of p: it covers both humps, and the valley between them.
KL(q || p) = E_q[log q - log p] has a minimum on each hump, and locks on to the one that it starts from. Goodfellow
(2016), figure 14. Its expectation over q = N(m, s^2) is taken by Gauss-Hermite quadrature.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from advrl.checks import integer, number


class GaussianFit(NamedTuple):
    """Mean, standard deviation and divergence of a fitted Gaussian."""

    mean: float
    std: float
    divergence: float


def forward_kl_fit(p: Distribution, points: int = 20_001) -> GaussianFit:
    """The Gaussian least in KL(p || q), from the moments of p (a one-dimensional distribution with such).

    The divergence is by the trapezoidal rule over 12 standard deviations either side.
    """
    mean, std = float(p.mean), math.sqrt(float(p.variance))
    z = torch.linspace(-12.0, 12.0, integer("points", points, 2), dtype=torch.float64, device=p.mean.device)
    x = std * z + mean
    log_p = p.log_prob(x.to(p.mean)).double()
    log_q = -(z**2) / 2 - math.log(std) - math.log(2 * math.pi) / 2
    return GaussianFit(mean, std, float(torch.trapezoid(torch.exp(log_p) * (log_p - log_q), x)))


def reverse_kl_fit(
    log_prob: Callable[[Tensor], Tensor], mean: float = 0.0, std: float = 1.0, points: int = 200
) -> GaussianFit:
    """The Gaussian at the minimum of KL(q || p) to which descent leads from ``mean`` and ``std``.

    Args:
        log_prob: x (points,) in float64 to log p(x); without its normalisation, the divergence is off by that constant.
        mean: of the start.
        std: of the start.
        points: of the quadrature.

    Raises:
        RuntimeError: if the search ends before the slope is 0.
    """
    from scipy.optimize import minimize

    number("std", std, 0, exclusive=True)
    nodes, weights = np.polynomial.hermite_e.hermegauss(integer("points", points, 2))
    z = torch.as_tensor(nodes, dtype=torch.float64, device="cpu")
    w = torch.as_tensor(weights / math.sqrt(2 * math.pi), dtype=torch.float64, device="cpu")

    def divergence(numbers: np.ndarray) -> tuple[float, np.ndarray]:
        at = torch.as_tensor(numbers, dtype=torch.float64, device="cpu").requires_grad_(True)
        cross = (w * log_prob(at[0] + at[1].exp() * z)).sum()
        value = -at[1] - (math.log(2 * math.pi) + 1) / 2 - cross
        return value.item(), torch.autograd.grad(value, at)[0].numpy()

    found = minimize(divergence, [float(mean), math.log(std)], jac=True, method="BFGS", options={"gtol": 1e-9})
    if np.abs(found.jac).max() > 1e-5:
        raise RuntimeError(f"no minimum of KL(q || p) was reached from mean {mean}, std {std}: {found.message}")
    return GaussianFit(float(found.x[0]), math.exp(found.x[1]), float(found.fun))
