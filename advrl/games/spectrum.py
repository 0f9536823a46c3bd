r"""The eigenvalues of a running game's Jacobian: whether it is attracted, how it turns, and which steps it can take.

Near an equilibrium a simultaneous step is w -> (I - eta J) w. It contracts along an eigenvector with eigenvalue z of J
where |1 - eta z| < 1, which is

    eta < 2 Re z / |z|^2        and never if Re z <= 0:

a large imaginary part, a turn, asks for steps smaller than its attraction by the square of their ratio. Mescheder,
Nowozin & Geiger (2017), lemma 4. All eigenvalues of small games are found densely; of large ones the outer few, by the
implicitly restarted Arnoldi method (ARPACK) on products with J, each of the price of a few gradients.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from advrl.checks import choice, integer
from advrl.games.game import Game, Losses, Params, flatten, jacobian, jacobian_product, leaves, unflatten
from advrl.objectives import Objective

ENDS = {"modulus": "LM", "real": "SR", "imaginary": "LI"}  # what ARPACK calls them


def spectrum(
    game: Losses, x: Params, y: Params, count: int | None = None, by: str = "modulus", restarts: int = 20
) -> Tensor:
    """Eigenvalues of J at (x, y), largest modulus first, as complex numbers on the CPU.

    Positive real parts attract. Away from an equilibrium they say how the field turns and stretches there.

    Args:
        game: the two losses.
        x: parameters of the first player.
        y: parameters of the second.
        count: how many, without forming J; all n + m of them, from the dense J, if ``None``.
        by: with ``count``, which: those of the largest "modulus", which limit the step, of the smallest "real" part,
            which are least attracted, or of the largest "imaginary" part, which turn fastest.
        restarts: of Arnoldi's method, each of some 20 products, after which what has not settled is left out: where
            many eigenvalues lie together, as the real parts near 0 of most networks do, that may be all.

    Returns:
        (n + m,) or up to (count,) eigenvalues. For ``count`` of n + m - 1 or more, all of them.
    """
    choice("by", by, ENDS)
    sizes = [sum(part.numel() for part in leaves(params)) for params in (x, y)]
    if count is None or integer("count", count) >= sum(sizes) - 1:
        values = torch.linalg.eigvals(jacobian(game, x, y).cpu())
    else:
        values = _arnoldi(game, x, y, sizes, count, ENDS[by], integer("restarts", restarts))
    return values[values.abs().argsort(descending=True)]


def stability_limit(eigenvalues: Tensor, tolerance: float = 1e-6) -> float:
    """The largest step of w - eta F that does not grow along any of these eigenvectors: min 2 Re z / |z|^2.

    0 if one of them is not attracted. Eigenvalues below ``tolerance`` times the largest are left out: directions in
    which the losses do not change, as scalings of weights between two layers, neither grow nor shrink.

    Args:
        eigenvalues: of J, as of :func:`spectrum`; with only some of J's, the limit is that of those.
        tolerance: relative size of what counts as zero.

    Raises:
        ValueError: without eigenvalues.
    """
    if eigenvalues.dim() != 1 or not len(eigenvalues):
        raise ValueError(
            f"eigenvalues must be (k,), at least one, got {tuple(eigenvalues.shape)}: ask for fewer of them"
        )
    size = eigenvalues.abs()
    kept = eigenvalues[size > tolerance * size.amax()]
    if not len(kept):
        return math.inf
    return max(0.0, float((2 * kept.real / kept.abs() ** 2).amin()))


def gan_game(
    generator: nn.Module, discriminator: nn.Module, objective: Objective, real: Tensor, z: Tensor
) -> tuple[Game, Params, Params]:
    """The game that two modules play on one batch, and their parameters: x the generator's, y the discriminator's.

    Losses are means over the batch. The modules themselves are not changed: buffers are copied for every call.

    Args:
        generator: z to samples.
        discriminator: samples to logits (batch,).
        objective: the costs.
        real: (batch, *event) real samples.
        z: (batch, ...) noise.
    """
    x, y = ({k: v.detach() for k, v in net.named_parameters()} for net in (generator, discriminator))

    def call(module: nn.Module, params: Params, batch: Tensor) -> Tensor:
        buffers = {k: v.clone() for k, v in module.named_buffers()}  # a batch norm's means move in place
        return functional_call(module, (params, buffers), (batch,))

    def losses(x: Params, y: Params) -> tuple[Tensor, Tensor]:
        fake, truth = (call(discriminator, y, batch) for batch in (call(generator, x, z), real))
        cost = objective.cost(fake, truth) if objective.needs_real else objective.cost(fake)
        return cost.mean(), objective.d_loss(truth, fake).mean()

    return Game(objective.name, losses), x, y


def _arnoldi(game: Losses, x: Params, y: Params, sizes: list[int], count: int, which: str, restarts: int) -> Tensor:
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs

    kind = flatten(x)

    def product(vector: np.ndarray) -> np.ndarray:
        w = torch.as_tensor(vector.reshape(-1), device="cpu").to(kind)
        u, v = w.split(sizes)
        gx, gy = jacobian_product(game, x, y, unflatten(u, x), unflatten(v, y))
        return torch.cat([flatten(gx), flatten(gy)]).detach().to("cpu", torch.float64).numpy()

    total = sum(sizes)
    start = np.random.default_rng(0).standard_normal(total)
    tolerance = 0.0 if kind.dtype == torch.float64 else 1e-4  # rounding in the products goes no further
    operator = LinearOperator((total, total), matvec=product, dtype=np.float64)
    options = {"which": which, "v0": start, "tol": tolerance, "maxiter": restarts, "return_eigenvectors": False}
    try:
        found = eigs(operator, count, ncv=min(total, max(4 * count + 1, 20)), **options)
    except ArpackNoConvergence as error:
        found = error.eigenvalues
    return torch.as_tensor(np.asarray(found, dtype=np.complex128), device="cpu")
