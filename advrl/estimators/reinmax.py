r"""ReinMax: straight-through to second order. Liu, Dong, Liu, Yu & Gao (2023), algorithm 2.

With p = softmax(logits), b a one-hot draw and m = (b + softmax(logits / t)) / 2, the draw's Jacobian is taken to be

    2 J(m) - J(p) / 2,      J(q) = diag(q) - q q^T

which is Heun's method where straight-through, J(p), is Euler's: exact in expectation for costs that are quadratic in
every variable (t = 1), as straight-through is for linear ones. Shapes: n samples, K categories last.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

from advrl.checks import number, same_shape
from advrl.estimators.base import Draw, Estimator
from advrl.estimators.discrete import Parts, parts_of


def reinmax(
    logits: Tensor, temperature: float = 1.0, *, binary: bool = False, hard: Tensor | None = None
) -> Tensor:
    """A draw whose derivative in the logits is ReinMax's.

    Args:
        logits: (*batch, K) of one-hot categoricals, or (*batch) log-odds with ``binary``.
        temperature: t > 0; 1 is exact for quadratic costs, more than 1 trades bias for variance.
        binary: whether the variables are Bernoulli.
        hard: (*logits.shape) the draw; a fresh one if ``None``.

    Returns:
        (*logits.shape) zeros and ones.

    Raises:
        ValueError: for a temperature that is not positive, or a draw of another shape.
    """
    number("temperature", temperature, 0.0, exclusive=True)
    if hard is None:
        normal = logits if binary else logits.log_softmax(-1)
        hard = Parts(normal, binary, 0, 0).sample(1)[0]
    same_shape(logits=logits, hard=hard)
    fixed, eps = logits.detach(), torch.finfo(logits.dtype).eps
    if binary:
        middle = ((hard + (fixed / temperature).sigmoid()) / 2).clamp(eps, 1 - eps)
        slope = 2 * (logits + (middle.logit() - fixed)).sigmoid() - logits.sigmoid() / 2
    else:
        middle = ((hard + (fixed / temperature).softmax(-1)) / 2).clamp(min=torch.finfo(logits.dtype).tiny)
        shift = torch.where(torch.isneginf(fixed), torch.zeros_like(fixed), middle.log() - fixed)
        slope = 2 * (logits + shift).softmax(-1) - logits.softmax(-1) / 2
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
        logits = parts.logits.expand(hard.shape)
        return Draw(parts.decode(reinmax(logits, self.temperature, binary=parts.binary, hard=hard)), distribution)
