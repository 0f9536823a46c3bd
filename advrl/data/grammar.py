r"""Sentences of a small grammar, with their exact probability: a sum over all their derivations.

A stochastic context-free grammar in Chomsky's normal form has rules A -> a and A -> B C. With I(A, i, l) the chance
that A derives the l tokens from i on, the inside algorithm (Baker, 1979; Lari & Young, 1990) is

    I(A, i, 1) = P(A -> x_i),    I(A, i, l) = sum_{A -> B C} P(A -> B C) sum_{k < l} I(B, i, k) I(C, i + k, l - k)

The same recursion without the tokens, Z(A, l), is the chance of a sentence of length l. The oracle's law is the
grammar's given that a sentence has at most T tokens; drawn from the lengths downwards, no sentence is refused.
Shapes: n sentences, T steps, V tokens, S symbols.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from advrl.checks import integer
from advrl.data.oracles import Oracle
from advrl.distributions.categorical import sample_categorical

ARITHMETIC: dict[str, dict[str, float]] = {
    "S": {"x": 0.5, "S R": 0.5},
    "R": {"O S": 1.0},
    "O": {"+": 0.25, "-": 0.25, "*": 0.25, "/": 0.25},
}
"""x, x + x, x * x - x ...: the language of Kusner & Hernández-Lobato (2016), section 4, in normal form."""


class GrammarOracle(Oracle):
    """A stochastic context-free grammar, with sentences of at most ``length`` tokens.

    Shorter ones end with id V and are padded by V + 1; one of all T tokens has no end.

    Args:
        length: T.
        rules: for each symbol its right-hand sides and their weights: one token, or two symbols with a space between.
            The first symbol begins. Ids follow the order of the tokens.

    Raises:
        ValueError: for a rule of another form, negative weights, or a grammar without a sentence of T tokens or fewer.
    """

    eos = True

    def __init__(self, length: int = 11, rules: Mapping[str, Mapping[str, float]] = ARITHMETIC) -> None:
        self.length = integer("length", length)
        symbols = list(rules)
        self.tokens = list(dict.fromkeys(side for sides in rules.values() for side in sides if " " not in side))
        self.vocab_size, size = len(self.tokens), len(symbols)
        options: dict[str, Any] = {"dtype": torch.float64, "device": "cpu"}
        self.unary = torch.zeros(size, max(self.vocab_size, 1), **options)
        self.binary = torch.zeros(size, size, size, **options)
        for a, (symbol, sides) in enumerate(rules.items()):
            for side, weight in sides.items():
                parts = side.split()
                if weight < 0 or len(parts) not in (1, 2) or (len(parts) == 2 and not set(parts) <= set(symbols)):
                    raise ValueError(
                        f"a rule has one token or two symbols of {', '.join(symbols)}, and a weight of at least 0: "
                        f"got {symbol} -> {side!r} with {weight}"
                    )
                if len(parts) == 1:
                    self.unary[a, self.tokens.index(side)] = weight
                else:
                    self.binary[a, symbols.index(parts[0]), symbols.index(parts[1])] = weight
        total = self.unary.sum(1) + self.binary.sum((1, 2))
        if (total <= 0).any():
            raise ValueError(f"the rules of {symbols[int(total.argmin())]} have no weight")
        self.unary, self.binary = self.unary / total[:, None], self.binary / total[:, None, None]
        self._splits()
        if self.chance[0].sum() == 0:
            raise ValueError(f"the grammar has no sentence of at most {length} tokens")

    def _splits(self) -> None:
        """Z(A, l), (S, T + 1), and log P(B, C, k | A, l), (S, T + 1, S * S * T) with k - 1 last."""
        size, length = len(self.unary), self.length
        self.chance = self.unary.new_zeros(size, length + 1)
        self.chance[:, 1] = self.unary.sum(1)
        split = self.unary.new_zeros(size, length + 1, size, size, length)
        for span in range(2, length + 1):
            left, right = self.chance[:, 1:span], self.chance[:, 1:span].flip(1)
            split[:, span, :, :, : span - 1] = torch.einsum("abc,bk,ck->abck", self.binary, left, right)
            self.chance[:, span] = split[:, span].sum((1, 2, 3))
        self.log_split = split.flatten(2).log()

    def sample(self, n: int) -> Tensor:
        """Ids (n, T): a length, then for each symbol of known length its two halves, all spans of a round at once."""
        size, length = len(self.unary), self.length
        spans = self.chance.new_zeros(n, length + 1, dtype=torch.int64)
        spans[:, 0] = sample_categorical(self.chance[0].log().expand(n, -1))
        filled = torch.arange(length, device=spans.device) < spans[:, :1]
        symbols = torch.zeros_like(spans)
        for _ in range(length - 1):
            rows, starts = (spans > 1).nonzero(as_tuple=True)
            if not len(rows):
                break
            span = spans[rows, starts]
            drawn = sample_categorical(self.log_split[symbols[rows, starts], span])
            pair, k = drawn // length, drawn % length + 1
            symbols[rows, starts], symbols[rows, starts + k] = pair // size, pair % size
            spans[rows, starts], spans[rows, starts + k] = k, span - k
        tokens = sample_categorical(self.unary.log()[symbols[:, :length]])
        end = torch.arange(length, device=spans.device) == filled.sum(1, keepdim=True)
        outside = torch.where(end, self.vocab_size, self.vocab_size + 1)
        return torch.where(filled, tokens, outside)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x), (n,), float64; minus infinity for what is no sentence.

        Raises:
            ValueError: for ids of another shape, or that are none.
        """
        self.check(x)
        known = x < self.vocab_size
        lengths = known.sum(1)
        after = torch.arange(self.length, device=x.device)[None] - lengths[:, None]
        proper = ((after < 0) == known) & ((after != 0) | (x == self.vocab_size))
        proper = (proper & ((after <= 0) | (x == self.vocab_size + 1))).all(1)
        tables = self.unary.to(x.device), self.binary.to(x.device), self.chance.to(x.device)
        inside = [tables[0].T[x.clamp(max=self.vocab_size - 1)]]  # of span 1: (n, T, S); of span l: (n, T - l + 1, S)
        for span in range(2, self.length + 1):
            places = self.length - span + 1
            left = torch.stack([inside[k - 1][:, :places] for k in range(1, span)])
            right = torch.stack([inside[span - k - 1][:, k : k + places] for k in range(1, span)])
            inside.append(torch.einsum("abc,knib,knic->nia", tables[1], left, right))
        whole = torch.stack([part[:, 0, 0] for part in inside], 1)  # (n, T)
        found = whole.gather(1, (lengths - 1).clamp(min=0)[:, None])[:, 0]
        found = torch.where(proper & (lengths > 0), found, torch.zeros_like(found))
        return found.log() - tables[2][0].sum().log()

    def decode(self, x: Tensor) -> list[str]:
        """Sentences as text, tokens with spaces between."""
        self.check(x)
        return [" ".join(self.tokens[i] for i in row if i < self.vocab_size) for row in x.tolist()]
