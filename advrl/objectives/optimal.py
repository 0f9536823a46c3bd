r"""The best discriminator in closed form, and what tells that it is not reached.

On a finite set the discriminator's loss is sum_x p(x) l_real(a(x)) + q(x) l_fake(a(x)), least outcome by outcome. For
cross-entropy at a = log p/q: Goodfellow et al. (2014), proposition 1. There, exactly,

    E_q[e^a] = sum_x q p / q = 1        and        E_p[e^-a] = 1,

which costs nothing to watch. Logits s times the best ones give E_q[r^s] and E_p[r^-s], both below 1 for 0 < s < 1 and
above 1 for s > 1; a constant b too much gives e^b and e^-b. Shapes: K outcomes, B batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from advrl.checks import same_shape
from advrl.objectives.logits import minimax
from advrl.objectives.objective import Objective, cross_entropy

LARGEST = 1e6  # a mean that a single sample may decide is told as no more than this


def optimal_logit(p: Tensor, q: Tensor, objective: Objective = minimax) -> Tensor:
    """(K,) the best discriminator's output: it minimises sum_x p(x) l_real(a(x)) + q(x) l_fake(a(x)).

    log p - log q for cross-entropy (infinite where only one of them draws x); (b p + a q) / (p + q) for least squares;
    the sign of p - q for the hinge; log p - log q, up to a constant, for relativistic pairs. Where neither ever draws x
    the output is undefined, and 0 here: no gradient ever reaches it.

    Args:
        p: (K,) probabilities of the data.
        q: (K,) probabilities of the generator.
        objective: whose discriminator.

    Raises:
        ValueError: if the shapes differ, or for objectives without a best discriminator in closed form, as the
            Wasserstein's is without a bound on its slope.
    """
    same_shape(p=p, q=q)
    best = getattr(objective.d_loss, "best", None)
    if best is None:
        raise ValueError(
            f"{objective.name} has no best discriminator in closed form: give the logits of the one that you mean"
        )
    return torch.where(p + q > 0, best(p, q), 0.0)


def is_log_ratio(objective: Objective) -> bool:
    """Whether the discriminator's best logit is log p - log q itself, so that :func:`calibration` says something."""
    return objective.d_loss is cross_entropy


@torch.no_grad()
def calibration(real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """E_pG[e^a] and E_pdata[e^-a] of a batch: both are 1 at the best discriminator, whatever the distributions.

    As means of exponentials they are decided by few samples, which a batch mostly misses where p and q overlap little,
    and is then far below 1. Finite for any logit: means above a million are told as a million.

    Args:
        real: (B,) logits of real samples.
        fake: (B,) logits of fakes.

    Returns:
        ``calibration_fake`` and ``calibration_real``, scalars.
    """

    def mean_exp(a: Tensor) -> Tensor:
        return (a.logsumexp(0) - math.log(len(a))).clamp(max=math.log(LARGEST)).exp()

    return {"calibration_fake": mean_exp(fake), "calibration_real": mean_exp(-real)}
