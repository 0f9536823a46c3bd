"""Two models with data: a small binary variational autoencoder, and Bayesian logistic regression.

Both take the expected log-likelihood alone as their cost: the Kullback-Leibler term of the ELBO has an exact gradient,
the same for every estimator, and adds no variance.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Independent, Normal
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from advrl.checks import integer
from advrl.data import digits
from advrl.lab.enumeration import exact_gradient, expectation
from advrl.lab.problem import Known, Problem
from advrl.seeding import isolated


@dataclass(frozen=True)
class BinaryVAE(Known):
    """A variational autoencoder with binary latents on scikit-learn's digits, in black and white.

    Linear encoder and decoder, as the one-layer model of Tucker et al. (2017) and Grathwohl et al. (2018), but with so
    few latents that their exact gradient is a sum over all outcomes. It is first trained a little, by that gradient.
    The cost of latents is -log p(x | b), and the gradient that with respect to the log-odds of q(b | x), averaged over
    a batch of images.
    """

    name: ClassVar[str] = "binary-vae"
    replicates: ClassVar[int] = 2_000
    latents: int = 6
    """Binary latents (at most 10)."""
    images: int = 16
    """Images in the batch."""
    training: int = 100
    """Steps of exact training before the comparison."""

    def __post_init__(self) -> None:
        for name in ("latents", "images"):
            integer(name, getattr(self, name))
        integer("training", self.training, 0)
        if self.latents > 10:
            raise ValueError(f"latents must be at most 10, got {self.latents}: all 2^latents outcomes are listed")

    def on(self, device: torch.device | str = "cpu") -> Problem:
        x = (digits().train[: self.images].flatten(1) >= 0.5).float().to(device)
        with isolated(0):
            encoder = torch.nn.Linear(64, self.latents, device="cpu")
            decoder = torch.nn.Linear(self.latents, 64, device="cpu")
        encoder, decoder = encoder.to(device), decoder.to(device)

        def posterior(logits: Tensor) -> Distribution:
            return Independent(Bernoulli(logits=logits, validate_args=False), 1, validate_args=False)

        def cost(b: Tensor) -> Tensor:
            logits = decoder(b)
            return binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum(-1)

        parameters = [*encoder.parameters(), *decoder.parameters()]
        optimiser = torch.optim.Adam(parameters, lr=0.02)
        for _ in range(self.training):
            logits = encoder(2 * x - 1)
            divergence = (logits.sigmoid() * logits - softplus(logits)).sum(
                -1
            )  # to the prior Bernoulli(1/2), less K log 2
            loss = (expectation(posterior(logits), cost) + divergence).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        for parameter in parameters:
            parameter.requires_grad_(False)
        problem = Problem(
            name=f"binary VAE, {self.latents} latents, {self.images} digits",
            node=encoder(2 * x - 1),
            distribution=posterior,
            cost=cost,
            width=64 // self.latents,
        )
        return replace(problem, gradient=exact_gradient(problem))


@dataclass(frozen=True)
class LogisticRegression(Known):
    """Bayesian logistic regression on scikit-learn's breast-cancer data; 31 weights with a mean-field normal posterior.

    Mohamed et al. (2020), section 8: inputs standardised, a bias, batches of 32. The cost of weights is the batch's
    mean negative log-likelihood. For given data x.w is normal, so the exact gradient in means and log standard
    deviations is a one-dimensional Gauss-Hermite quadrature per row.
    """

    name: ClassVar[str] = "logistic-regression"
    replicates: ClassVar[int] = 2_000
    rows_used: int = 32
    """Rows in the batch."""
    log_std: float = -1.0
    """Log standard deviation of every weight; the means are 0."""

    def __post_init__(self) -> None:
        if not 1 <= integer("rows_used", self.rows_used) <= 569:
            raise ValueError(f"rows_used must be from 1 to 569, got {self.rows_used}")

    def on(self, device: torch.device | str = "cpu") -> Problem:
        signed = _breast_cancer(self.rows_used).to(device)  # (rows, 31): x, or -x for the negative class
        weights = signed.shape[1]

        def posterior(node: Tensor) -> Distribution:
            return Independent(Normal(node[..., 0], node[..., 1].exp(), validate_args=False), 1, validate_args=False)

        def cost(w: Tensor) -> Tensor:
            return softplus(-(w @ signed.float().T)).mean(-1)

        node = torch.zeros(weights, 2, device=device)
        node[:, 1] = self.log_std
        return Problem(
            name=f"logistic regression, {self.rows_used} rows, {weights} weights",
            node=node,
            distribution=posterior,
            cost=cost,
            gradient=_quadrature(node, signed).to(node),
            width=max(1, self.rows_used // weights),
        )


def _breast_cancer(rows: int) -> Tensor:
    """The first ``rows`` of a fixed shuffle, standardised, with a column of ones, times +1 or -1 by class; float64."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    x = torch.as_tensor(data.data, dtype=torch.float64, device="cpu")
    x = (x - x.mean(0)) / x.std(0, correction=0)
    x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    sign = torch.as_tensor(2 * data.target - 1, dtype=torch.float64, device="cpu")
    with isolated(0):
        order = torch.randperm(len(x), device="cpu")[:rows]
    return (x * sign[:, None])[order]


def _quadrature(node: Tensor, signed: Tensor, points: int = 128) -> Tensor:
    """Gradient of E mean softplus(-x.w) at the node, by Gauss-Hermite quadrature in float64."""
    import numpy as np

    abscissae, weights = (
        torch.as_tensor(v, dtype=torch.float64, device=node.device) for v in np.polynomial.hermite_e.hermegauss(points)
    )
    leaf = node.detach().double().requires_grad_()
    mean = signed @ leaf[:, 0]
    std = ((signed**2) @ (2 * leaf[:, 1]).exp()).sqrt()
    values = softplus(-(mean[:, None] + std[:, None] * abscissae)) @ (weights / weights.sum())
    return torch.autograd.grad(values.mean(), leaf)[0]
