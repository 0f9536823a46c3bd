r"""BLEU of generated sentences, and self-BLEU: Papineni et al. (2002), Zhu et al. (2018, Texygen).

For a hypothesis h and references R, with c_g(s) how often s has the n-gram g,

    p_n = sum_g min(c_g(h), max_{r in R} c_g(r)) / max(|h| - n + 1, 1)
    BLEU-n = min(1, exp(1 - |r*| / |h|)) (p_1 ... p_n)^{1/n}

with r* the reference nearest in length, the shorter one of two; 0 where not even a word matches. Over a corpus,
numerators, denominators and lengths are summed over hypotheses first. These are NLTK's definitions, to the last digit.

A p_n of 0 would make all of BLEU-n zero. ``smoothing="none"`` puts the smallest normal double there (NLTK's method0),
``"epsilon"`` adds 0.1 to a numerator of 0 (Chen and Cherry, 2014, method 1), which is Texygen's protocol: the mean over
sentences of smoothed sentence BLEU, every sentence against the same references. A number without its reference set,
tokeniser, smoothing and n cannot be compared with another.

Every generated sentence has the same references, so each n-gram's greatest count among them is taken once, not once for
every hypothesis; leaving a sentence out of its own references takes the two greatest.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from advrl import checks
from advrl.metrics._ngrams import Counts, Sentences, ngrams, sentences

SMOOTHING = ("none", "epsilon")
EPSILON = 0.1


def sentence_bleu(hypotheses: Tensor, references: Tensor, vocab: int, n: int = 5, smoothing: str = "epsilon") -> Tensor:
    """BLEU-1 to BLEU-n of each sentence; its mean over sentences is Texygen's figure.

    Args:
        hypotheses: (N, T) ids; ids from ``vocab`` on (end of sequence, padding) end a sentence.
        references: (M, R) ids, shared by all hypotheses.
        vocab: number of tokens.
        n: the longest n-gram.
        smoothing: ``none`` or ``epsilon``.

    Returns:
        (N, n) float64 in [0, 1]; column k - 1 is BLEU-k with equal weights.

    Raises:
        ValueError, TypeError: if a set is no (N, T) integer ids or has a token behind an end.
    """
    match, total, closest, length = _against(hypotheses, references, vocab, n)
    return _scores(match, total, closest, length, smoothing)


def corpus_bleu(hypotheses: Tensor, references: Tensor, vocab: int, n: int = 5, smoothing: str = "none") -> Tensor:
    """BLEU-1 to BLEU-n of all sentences together: counts are summed before they are divided.

    Args:
        hypotheses: (N, T) ids; ids from ``vocab`` on (end of sequence, padding) end a sentence.
        references: (M, R) ids, shared by all hypotheses.
        vocab: number of tokens.
        n: the longest n-gram.
        smoothing: ``none`` or ``epsilon``.

    Returns:
        (n,) float64 in [0, 1].

    Raises:
        ValueError, TypeError: if a set is no (N, T) integer ids or has a token behind an end.
    """
    match, total, closest, length = (part.sum(0, keepdim=True) for part in _against(hypotheses, references, vocab, n))
    return _scores(match, total, closest, length, smoothing)[0]


def self_bleu(ids: Tensor, vocab: int, n: int = 5, smoothing: str = "epsilon") -> Tensor:
    """BLEU-1 to BLEU-n of each sentence against all the others: high where a set repeats itself.

    It grows with the number of sentences, so compare only sets of one size.

    Args:
        ids: (N, T), at least two sentences; ids from ``vocab`` on end a sentence.
        vocab: number of tokens.
        n: the longest n-gram.
        smoothing: ``none`` or ``epsilon``.

    Returns:
        (N, n) float64 in [0, 1].

    Raises:
        ValueError, TypeError: if there are fewer than two rows, or they are no integer ids with nothing behind an end.
    """
    if ids.ndim == 2 and len(ids) == 1:
        raise ValueError("self-BLEU needs at least two sentences: each is compared with the others")
    own = sentences("ids", ids, vocab)
    match = torch.stack(
        [_matched(counts, len(ids), _greatest_other(counts, kinds)) for kinds, (counts,) in ngrams([own], vocab, n)], 1
    )
    return _scores(match, _totals(own.length, n), _closest_other(own.length), own.length, smoothing)


def _against(hypotheses: Tensor, references: Tensor, vocab: int, n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Matches (N, n), totals (N, n), closest reference lengths (N,) and own lengths (N,)."""
    sets: list[Sentences] = [sentences("hypotheses", hypotheses, vocab), sentences("references", references, vocab)]
    match = torch.stack(
        [
            _matched(own, len(hypotheses), _greatest(other, kinds)[own.code])
            for kinds, (own, other) in ngrams(sets, vocab, n)
        ],
        1,
    )
    length = sets[0].length
    return match, _totals(length, n), _closest(length, sets[1].length), length


def _matched(own: Counts, number: int, allowed: Tensor) -> Tensor:
    """(number,) how many n-grams of each sentence match, each at most as often as ``allowed`` (entries,)."""
    match = torch.zeros(number, dtype=torch.int64, device=own.times.device)
    return match.index_add_(0, own.sentence, torch.minimum(own.times, allowed))


def _totals(length: Tensor, n: int) -> Tensor:
    """(N, n) how many n-grams a sentence has, at least 1 so that nothing is divided by 0."""
    return (length[:, None] - torch.arange(n, device=length.device)).clamp_min(1)


def _greatest(counts: Counts, kinds: int) -> Tensor:
    """(kinds,) the greatest count of each n-gram in one sentence; 0 where none has it."""
    return torch.zeros(kinds, dtype=torch.int64, device=counts.times.device).scatter_reduce_(
        0, counts.code, counts.times, "amax"
    )


def _greatest_other(counts: Counts, kinds: int) -> Tensor:
    """(entries,) the greatest count of the entry's n-gram in any sentence but the entry's own."""
    first = _greatest(counts, kinds)
    attains = counts.times == first[counts.code]
    owner = torch.full_like(first, -1)
    owner.scatter_reduce_(0, counts.code[attains], counts.sentence[attains], "amax")  # one of those that have most
    rest = counts.sentence != owner[counts.code]
    second = _greatest(Counts(counts.sentence[rest], counts.code[rest], counts.times[rest]), kinds)
    return torch.where(rest, first[counts.code], second[counts.code])


def _closest(length: Tensor, others: Tensor) -> Tensor:
    """(N,) the nearest among the lengths ``others``, the smaller one of two as near."""
    known = torch.unique(others)
    above = torch.searchsorted(known, length).clamp_max(len(known) - 1)
    high, low = known[above], known[(above - 1).clamp_min(0)]
    return torch.where((length - low).abs() <= (high - length).abs(), low, high)


def _closest_other(length: Tensor) -> Tensor:
    """(N,) the same among the other sentences: its own length where another has it too."""
    known, place, count = torch.unique(length, return_inverse=True, return_counts=True)
    far = 2 * int(known[-1]) + 1  # beyond any difference of lengths
    below = torch.cat([known.new_tensor([-far]), known[:-1]])
    above = torch.cat([known[1:], known.new_tensor([2 * far])])
    nearest = torch.where(known - below <= above - known, below, above)
    return torch.where(count > 1, known, nearest)[place]


def _scores(match: Tensor, total: Tensor, closest: Tensor, length: Tensor, smoothing: str) -> Tensor:
    """(N, n) BLEU from counts (N, n) and lengths (N,)."""
    checks.choice("smoothing", smoothing, SMOOTHING)
    device = "cpu" if match.device.type == "mps" else match.device  # which has no doubles
    match, total, closest, length = (part.to(device).double() for part in (match, total, closest, length))
    empty = EPSILON / total if smoothing == "epsilon" else torch.full_like(total, sys.float_info.min)
    precision = torch.where(match > 0, match / total, empty)
    order = torch.arange(1, match.shape[1] + 1, dtype=match.dtype, device=match.device)
    penalty = (1 - closest / length.clamp_min(1)).clamp_max(0).exp()
    score = penalty[:, None] * (precision.log().cumsum(1) / order).exp()
    return torch.where(match[:, :1] > 0, score, 0.0)
