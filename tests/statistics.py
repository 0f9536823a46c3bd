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
