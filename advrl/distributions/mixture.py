r"""Mixtures that can be drawn with a gradient: implicit reparameterisation.

A draw x of a mixture is held fixed where u = F(x; theta) is, with F the distribution function; then

    dx/dtheta = -(dF/dtheta) / p(x)                              Figurnov, Mohamed & Mnih (2018), eq. 5

In several dimensions F is the chain of conditional distribution functions F(x_d | x_1 ... x_{d-1}) (their eq. 8), in
which the components' weights are those of the posterior given x_1 ... x_{d-1}. Each is solved for x_d by two Newton
steps from the draw itself: they leave its value as it is, while their derivatives are right to third order (a step
squares the error in the parameters). Shapes: S samples, K components, D dimensions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import (
    Cauchy,
    Distribution,
    Exponential,
    HalfNormal,
    Independent,
    Laplace,
    LogNormal,
    MultivariateNormal,
    Normal,
)

NEWTON_STEPS = 2
UNIVARIATE = (Cauchy, Exponential, HalfNormal, Laplace, LogNormal, Normal)
"""Components with a distribution function that is smooth in all parameters wherever any component has mass."""


class MixtureSameFamily(torch.distributions.MixtureSameFamily):
    """``torch.distributions.MixtureSameFamily`` with ``rsample``, differentiable to third order.

    ``has_rsample`` is true for univariate Normal, Laplace, Cauchy, Exponential, HalfNormal and LogNormal components,
    and for ``Independent(Normal, 1)`` and ``MultivariateNormal`` ones, where a draw takes one pass over the D
    dimensions. The gradient covers the mixture's weights and the components' parameters.
    """

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        component = self.component_distribution
        return isinstance(component, (*UNIVARIATE, MultivariateNormal)) or _is_factorised_normal(component)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """Draws (*sample_shape, *batch, *event), differentiable in all parameters.

        Raises:
            NotImplementedError: for components without a usable distribution function.
        """
        if not self.has_rsample:
            raise NotImplementedError(
                f"a mixture of {type(self.component_distribution).__name__} components has no rsample: Normal, "
                "Laplace, Cauchy, Exponential, HalfNormal, LogNormal, Independent(Normal, 1) and MultivariateNormal do"
            )
        x: Tensor = self.sample(torch.Size(sample_shape))  # type: ignore[no-untyped-call]
        log_weights = self.mixture_distribution.logits.log_softmax(-1)
        if self.event_shape:
            return self._chain(x, log_weights)
        return _solve(x, log_weights, self.component_distribution)

    def _chain(self, x: Tensor, log_weights: Tensor) -> Tensor:
        """One dimension after the other, given the reparameterised ones before it."""
        component = self.component_distribution
        if isinstance(component, MultivariateNormal):
            loc, factor = component.loc, component.scale_tril
        else:
            assert isinstance(component, Independent)
            loc, factor = component.base_dist.loc, component.base_dist.scale.diag_embed()
        diagonal = not isinstance(component, MultivariateNormal)
        done: list[Tensor] = []
        whitened: list[Tensor] = []  # per component, (S, *batch, K): L_k^-1 (x - loc_k) so far
        for d in range(self.event_shape[0]):
            shift = loc[..., d]
            if not diagonal:
                for j, e in enumerate(whitened):
                    shift = shift + factor[..., d, j] * e
            conditional = Normal(shift, factor[..., d, d], validate_args=False)
            solved = _solve(x[..., d], log_weights, conditional)
            done.append(solved)
            log_weights = log_weights + conditional.log_prob(solved.unsqueeze(-1))
            log_weights = log_weights.log_softmax(-1)
            whitened.append((solved.unsqueeze(-1) - shift) / factor[..., d, d])
        return torch.stack(done, -1)


def _is_factorised_normal(component: Distribution) -> bool:
    return (
        isinstance(component, Independent)
        and component.reinterpreted_batch_ndims == 1
        and isinstance(component.base_dist, Normal)
    )


def _solve(x: Tensor, log_weights: Tensor, component: Distribution) -> Tensor:
    """The root of F(x) = F(draw), as a function of the weights (*, K) and the components' parameters."""
    weights = log_weights.exp()
    level = None
    for _ in range(NEWTON_STEPS):
        point = x.unsqueeze(-1)
        below = (weights * component.cdf(point)).sum(-1)
        density = (weights * component.log_prob(point).exp()).sum(-1)
        level = below.detach() if level is None else level
        x = x - (below - level) / density.clamp(min=torch.finfo(density.dtype).tiny)
    return x
