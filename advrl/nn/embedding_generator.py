r"""A generator of words as points: vectors that are only read as tokens afterwards.

    h_t = GRU(h_{t-1}, [e_{t-1}, z_t]),    e_t = W h_t / |W h_t|,    token_t = argmin_k |e_t - v_k|

Vectors are continuous, so that the discriminator's gradient reaches the generator by the path, without a score function
or a relaxation. The table v is fixed, and what the discriminator is shown of real text are its rows, of length 1 too.
Shapes: n sequences, T steps, Z numbers of noise a step, E of a vector, K = V outcomes of a step, or V + 1 with an end.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from advrl.checks import integer, number
from advrl.distributions.sequence import State
from advrl.nn.sequence_discriminators import SEQGAN_FILTERS, CNNDiscriminator
from advrl.seeding import isolated


def token_table(outcomes: int, embedding: int, seed: int = 0) -> Tensor:
    """(K, E) random directions of length 1, the same for the same seed."""
    with isolated(seed):
        return normalize(torch.randn(outcomes, embedding, device="cpu"), dim=-1)


class EmbeddingGenerator(nn.Module):
    """Noise (n, T, Z) to vectors (n, T, E) near the rows of a fixed table, 0 behind the end.

    It has no likelihood: ``sample`` reads each vector as the token whose row is nearest.

    Args:
        vocab_size: V tokens, ids 0 ... V-1.
        length: T, the most tokens of a sequence, its end included.
        hidden: units of the GRU.
        embedding: E.
        noise: Z.
        eos: whether sequences may end, with id V, padded by V + 1.

    Raises:
        ValueError, TypeError: for numbers out of range.
    """

    table: Tensor

    def __init__(
        self, vocab_size: int, length: int, hidden: int = 64, *, embedding: int = 32, noise: int = 16, eos: bool = False
    ) -> None:
        super().__init__()
        self.vocab_size, self.length = integer("vocab_size", vocab_size), integer("length", length)
        self.eos, self.outcomes = bool(eos), vocab_size + bool(eos)
        self.hidden, self.numbers = integer("hidden", hidden), integer("noise", noise)
        self.cell = nn.GRUCell(integer("embedding", embedding) + noise, hidden)
        self.out = nn.Linear(hidden, embedding)
        self.register_buffer("table", token_table(self.outcomes, embedding).to(self.out.weight))

    def noise(self, n: int) -> Tensor:
        """(n, T, Z) from N(0, 1)."""
        like = self.out.weight
        return torch.randn(n, self.length, self.numbers, dtype=like.dtype, device=like.device)

    def start(self, n: int) -> State:
        """What stands before the first step: no hidden state, and no vector."""
        like = self.out.weight
        return like.new_zeros(n, self.hidden), like.new_zeros(n, self.table.shape[1])

    def step(self, noise: Tensor, state: State) -> tuple[Tensor, Tensor]:
        """The vectors (n, E) of the next step given its noise (n, Z), and the hidden state behind it."""
        hidden = self.cell(torch.cat([state[1], noise], -1), state[0])
        return normalize(self.out(hidden), dim=-1), hidden

    def forward(self, z: Tensor) -> Tensor:
        """Vectors (n, T, E), differentiable; 0 behind one that is nearest to the end's."""
        state, written = self.start(len(z)), []
        alive = torch.ones_like(z[:, 0, :1])
        for t in range(self.length):
            vectors, hidden = self.step(z[:, t], state)
            written.append(vectors * alive)
            if self.eos:
                alive = alive * (self.nearest(vectors) != self.vocab_size).unsqueeze(-1)
            state = hidden, vectors
        return torch.stack(written, 1)

    def nearest(self, vectors: Tensor) -> Tensor:
        """The ids (*) of the rows of the table that are nearest to vectors (*, E)."""
        with torch.no_grad():  # rows have length 1: the nearest has the largest inner product
            return (vectors @ self.table.T).argmax(-1)

    def read(self, vectors: Tensor) -> Tensor:
        """Ids (n, T) of vectors (n, T, E), padding where they are 0."""
        ids = self.nearest(vectors)
        return torch.where(vectors.detach().abs().sum(-1) > 0, ids, torch.full_like(ids, self.outcomes))

    def vectors(self, x: Tensor) -> Tensor:
        """(n, T, E) the rows of ids (n, T), 0 on the padding."""
        return torch.cat([self.table, torch.zeros_like(self.table[:1])])[x]

    @torch.no_grad()
    def sample(self, n: int, *, temperature: float = 1.0) -> Tensor:
        """(n, T) ids; the temperature multiplies the variance of the noise."""
        scale = number("temperature", temperature, 0.0) ** 0.5
        return self.read(self.forward(self.noise(n) * scale))

    @torch.no_grad()
    def continued(self, begun: Tensor, temperature: float = 1.0) -> Tensor:
        """(n, T) ids that begin as ``begun`` (n, t), whose vectors are fed in place of its own, and go on by itself."""
        noise = self.noise(len(begun)) * number("temperature", temperature, 0.0) ** 0.5
        state, columns = self.start(len(begun)), []
        alive = torch.ones(len(begun), dtype=torch.bool, device=noise.device)
        for t in range(self.length):
            vectors, hidden = self.step(noise[:, t], state)
            if t < begun.shape[1]:
                tokens = begun[:, t]
                vectors = self.table[tokens]
            else:
                tokens = torch.where(alive, self.nearest(vectors), self.outcomes)
            alive = alive & (tokens != self.vocab_size)
            columns.append(tokens)
            state = hidden, vectors
        return torch.stack(columns, 1)


class VectorDiscriminator(CNNDiscriminator):
    """:class:`CNNDiscriminator` on vectors (n, T, E), 0 on the padding, in place of ids.

    Args:
        vocab_size, length: as there.
        embedding: E, of the vectors.
        eos, filters, dropout: as there.
    """

    def __init__(
        self,
        vocab_size: int,
        length: int,
        embedding: int = 32,
        *,
        eos: bool = False,
        filters: tuple[tuple[int, int], ...] = SEQGAN_FILTERS,
        dropout: float = 0.25,
    ) -> None:
        super().__init__(vocab_size, length, embedding, eos=eos, filters=filters, dropout=dropout)
        self.embedding.requires_grad_(False)  # vectors come embedded

    def embed(self, x: Tensor) -> Tensor:
        if x.dim() != 3 or x.shape[-1] != self.embedding.embedding_dim:
            raise ValueError(f"vectors must be (n, T, {self.embedding.embedding_dim}), got shape {tuple(x.shape)}")
        return x

    def mask(self, x: Tensor) -> Tensor:
        return x.detach().abs().sum(-1) > 0
