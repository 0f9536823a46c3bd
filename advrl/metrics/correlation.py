"""How much the samples of one batch have in common because they are of one batch, as batch norm makes them."""

from __future__ import annotations

import torch
from torch import Tensor


def intra_batch_correlation(samples: Tensor) -> Tensor:
    r"""() correlation of two samples of a batch that the batch itself causes; exactly 0 if each depends on its z alone.

    The same K noise vectors are put into R batches, each time beside others. With y_ri sample i in batch r,

        rho = mean_{i != j} cov_r(y_ri, y_rj) / var_{r,i}(y_ri)

    summed over features above and below: what a common tint of whole batches, the sign of batch norm in a generator
    (Goodfellow, 2016, section 4.3), adds to the correlation of independent samples.

    Args:
        samples: (R, K, *event), R >= 2 batches, K >= 2 noise vectors in each.

    Raises:
        ValueError: for fewer of them.
    """
    if samples.dim() < 2 or samples.shape[0] < 2 or samples.shape[1] < 2:
        raise ValueError(f"need samples (batches >= 2, noise >= 2, ...), got shape {tuple(samples.shape)}")
    y = samples.flatten(2) if samples.dim() > 2 else samples[..., None]
    y = y.double() if y.device.type != "mps" else y
    batches, count = y.shape[:2]
    deviation = y - y.mean(0)
    deviation = torch.where((y == y[:1]).all(0), torch.zeros_like(y), deviation)  # else a mean's rounding is left
    together = deviation.sum(1).square().sum() - deviation.square().sum()
    covariance = together / ((batches - 1) * count * (count - 1))
    variance = (y - y.mean((0, 1))).square().sum() / (batches * count - 1)
    return covariance / variance.clamp(min=torch.finfo(y.dtype).tiny)
