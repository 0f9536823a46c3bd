r"""What a policy's numbers mean: from a network's output to a distribution over images.

Each family says how many numbers per pixel the network gives, which distribution they parameterise, how a value of
that distribution becomes an image in [-1, 1], and how real images are prepared so that the two can be compared: a
policy that can only draw sixteenths is shown real images in sixteenths. Shapes: B batch, C H W image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Independent, Normal

from advrl.distributions import Binomial, Implicit, OneHotCategorical

LEVELS = 16  # ink of the digits: sixteen trials per pixel, seventeen grey levels
LOG_STD = (-4.0, 0.0)  # a Gaussian pixel's log standard deviation, on images in [-1, 1]


@dataclass(frozen=True)
class Family:
    """One way of turning a network's output into a policy over images.

    Args:
        name: as on the command line.
        numbers: numbers per pixel and channel that the network gives.
        distribution: (B, numbers * C, H, W) parameters to a distribution with batch shape (B,).
        decode: (*, *event) values of it to (*, C, H, W) images in [-1, 1], differentiable.
        prepare: (N, C, H, W) real images in [0, 1] to images in [-1, 1] that the policy could draw.
        summary: one line for the help.
    """

    name: str
    numbers: int
    distribution: Callable[[Tensor], Distribution]
    decode: Callable[[Tensor], Tensor]
    prepare: Callable[[Tensor], Tensor]
    summary: str


def _binomial(logits: Tensor) -> Distribution:
    return Independent(Binomial(LEVELS, logits, validate_args=False), 3, validate_args=False)


def _bernoulli(logits: Tensor) -> Distribution:
    return Independent(Bernoulli(logits=logits, validate_args=False), 3, validate_args=False)


def _categorical(logits: Tensor) -> Distribution:
    levels = logits.unflatten(1, (-1, LEVELS + 1)).movedim(2, -1)  # (B, C, H, W, levels)
    return Independent(OneHotCategorical(logits=levels, validate_args=False), 3, validate_args=False)


def _gaussian(parameters: Tensor) -> Distribution:
    mean, raw = parameters.chunk(2, 1)
    low, high = LOG_STD
    std = (low + (high - low) * (raw - 1.0).sigmoid()).exp()
    return Independent(Normal(mean.tanh(), std, validate_args=False), 3, validate_args=False)


def _implicit(raw: Tensor) -> Distribution:
    return Implicit(raw.tanh(), 3)


def _expected_level(one_hot: Tensor) -> Tensor:
    return one_hot @ torch.linspace(-1, 1, LEVELS + 1, dtype=one_hot.dtype, device=one_hot.device)


def _sixteenths(images: Tensor) -> Tensor:
    return (images * LEVELS).round() / (LEVELS / 2) - 1


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family("binomial", 1, _binomial, lambda x: x / (LEVELS / 2) - 1, _sixteenths, "counts of ink, 0 to 16"),
        Family(
            "bernoulli", 1, _bernoulli, lambda x: 2 * x - 1, lambda x: 2 * (x >= 0.5).to(x.dtype) - 1, "ink or none"
        ),
        Family("categorical", LEVELS + 1, _categorical, _expected_level, _sixteenths, "17 grey levels as classes"),
        Family("gaussian", 2, _gaussian, lambda x: x, lambda x: 2 * x - 1, "a Gaussian per pixel given z"),
        Family("implicit", 1, _implicit, lambda x: x, lambda x: 2 * x - 1, "the deterministic G(z)"),
    )
}
