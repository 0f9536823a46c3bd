"""The z-test behind every stochastic test: its bound follows from a false-alarm rate, never from looking at draws."""

import math
from statistics import NormalDist

from torch import Tensor

FALSE_ALARM = 1e-6  # chance that a correct estimator fails one test, over the choice of seed


def assert_unbiased(draws: Tensor, exact: Tensor, false_alarm: float = FALSE_ALARM) -> None:
    """Every column of draws (n, k), n independent estimates, has mean exact (k,): a z-test per column.

    The bound is Bonferroni's for k two-sided tests at ``false_alarm``.
    """
    n, k = draws.shape
    z = (draws.mean(0) - exact) / (draws.std(0) / math.sqrt(n))
    bound = NormalDist().inv_cdf(1 - false_alarm / (2 * k))
    assert z.abs().max() < bound, f"biased: |z| = {z.abs().max():.1f} > {bound:.1f} in column {z.abs().argmax()}"


def assert_table(table, false_alarm: float = FALSE_ALARM) -> None:
    """Unbiased rows of a comparison have the exact gradient as their mean, and rows with a closed form its variance.

    z-tests on each coordinate and on each variance, Bonferroni's bound for all of them at ``false_alarm``.
    """
    known = [row for row in table.rows if row.closed_form is not None]
    k = len(known) + table.parameters * len(table.rows)
    bound = NormalDist().inv_cdf(1 - false_alarm / (2 * k))
    for row in table.rows:
        assert not row.unbiased or abs(row.z) < bound, f"{row.name} is biased: |z| = {abs(row.z):.1f} > {bound:.1f}"
    for row in known:
        gap, error = abs(row.variance - row.closed_form), row.variance_error + 1e-9 * abs(row.closed_form) + 1e-18
        assert gap < bound * error, f"{row.name}: {gap / error:.1f} errors from the closed form {row.closed_form}"
