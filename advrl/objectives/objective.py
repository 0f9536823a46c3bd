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
from torch.nn.functional import softplus


@dataclass(frozen=True)
class Objective:
    """A game on discriminator logits in which every sample has a cost, and so a reward, of its own.

    Both functions work entry by entry, so the caller picks the reduction. ``d_loss`` broadcasts one batch of real
    logits (B,) against several of fake ones (S, B): the mean of the result is the mean over reals plus that over fakes.

    Args:
        name: for tables and messages.
        d_loss: (real (B,), fake (B,) or (S, B)) logits to the discriminator's loss, of the fake's shape; mostly a
            :class:`Separable`.
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


@dataclass(frozen=True)
class Separable:
    """A discriminator's loss that judges each sample by itself: l_real(a) of a real one, l_fake(a) of a fake one.

    Called as ``d_loss(real, fake)`` it pairs the two. Batches of unequal size have no pairs, but each part has a mean:
    ``loss.real(a).mean() + loss.fake(b).mean()``.

    Args:
        real, fake: logits to losses, entry by entry.
        best: (p, q) probabilities of the same outcome, real and fake, to the output that minimises
            p l_real(a) + q l_fake(a); ``None`` where there is no such output without a bound on the discriminator.
            p and q need not sum to 1, nor be normalised.
    """

    real: Callable[[Tensor], Tensor]
    fake: Callable[[Tensor], Tensor]
    best: Callable[[Tensor, Tensor], Tensor] | None = None

    def __call__(self, real: Tensor, fake: Tensor) -> Tensor:
        """l_real + l_fake of each pair, of the fake's shape (B,) or (S, B)."""
        check_pairs(real, fake)
        return self.real(real) + self.fake(fake)


@dataclass(frozen=True)
class Paired:
    """A discriminator's loss that judges a fake beside a real sample: ``loss(a_fake - a_real)``.

    Args:
        loss: differences to losses, entry by entry.
        best: as of :class:`Separable`, up to a constant.
    """

    loss: Callable[[Tensor], Tensor]
    best: Callable[[Tensor, Tensor], Tensor] | None = None

    def __call__(self, real: Tensor, fake: Tensor) -> Tensor:
        """The loss of each pair, of the fake's shape (B,) or (S, B)."""
        check_pairs(real, fake)
        return self.loss(fake - real)


def check_pairs(real: Tensor, fake: Tensor) -> None:
    """Raise a ``ValueError`` unless real logits (B,) pair up with fake ones (B,) or (S, B)."""
    if real.dim() != 1 or fake.dim() == 0 or fake.shape[-1] != real.shape[0]:
        raise ValueError(
            f"need real logits (B,) and fake logits (B,) or (S, B), got {tuple(real.shape)} and {tuple(fake.shape)}"
        )


def safe_exp(a: Tensor) -> Tensor:
    """e^a, continued by its tangent where it would come near the largest number of its dtype: finite and still convex.

    In float32 (and bfloat16) the tangent begins at a = 80, in float64 at 700, in float16 at 6; below it is exact.
    """
    cap = 700.0 if a.dtype == torch.float64 else 6.0 if a.dtype == torch.float16 else 80.0
    power = a.clamp(max=cap).exp()
    return torch.where(a > cap, power.detach() * (1 + a - cap), power)


def log_ratio(p: Tensor, q: Tensor) -> Tensor:
    """log p - log q: the best logit against cross-entropy, infinite where only one of them is 0."""
    return p.log() - q.log()


cross_entropy = Separable(lambda a: softplus(-a), softplus, log_ratio)
"""-log D(x) - log(1 - D(G(z))), finite for any logit: Goodfellow et al. (2014), eq. 1. Its best logit is log p/q."""


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

    return Objective(name, cross_entropy, checked)
