r"""Compare gradient estimators on one problem.

The z-score of a coordinate's bias is (mean - exact) / (s / sqrt(R)), Student's t with R - 1 degrees of freedom for
normal estimates, and asymptotically whatever they are. With P coordinates the largest |z| is shown (see
:func:`largest_z`), against Bonferroni's bound t_{R-1, 1 - a / 2P}: right however the coordinates depend on each other,
a = 1/1000 the chance that one unbiased row is marked.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from advrl.checks import integer
from advrl.estimators import Estimator
from advrl.lab.harness import Measured, fitted, measure, numbers_of, pilot
from advrl.lab.moments import Moments
from advrl.lab.problem import Known, Problem
from advrl.lab.table import Row, Table
from advrl.seeding import isolated

FALSE_ALARM = 1e-3  # chance that the row of an unbiased estimator is marked as biased
KEPT = 10_000  # estimates per row that are kept for histograms

Series = Estimator | Sequence[Estimator]


def compare(
    estimators: Mapping[str, Series],
    problem: Problem | Known,
    *,
    replicates: int = 10_000,
    device: torch.device | str = "cpu",
    seed: int = 0,
    warmup: int = 0,
    chunk: int | None = None,
) -> Table:
    """Bias, variance and cost of gradient estimators, each measured over many independent estimates.

    Under ``torch.distributed`` the estimates are shared out over the ranks; every rank gets the same table. The global
    generators are left as they were.

    Args:
        estimators: by name; a sequence is one estimator at several sample sizes. Learned parts stay as they are while
            they are measured.
        problem: one of ``advrl.lab.PROBLEMS``'s, such as ``NormalSquare(theta=2.0)``, or a ``Problem`` of one's own.
        replicates: R >= 2 estimates per row.
        device: where to, for a ready problem; a ``Problem`` is on its own already.
        seed: of all draws. A row's numbers do not depend on the other rows.
        warmup: batches of the problem that learned parts see first (Adam on what they leave to minimise).
        chunk: numbers that the cost looks at in one go, which bounds the memory; 2^17 on a CPU, 2^20 elsewhere. The
            draws depend on it.

    Returns:
        A table that prints; estimators that refuse the distribution are in ``refused``, with the reason.

    Raises:
        ValueError: if no estimator fits, or a number is out of range.
    """
    integer("replicates", replicates, 2)
    integer("warmup", warmup, 0)
    with isolated(0):
        return _compare(estimators, problem, replicates, device, seed, warmup, chunk)


def _compare(
    estimators: Mapping[str, Series],
    problem: Problem | Known,
    replicates: int,
    device: torch.device | str,
    seed: int,
    warmup: int,
    chunk: int | None,
) -> Table:
    if isinstance(problem, Known):
        problem = problem.on(device)
    fit: list[tuple[str, Estimator, int]] = []
    refused: dict[str, str] = {}
    for name, series in estimators.items():
        for estimator in [series] if isinstance(series, Estimator) else series:
            try:
                numbers = numbers_of(estimator, problem)
            except ValueError as error:
                refused[name] = str(error)
                break
            fit.append((name, fitted(estimator, problem, warmup, seed), numbers))
    if not fit:
        raise ValueError(f"no estimator fits {problem.name}: {'; '.join(refused.values()) or 'none was given'}")

    truth = problem.truth()
    if truth is None:
        first = next((row for row in fit if row[1].unbiased), fit[0])
        direction = _direction(pilot(first[1], problem, first[2], seed, chunk))
    else:
        direction = _direction(truth)
    _first_backward(problem.node.device)
    rows, moments, draws = [], [], []
    for name, estimator, numbers in fit:
        label = (seed + zlib.crc32(f"{name} {estimator.n}".encode())) % 2**32
        if truth is not None and len(truth) == 1:  # with one number every centre is exact, see ``moments``
            centre = truth
        else:
            centre = pilot(estimator, problem, numbers, label, chunk)
        found = measure(
            estimator, problem, replicates, numbers=numbers, centre=centre, direction=direction,
            seed=label, chunk=chunk, keep=KEPT,
        )  # fmt: skip
        rows.append(_row(name, estimator, found, truth, problem))
        moments.append(found.moments)
        draws.append(found.draws.cpu())
    exact = None if truth is None else float(truth @ direction)
    return Table(
        problem=problem.name,
        rows=tuple(rows),
        refused=refused,
        exact=exact,
        parameters=len(moments[0].first),
        device=str(problem.node.device),
        moments=tuple(moments),
        draws=tuple(draws),
    )


@lru_cache(maxsize=8)
def _first_backward(device: torch.device) -> None:
    """Have torch import and start what it does at its first derivative, which is no row's time."""
    number = torch.ones((), device=device, requires_grad=True)
    torch.autograd.grad(number * number, number)


def _direction(vector: Tensor) -> Tensor:
    """The unit vector along it; of one number 1, so that its sign is seen."""
    if len(vector) == 1:
        return torch.ones_like(vector)
    length = vector.norm()
    if not length:
        return torch.full_like(vector, len(vector) ** -0.5)
    return vector / length


def _row(name: str, estimator: Estimator, found: Measured, truth: Tensor | None, problem: Problem) -> Row:
    m, component = found.moments, found.component
    bias = z = None
    if truth is not None:
        gap = m.mean - truth
        bias = float(gap) if len(truth) == 1 else _length(m, truth)
        rounding = 16 * torch.finfo(problem.node.dtype).eps * float(torch.maximum(truth.abs(), m.mean.abs()).max())
        z = largest_z(gap, m.error, rounding)
    return Row(
        name=name,
        n=estimator.n,
        settings=str(estimator),
        unbiased=estimator.unbiased,
        replicates=m.count,
        gradient=float(component.mean),
        gradient_error=float(component.error),
        bias=bias,
        z=z,
        bound=z_bound(m.count, len(m.first)),
        variance=m.total,
        variance_error=m.total_error,
        closed_form=problem.closed_form(estimator),
        evaluations=found.evaluations,
        microseconds=1e6 * found.seconds / m.count,
    )


def largest_z(gap: Tensor, error: Tensor, rounding: float) -> float:
    """The bias of the worst coordinate in standard errors, with its sign.

    A coordinate's error counts as no smaller than the root mean square of all: where what moves it has hardly happened
    among the replicates (a pixel that is almost never inked), its own error is known far too well, and the bias test
    would cry wolf. The test only becomes more careful by that.

    Args:
        gap: (P,) mean minus exact gradient.
        error: (P,) its standard error.
        rounding: errors below it are those of the numbers themselves, so that an exact estimator, whose variance is 0,
            is not called biased for its last digit.
    """
    least = float(error.norm()) / len(error) ** 0.5
    z = gap / error.clamp(min=max(least, rounding, 1e-300))
    return float(z[z.abs().argmax()]) if len(z) > 1 else float(z)


@lru_cache(maxsize=256)
def z_bound(replicates: int, parameters: int, false_alarm: float = FALSE_ALARM) -> float:
    """What the largest |z| of ``parameters`` unbiased coordinates exceeds with chance ``false_alarm`` at most."""
    from scipy.special import stdtrit

    return float(stdtrit(replicates - 1, 1 - false_alarm / (2 * parameters)))


def _length(moments: Moments, exact: Tensor) -> float:
    """Length of the bias: its square as seen holds the noise's share, total variance / R, which is taken off."""
    square = ((moments.mean - exact) ** 2).sum() - moments.variance.sum() / moments.count
    return float(square.clamp(min=0).sqrt())
