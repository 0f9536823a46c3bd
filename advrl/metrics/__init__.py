"""Metrics: how near a set of samples is to a set of real ones, as functions of tensors, in double precision."""

from advrl.metrics.classes import class_shares, confident_share
from advrl.metrics.frechet import frechet_distance
from advrl.metrics.neighbours import memorisation_ratio, precision_recall

__all__ = ["class_shares", "confident_share", "frechet_distance", "memorisation_ratio", "precision_recall"]
