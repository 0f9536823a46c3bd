"""N-grams of padded token sequences, counted by sorting: no Python loop over sentences, no hash that can collide.

An n-gram's code is the rank of the pair (code of its first n - 1 tokens, last token) among all pairs that occur, so
codes of one order are 0 .. K - 1 and two n-grams have one code if and only if they are equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from advrl import checks


class Counts(NamedTuple):
    """Which n-grams each sentence has: one entry per distinct (sentence, n-gram), all (entries,) int64."""

    sentence: Tensor
    code: Tensor
    times: Tensor


class Sentences(NamedTuple):
    """Padded sequences with their lengths: (N, T) ids and (N,) numbers of tokens."""

    ids: Tensor
    length: Tensor


def sentences(name: str, ids: Tensor, vocab: int) -> Sentences:
    """``ids`` (N, T) with the number of tokens before each end; tokens are below ``vocab``, ends and padding not.

    Raises:
        TypeError: if the ids are not integers.
        ValueError: if they have another shape, no rows, a negative id, or a token behind the end.
    """
    checks.integer("vocab", vocab)
    if ids.dtype not in (torch.int64, torch.int32, torch.int16, torch.uint8):
        raise TypeError(f"{name} must hold integer token ids, got {ids.dtype}")
    if ids.ndim != 2 or 0 in ids.shape:
        raise ValueError(f"{name} must have shape (number, length), both at least 1, got {tuple(ids.shape)}")
    if ids.min() < 0:
        raise ValueError(f"{name} must hold ids of at least 0, got {int(ids.min())}")
    token = ids < vocab
    length = token.sum(1)
    inside = torch.arange(ids.shape[1], device=ids.device) < length[:, None]
    wrong = (token != inside).any(1).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise ValueError(
            f"{name} has a token behind the end in row {row} ({ids[row].tolist()}): "
            f"from the first id of at least vocab={vocab} on, all must be such ids"
        )
    return Sentences(ids.long(), length)


def ngrams(sets: list[Sentences], vocab: int, n: int) -> Iterator[tuple[int, list[Counts]]]:
    """For each order 1 .. n: how many distinct n-grams the sets have together, and the counts of each set.

    Raises:
        ValueError: if n is below 1 or the sets are on different devices.
    """
    checks.integer("n", n)
    devices = sorted({str(part.ids.device) for part in sets})
    if len(devices) > 1:
        raise ValueError(f"all sequences must be on one device, got {', '.join(devices)}")
    flat = [_flat(part) for part in sets]
    token = torch.cat([tokens for tokens, _, _ in flat])
    left = torch.cat([remaining for _, _, remaining in flat])  # tokens from here to the end of the sentence
    starts = [0]
    for part in sets:
        starts.append(starts[-1] + len(part.ids))
    sentence = torch.cat([row + start for (_, row, _), start in zip(flat, starts, strict=False)])
    code = token
    for order in range(1, n + 1):
        if order == 1:
            distinct, code = torch.unique(token, return_inverse=True)
            place = torch.arange(len(token), device=token.device)
        else:
            longer = left[place] >= order  # n-grams that fit in, by the place where they start
            place, code = place[longer], code[longer]
            distinct, code = torch.unique(code * vocab + token[place + order - 1], return_inverse=True)
        kinds = max(len(distinct), 1)
        key, count = torch.unique(sentence[place] * kinds + code, return_counts=True)
        row = key // kinds
        edges = torch.searchsorted(row, torch.tensor(starts, device=row.device)).tolist()
        yield (
            len(distinct),
            [
                Counts(row[a:b] - start, key[a:b] % kinds, count[a:b])
                for a, b, start in zip(edges[:-1], edges[1:], starts, strict=False)
            ],
        )


def _flat(part: Sentences) -> tuple[Tensor, Tensor, Tensor]:
    """All tokens in a row: the token, its sentence, and how many are left in the sentence, itself among them."""
    ids, length = part
    place = torch.arange(ids.shape[1], device=ids.device)
    inside = place < length[:, None]
    left = length[:, None] - place
    row = torch.arange(len(ids), device=ids.device)[:, None].expand_as(ids)
    return ids[inside], row[inside], left[inside]
