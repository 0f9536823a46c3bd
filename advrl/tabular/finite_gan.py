r"""A GAN on a finite set, solved: the best discriminator, what it is worth, and the generator's exact gradient.

Data has probabilities p (K,), the generator q (K,) = softmax(theta) or any other. Against cross-entropy the best
discriminator is D* = p / (p + q), with logit log p - log q, and its loss log 4 - 2 JS(p, q): Goodfellow et al. (2014),
proposition 1 and theorem 1. The generator pays sum_x q(x) c(a(x)), whose gradient at a fixed a is

    d/d theta_k = q_k (c(a_k) - sum_x q_x c(a_x))         for q = softmax(theta):

the value that REINFORCE estimates by sampling. Shapes: K outcomes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from advrl.checks import same_shape
from advrl.objectives import Objective, minimax
from advrl.objectives import optimal_logit as best_logit


def optimal_discriminator(p: Tensor, q: Tensor) -> Tensor:
    """(K,) D* = p / (p + q): the probability that an outcome is real; 1/2 where neither ever draws it.

    Raises:
        ValueError: unless p and q (K,) are probabilities.
    """
    _check(p, q)
    return torch.where(p + q > 0, p / (p + q), 0.5)


def optimal_logit(p: Tensor, q: Tensor, objective: Objective = minimax) -> Tensor:
    """(K,) the best discriminator's output: it minimises sum_x p(x) l_real(a(x)) + q(x) l_fake(a(x)).

    As :func:`advrl.objectives.optimal_logit`, of probabilities that are checked.

    Raises:
        ValueError: unless p and q (K,) are probabilities; for objectives without a best discriminator, as the
            Wasserstein's is without a bound on its slope.
    """
    _check(p, q)
    return best_logit(p, q, objective)


def discriminator_loss(p: Tensor, q: Tensor, logit: Tensor, objective: Objective = minimax) -> Tensor:
    """() expected loss of the discriminator with these outputs (K,), real outcomes paired with fakes at random."""
    _check(p, q)
    same_shape(p=p, logit=logit)
    real, fake = _pairs(logit)
    weight = p[:, None] * q
    loss = objective.d_loss(real, fake).view_as(weight)
    return torch.where(weight > 0, weight * loss, 0.0).sum()


def generator_cost(p: Tensor, q: Tensor, logit: Tensor, objective: Objective = minimax) -> Tensor:
    """() expected cost of the generator, sum_x q(x) c(a(x)); differentiable in q, and in what q depends on.

    An objective that compares each fake with a real one gets the real ones drawn from p.
    """
    _check(p, q)
    same_shape(p=p, logit=logit)
    if objective.needs_real:
        real, fake = _pairs(logit)
        weight = p[:, None] * q
        cost = objective.cost(fake, real).view_as(weight)
    else:
        weight, cost = q, objective.cost(logit)
    return torch.where(weight > 0, weight * cost, 0.0).sum()


def generator_gradient(p: Tensor, theta: Tensor, objective: Objective = minimax, logit: Tensor | None = None) -> Tensor:
    """(K,) exact gradient of the generator's cost in theta, q = softmax(theta), the discriminator held fixed.

    Args:
        p: (K,) probabilities of the data.
        theta: (K,) the generator's logits.
        logit: (K,) the discriminator's outputs; the best one's if ``None``.
    """
    theta = theta.detach().requires_grad_(True)
    q = theta.softmax(-1)
    if logit is None:
        logit = optimal_logit(p, q.detach(), objective)
    return torch.autograd.grad(generator_cost(p, q, logit.detach(), objective), theta)[0]


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """() JS(p, q) = (KL(p || m) + KL(q || m)) / 2 with m = (p + q) / 2: from 0 for equal ones to log 2."""
    _check(p, q)
    middle = (p + q) / 2
    return (torch.xlogy(p, p) + torch.xlogy(q, q)).sum() / 2 - torch.xlogy(middle, middle).sum()


def _pairs(logit: Tensor) -> tuple[Tensor, Tensor]:
    """(K * K,) twice: the outputs at every (real, fake) pair of outcomes."""
    count = len(logit)
    return logit.repeat_interleave(count), logit.repeat(count)


def _check(p: Tensor, q: Tensor) -> None:
    if p.dim() != 1 or p.shape != q.shape:
        raise ValueError(f"p and q must be (K,) probabilities of one length, got {tuple(p.shape)} and {tuple(q.shape)}")
    for name, value in (("p", p), ("q", q)):
        if not bool((value >= 0).all()) or abs(float(value.detach().sum()) - 1) > 1e-5:
            raise ValueError(f"{name} must hold probabilities that sum to 1, got {value.tolist()}")
