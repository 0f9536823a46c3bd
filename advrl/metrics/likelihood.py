r"""Likelihood of sequences with its error: NLL per token, and both Kullback-Leibler divergences to an oracle.

With samples x of the generator G and y of the oracle O, both of which tell log-probabilities,

    NLL_oracle  -E_G log O(x)   = H(G) + KL(G || O)     low for good samples, and for few kinds of them
    NLL_test    -E_O log G(y)   = H(O) + KL(O || G)     low if everything that the oracle says is said
    floor       -E_O log O(y)   = H(O)                  both for a perfect generator
    reverse KL   E_G [log G(x) - log O(x)]              0 for a perfect generator alone
    forward KL   E_O [log O(y) - log G(y)]              0 for a perfect generator alone

A generator that always gives the oracle's likeliest sequence has an NLL_oracle far below the floor; each divergence
shows it. All are means over independent samples, unbiased, with Student's (1908) interval. Rare samples of great weight
can make the intervals too short: a forward divergence is not to be trusted to its last digit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from advrl import checks


@dataclass(frozen=True)
class Estimate:
    """A mean over independent samples: its value, standard error, interval, and the number of samples."""

    value: float
    error: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


def mean_estimate(values: Tensor, level: float = 0.95) -> Estimate:
    """Mean of independent values (N,) and Student's interval for it.

    An infinite value makes mean and interval infinite: a divergence is, once one sample is impossible for the model.

    Raises:
        ValueError: if there are fewer than two values, one is not a number, or the level is not in (0, 1).
    """
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"an interval needs (N,) values of at least 2 samples, got shape {tuple(values.shape)}")
    return _interval(values, torch.ones_like(values), level)


def nll(log_prob: Tensor, tokens: Tensor | int = 1, level: float = 0.95) -> Estimate:
    """Negative log-likelihood in nats per token, -sum_i log p(x_i) / sum_i n_i.

    For sequences of one length that is their mean. Where lengths vary it is a ratio of two means, whose error follows
    by linearisation (Cochran, 1977, section 2.11) and whose bias is of order 1/N.

    Args:
        log_prob: (N,) log-probability of each sequence.
        tokens: (N,) how many tokens each has (with its end of sequence, if that was scored), or one number for all.
        level: chance that the interval covers the expectation.

    Raises:
        ValueError: if there are fewer than two sequences, shapes differ, or there is no token.
    """
    if log_prob.ndim != 1 or len(log_prob) < 2:
        raise ValueError(f"log_prob must be (N,) with at least 2 sequences, got shape {tuple(log_prob.shape)}")
    count = torch.full_like(log_prob, tokens) if isinstance(tokens, int) else tokens.to(log_prob)
    checks.same_shape(log_prob=log_prob, tokens=count)
    if count.min() < 0 or count.sum() == 0:
        raise ValueError(f"numbers of tokens must be at least 0 and not all 0, got {count.min().item():g} and more")
    return _interval(-log_prob, count, level)


def step_nll(log_prob: Tensor, mask: Tensor | None = None, level: float = 0.95) -> Estimate:
    """Negative log-likelihood in nats per token from the log-probabilities of single steps.

    This is the score of a language model: ``log_prob`` of generated sequences under a model of real ones (quality), or
    of real ones under a model of generated ones (the reverse score, diversity). exp of it is the perplexity.

    Args:
        log_prob: (N, T) log p(x_t | x_<t).
        mask: (N, T), true where a step counts; whatever stands elsewhere, nan or infinite, does not.
        level: chance that the interval covers the expectation.

    Raises:
        ValueError: as ``nll``, or if the shapes differ.
    """
    if log_prob.ndim != 2:
        raise ValueError(f"log_prob must be (N, T), one entry per step, got shape {tuple(log_prob.shape)}")
    if mask is None:
        return nll(log_prob.sum(1), log_prob.shape[1], level)
    checks.same_shape(log_prob=log_prob, mask=mask)
    counts = mask.bool()
    return nll(torch.where(counts, log_prob, 0.0).sum(1), counts.sum(1), level)


def oracle_scores(
    model_of_model: Tensor,
    oracle_of_model: Tensor,
    model_of_oracle: Tensor,
    oracle_of_oracle: Tensor,
    tokens: int = 1,
    level: float = 0.95,
) -> dict[str, Estimate]:
    """Both likelihoods, their floor and both divergences of a generator and an oracle.

    Args:
        model_of_model: (N,) log G of samples of the generator.
        oracle_of_model: (N,) log O of the same samples.
        model_of_oracle: (M,) log G of held-out samples of the oracle: not those that the generator learned from.
        oracle_of_oracle: (M,) log O of the same samples.
        tokens: the sequences' length, for nats per token; 1 for nats per sequence.
        level: chance that each interval covers its expectation.

    Returns:
        ``nll_oracle``, ``nll_test``, ``floor``, ``reverse_kl``, ``forward_kl``.

    Raises:
        ValueError: if shapes differ, there are fewer than two samples, or a log-probability is not a number.
    """
    checks.integer("tokens", tokens)
    checks.same_shape(model_of_model=model_of_model, oracle_of_model=oracle_of_model)
    checks.same_shape(model_of_oracle=model_of_oracle, oracle_of_oracle=oracle_of_oracle)
    return {
        "nll_oracle": mean_estimate(-_double(oracle_of_model) / tokens, level),
        "nll_test": mean_estimate(-_double(model_of_oracle) / tokens, level),
        "floor": mean_estimate(-_double(oracle_of_oracle) / tokens, level),
        "reverse_kl": kl(model_of_model, oracle_of_model, tokens, level),
        "forward_kl": kl(oracle_of_oracle, model_of_oracle, tokens, level),
    }


def kl(log_p: Tensor, log_q: Tensor, tokens: int = 1, level: float = 0.95) -> Estimate:
    """KL(p || q) = E_p [log p(x) - log q(x)] as a mean over samples of p, unbiased; infinite once q(x) is 0.

    Args:
        log_p: (N,) of samples of p.
        log_q: (N,) of the same samples.
        tokens: divides the result, for nats per token.
        level: chance that the interval covers the divergence.

    Raises:
        ValueError: if shapes differ, there are fewer than two samples, or a log-probability is not a number.
    """
    checks.same_shape(log_p=log_p, log_q=log_q)
    return mean_estimate((_double(log_p) - _double(log_q)) / tokens, level)


def _interval(total: Tensor, count: Tensor, level: float) -> Estimate:
    """Of the ratio sum total / sum count, both (N,)."""
    from scipy.special import stdtrit

    checks.number("level", level, 0.0, exclusive=True)
    if level >= 1:
        raise ValueError(f"level must be below 1, got {level}")
    total, count = _double(total), _double(count)
    if total.isnan().any():
        raise ValueError(f"values must be numbers, but {int(total.isnan().sum())} of {len(total)} are nan")
    number, value = len(total), float(total.sum() / count.sum())
    if not math.isfinite(value):
        return Estimate(value, math.inf, value, value, number)
    residual = total - value * count
    error = float((residual.square().sum() / (number - 1) / number).sqrt() / count.mean())
    half = float(stdtrit(number - 1, (1 + level) / 2)) * error
    return Estimate(value, error, value - half, value + half, number)


def _double(values: Tensor) -> Tensor:
    return values.detach().to("cpu").double()
