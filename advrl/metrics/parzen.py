r"""Parzen-window likelihood, and why not to believe it.

    log p_h(x) = log 1/M sum_j N(x; y_j, h^2 I)                Breuleux et al. (2011), section 3.2

Likelihood and the look of samples are nearly independent in high dimension (Theis et al., 2016, section 3): with p the
data and q noise, .01 p + .99 q draws noise 99 times of 100, and its log-likelihood is at most log 100 = 4.61 nats below
that of p, while two models of images differ by hundreds. And the Parzen estimate is not even a good likelihood: with
any feasible number of samples it is far off, and ranks models wrongly (their figure 3). It is here to reproduce old
tables, and for points in the plane, where it converges. Shapes: N points judged, M samples.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from advrl import checks
from advrl.metrics._rows import rows

BLOCK = 2**22  # squared distances in memory at a time


def parzen_log_likelihood(points: Tensor, samples: Tensor, bandwidth: float) -> Tensor:
    """log p_h of each point, under Gaussians around the samples; the module's docstring warns.

    Args:
        points: (N, features), held out.
        samples: (M, features) of the model.
        bandwidth: h; choose it on other points than these, never to flatter a model.

    Returns:
        (N,) float64.

    Raises:
        ValueError, TypeError: if the bandwidth is not positive or sets do not fit.
    """
    checks.number("bandwidth", bandwidth, 0.0, exclusive=True)
    x, y = rows(points=points, samples=samples)
    constant = math.log(len(y)) + 0.5 * x.shape[1] * math.log(2 * math.pi * bandwidth**2)
    blocks = x.split(max(1, BLOCK // len(y)))
    distances = (torch.cdist(block, y, compute_mode="donot_use_mm_for_euclid_dist") for block in blocks)
    return torch.cat([(-d.square() / (2 * bandwidth**2)).logsumexp(1) - constant for d in distances])


def diluted_log_likelihood(log_prob: Tensor, log_noise: Tensor, share: float = 0.01) -> Tensor:
    """log(share p + (1 - share) q): the model of Theis et al. that is noise 99 times of 100.

    It lies at most -log(share) below log p, wherever the noise is.

    Args:
        log_prob: (N,) log p of points.
        log_noise: (N,) log q of the same.
        share: of p.

    Raises:
        ValueError: if shapes differ or the share is not in (0, 1).
    """
    checks.number("share", share, 0.0, 1.0, exclusive=True)
    if share >= 1 or log_prob.shape != log_noise.shape:
        raise ValueError(
            f"share must be below 1 and both of one shape, got {share}, {tuple(log_prob.shape)} and "
            f"{tuple(log_noise.shape)}"
        )
    return torch.logaddexp(log_prob + math.log(share), log_noise + math.log1p(-share))
