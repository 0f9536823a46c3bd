r"""Games in which a sample has no cost of its own: its loss depends on the whole batch, or on K outputs.

They are no :class:`Objective`. Leave-one-out takes the other samples' costs for independent of the sample at hand, and
here they are not; so the score function refuses them, and they are trained by the gradient through the samples. Two
functions of the discriminator's outputs on both batches, each to one number. Shapes: B batch, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy as class_loss
from torch.nn.functional import softplus

from advrl.checks import integer


@dataclass(frozen=True)
class CoupledGame:
    """Both players' losses as functions of whole batches of outputs.

    Args:
        name: for tables and messages.
        d_loss: (real, fake) outputs (B,) or (B, K) to the discriminator's loss, ().
        g_loss: (fake, real) outputs to the generator's loss, ().
        outputs: K, how many outputs per sample the discriminator has; 0 is one logit, (B,).
    """

    name: str
    d_loss: Callable[[Tensor, Tensor], Tensor]
    g_loss: Callable[[Tensor, Tensor], Tensor]
    outputs: int = 0


def _average(above: Tensor, below: Tensor) -> Tensor:
    """-log sigmoid(above - E below) - log(1 - sigmoid(below - E above)), means over both batches."""
    return softplus(below.mean() - above).mean() + softplus(below - above.mean()).mean()


relativistic_average = CoupledGame("relativistic-average", _average, lambda fake, real: _average(fake, real))
r"""RaGAN, Jolicoeur-Martineau (2019): real samples against the *mean* fake, and fakes against the mean real one.

At equal logits both losses are log 4. The batches need not be of one size.
"""


def entropy(logits: Tensor) -> Tensor:
    """Entropy (B,) of the class probabilities softmax(logits), logits (B, K): from 0 to log K."""
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


def entropy_of_mean(logits: Tensor) -> Tensor:
    """Entropy () of the mean class probabilities of a batch (B, K): log K if all classes are used equally."""
    log_p = logits.log_softmax(-1).logsumexp(0) - torch.full_like(logits[0, 0], len(logits)).log()
    return -(log_p.exp() * log_p).sum()


def catgan(classes: int) -> CoupledGame:
    """Springenberg (2016): a discriminator of K classes and no class for fakes.

    It is sure of real samples, uses all classes equally, and is unsure of fakes,

        d_loss = E_real H[p(y|x)] - H[E_real p(y|x)] - E_fake H[p(y|x)],      at least -2 log K,
        g_loss = E_fake H[p(y|x)] - H[E_fake p(y|x)],                         at least -log K.

    Args:
        classes: K, at least 2.

    Raises:
        ValueError, TypeError: for fewer.
    """
    return CoupledGame(
        "catgan",
        lambda real, fake: entropy(real).mean() - entropy_of_mean(real) - entropy(fake).mean(),
        lambda fake, real: entropy(fake).mean() - entropy_of_mean(fake),
        integer("classes", classes, 2),
    )


def class_logit(logits: Tensor) -> Tensor:
    """One logit (B,) for "real" from K class logits (B, K), the (K + 1)-th, of fakes, held at 0: a = log sum_k e^l_k.

    Salimans et al. (2016), section 5: D = Z / (Z + 1), Z = sum_k e^l_k, since a softmax over K + 1 classes has one
    logit too many. Any :class:`Objective` plays on the result.
    """
    return logits.logsumexp(-1)


def labelled_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """-log p(y | x, real) (B,) of labelled samples, from K class logits (B, K) and labels (B,) in 0 .. K - 1.

    Salimans et al. (2016), section 5: the supervised part, to be added to the discriminator's loss.
    """
    return class_loss(logits, labels, reduction="none")
