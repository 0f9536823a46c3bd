r"""How varied a set of sequences is, and how much of it is copied.

    distinct-n  number of distinct n-grams / number of n-grams                   Li et al. (2016)
    entropy     -sum_g f_g log f_g over the frequencies f_g of n-grams g         Zhang et al. (2018), "Ent-n", in nats
    duplicates  share of the sequences that equal an earlier one of the set
    novelty     share of the sequences that the training set does not have; of the n-grams likewise

All but novelty depend on the size of the set (distinct-n falls with it), so compare sets of one size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from advrl.metrics._ngrams import ngrams, sentences


def ngram_diversity(ids: Tensor, vocab: int, n: int = 4) -> dict[str, Tensor]:
    """Distinct n-grams and their entropy, for 1 to n.

    Args:
        ids: (N, T); ids from ``vocab`` on (end of sequence, padding) end a sequence.
        vocab: number of tokens.
        n: the longest n-gram.

    Returns:
        ``distinct``, (n,) in [0, 1], and ``entropy``, (n,) in nats, both float64; 0 where no sequence is that long.

    Raises:
        ValueError, TypeError: if they are no (N, T) integer ids, or have a token behind an end.
    """
    distinct, entropy = [], []
    for kinds, (counts,) in ngrams([sentences("ids", ids, vocab)], vocab, n):
        count = counts.times.new_zeros(max(kinds, 1)).index_add_(0, counts.code, counts.times)
        count = count.to("cpu" if count.device.type == "mps" else count.device).double()
        total = count.sum().clamp_min(1)
        distinct.append(kinds / total)
        entropy.append(-torch.xlogy(count / total, count / total).sum())
    return {"distinct": torch.stack(distinct), "entropy": torch.stack(entropy)}


def duplicates(ids: Tensor, vocab: int) -> Tensor:
    """Share of the sequences that equal an earlier one: 1 - distinct / N, () float64.

    Args:
        ids: (N, T); ids from ``vocab`` on end a sequence, whichever they are.
        vocab: number of tokens.

    Raises:
        ValueError, TypeError: if they are no (N, T) integer ids, or have a token behind an end.
    """
    rows = sentences("ids", ids, vocab).ids.clamp_max(vocab)
    distinct = len(torch.unique(rows, dim=0))
    return _share(1 - distinct / len(rows), ids)


def novelty(ids: Tensor, train: Tensor, vocab: int, n: int = 4) -> dict[str, Tensor]:
    """What of the sequences the training set does not have: whole ones, and n-grams for 1 to n.

    Args:
        ids: (N, T); ids from ``vocab`` on end a sequence.
        train: (M, R), the sequences that the generator learned from.
        vocab: number of tokens.
        n: the longest n-gram.

    Returns:
        ``sequences``, () in [0, 1]: 0 if all are copies; ``ngrams``, (n,): share of the n-grams, counted as often as
        they occur. float64.

    Raises:
        ValueError, TypeError: if a set is no (N, T) integer ids, or has a token behind an end.
    """
    sets = [sentences("ids", ids, vocab), sentences("train", train, vocab)]
    width = max(part.ids.shape[1] for part in sets)
    rows = torch.cat(
        [torch.nn.functional.pad(part.ids.clamp_max(vocab), (0, width - part.ids.shape[1]), value=vocab)
         for part in sets]
    )  # fmt: skip
    kinds, kind = torch.unique(rows, dim=0, return_inverse=True)
    known = torch.zeros(len(kinds), dtype=torch.bool, device=ids.device).index_fill_(0, kind[len(ids) :], True)
    shares = []
    for number, (own, other) in ngrams(sets, vocab, n):
        seen = torch.zeros(max(number, 1), dtype=torch.bool, device=ids.device).index_fill_(0, other.code, True)
        fresh = (own.times * ~seen[own.code]).sum()
        shares.append(_share(int(fresh) / max(int(own.times.sum()), 1), ids))
    return {
        "sequences": _share(1 - int(known[kind[: len(ids)]].sum()) / len(ids), ids),
        "ngrams": torch.stack(shares),
    }


def _share(value: float, like: Tensor) -> Tensor:
    """() float64, where ``like`` is."""
    return torch.tensor(value, dtype=torch.float64, device="cpu" if like.device.type == "mps" else like.device)
