"""Text to tokens and back: words, characters, or whatever stands between spaces.

``word`` splits much as the Penn Treebank does: punctuation stands alone, clitics come off ("man's" is man 's, "don't"
is do n't), hyphens and the points and commas inside numbers and abbreviations stay. It does not change case.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

_WORD = re.compile(
    r"""
    <[^\W\d]\w*>                          # <unk> and its like
    | \w+(?=n['’]t\b)                     # do of don't
    | n['’]t\b
    | ['’](?:s|re|ve|ll|d|m)\b            # clitics
    | \d+(?:[.,:/]\d+)+                   # 1,000.5 and 10:30
    | (?:[^\W\d_]\.){2,}                  # u.s.
    | \w+(?:[-&+]\w+)*
    | \.{2,} | -{2,}
    | \S
    """,
    re.VERBOSE | re.IGNORECASE,
)
_BEFORE = re.compile(r" (?=[.,;:!?%)\]}…]|['’](?:s|re|ve|ll|d|m)\b|n['’]t\b)", re.IGNORECASE)
_AFTER = re.compile(r"(?<=[(\[{$£€]) ")


class Tokeniser(NamedTuple):
    """``split`` a line into tokens and ``join`` tokens into a line."""

    split: Callable[[str], list[str]]
    join: Callable[[Sequence[str]], str]


def _join_words(tokens: Sequence[str]) -> str:
    """Words with spaces between them, but none before a full stop or a clitic."""
    return _AFTER.sub("", _BEFORE.sub("", " ".join(tokens)))


TOKENISERS = {
    "word": Tokeniser(_WORD.findall, _join_words),
    "character": Tokeniser(list, "".join),
    "space": Tokeniser(str.split, " ".join),
}
