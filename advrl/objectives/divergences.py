r"""f-divergences: what a cost of the logit descends, and what it is the value of. These are two different things.

D_f(p || q) = sum_x q f(p / q), f convex, p the data, q the generator, r = p / q = e^a at the best discriminator.

- *Gradient matching.* With the discriminator frozen at its best, E_q[c(a) grad log q] is grad D_f for exactly one
  cost (up to a constant),

      c(a) = f(r) - r f'(r),        dc/da = -r^2 f''(r) <= 0,

  which is decreasing for every f: a better judged sample always costs less.
- *Value matching.* E_q[f(r)] is D_f, but its gradient with the discriminator frozen is not grad D_f: the ratio moves
  with q, and that part is lost. FAIRL pays -f(r) of KL; see :mod:`advrl.objectives.imitation`.

The variational form is that of f-GAN, Nowozin, Cseke & Tomioka (2016), whose tables of f, conjugates and activations g
(which map any real v into the domain of f*) these are:

    D_f = sup_T E_p[T] - E_q[f*(T)],        f*(t) = sup_r (r t - f(r)),        best at T = f'(r).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from advrl.checks import same_shape
from advrl.objectives import logits
from advrl.objectives.objective import Objective, Separable, cross_entropy, safe_exp

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Variational:
    """Nowozin et al. (2016): the conjugate of f, and the discriminator's output v turned into T = g(v).

    Args:
        conjugate: t -> f*(t) = sup_r (r t - f(r)).
        activation: v -> g(v), increasing, into the domain of f*.
        composed: v -> f*(g(v)), in a form that neither overflows nor cancels.
        best: a = log r -> the output with g(v) = f'(r).
    """

    conjugate: Function
    activation: Function
    composed: Function
    best: Function


@dataclass(frozen=True)
class FDivergence:
    """D_f(p || q) = sum q f(p / q).

    Args:
        name: for tables and messages.
        formula: f(r) in words.
        f: r -> f(r), convex on r > 0.
        slope: r -> f'(r).
        recession: lim f(r) / r for r to infinity: what mass of p weighs where q has none.
        objective: the same cost c = f - r f' as the rule's, up to a constant, in a form that is exact for any logit.
        variational: the conjugate and the activation of f-GAN, where the conjugate has a form of its own.
    """

    name: str
    formula: str
    f: Function
    slope: Function
    recession: float
    objective: Objective
    variational: Variational | None = None

    def cost(self, a: Tensor) -> Tensor:
        """The rule c(a) = f(r) - r f'(r), r = e^a: gradient matching. Its terms cancel for large a; for training,

        ``objective.cost`` is the same up to a constant, and exact.
        """
        r = safe_exp(a)
        return self.f(r) - r * self.slope(r)

    def value(self, a: Tensor) -> Tensor:
        """f(e^a): value matching."""
        return self.f(safe_exp(a))

    def between(self, p: Tensor, q: Tensor) -> Tensor:
        """() D_f(p || q) of probabilities (K,), exactly; infinite where f makes it so.

        Raises:
            ValueError: if the shapes differ.
        """
        same_shape(p=p, q=q)
        common = q > 0
        ratio = torch.where(common, p / torch.where(common, q, 1.0), 1.0)
        outside = torch.where(p > 0, p * self.recession, 0.0)
        return torch.where(common, q * self.f(ratio), outside).sum(-1)


def _omega(s: Tensor) -> Tensor:
    """y = log W(e^s): the root of e^y + y = s, twice differentiable in s.

    Newton's iteration from the right of the root of a convex function, which converges from above. The last two steps
    are done with gradient: the first of them is right to first order in s, and the second doubles the digits.
    """

    def step(y: Tensor) -> Tensor:
        return y - (y.exp() + y - s) / (y.exp() + 1)

    with torch.no_grad():
        y = torch.where(s > 1, s.clamp(min=1.0).log(), s)
        for _ in range(8):
            y = step(y)
    return step(step(y))


def _jeffreys_conjugate(t: Tensor) -> Tensor:
    y = _omega(1 - t)
    return y.exp() + safe_exp(-y) + t - 2


def _half_tanh(v: Tensor) -> Tensor:
    """tanh(v) / 2, whose slope does not cancel where it is nearly flat."""
    return torch.where(v > 0, 0.5 - (-2 * v).sigmoid(), (2 * v).sigmoid() - 0.5)


_KL = Variational(lambda t: safe_exp(t - 1), lambda v: v, lambda v: safe_exp(v - 1), lambda a: a + 1)
_REVERSE_KL = Variational(
    lambda t: -1 - (-t).log(), lambda v: -safe_exp(-v), lambda v: v - 1, lambda a: a
)  # fmt: skip
_PEARSON = Variational(
    lambda t: t**2 / 4 + t, lambda v: v, lambda v: v**2 / 4 + v, lambda a: 2 * torch.expm1(a)
)  # fmt: skip
_NEYMAN = Variational(
    lambda t: 2 - 2 * (1 - t).sqrt(), lambda v: 1 - safe_exp(-v), lambda v: 2 - 2 * safe_exp(-v / 2), lambda a: 2 * a
)
_HELLINGER = Variational(
    lambda t: t / (1 - t), lambda v: 1 - safe_exp(-v), lambda v: safe_exp(v) - 1, lambda a: a / 2
)  # fmt: skip
_JEFFREYS = Variational(_jeffreys_conjugate, lambda v: v, _jeffreys_conjugate, lambda a: a + 1 - safe_exp(-a))
_JENSEN_SHANNON = Variational(
    lambda t: -(2 - t.exp()).log(),
    lambda v: math.log(2) - softplus(-v),
    lambda v: softplus(v) - math.log(2),
    lambda a: a,
)
_GAN = Variational(lambda t: -torch.log1p(-t.exp()), lambda v: -softplus(-v), softplus, lambda a: a)
_TOTAL_VARIATION = Variational(lambda t: t, _half_tanh, _half_tanh, lambda a: torch.where(a == 0, a, a * math.inf))

DIVERGENCES: dict[str, FDivergence] = {
    d.name: d
    for d in (
        FDivergence("kl", "r log r", lambda r: torch.xlogy(r, r), lambda r: r.log() + 1, math.inf,
                    logits.maximum_likelihood, _KL),
        FDivergence("reverse-kl", "-log r", lambda r: -r.log(), lambda r: -1 / r, 0.0,
                    logits.reverse_kl, _REVERSE_KL),
        FDivergence("jeffreys", "(r - 1) log r", lambda r: (r - 1) * r.log(), lambda r: r.log() + 1 - 1 / r, math.inf,
                    logits.jeffreys, _JEFFREYS),
        FDivergence("pearson", "(r - 1)^2", lambda r: (r - 1) ** 2, lambda r: 2 * (r - 1), math.inf,
                    logits.pearson, _PEARSON),
        FDivergence("neyman", "(1 - r)^2 / r", lambda r: (1 - r) ** 2 / r, lambda r: 1 - 1 / r**2, 1.0,
                    logits.neyman, _NEYMAN),
        FDivergence("hellinger", "(sqrt r - 1)^2", lambda r: (r.sqrt() - 1) ** 2, lambda r: 1 - r.rsqrt(), 1.0,
                    logits.hellinger, _HELLINGER),
        FDivergence("total-variation", "|r - 1| / 2", lambda r: 0.5 * (r - 1).abs(), lambda r: 0.5 * (r - 1).sign(),
                    0.5, logits.total_variation, _TOTAL_VARIATION),
        FDivergence("jensen-shannon", "r log r - (1 + r) log((1 + r) / 2)",
                    lambda r: torch.xlogy(r, r) - (1 + r) * (0.5 + r / 2).log(),
                    lambda r: r.log() - (0.5 + r / 2).log(), math.log(2), logits.minimax, _JENSEN_SHANNON),
        FDivergence("gan", "r log r - (1 + r) log(1 + r)",
                    lambda r: torch.xlogy(r, r) - (1 + r) * torch.log1p(r),
                    lambda r: r.log() - torch.log1p(r), 0.0, logits.minimax, _GAN),
        FDivergence("softened-reverse-kl", "(1 + r) log((1 + r) / r)", lambda r: (1 + r) * torch.log1p(1 / r),
                    lambda r: torch.log1p(1 / r) - 1 / r, 0.0, logits.non_saturating),
    )
}  # fmt: skip
"""By name. ``jensen-shannon`` is 2 JS, ``gan`` is 2 JS - log 4, and ``softened-reverse-kl``, which the non-saturating
cost descends, is KL(q || p) - 2 JS + log 4."""


def f_gan(divergence: FDivergence) -> Objective:
    """The variational game of Nowozin et al. (2016) on the discriminator's raw output v.

    d_loss = -g(v_real) + f*(g(v_fake)), cost = -f*(g(v_fake)): both players play for the same value, whose supremum is
    D_f. v is not the log-ratio, but a function of it: ``divergence.variational.best``.

    Raises:
        ValueError: for a divergence without a conjugate in closed form.
    """
    form = divergence.variational
    if form is None:
        raise ValueError(f"{divergence.name} has no conjugate in closed form: use the cost {divergence.objective.name}")
    best, composed, activation = form.best, form.composed, form.activation
    loss = Separable(lambda v: -activation(v), composed, lambda p, q: best(p.log() - q.log()))
    return Objective(f"f-gan-{divergence.name}", loss, lambda fake, real=None: -composed(fake))


def value_matching(divergence: FDivergence) -> Objective:
    """The cost f(e^a): its mean *is* the divergence; its gradient with the discriminator frozen is another one."""
    return Objective(f"value-{divergence.name}", cross_entropy, lambda fake, real=None: divergence.value(fake))


GRADIENT_MATCHING: dict[str, Objective] = {name: d.objective for name, d in DIVERGENCES.items()}
"""By divergence: the cost whose gradient, with the best discriminator frozen, is the divergence's."""

VALUE_MATCHING: dict[str, Objective] = {name: value_matching(d) for name, d in DIVERGENCES.items()}
"""By divergence: the cost whose mean at the best discriminator is the divergence's value."""
