r"""One game for noise-contrastive estimation, maximum likelihood and GANs: Goodfellow (2014), "On distinguishability
criteria for estimating generative models", table 1.

A discriminator tells data from the generator's samples by the ratio of two densities,

    V = E_p log D + E_q log(1 - D),    D = p_c / (p_c + q),    logit a = log p_c - log q.

What differs is who learns:

    nce    the model is p_c, unnormalised if you like, and maximises V against a q that never moves
    mle    the model is p_c, and q is a copy of it, made anew for every step: the gradient of V is half that of the
           log-likelihood, whatever the model
    gan    the model is q, which minimises V; p_c is any function that maximises it

Shapes: K outcomes, or points of a quadrature grid with log densities plus the log of each point's weight.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from advrl.checks import choice, same_shape

LEARNERS = ("nce", "mle", "gan")


def ratio_value(data: Tensor, log_model: Tensor, log_noise: Tensor | None, learner: str) -> Tensor:
    """() V, differentiable in what the learner may move and in nothing else.

    Args:
        data: (K,) probabilities p.
        log_model: (K,) log p_c, need not be normalised.
        log_noise: (K,) log q, normalised; ``None`` for "mle", where it is the copy.
        learner: "nce", "mle" or "gan".

    Raises:
        ValueError: if a q is given to "mle", or none to the others.
    """
    choice("learner", learner, LEARNERS)
    if (log_noise is None) != (learner == "mle"):
        raise ValueError(f"log_noise is for nce and gan alone: mle plays against its own copy, got learner {learner!r}")
    if log_noise is None:  # of an unnormalised model the copy has the same constant, so that the ratio is 1
        logit, noise = log_model - log_model.detach(), log_model.detach().softmax(-1)
    else:
        if learner == "nce":
            log_noise = log_noise.detach()
        logit, noise = log_model - log_noise, log_noise.exp()
    same_shape(data=data, logit=logit)
    return (data * logsigmoid(logit) + noise * logsigmoid(-logit)).sum()
