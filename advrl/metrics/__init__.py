"""Metrics: how near a set of samples is to a set of real ones, as functions of tensors, in double precision."""

from advrl.metrics.alarms import Alarm, duplicate_alarm, entropy_alarm, floor_alarm
from advrl.metrics.bleu import corpus_bleu, self_bleu, sentence_bleu
from advrl.metrics.classes import class_shares, confident_share
from advrl.metrics.correlation import intra_batch_correlation
from advrl.metrics.distances import energy_distance, median_bandwidth, mmd, sliced_wasserstein
from advrl.metrics.diversity import duplicates, ngram_diversity, novelty
from advrl.metrics.frechet import frechet_distance
from advrl.metrics.health import collapse_alarm, curve_alarms, quick_alarm, recall_alarm
from advrl.metrics.likelihood import Estimate, kl, mean_estimate, nll, oracle_scores, step_nll
from advrl.metrics.modes import ModeCoverage, mode_coverage
from advrl.metrics.neighbours import memorisation_ratio, precision_recall
from advrl.metrics.parzen import diluted_log_likelihood, parzen_log_likelihood
from advrl.metrics.rotation import rotation_index
from advrl.metrics.scores import inception_score
from advrl.metrics.seeds import SeedSummary, interquartile_mean, paired_summary, seed_summary
from advrl.metrics.shares import ClassCoverage, class_coverage
from advrl.metrics.tradeoff import Tradeoff, diversity_at, mean_diversity, shared_quality, tradeoff_gap

__all__ = [
    "Alarm",
    "ClassCoverage",
    "Estimate",
    "ModeCoverage",
    "SeedSummary",
    "Tradeoff",
    "class_coverage",
    "class_shares",
    "collapse_alarm",
    "confident_share",
    "corpus_bleu",
    "curve_alarms",
    "diluted_log_likelihood",
    "diversity_at",
    "duplicate_alarm",
    "duplicates",
    "energy_distance",
    "entropy_alarm",
    "floor_alarm",
    "frechet_distance",
    "inception_score",
    "interquartile_mean",
    "intra_batch_correlation",
    "kl",
    "mean_diversity",
    "mean_estimate",
    "median_bandwidth",
    "memorisation_ratio",
    "mmd",
    "mode_coverage",
    "ngram_diversity",
    "nll",
    "novelty",
    "oracle_scores",
    "paired_summary",
    "parzen_log_likelihood",
    "precision_recall",
    "quick_alarm",
    "recall_alarm",
    "rotation_index",
    "seed_summary",
    "self_bleu",
    "sentence_bleu",
    "shared_quality",
    "sliced_wasserstein",
    "step_nll",
    "tradeoff_gap",
]
