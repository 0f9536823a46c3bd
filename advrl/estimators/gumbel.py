r"""Relaxed samples given the hard one, and the Rao-Blackwellised straight-through Gumbel-softmax.

With z = logits + noise and b = H(z) the hard sample, z~ ~ p(z | b) is drawn from the logits and fresh noise, with a
derivative in the logits: Tucker et al. (2017), appendix; Maddison & Tarlow (2017). In log-space, with s = 2 b - 1,
v uniform, E_k ~ Exp(1) and log p the normalised logits,

    coin:  z~ = s softplus(logit(v) + softplus(s l))
    die:   z~_i = -log E_i at the hard sample i,   z~_k = -log(E_k / p_k + E_i) elsewhere

The noise may also be the one that made z, solved from it: then z~ = z in value, and only the derivatives differ.
Shapes: n samples, any number of leading dimensions, K categories last.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions.utils import clamp_probs
from torch.nn.functional import softplus

from advrl.checks import integer, number
from advrl.estimators.base import Draw, Estimator
from advrl.estimators.discrete import exponential, parts_of


def conditional_gumbel(logits: Tensor, hard: Tensor, *, binary: bool = False, z: Tensor | None = None) -> Tensor:
    """Perturbed logits z~ whose hard sample is ``hard``, differentiable in the logits.

    Over hard ~ p(logits) they are distributed as the perturbed logits themselves.

    Args:
        logits: (*batch, K) of one-hot categoricals, or (*batch) log-odds with ``binary``.
        hard: (n, *logits.shape) zeros and ones.
        binary: whether the variables are Bernoulli.
        z: (n, *logits.shape) the perturbed logits that made ``hard``, of normalised logits: to use their noise again
            in place of fresh noise.

    Returns:
        (n, *logits.shape); above 0 exactly where ``hard`` is 1 with ``binary``, else largest exactly there.

    Raises:
        ValueError: if the shapes do not fit.
    """
    if hard.shape[1:] != logits.shape or (z is not None and z.shape != hard.shape):
        shapes = f"{tuple(hard.shape)}" + (f" and z {tuple(z.shape)}" if z is not None else "")
        raise ValueError(f"hard and z must be (n, *{tuple(logits.shape)}), like the logits, got hard {shapes}")
    return _coin(logits, hard, z) if binary else _die(logits, hard, z)


def _coin(logits: Tensor, hard: Tensor, z: Tensor | None) -> Tensor:
    sign = 2 * hard - 1
    above = softplus(sign * logits)
    tiny = torch.finfo(logits.dtype).tiny
    if z is None:
        noise = clamp_probs(torch.rand_like(hard)).logit()
    else:
        size = z.detach().abs().clamp(min=torch.finfo(logits.dtype).eps)
        noise = size + torch.log(-torch.expm1(-size)) - above.detach()
    return sign * softplus(noise + above).clamp(min=tiny)


def _die(logits: Tensor, hard: Tensor, z: Tensor | None) -> Tensor:
    log_p = logits - logits.logsumexp(-1, keepdim=True)
    here = hard > 0
    if z is None:
        e = exponential(len(hard), logits).log()
        first = torch.where(here, e, torch.zeros_like(e)).sum(-1, keepdim=True)  # log E_i
    else:
        z = z.detach()
        first = -z.amax(-1, keepdim=True)
        gap = (z + first).masked_fill(here, -1.0).clamp(max=-torch.finfo(z.dtype).eps)
        e = torch.log(-torch.expm1(gap)) - z + log_p.detach()
    others = -torch.logaddexp(e - log_p, first)
    below = torch.nextafter(
        -first, torch.full_like(first, -torch.inf)
    )  # a tie by rounding would change the hard sample
    return torch.where(here, -first, torch.minimum(others, below))


@dataclass(frozen=True)
class GumbelRao(Estimator):
    """ST Gumbel-softmax with its relaxation averaged over the noise that leaves the hard sample as it is.

    x = b + (m - stop(m)) with m the mean of k relaxed samples, whose noise is drawn given b and then held fixed: the
    same expectation as ``GumbelSoftmax(hard=True)``, hence the same bias, with a variance that falls with k to that of
    the conditional expectation. Paulus, Maddison & Krause (2021). Evaluates the cost and its gradient n times. A
    Binomial is the sum of its coins; independent variables are relaxed each by itself.

    Args:
        n: samples per distribution.
        temperature: t > 0; as it falls the variance grows, and the bias goes to that of (c'(0) + c'(1)) / 2 in place of
            c(1) - c(0): none for a quadratic cost, but some for others.
        k: relaxed samples per hard one.
    """

    unbiased = False
    needs_gradient = True
    variables = "Bernoulli, Binomial, OneHotCategorical"
    higher_order = False

    temperature: float = 1.0
    k: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        number("temperature", self.temperature, 0.0, exclusive=True)
        integer("k", self.k)

    def check(self, distribution: Distribution) -> None:
        parts_of("gumbel-rao", distribution)

    def draw(self, distribution: Distribution) -> Draw:
        parts = parts_of("gumbel-rao", distribution)
        hard = parts.sample(self.n)
        copies = hard.expand(self.k, *hard.shape).reshape(-1, *hard.shape[1:])
        with torch.no_grad():
            noise = conditional_gumbel(parts.logits, copies, binary=parts.binary) - parts.logits
        soft = parts.relax(parts.logits + noise, self.temperature).unflatten(0, (self.k, self.n)).mean(0)
        return Draw(parts.decode(hard) + (soft - soft.detach()), distribution)
