r"""Score-function (REINFORCE) surrogate and its leave-one-out baseline, as functions on tensors.

For x ~ p_theta and a cost c,

    grad E[c(x)] = E[(c(x) - b) grad log p_theta(x) + grad c(x)]        Williams (1992)

for any baseline b that does not depend on x. With box = exp(log p - stop(log p)), which is 1 in value and log p in
gradient, the surrogate below has the cost as its value and that expression as its gradient, to any order.
Foerster et al. (2018), eq. 8 and 9. Shapes: S samples, *batch whatever follows.
"""

from __future__ import annotations

from torch import Tensor

from advrl.checks import same_shape


def dice(log_prob: Tensor) -> Tensor:
    """The magic box exp(log p - stop(log p)): 1 in value, and each derivative brings down the score that is due.

    E[box * c] has the derivatives of E[c(x)] to any order. For a cost after several draws, box their summed
    log-probabilities. Foerster et al. (2018), eq. 8.

    Args:
        log_prob: any shape.

    Returns:
        the same shape, all ones.
    """
    return (log_prob - log_prob.detach()).exp()


def score_function(log_prob: Tensor, cost: Tensor, baseline: Tensor | float = 0.0) -> Tensor:
    """Surrogate whose value is the cost and whose gradient is the score-function estimate, one entry per sample.

    Args:
        log_prob: (S, *batch) log p_theta(x), differentiable in theta.
        cost: (S, *batch) c(x); may depend on parameters, through which gradients flow.
        baseline: broadcastable to (S, *batch); must not depend on the sample that it is subtracted from.

    Returns:
        (S, *batch) surrogate to minimise: reduce with ``.mean(0)``, then ``backward()``.

    Raises:
        ValueError: if the shapes differ, since broadcasting would pair costs with the wrong samples.
    """
    same_shape(log_prob=log_prob, cost=cost)
    if isinstance(baseline, float) and not baseline:
        return dice(log_prob) * cost
    return dice(log_prob) * (cost - baseline) + baseline


def leave_one_out(cost: Tensor) -> Tensor:
    """The mean cost of the other samples, a baseline independent of the sample it is subtracted from.

    b_i = (sum_j c_j - c_i) / (S - 1). Mnih & Rezende (2016), section 2.6; Kool, van Hoof & Welling (2019), eq. 8.

    Args:
        cost: (S, *batch) with S >= 2 independent samples along the first dimension.

    Returns:
        (S, *batch), without gradient.

    Raises:
        ValueError: if there is only one sample.
    """
    samples = cost.shape[0] if cost.dim() else 0
    if samples < 2:
        raise ValueError(
            f"leave-one-out needs at least 2 samples along the first dimension, got shape {tuple(cost.shape)}"
        )
    cost = cost.detach()
    return (cost.sum(0) - cost) / (samples - 1)
