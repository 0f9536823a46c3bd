"""Monte-Carlo gradient estimators: kernels on tensors, and objects ``estimator(distribution, cost)``."""

from advrl.estimators.base import Draw, Estimator, fit_loss, modules_of
from advrl.estimators.kernels import leave_one_out, score_function
from advrl.estimators.names import BASELINES, ESTIMATORS, fitting, make_estimator
from advrl.estimators.path import Path
from advrl.estimators.relaxed import GumbelSoftmax, StraightThrough
from advrl.estimators.score import MovingAverage, Score

__all__ = [
    "BASELINES",
    "ESTIMATORS",
    "Draw",
    "Estimator",
    "GumbelSoftmax",
    "MovingAverage",
    "Path",
    "Score",
    "StraightThrough",
    "fit_loss",
    "fitting",
    "leave_one_out",
    "make_estimator",
    "modules_of",
    "score_function",
]
