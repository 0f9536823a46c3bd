r"""Inception score of any classifier's probabilities.

    IS = exp E_x KL(p(y | x) || p(y)),    p(y) = E_x p(y | x)            Salimans et al. (2016), section 4

1 if the classifier says the same of every sample, K if it is sure of each and the K classes are equally frequent. It
knows nothing of real data: a memoriser, or one perfect image for each class, has the best score there is. A number
belongs to its classifier; those of the Inception network (11.24 on real CIFAR-10) are not comparable with others.
"""

from __future__ import annotations

import torch
from torch import Tensor

from advrl import checks
from advrl.metrics._rows import double


def inception_score(probs: Tensor) -> Tensor:
    """The Inception score of samples with these class probabilities.

    Args:
        probs: (N, classes) probabilities, each row summing to 1.

    Returns:
        () float64, from 1 to the number of classes.

    Raises:
        ValueError: if the rows are not probabilities (logits, for example) or there are none.
    """
    if probs.ndim != 2 or 0 in probs.shape:
        raise ValueError(f"probs must have shape (number, classes), got {tuple(probs.shape)}")
    p = double(checks.finite("probs", probs.detach()))
    if p.min() < 0 or (p.sum(1) - 1).abs().max() > 1e-3:
        raise ValueError(
            "probs must be probabilities, at least 0 and summing to 1 in each row; take a softmax of logits"
        )
    mean = p.mean(0)
    return (torch.xlogy(p, p).sum() / len(p) - torch.xlogy(mean, mean).sum()).exp()
