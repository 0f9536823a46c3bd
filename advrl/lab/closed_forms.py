r"""Exact variances of the score function, with any constant baseline or leave-one-out, from six expectations.

With s = grad log p and f the cost, per coordinate of the parameters, one draw of (f - b) s has the variance

    E[f^2 s^2] - 2 b E[f s^2] + b^2 E[s^2] - E[f s]^2

least at b* = E[f s^2] / E[s^2]. Leave-one-out over n draws is the U-statistic with kernel
h = (f_i - f_j)(s_i - s_j) / 2 (Hoeffding, 1948), so with zeta_1 = Var E[h | i] = Var((f - E f) s) / 4 and
zeta_2 = Var h = (E[f^2 s^2] + E[f^2] E[s^2] - 2 E[f s^2] E[f]) / 2,

    Var = 2 (2 (n - 2) zeta_1 + zeta_2) / (n (n - 1))
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from advrl.estimators import Estimator, Score, leave_one_out

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class ScoreMoments:
    """Expectations over one draw, (P,) NumPy arrays each in float64: of f, f^2, s^2, f s, f s^2 and f^2 s^2."""

    f: Numbers
    f2: Numbers
    s2: Numbers
    fs: Numbers
    fs2: Numbers
    f2s2: Numbers

    @property
    def optimal(self) -> Numbers:
        """(P,) the constant of least variance for each coordinate; Greensmith, Bartlett & Baxter (2004)."""
        return self.fs2 / self.s2

    def constant(self, baseline: Numbers | float = 0.0) -> Numbers:
        """(P,) variance of one draw with a constant baseline."""
        b = baseline
        value = self.f2s2 - 2 * b * self.fs2 + b * b * self.s2 - self.fs**2
        return np.maximum(value, 0.0)  # where it is 0, rounding may leave less

    def leave_one_out(self, n: int) -> Numbers:
        """(P,) variance of the leave-one-out estimate of n draws."""
        one = self.constant(self.f) / 4
        two = (self.f2s2 + self.f2 * self.s2) / 2 - self.fs2 * self.f
        return 2 * (2 * (n - 2) * one + two) / (n * (n - 1))

    def variance(self, estimator: Estimator) -> float | None:
        """The total variance of a :class:`~advrl.estimators.Score` estimate, ``None`` for what is none of the above."""
        if type(estimator) is not Score or getattr(estimator, "advantage", None) is not None:
            return None
        baseline = estimator.baseline
        if baseline is leave_one_out:
            return float(self.leave_one_out(estimator.n).sum())
        if baseline is None or isinstance(baseline, (int, float)):
            return float(self.constant(baseline or 0.0).sum() / estimator.n)
        if isinstance(baseline, Tensor) and baseline.dim() == 0:
            return float(self.constant(float(baseline)).sum() / estimator.n)
        return None


def score_moments(*, f: float, f2: float, s2: float, fs: float, fs2: float, f2s2: float) -> ScoreMoments:
    """The same for one parameter, from numbers."""
    return ScoreMoments(*(np.array([v], dtype=np.float64) for v in (f, f2, s2, fs, fs2, f2s2)))


def stack_moments(parts: list[ScoreMoments]) -> ScoreMoments:
    """Of several parameters, from those of each."""
    names = ("f", "f2", "s2", "fs", "fs2", "f2s2")
    return ScoreMoments(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
