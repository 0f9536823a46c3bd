r"""ReinMax: straight-through to second order. Liu, Dong, Liu, Yu & Gao (2023).

With p = softmax(logits), b a one-hot draw and m = (b + softmax(logits / t)) / 2, the draw's Jacobian is taken to be

    2 J(m) - J(p) / 2,      J(q) = diag(q) - q q^T

which is Heun's method where straight-through, J(p), is Euler's: exact in expectation for costs that are quadratic in
every variable (t = 1), as straight-through is for linear ones. Shapes: n samples, K categories last.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.distributions import Distribution

from advrl.checks import number
from advrl.estimators.base import Draw, Estimator
from advrl.estimators.discrete import Parts, parts_of


def reinmax(logits: Tensor, temperature: float = 1.0, *, binary: bool = False, hard: Tensor | None = None) -> Tensor:
    """A draw whose derivative in the logits is ReinMax's.

    Args:
        logits: (*batch, K) of one-hot categoricals, or (*batch) log-odds with ``binary``.
        temperature: t > 0; 1 is exact for quadratic costs, more than 1 trades bias for variance.
        binary: whether the variables are Bernoulli.
        hard: the draw, or several of them, (*n, *logits.shape); a fresh one if ``None``.

    Returns:
        (*logits.shape), or like ``hard``: zeros and ones.

    Raises:
        ValueError: for a temperature that is not positive, or draws of another shape.
    """
    number("temperature", temperature, 0.0, exclusive=True)
    lowest = torch.finfo(logits.dtype).min / 4  # for masked logits of -inf, which differ by nan
    logits = logits.clamp(min=lowest)
    if hard is None:
        hard = Parts(logits if binary else logits.log_softmax(-1), binary, 0, 0).sample(1)[0]
    if hard.shape[hard.dim() - logits.dim() :] != logits.shape:
        raise ValueError(f"hard must be (*n, *{tuple(logits.shape)}), like the logits, got {tuple(hard.shape)}")
    return _reinmax(logits, temperature, binary, hard)


def _reinmax(logits: Tensor, temperature: float, binary: bool, hard: Tensor) -> Tensor:
    squash = torch.sigmoid if binary else partial(torch.softmax, dim=-1)
    mean, fixed = squash(logits), logits.detach()
    middle = (hard + (mean.detach() if temperature == 1 else squash(fixed / temperature))) / 2
    if binary:
        eps = torch.finfo(logits.dtype).eps
        shifted = (logits + (middle.clamp(eps, 1 - eps).logit() - fixed)).sigmoid()
    else:
        level = logits + (middle.clamp(min=torch.finfo(logits.dtype).tiny).log() - fixed)
        shifted = (level - level.logsumexp(-1, keepdim=True)).exp()
    slope = 2 * shifted - mean / 2
    return hard + (slope - slope.detach())


@dataclass(frozen=True)
class ReinMax(Estimator):
    """The cost's gradient at the discrete draw, passed on by :func:`reinmax`.

    Biased, but exact for a cost that is quadratic in each variable. Evaluates the cost and its gradient n times. A
    Binomial is the sum of its coins, each of them treated so.

    Args:
        n: samples per distribution.
        temperature: t > 0, of one of the two Jacobians.
    """

    unbiased = False
    needs_gradient = True
    variables = "Bernoulli, Binomial, OneHotCategorical"
    higher_order = False

    temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        number("temperature", self.temperature, 0.0, exclusive=True)

    def check(self, distribution: Distribution) -> None:
        parts_of("reinmax", distribution)

    def draw(self, distribution: Distribution) -> Draw:
        parts = parts_of("reinmax", distribution)
        hard = parts.sample(self.n)
        return Draw(parts.decode(_reinmax(parts.logits, self.temperature, parts.binary, hard)), distribution)
