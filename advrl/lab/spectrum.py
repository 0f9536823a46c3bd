r"""The spectrum of the game's Jacobian inside a running GAN, and whether the run's steps are too large for it.

The optimisers' steps are part of the dynamics: with H the step size of every weight (for Adam its learning rate over
the root of the second moment; momentum is left out), a simultaneous step is w -> w - H F(w), and near an equilibrium it
contracts along an eigenvector of H J with eigenvalue z where |1 - z| < 1. Looked for are the eigenvalues of
S J S, S = sqrt(H), which are those of H J, of the largest modulus, the smallest real part and the largest imaginary
part, by the implicitly restarted Arnoldi method (ARPACK) on products with J, of the price of a backward pass each.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from advrl.agents import AdversarialTrainer, DynamicsTrainer
from advrl.agents.dynamics_field import Field, derivative, leaves
from advrl.agents.dynamics_rules import Params
from advrl.agents.dynamics_trainer import Networks, Sample
from advrl.agents.logs import MetricsLog
from advrl.agents.switched import evaluating
from advrl.checks import integer
from advrl.estimators import Path as PathEstimator
from advrl.games import stability_limit
from advrl.plots import read_metrics, save_figure, style
from advrl.seeding import isolated

COUNT = 4  # eigenvalues at each end
BATCH = 256  # real samples, and noise vectors
COLUMNS = ("modulus", "real", "turn", "limit", "beyond")
RESTARTS = 100  # of Arnoldi's method
ENDS = ("LM", "SR", "LI")  # what ARPACK calls the largest modulus, smallest real and largest imaginary parts


class SpectrumProbe:
    """Eigenvalues at a trainer's current parameters; a callback for :class:`advrl.agents.Every`.

    Args:
        trainer: whose policy's samples have a gradient; its penalties count as in the mean over steps.
        real: (B, *event) real samples.
        folder: where ``spectrum.csv`` and the TensorBoard events go; nowhere if ``None``.
        count: eigenvalues looked for at each end.
        seed: of the noise.

    Raises:
        ValueError: for a policy whose samples have no gradient, since the game of its samples is another one.
    """

    def __init__(
        self,
        trainer: AdversarialTrainer,
        real: Tensor,
        folder: str | Path | None = None,
        *,
        count: int = COUNT,
        seed: int = 0,
    ) -> None:
        self.trainer, self.real, self.count, self.seed = trainer, real, integer("count", count), seed
        self.folder = None if folder is None else Path(folder)
        self.networks = Networks(trainer.generator, trainer.discriminator)
        with isolated(seed), torch.no_grad():
            self.z = trainer.noise(len(real))
            if not trainer.distribution(self.z[:2]).has_rsample:
                raise ValueError(
                    "the spectrum is that of samples with a gradient, and this policy's have none: use --policy "
                    "gaussian or implicit"
                )
        self._log: MetricsLog | None = None
        self._started = time.perf_counter()

    def __call__(self, step: int) -> None:
        """Measure and write a row."""
        row = self.measure()
        if self.folder is None:
            return
        if self._log is None:
            written = (self.folder / "spectrum.csv").exists()
            self._log = MetricsLog(self.folder, step - 1 if written else None, name="spectrum")
        self._log.write(step, time.perf_counter() - self._started, row)

    def close(self) -> None:
        """Close the files."""
        if self._log is not None:
            self._log.close()

    def measure(self) -> dict[str, float]:
        """The numbers of a row, of H J.

        ``modulus``, ``real`` and ``turn`` are the largest |z|, the smallest Re z and the largest |Im z|. ``limit`` is
        the factor by which the run's steps could grow and a simultaneous step still contract along all of what was
        found, 0 if none does; ``beyond`` is 1 where it is below 1. NaN where nothing is found.
        """
        found = self.eigenvalues()
        if not len(found):
            return dict.fromkeys(COLUMNS, math.nan)
        limit = stability_limit(found)
        ends = float(found.abs().max()), float(found.real.min()), float(found.imag.abs().max())
        return dict(zip(COLUMNS, (*ends, limit, float(limit < 1)), strict=True))

    def eigenvalues(self) -> Tensor:
        """(up to 6 count,) eigenvalues of H J at the three ends, as far as found; all of them if there are few."""
        from scipy.sparse.linalg import LinearOperator

        trainer = self.trainer
        with isolated(self.seed), evaluating(trainer.generator, trainer.discriminator):
            sample = Sample(trainer, self.networks, self.real, self.z, PathEstimator(), again=True, penalised=1)
            product, size, like = _scaled_jacobian(Field(sample), self.networks.copies(), step_sizes(trainer))
            if size <= 2 * self.count + 2:
                matrix = np.stack([product(unit) for unit in np.eye(size)], 1)
                return torch.from_numpy(np.linalg.eigvals(matrix).astype(complex))
            operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
            start = np.random.default_rng(self.seed).standard_normal(size)
            tolerance = 0.0 if like == torch.float64 else 1e-4
            if not np.isfinite(product(start)).all():
                return torch.empty(0, dtype=torch.complex128, device="cpu")
            ends = [_outer(operator, self.count, end, start, tolerance) for end in ENDS]
        return torch.from_numpy(np.concatenate(ends))


def _outer(operator: Any, count: int, end: str, start: np.ndarray, tolerance: float) -> np.ndarray:
    """(up to count,) eigenvalues at one end; what does not settle in time is left out, since a run waits for it."""
    from scipy.sparse.linalg import ArpackNoConvergence, eigs

    vectors = min(len(start), max(4 * count + 1, 40))  # with fewer the ends inside are found in a wrong order
    options: dict[str, Any] = {"v0": start, "tol": tolerance, "ncv": vectors, "return_eigenvectors": False}
    try:
        found: np.ndarray = eigs(operator, count, which=end, maxiter=RESTARTS, **options)
    except ArpackNoConvergence as error:
        found = np.asarray(error.eigenvalues, dtype=complex)
    return found


def step_sizes(trainer: AdversarialTrainer) -> tuple[Params, Params]:
    """The step size of every weight as it is now, momentum left out: of Adam, learning rate / (sqrt(v) + eps)."""
    if isinstance(trainer, DynamicsTrainer):
        return trainer.step_sizes()
    found = []
    for optimiser in (trainer.g_opt, trainer.d_opt):
        sizes = []
        for group in optimiser.param_groups:
            for p in group["params"]:
                if not p.requires_grad:
                    continue
                state = optimiser.state.get(p)
                if not state:
                    sizes.append(torch.full_like(p, group["lr"]).detach())
                    continue
                second = state["exp_avg_sq"] / (1 - group["betas"][1] ** state["step"])
                sizes.append(group["lr"] / (second.sqrt() + group["eps"]))
        found.append(tuple(sizes))
    return found[0], found[1]


def _scaled_jacobian(
    field: Field, players: tuple[Params, Params], sizes: tuple[Params, Params]
) -> tuple[Callable[[np.ndarray], np.ndarray], int, torch.dtype]:
    """v -> S J S v on float64 vectors; J^T u is linear in u, and its derivative in u, transposed, is J."""
    x, y = leaves(players[0]), leaves(players[1])
    towards_x, towards_y = field.both(x, y, again=True)
    towards = (*towards_x, *towards_y)
    roots = tuple(torch._foreach_sqrt((*sizes[0], *sizes[1])))
    dummy = tuple(torch.zeros_like(t, requires_grad=True) for t in towards)
    back = derivative(towards, (*x, *y), dummy, again=True)
    if back is None:
        raise ValueError("the game's gradients cannot be differentiated again, so that it has no spectrum")
    counts, like = [r.numel() for r in roots], roots[0]

    def product(vector: np.ndarray) -> np.ndarray:
        flat = torch.as_tensor(vector.reshape(-1), device="cpu").to(like)
        along = [part.view_as(r) * r for part, r in zip(flat.split(counts), roots, strict=True)]
        found = derivative(back, dummy, tuple(along))
        assert found is not None
        scaled = torch.cat([(f * r).flatten() for f, r in zip(found, roots, strict=True)])
        out: np.ndarray = scaled.detach().to("cpu", torch.float64).numpy()
        return out

    return product, sum(counts), like.dtype


def spectrum_plot(run: str | Path) -> Path:
    """Draw ``spectrum.csv`` of a run into ``plots/spectrum.png`` and return that path.

    Raises:
        OSError: if it cannot be read, or the figure not written.
    """
    from matplotlib.figure import Figure

    from advrl.plots.style import PALETTE

    run = Path(run)
    table = read_metrics(run / "spectrum.csv")
    with style():
        figure = Figure(figsize=(7.2, 3.0))
        ends, limit = figure.subplots(1, 2)
        mark = "." if len(table["step"]) < 40 else None
        lines = (("modulus", "largest |z|"), ("turn", "largest |Im z|"), ("real", "smallest Re z"))
        for (name, label), colour in zip(lines, PALETTE, strict=False):
            ends.plot(table["step"], table[name], label=label, marker=mark, color=colour)
        ends.set_yscale("symlog", linthresh=1e-2)
        ends.set(title="Eigenvalues of step size times Jacobian", xlabel="step")
        limit.plot(table["step"], table["limit"], marker=mark, color=PALETTE[0])
        limit.axhline(1, ls=":", lw=1, color="black")
        limit.set_yscale("symlog", linthresh=1e-3)
        limit.set(title="Largest stable step, in the run's own", xlabel="step")
        figure.legend(loc="outside lower left", ncols=len(lines))
    return save_figure(figure, run / "plots" / "spectrum.png")
