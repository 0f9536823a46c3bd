r"""Gradient estimators measured inside a running GAN, at the current policy and the current discriminator.

The gradient that is looked at is that of the policy's objective at the policy's own numbers (the logits, means, ...
that the network gives), for a few fixed noise vectors z: what every estimator hands to the network, before the
network's Jacobian, which is the same for all. The discriminator is held still. The truth is the sum over all outcomes
where the policy has few enough, else a leave-one-out estimate over at least 10^5 draws, whose own error is shown and
enters every z-score. Per estimator, with reference r, mean m and total variance V over R estimates:

    bias     |m - r| / |r|, the squares cleared of the noise's share       z      the largest coordinate of m - r in
    errors variance V / |r|^2, of one estimate                                    cosine the mean cosine of one estimate
    with r

A probe runs with random generators of its own and leaves the run as it was, bit for bit.
Shapes: R replicates, S samples, B noise vectors.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from advrl.agents import AdversarialTrainer
from advrl.agents.logs import MetricsLog
from advrl.agents.switched import evaluating
from advrl.checks import integer
from advrl.estimators import Estimator, Score, leave_one_out
from advrl.lab.compare import largest_z, z_bound
from advrl.lab.enumeration import LIMIT, exact_gradient, outcomes
from advrl.lab.harness import Measured, measure, numbers_of, pilot
from advrl.lab.problem import Problem
from advrl.nn import Policy
from advrl.seeding import isolated

DRAWS = 2**17  # of the leave-one-out reference, over all z: at least 10^5
GROUP = 64  # of them are held against each other
NOISE = 2  # fixed noise vectors
REPLICATES = 512
CHUNK = 2**20  # numbers that the discriminator's layers make in one go


class GradientProbe:
    """Measures estimators at a trainer's current parameters; a callback for :class:`advrl.agents.Every`.

    Args:
        trainer: a trainer whose generator is a :class:`advrl.nn.Policy`.
        estimators: by name.
        real: (N, *event) real samples, for objectives that compare with them.
        folder: where ``probe.csv`` and the TensorBoard events go; nowhere if ``None``.
        noise: how many fixed noise vectors z.
        replicates: estimates per estimator.
        draws: of the leave-one-out reference, over all z; used where the outcomes cannot be listed.
        seed: of the noise vectors.

    Raises:
        TypeError: for a generator that is no Policy.
        ValueError: if an estimator cannot treat the policy's distribution, there is no estimator, or the policy has no
            density that a reference could be made with.
    """

    def __init__(
        self,
        trainer: AdversarialTrainer,
        estimators: Mapping[str, Estimator],
        real: Tensor,
        folder: str | Path | None = None,
        *,
        noise: int = NOISE,
        replicates: int = REPLICATES,
        draws: int = DRAWS,
        seed: int = 0,
    ) -> None:
        if not isinstance(trainer.generator, Policy):
            raise TypeError(f"a probe needs an advrl.nn.Policy, got {type(trainer.generator).__name__}")
        if not estimators:
            raise ValueError("a probe needs at least one estimator")
        self.trainer, self.estimators, self.folder = trainer, dict(estimators), None if folder is None else Path(folder)
        self.policy: Policy = trainer.generator
        self.replicates, self.draws = integer("replicates", replicates, 2), integer("draws", draws, 2 * GROUP)
        with isolated(seed):
            self.z = self.policy.noise(integer("noise", noise))
        self.real = real[:noise]
        if trainer.objective.needs_real and len(self.real) < noise:
            raise ValueError(f"{trainer.objective.name} compares with real samples: give at least {noise}")
        self._log: MetricsLog | None = None
        self._started = time.perf_counter()
        with torch.no_grad():
            distribution = self.policy.distribution(self.z)
        for estimator in self.estimators.values():
            estimator.check(distribution)
        number = outcomes(distribution)
        self.enumerates = number is not None and number <= LIMIT
        if not self.enumerates:
            Score(GROUP, leave_one_out).check(distribution)

    def __call__(self, step: int) -> None:
        """Measure and write a row."""
        row = self.measure(step)
        if self.folder is None:
            return
        if self._log is None:
            written = (self.folder / "probe.csv").exists()
            self._log = MetricsLog(self.folder, step - 1 if written else None, name="probe")
        self._log.write(step, time.perf_counter() - self._started, row)

    def close(self) -> None:
        """Close the files."""
        if self._log is not None:
            self._log.close()

    def measure(self, seed: int = 0) -> dict[str, float]:
        """The numbers of a row: ``NAME/bias``, ``noise``, ``z``, ``variance``, ``cosine`` and the reference's own.

        ``NAME/noise`` is the standard error of the bias vector, the reference's share included, in the same unit.
        ``reference/error`` is the reference's standard error as a share of its length, ``reference/draws`` how many
        draws it took (0 when the outcomes were listed), ``bound`` what the |z| of an unbiased estimator exceeds once in
        a thousand times, ``probe/seconds`` the time all this took.
        """
        start = time.perf_counter()
        with isolated(seed), evaluating(self.policy, self.trainer.discriminator):
            problem = self._problem()
            reference, error, draws = self._reference(problem, seed)
            length = reference.norm().clamp(min=torch.finfo(torch.float64).tiny)
            share = float((error**2).sum().sqrt() / length)
            row = {"reference/length": float(length), "reference/error": share, "reference/draws": float(draws)}
            groups = draws // (GROUP * len(self.z)) or self.replicates
            row["bound"] = z_bound(min(self.replicates, groups), len(reference))
            for index, (name, estimator) in enumerate(self.estimators.items()):
                row |= self._compare(name, estimator, problem, reference, error, seed + index + 1)
        row["probe/seconds"] = time.perf_counter() - start
        return row

    def _problem(self) -> Problem:
        """The policy's objective at its own numbers, (B, *shape); replicates are folded into its batch."""
        policy, trainer = self.policy, self.trainer
        with torch.no_grad():
            node = policy.net(self.z)
            real = trainer.logits(self.real) if trainer.objective.needs_real else None

        def cost(x: Tensor) -> Tensor:  # (n, R * B, *event)
            replicates = x.shape[1] // len(self.z)
            seen = trainer.decode(x, self.z.repeat(replicates, 1))
            logits = trainer.logits(seen.flatten(0, 1)).unflatten(0, x.shape[:2])
            value: Tensor = trainer.objective.cost(logits, None if real is None else real.repeat(replicates))
            return value

        return Problem("probe", node, lambda nodes: policy.family.distribution(nodes.flatten(0, 1)), cost, width=4)

    def _reference(self, problem: Problem, seed: int) -> tuple[Tensor, Tensor, int]:
        """The gradient (P,), its standard error (P,), and the draws that it took (0: it is exact)."""
        if self.enumerates:
            exact = exact_gradient(problem).double().flatten()
            return exact, torch.zeros_like(exact), 0
        found = self._measure(Score(GROUP, leave_one_out), problem, -(-self.draws // (GROUP * len(self.z))), seed)
        return found.moments.mean, found.moments.error, found.moments.count * GROUP * len(self.z)

    def _measure(
        self, estimator: Estimator, problem: Problem, replicates: int, seed: int, direction: Tensor | None = None
    ) -> Measured:
        numbers = numbers_of(estimator, problem)
        centre = pilot(estimator, problem, numbers, seed, CHUNK)
        return measure(
            estimator, problem, max(2, replicates), numbers=numbers, centre=centre,
            direction=centre / centre.norm() if direction is None else direction, seed=seed, chunk=CHUNK, share=False,
        )  # fmt: skip

    def _compare(
        self, name: str, estimator: Estimator, problem: Problem, reference: Tensor, error: Tensor, seed: int
    ) -> dict[str, float]:
        length = reference.norm().clamp(min=torch.finfo(reference.dtype).tiny)
        found = self._measure(estimator, problem, self.replicates, seed, reference / length)
        m = found.moments
        gap = m.mean - reference
        both = (m.error**2 + error**2).sqrt()
        square = ((gap**2).sum() - (both**2).sum()).clamp(min=0)
        return {
            f"{name}/bias": float(square.sqrt() / length),
            f"{name}/noise": float((both**2).sum().sqrt() / length),
            f"{name}/z": largest_z(gap, both, 1e-6 * float(length) / len(gap)),
            f"{name}/variance": m.total / float(length) ** 2,
            f"{name}/cosine": float(found.cosine),
        }
