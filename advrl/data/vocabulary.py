"""Which token has which id: made from text, saved beside the model, checked when the model is loaded.

Ids 0 to V - 1 are tokens, V ends a sequence, V + 1 stands behind the end.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from advrl import checks
from advrl.data.tokenisers import TOKENISERS
from advrl.files import write_atomically

UNKNOWN = "<unk>"
_FORMAT = "advrl vocabulary 1"


@dataclass(frozen=True)
class Vocabulary:
    """Tokens in the order of their ids.

    Args:
        tokens: distinct, not empty; ``<unk>``, if it is among them, stands for all others.
        tokeniser: how lines become tokens: ``word``, ``character`` or ``space``.

    Raises:
        ValueError, TypeError: if there is no token, one occurs twice or is no text, or the tokeniser is unknown.
    """

    tokens: tuple[str, ...]
    tokeniser: str = "word"
    _ids: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        checks.choice("tokeniser", self.tokeniser, TOKENISERS)
        object.__setattr__(self, "tokens", tuple(self.tokens))
        wrong = [token for token in self.tokens if not isinstance(token, str) or not token]
        if wrong:
            raise TypeError(f"tokens must be non-empty text, got {wrong[0]!r}")
        object.__setattr__(self, "_ids", {token: i for i, token in enumerate(self.tokens)})
        if not self.tokens:
            raise ValueError("a vocabulary needs at least one token")
        if len(self._ids) < len(self.tokens):
            twice = Counter(self.tokens).most_common(1)[0][0]
            raise ValueError(f"tokens must be distinct, but {twice!r} occurs twice")

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def eos(self) -> int:
        """The id that ends a sequence, V."""
        return len(self.tokens)

    @property
    def padding(self) -> int:
        """The id behind the end, V + 1."""
        return len(self.tokens) + 1

    @property
    def unknown(self) -> int | None:
        """The id of ``<unk>``, None if there is none."""
        return self._ids.get(UNKNOWN)

    @classmethod
    def build(
        cls,
        sentences: Iterable[Sequence[str]],
        tokeniser: str = "word",
        min_count: int = 1,
        max_size: int | None = None,
    ) -> Vocabulary:
        """The tokens of all sentences, the most frequent first, equally frequent ones in the order of their letters.

        Args:
            sentences: each a sequence of tokens.
            tokeniser: that made them.
            min_count: rarer tokens become ``<unk>``.
            max_size: at most so many tokens, ``<unk>`` among them.

        Raises:
            ValueError: if there is no token, or none that is frequent enough.
        """
        checks.integer("min_count", min_count)
        if max_size is not None:
            checks.integer("max_size", max_size, 2)
        counts = Counter(token for tokens in sentences for token in tokens)
        if not counts:
            raise ValueError("the text has no token: a vocabulary needs at least one")
        kept = sorted((t for t, count in counts.items() if count >= min_count), key=lambda t: (-counts[t], t))
        if not kept:
            raise ValueError(f"no token occurs {min_count} times; the most frequent one does {max(counts.values())}")
        if max_size is not None and len(kept) > max_size:
            kept = kept[: max_size - (UNKNOWN not in kept[:max_size])]
        if len(kept) < len(counts) and UNKNOWN not in kept:
            kept.append(UNKNOWN)
        return cls(tuple(kept), tokeniser)

    def split(self, line: str) -> list[str]:
        """The tokens of a line."""
        return TOKENISERS[self.tokeniser].split(line)

    def encode(self, lines: Sequence[str], length: int | None = None, too_long: str = "truncate") -> Tensor:
        """Lines as ids, (N, length) int64 on the CPU: tokens, then the end and padding where there is room.

        A line of ``length`` tokens or more has no end: it is not known where a truncated line would have ended.

        Args:
            lines: of text.
            length: of the rows; by default the longest line and its end.
            too_long: ``truncate`` lines with more tokens, or ``refuse`` them.

        Raises:
            ValueError: if there is no line, a token is unknown and there is no ``<unk>``, or a line is refused.
        """
        if isinstance(lines, str):
            raise TypeError("lines must be a list of texts, got one text; put it into a list")
        return self.encode_tokens([self.split(line) for line in lines], length, too_long)

    def encode_tokens(
        self, sentences: Sequence[Sequence[str]], length: int | None = None, too_long: str = "truncate"
    ) -> Tensor:
        """The same of lines that are tokens already.

        Raises:
            ValueError: as ``encode``.
        """
        checks.choice("too_long", too_long, ("truncate", "refuse"))
        if not sentences:
            raise ValueError("there is no line to encode")
        sizes = [len(tokens) for tokens in sentences]
        length = max(sizes) + 1 if length is None else checks.integer("length", length)
        if too_long == "refuse" and max(sizes) > length:
            line = next(i for i, size in enumerate(sizes) if size > length)
            raise ValueError(
                f"line {line + 1} has {sizes[line]} tokens, more than length={length}: raise the length, "
                'or cut such lines with too_long="truncate"'
            )
        flat = [self._id(token, line) for line, tokens in enumerate(sentences) for token in tokens[:length]]
        kept = torch.tensor(sizes, device="cpu").clamp_max(length)
        place = torch.arange(length, device="cpu")
        ids = torch.full((len(sizes), length), self.padding, dtype=torch.int64, device="cpu")
        ids[place == kept[:, None]] = self.eos
        ids[place < kept[:, None]] = torch.tensor(flat, dtype=torch.int64, device="cpu")
        return ids

    def decode(self, ids: Tensor) -> list[str]:
        """One line of text per row of ids (N, T), up to its end.

        Raises:
            ValueError, TypeError: if ids are not integers, not (N, T), or out of range.
        """
        tokeniser = TOKENISERS[self.tokeniser]
        return [tokeniser.join(tokens) for tokens in self.decode_tokens(ids)]

    def decode_tokens(self, ids: Tensor) -> list[list[str]]:
        """The tokens of each row of ids (N, T), up to its end.

        Raises:
            ValueError, TypeError: if ids are not integers, not (N, T), or out of range.
        """
        if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
            raise TypeError(f"ids must be integers, got {ids.dtype}")
        if ids.ndim != 2:
            raise ValueError(f"ids must have shape (number, length), got {tuple(ids.shape)}")
        if ids.numel() and (ids.min() < 0 or ids.max() > self.padding):
            wrong = int(ids.max()) if ids.max() > self.padding else int(ids.min())
            raise ValueError(
                f"id {wrong} is out of range: the vocabulary has tokens 0 to {len(self) - 1}, "
                f"end {self.eos} and padding {self.padding}"
            )
        ends = (ids >= self.eos).int().cummax(1).values if ids.numel() else ids
        lengths = (ends == 0).sum(1).tolist()
        return [[self.tokens[i] for i in row[:n]] for row, n in zip(ids.tolist(), lengths, strict=True)]

    def save(self, path: str | Path) -> Path:
        """Write the vocabulary as JSON, atomically."""
        told = {"format": _FORMAT, "tokeniser": self.tokeniser, "eos": self.eos, "padding": self.padding,
                "tokens": self.tokens}  # fmt: skip
        return write_atomically(path, json.dumps(told, ensure_ascii=False, indent=0).encode())

    @classmethod
    def load(cls, path: str | Path) -> Vocabulary:
        """Read what ``save`` wrote.

        Raises:
            ValueError: if the file is no vocabulary.
            OSError: if it cannot be read.
        """
        try:
            told = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is no vocabulary: it is no JSON ({error})") from error
        if not isinstance(told, dict) or told.get("format") != _FORMAT:
            raise ValueError(f"{path} is no vocabulary: it does not say {_FORMAT!r}")
        if not isinstance(told.get("tokens"), list) or not isinstance(told.get("tokeniser"), str):
            raise ValueError(f"{path} is a damaged vocabulary: it must have a list of tokens and a tokeniser")
        return cls(tuple(told["tokens"]), told["tokeniser"])

    def require(self, other: Vocabulary, name: str = "the checkpoint") -> None:
        """Refuse to go on unless ``other`` has the same tokens with the same ids and the same tokeniser.

        Raises:
            ValueError: that says where they differ.
        """
        if self.tokeniser != other.tokeniser:
            raise ValueError(f"{name} was made with the tokeniser {other.tokeniser!r}, this is {self.tokeniser!r}")
        if self.tokens == other.tokens:
            return
        pairs = zip(self.tokens, other.tokens, strict=False)
        differ = next((i for i, (own, its) in enumerate(pairs) if own != its), None)
        where = "" if differ is None else f"; token {differ} is {self.tokens[differ]!r}, there {other.tokens[differ]!r}"
        raise ValueError(
            f"the vocabulary does not match that of {name}: {len(self)} tokens against {len(other)}{where}; "
            "encode the text with the vocabulary saved beside the model"
        )

    def _id(self, token: str, line: int) -> int:
        known = self._ids.get(token, self._ids.get(UNKNOWN))
        if known is None:
            raise ValueError(
                f"line {line + 1} has {token!r}, which the vocabulary does not know, and it has no {UNKNOWN}: "
                "build it with min_count=2 or max_size, or from text that has the token"
            )
        return known
