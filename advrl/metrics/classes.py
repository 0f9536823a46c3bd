"""What a classifier says of samples: which classes they fall into, and how surely."""

from __future__ import annotations

import torch
from torch import Tensor

from advrl import checks
from advrl.metrics._rows import double


def class_shares(labels: Tensor, classes: int) -> Tensor:
    """The share of each class among ``labels``.

    Args:
        labels: (N,) integers in [0, classes).
        classes: how many there are.

    Returns:
        (classes,) float64, summing to 1.

    Raises:
        ValueError: if there are no labels, they are no integers, or one is out of range.
    """
    checks.integer("classes", classes)
    if labels.ndim != 1 or len(labels) == 0 or labels.dtype.is_floating_point or labels.dtype.is_complex:
        raise ValueError(
            f"labels must be integers of shape (number,), at least one, got {labels.dtype} of {tuple(labels.shape)}"
        )
    low, high = labels.aminmax()
    if low < 0 or high >= classes:
        raise ValueError(f"labels must be in [0, {classes}), got values from {low} to {high}")
    counts = (labels[:, None] == torch.arange(classes, device=labels.device)).sum(0)
    return double(counts) / len(labels)


def confident_share(probs: Tensor, threshold: float = 0.9) -> Tensor:
    """The share of samples whose likeliest class has at least probability ``threshold``.

    Args:
        probs: (N, classes) probabilities, each row summing to 1.
        threshold: in [0, 1].

    Returns:
        () float64.

    Raises:
        ValueError: if the rows are not probabilities (logits, for example) or there are none.
    """
    checks.number("threshold", threshold, 0, 1)
    if probs.ndim != 2 or 0 in probs.shape:
        raise ValueError(f"probs must have shape (number, classes), got {tuple(probs.shape)}")
    total = checks.finite("probs", probs).sum(1)
    if probs.min() < 0 or (total - 1).abs().max() > 1e-3:
        raise ValueError(
            "probs must be probabilities, at least 0 and summing to 1 in each row; take a softmax of logits"
        )
    return double(probs.amax(1) >= threshold).mean()
