"""Metrics: how near a set of samples is to a set of real ones, as functions of tensors, in double precision."""

from advrl.metrics.classes import class_shares, confident_share
from advrl.metrics.frechet import frechet_distance
from advrl.metrics.modes import ModeCoverage, mode_coverage
from advrl.metrics.neighbours import memorisation_ratio, precision_recall
from advrl.metrics.rotation import rotation_index

__all__ = [
    "ModeCoverage",
    "class_shares",
    "confident_share",
    "frechet_distance",
    "memorisation_ratio",
    "mode_coverage",
    "precision_recall",
    "rotation_index",
]
