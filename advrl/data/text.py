"""Lines of anyone's text, or of integer ids, as a corpus: read, tokenised, counted, split without leaks, encoded."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from advrl import checks
from advrl.data.tokenisers import TOKENISERS
from advrl.data.vocabulary import Vocabulary


@dataclass(frozen=True)
class TextStatistics:
    """What a corpus holds, in numbers. Lengths are in tokens, before truncation; ``shared`` are held-out lines that the
    training part has too, which only a test file of one's own can have."""

    lines: int
    blank: int
    distinct: int
    tokens: int
    types: int
    unknown: int
    shortest: int
    mean: float
    median: float
    percentile_99: float
    longest: int
    truncated: int
    shared: int

    def __str__(self) -> str:
        return (
            f"{self.lines:,} lines ({self.distinct:,} distinct, {self.blank:,} blank ones left out), "
            f"{self.tokens:,} tokens of {self.types:,} types, {self.unknown:,} unknown; "
            f"length {self.shortest} to {self.longest}, mean {self.mean:.2f}, median {self.median:g}, "
            f"99th percentile {self.percentile_99:g}; {self.truncated:,} truncated; "
            f"{self.shared:,} held-out lines that training has too"
        )

    def as_dict(self) -> dict[str, int | float]:
        """For a JSON file."""
        return asdict(self)


@dataclass(frozen=True)
class Corpus:
    """Encoded text, each part (N, length) int64; equal lines are all in one part."""

    train: Tensor
    validation: Tensor
    test: Tensor
    vocabulary: Vocabulary
    statistics: TextStatistics

    @property
    def length(self) -> int:
        """Of every row."""
        return self.train.shape[1]


def read_lines(path: str | Path) -> list[str]:
    """The lines of a UTF-8 text file, without blanks at their ends; blank lines are kept as ''.

    Raises:
        ValueError: if the file is empty or is no UTF-8 text; the message names the line.
        OSError: if it cannot be read.
    """
    data = Path(path).read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path} is no UTF-8 text: line {line} has the byte 0x{data[error.start]:02x}; "
            f"convert it, for instance with `iconv -f latin1 -t utf-8`"
        ) from error
    if "\0" in text:
        raise ValueError(f"{path} is no text: it has null bytes; pass a file with one sentence or list of ids a line")
    if not text.strip():
        raise ValueError(f"{path} is empty: a corpus needs at least one line of text")
    return [line.strip() for line in io.StringIO(text, newline=None)]


def make_corpus(
    lines: Sequence[str],
    tokeniser: str = "auto",
    test: Sequence[str] | None = None,
    *,
    length: int | None = None,
    too_long: str = "truncate",
    vocab: int | None = None,
    min_count: int = 1,
    max_size: int | None = None,
    vocabulary: Vocabulary | None = None,
    validation_share: float = 0.1,
    test_share: float = 0.1,
    seed: int = 0,
) -> Corpus:
    """Tokenise lines (of a file: ``read_lines(path)``), split them, and encode them.

    Distinct lines are shuffled by the seed and divided; all copies of a line go where it goes, so that no held-out line
    was trained on, and frequent lines stay frequent. What counts as one line is what the model sees: tokens up to the
    length. The vocabulary is that of all parts, so that held-out text has a finite likelihood.

    Args:
        lines: of text; blank ones are left out and counted.
        tokeniser: ``word``, ``character`` or ``space``; ``ids`` for integers; ``auto`` is ``ids`` if all lines are
            integers, else ``word``.
        test: held-out lines, instead of a share; those that training has too stay, and are counted.
        length: of encoded rows; by default the longest line and its end.
        too_long: ``truncate`` longer lines, or ``refuse`` them.
        vocab: for ids, their number; by default the largest and one.
        min_count: rarer tokens become ``<unk>``.
        max_size: at most so many tokens.
        vocabulary: use this one, of a trained model, instead of making one.
        validation_share: of distinct lines, in [0, 1).
        test_share: of distinct lines, in [0, 1); not used where ``test`` is given.
        seed: of the split.

    Raises:
        ValueError: if there is no text, shares leave nothing to train on, a token is unknown, an id out of range, or a
            line too long where that is refused.
    """
    if isinstance(lines, str):
        raise TypeError("lines must be a list of texts, got one text; use its splitlines()")
    texts = [line for line in lines if line.strip()]
    others = [line for line in test or [] if line.strip()]
    if not texts or (test is not None and not others):
        raise ValueError(f"the {'test ' if texts else ''}corpus is empty: it needs at least one line that is not blank")
    if vocabulary is not None and tokeniser == "auto":
        tokeniser = vocabulary.tokeniser
    numbers = tokeniser == "ids" or (tokeniser == "auto" and _are_ids(texts + others))
    if vocab is not None and not numbers:
        raise ValueError(f"vocab={vocab} is for lines of ids; for text say max_size, and tokens beyond become unknown")
    name = "space" if numbers else "word" if tokeniser == "auto" else tokeniser
    split = TOKENISERS[checks.choice("tokeniser", name, TOKENISERS, hint=", ids, auto")].split
    sentences, held_out = [split(line) for line in texts], [split(line) for line in others]
    if numbers:
        sentences, held_out = _plain(sentences), _plain(held_out)
    if vocabulary is None:
        both = sentences + held_out
        vocabulary = _ids(both, vocab) if numbers else Vocabulary.build(both, name, min_count, max_size)
    elif vocabulary.tokeniser != name:
        raise ValueError(f"the vocabulary was made with the tokeniser {vocabulary.tokeniser!r}, not {name!r}")
    if length is None:
        length = max(map(len, sentences + held_out)) + 1
    encoded = vocabulary.encode_tokens(sentences + held_out, length, too_long)
    rows, given = encoded[: len(sentences)], encoded[len(sentences) :]
    parts = _split(rows, validation_share, 0.0 if held_out else test_share, seed)
    train, validation, tested = (rows[part] for part in parts)
    statistics = _statistics(
        sentences + held_out, encoded, train, given, vocabulary, len(lines) + len(test or []), length
    )
    return Corpus(train, validation, given if held_out else tested, vocabulary, statistics)


def _are_ids(lines: Sequence[str]) -> bool:
    return all(word.isascii() and word.isdigit() for line in lines for word in line.split())


def _plain(sentences: list[list[str]]) -> list[list[str]]:
    """Ids without leading zeros, so that 07 is 7.

    Raises:
        ValueError: if a word is no id.
    """
    for line, words in enumerate(sentences):
        for word in words:
            if not (word.isascii() and word.isdigit()):
                raise ValueError(f"line {line + 1} has {word!r}, which is no token id; ids are integers of at least 0")
    return [[str(int(word)) for word in words] for words in sentences]


def _ids(sentences: list[list[str]], vocab: int | None) -> Vocabulary:
    """The vocabulary 0, 1, ... of lines of ids.

    Raises:
        ValueError: if an id is not below ``vocab``.
    """
    largest = max(int(word) for words in sentences for word in words)
    if vocab is not None and largest >= checks.integer("vocab", vocab):
        raise ValueError(f"id {largest} is out of range: with vocab={vocab}, ids go from 0 to {vocab - 1}")
    size = largest + 1 if vocab is None else vocab
    if size > 10_000_000:
        raise ValueError(f"id {largest} makes a vocabulary of {size:,} tokens: are these lines of ids?")
    return Vocabulary(tuple(map(str, range(size))), "space")


def _split(rows: Tensor, validation: float, test: float, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Places of training, validation and test rows; equal rows are in one part."""
    for name, share in (("validation_share", validation), ("test_share", test)):
        checks.number(name, share, 0.0, 1.0)
    distinct, kind = torch.unique(rows, dim=0, return_inverse=True)
    generator = torch.Generator(device="cpu").manual_seed(checks.integer("seed", seed, 0))
    rank = torch.randperm(len(distinct), generator=generator, device="cpu")[kind]
    # a share that is not 0 gets a line, if there are enough of them
    first = max(round(validation * len(distinct)), int(validation > 0))
    second = first + max(round(test * len(distinct)), int(test > 0))
    if second >= len(distinct):
        raise ValueError(
            f"{len(distinct)} distinct lines with validation_share={validation:g} and test_share={test:g} leave "
            "nothing to train on: give more text or smaller shares"
        )
    return (
        (rank >= second).nonzero().flatten(),
        (rank < first).nonzero().flatten(),
        ((rank >= first) & (rank < second)).nonzero().flatten(),
    )


def _statistics(
    sentences: list[list[str]],
    encoded: Tensor,
    train: Tensor,
    given: Tensor,
    vocabulary: Vocabulary,
    lines: int,
    length: int,
) -> TextStatistics:
    sizes = torch.tensor([len(tokens) for tokens in sentences], dtype=torch.float64, device="cpu")
    unknown = vocabulary.unknown
    trained = set(map(tuple, train.tolist()))
    return TextStatistics(
        lines=len(sentences),
        blank=lines - len(sentences),
        distinct=len(torch.unique(encoded, dim=0)),
        tokens=int(sizes.sum()),
        types=len({token for tokens in sentences for token in tokens}),
        unknown=0 if unknown is None else int((encoded == unknown).sum()),
        shortest=int(sizes.min()),
        mean=float(sizes.mean()),
        median=float(sizes.quantile(0.5)),
        percentile_99=float(sizes.quantile(0.99)),
        longest=int(sizes.max()),
        truncated=int((sizes > length).sum()),
        shared=sum(tuple(row) in trained for row in given.tolist()),
    )
