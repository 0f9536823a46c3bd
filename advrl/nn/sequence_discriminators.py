"""Discriminators of sequences; a high logit means real.

All take ids (n, T), whose padding behind the end counts for nothing, or relaxed rows (n, T, K), 0 on the padding.
Shapes: n sequences, T steps, K = V outcomes of a step, or V + 1 with an end of sequence.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

from advrl.checks import integer, number

# Yu et al. (2017), appendix: (width of the window, number of filters)
SEQGAN_FILTERS = (
    *((1, 100), (2, 200), (3, 200), (4, 200), (5, 200), (6, 100)),
    *((7, 100), (8, 100), (9, 100), (10, 100), (15, 160), (20, 160)),
)


class EmbeddedDiscriminator(nn.Module):
    """The embedding of ids and of relaxed rows that discriminators of sequences share."""

    def __init__(self, vocab_size: int, embedding: int, eos: bool) -> None:
        super().__init__()
        self.outcomes = integer("vocab_size", vocab_size) + bool(eos)
        self.embedding = nn.Embedding(self.outcomes + 1, integer("embedding", embedding), padding_idx=self.outcomes)

    def embed(self, x: Tensor) -> Tensor:
        """(n, T) ids or (n, T, K) rows to (n, T, E), 0 on the padding."""
        if not x.is_floating_point():
            vectors: Tensor = self.embedding(x)
            return vectors
        if x.dim() != 3 or x.shape[-1] != self.outcomes:
            raise ValueError(f"relaxed sequences must be (n, T, {self.outcomes}), got shape {tuple(x.shape)}")
        return x @ self.embedding.weight[: self.outcomes]

    def mask(self, x: Tensor) -> Tensor:
        """(n, T) True on the steps of ids (n, T) or relaxed rows (n, T, K), False on the padding."""
        return x.detach().sum(-1) > 0 if x.is_floating_point() else x < self.outcomes


class CNNDiscriminator(EmbeddedDiscriminator):
    """The SeqGAN discriminator: windows of several widths, maximum over time, one highway layer. Yu et al. (2017).

    Args:
        vocab_size: V.
        length: T; wider windows than that are left out.
        embedding: size of a token's embedding.
        eos: whether sequences end.
        filters: pairs (width, number).
        dropout: behind the highway layer (the authors keep 0.75).
    """

    def __init__(
        self,
        vocab_size: int,
        length: int,
        embedding: int = 64,
        *,
        eos: bool = False,
        filters: tuple[tuple[int, int], ...] = SEQGAN_FILTERS,
        dropout: float = 0.25,
    ) -> None:
        super().__init__(vocab_size, embedding, eos)
        self.length, self.eos = integer("length", length), bool(eos)
        number("dropout", dropout, 0.0, 1.0)
        kept = [(width, count) for width, count in filters if width <= length]
        if not kept:
            raise ValueError(f"no filter of {filters} fits into length {length}")
        self.convolutions = nn.ModuleList(nn.Conv1d(embedding, count, width) for width, count in kept)
        features = sum(count for _, count in kept)
        self.gate, self.carry = nn.Linear(features, features), nn.Linear(features, features)
        nn.init.zeros_(self.gate.bias)  # half open at first, as the authors have it
        self.dropout, self.out = nn.Dropout(dropout), nn.Linear(features, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n,) of whole sequences."""
        if x.dim() < 2 or x.shape[1] != self.length:
            raise ValueError(f"sequences must have length {self.length}, got shape {tuple(x.shape)}")
        vectors = self.embed(x).transpose(1, 2)
        found = torch.cat([self._find(each, vectors, x).relu() for each in self.convolutions], -1)
        features = torch.lerp(found, self.carry(found).relu(), self.gate(found).sigmoid())
        logits: Tensor = self.out(self.dropout(features)).squeeze(-1)
        return logits

    def _most(self, windows: Tensor, x: Tensor) -> Tensor:
        """The maximum (n, C) over windows (n, C, places), of those that begin within the sequence."""
        if self.eos:
            windows = windows.masked_fill(~self.mask(x)[:, None, : windows.shape[-1]], -torch.inf)
        return windows.amax(-1)

    def _find(self, convolution: nn.Module, vectors: Tensor, x: Tensor) -> Tensor:
        """The maximum (n, C) of a convolution over the windows of vectors (n, E, T), the embeddings of x.

        Where gradients are not wanted and the same ids stand in many windows, what each adds at each place of a window
        is computed once and looked up; on a CPU, that takes a quarter of the time for a few thousand sequences.
        """
        assert isinstance(convolution, nn.Conv1d) and convolution.bias is not None
        width = convolution.kernel_size[0]
        windows = len(x) * (x.shape[1] - width + 1)
        few = windows < 4 * (self.outcomes + 1)  # the table costs more than it spares
        if few or torch.is_grad_enabled() or x.is_floating_point() or x.device.type != "cpu":
            return self._most(convolution(vectors), x)
        parts = self.embedding.weight @ convolution.weight.permute(1, 2, 0).flatten(1)  # (K + 1, width * C)
        table, most = parts.reshape(-1, convolution.out_channels), []
        for piece in x.split(512):  # whose windows stay in the caches
            rows = piece.unfold(1, width, 1) * width + torch.arange(width, device=x.device)
            sums = embedding_bag(rows.flatten(0, 1), table, mode="sum").unflatten(0, rows.shape[:2])
            most.append(self._most(sums.transpose(1, 2), piece))
        return torch.cat(most) + convolution.bias


class RecurrentDiscriminator(EmbeddedDiscriminator):
    """An LSTM with one logit per prefix, for a reward at every step: de Masson d'Autume et al. (2019), ScratchGAN.

    Args:
        vocab_size: V.
        hidden: units of the LSTM.
        embedding: size of a token's embedding.
        eos: whether sequences end.
        dropout: on the embeddings.
    """

    def __init__(
        self, vocab_size: int, hidden: int = 64, embedding: int = 64, *, eos: bool = False, dropout: float = 0.1
    ) -> None:
        super().__init__(vocab_size, embedding, eos)
        self.dropout = nn.Dropout(number("dropout", dropout, 0.0, 1.0))
        self.rnn = nn.LSTM(embedding, integer("hidden", hidden), batch_first=True)
        self.out = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, T), that at t of the prefix x_1 ... x_t; 0 on the padding."""
        mask = self.mask(x)
        hidden, _ = self.rnn(self.dropout(self.embed(x)))
        logits = self.out(hidden).squeeze(-1)
        return torch.where(mask, logits, torch.zeros_like(logits))
