r"""GAN objectives as costs of the discriminator's logit; a high logit means real.

With a = logit, D = sigmoid(a), and D optimal, e^a is the density ratio p_data / p_G. The generator's cost c(a) is what
a policy pays for a sample, and its reward is -c(a): the two cannot drift apart. Where c is decreasing, a better judged
sample always costs less. Everything is computed from logits, so that nothing overflows or loses its gradient between
a = -100 and a = 100. No factor of one half: at D = 1/2 the discriminator's loss is log 4. Shapes: S samples, B batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus


@dataclass(frozen=True)
class Objective:
    """A game on discriminator logits.

    Both functions work entry by entry, so the caller picks the reduction. ``d_loss`` broadcasts one batch of real
    logits (B,) against several of fake ones (S, B): the mean of the result is the mean over reals plus that over fakes.

    Args:
        name: for tables and messages.
        d_loss: (real (B,), fake (B,) or (S, B)) logits to the discriminator's loss, of the fake's shape.
        cost: (fake, real=None) logits to what the generator minimises, of the fake's shape.
        needs_real: whether ``cost`` compares each fake with the real beside it.
        high_is_real: false for energies, where a high value means fake.

    Raises:
        ValueError: by ``d_loss``, if the shapes do not pair up as above: (B, 1) against (B,) would pair each with all.
    """

    name: str
    d_loss: Callable[[Tensor, Tensor], Tensor]
    cost: Callable[..., Tensor]
    needs_real: bool = False
    high_is_real: bool = True

    def reward(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """What a policy is paid for samples with these logits: -cost, of the fake's shape."""
        return -self.cost(fake, real)


def _pairs(real: Tensor, fake: Tensor) -> None:
    if real.dim() != 1 or fake.dim() == 0 or fake.shape[-1] != real.shape[0]:
        raise ValueError(
            f"need real logits (B,) and fake logits (B,) or (S, B), got {tuple(real.shape)} and {tuple(fake.shape)}"
        )


def _cross_entropy(real: Tensor, fake: Tensor) -> Tensor:
    _pairs(real, fake)
    return softplus(-real) + softplus(fake)  # -log D(x) - log(1 - D(G(z)))


def _least_squares(real: Tensor, fake: Tensor) -> Tensor:
    _pairs(real, fake)
    return 0.5 * (real - 1) ** 2 + 0.5 * fake**2


def _hinge(real: Tensor, fake: Tensor) -> Tensor:
    _pairs(real, fake)
    return relu(1 - real) + relu(1 + fake)


def _difference(real: Tensor, fake: Tensor) -> Tensor:
    _pairs(real, fake)
    return fake - real


def safe_exp(a: Tensor) -> Tensor:
    """e^a, continued by its tangent where it would come near the largest number of its dtype: finite and still convex.

    In float32 (and bfloat16) the tangent begins at a = 80, in float64 at 700, in float16 at 6; below it is exact.
    """
    cap = 700.0 if a.dtype == torch.float64 else 6.0 if a.dtype == torch.float16 else 80.0
    power = a.clamp(max=cap).exp()
    return torch.where(a > cap, power.detach() * (1 + a - cap), power)


minimax = Objective("minimax", _cross_entropy, lambda fake, real=None: -softplus(fake))
r"""Goodfellow et al. (2014), eq. 1: c = log(1 - D) = -softplus(a), c' = -D, flat where the discriminator wins.

With D optimal its expected gradient is that of 2 JS(p_data, p_G).
"""

non_saturating = Objective("non-saturating", _cross_entropy, lambda fake, real=None: softplus(-fake))
r"""Goodfellow et al. (2014), section 3: c = -log D = softplus(-a), c' = -(1 - D), steep where the discriminator wins.

With D optimal its expected gradient is that of KL(p_G || p_data) - 2 JS(p_data, p_G).
"""

maximum_likelihood = Objective("maximum-likelihood", _cross_entropy, lambda fake, real=None: -safe_exp(fake))
r"""Goodfellow (2014), "On distinguishability criteria", and his 2016 tutorial, section 3.2.4: c = -e^a.

With D optimal its expected gradient is that of KL(p_data || p_G). A few samples carry all the weight.
"""

reverse_kl = Objective("reverse-kl", _cross_entropy, lambda fake, real=None: -fake)
r"""c = -a, linear both ways: minus the reward of AIRL, Fu, Luo & Levine (2018).

With D optimal its expected gradient is that of KL(p_G || p_data).
"""

least_squares = Objective("least-squares", _least_squares, lambda fake, real=None: 0.5 * (fake - 1) ** 2)
r"""Mao et al. (2017), eq. 9, targets 0 and 1: c = (a - 1)^2 / 2. Not decreasing above a = 1: too good costs too."""

hinge = Objective("hinge", _hinge, lambda fake, real=None: -fake)
r"""Lim & Ye (2017); Miyato et al. (2018), eq. 16 and 17: c = -a against a discriminator that stops at margins of 1."""

wasserstein = Objective("wasserstein", _difference, lambda fake, real=None: -fake)
r"""Arjovsky, Chintala & Bottou (2017): c = -a. Needs a discriminator of bounded slope, see ``gradient_penalty``."""


def from_cost(cost: Callable[[Tensor], Tensor], name: str = "custom") -> Objective:
    """A user's cost of the logit against the cross-entropy discriminator.

    Args:
        cost: maps logits to costs of the same shape.
        name: for tables and messages.

    Raises:
        ValueError: when played, if the cost returns another shape: one number for all would pay every sample the same.
    """

    def checked(fake: Tensor, real: Tensor | None = None) -> Tensor:
        value = cost(fake)
        if not isinstance(value, Tensor) or value.shape != fake.shape:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"{name} must map logits (batch,) to costs (batch,), but {tuple(fake.shape)} gave {got}")
        return value

    return Objective(name, _cross_entropy, checked)
