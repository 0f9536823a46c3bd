r"""Boundary-seeking GANs for discrete data: self-normalised importance weights as the score function's advantage.

Of M samples x_i of one policy p(x|z), with logits a_i, the gradient is that of a weighted likelihood,

    -sum_i w_i grad log p(x_i | z),        w = softmax(a),        sum_i w_i = 1            Hjelm et al. (2018),

maximum likelihood (c = -e^a) with its unknown scale divided out: weights between 0 and 1 whatever the logits are, at
the price of a bias of order 1 / M. Every sample's weight depends on the others', so it is no cost of one sample: it is
given as ``Score(M, advantage=boundary_weights)`` with the cost -a. Shapes: M samples, *batch.
"""

from __future__ import annotations

from torch import Tensor


def importance_weights(logits: Tensor) -> Tensor:
    """w = softmax(a) over the M samples (M, *batch): they sum to 1 over the first dimension."""
    return logits.softmax(0)


def effective_sample_size(weights: Tensor) -> Tensor:
    """1 / sum w^2, (*batch): from 1, where one sample has all the weight, to M, where all have the same."""
    return 1 / weights.square().sum(0)


def boundary_weights(cost: Tensor, x: Tensor) -> Tensor:
    """The advantage 1 - M w_i (M, *batch) of costs -a: low is good. 1 is M times the baseline 1 / M, the mean weight.

    It sums to 0 over the samples, so that equal logits give no gradient at all.

    Args:
        cost: (M, *batch) minus the logits, as of ``reverse_kl``.
        x: the samples, which it does not need.

    Raises:
        ValueError: with fewer than 2 samples, whose weight would be 1 whatever they are.
    """
    if cost.dim() == 0 or len(cost) < 2:
        raise ValueError(f"weights of one sample are 1: give at least 2 per z, got costs of shape {tuple(cost.shape)}")
    return 1 - len(cost) * importance_weights(-cost)
