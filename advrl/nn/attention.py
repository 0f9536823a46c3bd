r"""Transformers that write and judge sequences: x + attention(norm(x)), then x + mlp(norm(x)), in every layer.

Vaswani et al. (2017), with the norms in front of each part (Radford et al., 2019). Writing is causal, so the keys and
values of what was written stay as they are: they are the cached state, and a step costs O(t) instead of O(t^2).
Shapes: n sequences, T steps, L layers, H units, K = V outcomes of a step, or V + 1 with an end of sequence.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from advrl.checks import integer, number
from advrl.distributions.sequence import State
from advrl.nn.sequence_discriminators import EmbeddedDiscriminator
from advrl.nn.sequences import WritingPolicy


class _Layer(nn.Module):
    def __init__(self, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.queries_keys_values, self.merge = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)
        self.mlp = nn.Sequential(nn.Linear(hidden, 4 * hidden), nn.GELU(), nn.Linear(4 * hidden, hidden))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, past: tuple[Tensor, Tensor] | None = None, seen: Tensor | None = None, causal: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(n, T, H) to the same, and the keys and values (n, t, H) of all steps, those of ``past`` in front.

        ``seen`` (n, T) is False on the steps that none may look at.
        """
        query, key, value = self.queries_keys_values(self.before(x)).chunk(3, -1)
        if past is not None:
            key, value = torch.cat([past[0], key], 1), torch.cat([past[1], value], 1)
        mask = None if seen is None else seen[:, None, None, :]
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (query, key, value))
        found = scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        x = x + self.dropout(self.merge(found.transpose(1, 2).flatten(-2)))
        return x + self.dropout(self.mlp(self.between(x))), key, value


def _layers(hidden: int, layers: int, heads: int, dropout: float) -> nn.ModuleList:
    if hidden % integer("heads", heads):
        raise ValueError(f"hidden must be a multiple of the {heads} heads, got {hidden}")
    return nn.ModuleList(_Layer(hidden, heads, dropout) for _ in range(integer("layers", layers)))


class TransformerPolicy(WritingPolicy):
    """A causal Transformer with learned positions: Vaswani et al. (2017); Radford et al. (2019).

    Args:
        vocab_size: V tokens, ids 0 ... V-1.
        length: T, the most tokens of a sequence, its end included.
        hidden: units H.
        layers, heads: L, and the attention heads of each layer.
        eos: whether sequences may end, with id V, padded by V + 1.
        context: size C of the vectors they are conditioned on (added to the first input), 0 for none.
        start_token: id whose embedding is the first input; by default a row of its own.
        dropout: on the embeddings and behind each part of a layer, in training.

    Raises:
        ValueError, TypeError: for numbers out of range, or units that the heads do not divide.
    """

    def __init__(
        self,
        vocab_size: int,
        length: int,
        hidden: int = 64,
        *,
        layers: int = 2,
        heads: int = 4,
        eos: bool = False,
        context: int = 0,
        start_token: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(vocab_size, length, hidden, eos=eos, context=context, start_token=start_token, dropout=dropout)
        self.positions = nn.Parameter(torch.randn(length, hidden) * 0.02)
        self.layers = _layers(hidden, layers, heads, dropout)
        self.norm, self.out = nn.LayerNorm(hidden), nn.Linear(hidden, self.outcomes)
        self.condition = nn.Linear(context, hidden) if context else None

    def start(self, n: int, context: Tensor | None = None) -> State:
        """What is added to the first input (n, H), and the keys and values (n, L, t, H) of t = 0 steps.

        Raises:
            ValueError: if the context is missing, not expected, or of another shape.
        """
        like = self.positions
        none = torch.zeros(n, len(self.layers), 0, like.shape[1], dtype=like.dtype, device=like.device)
        return self._shift(n, context), none, none

    def step(self, tokens: Tensor | None, state: State) -> tuple[Tensor, State]:
        """One token more.

        Args:
            tokens: ids (n,), relaxed rows (n, K), or ``None`` for the first step.
            state: of :meth:`start` or the step before.

        Returns:
            logits (n, K) of the next token, and the new state.

        Raises:
            ValueError: after T steps.
        """
        shift, keys, values = state
        t = keys.shape[2]
        if t >= self.length:
            raise ValueError(f"a sequence has {self.length} steps, and all are written")
        x = self.embed(self.beginning(len(shift)) if tokens is None else tokens) + self.positions[t]
        x = (x + shift if t == 0 else x).unsqueeze(1)
        written = []
        for i, layer in enumerate(self.layers):
            x, key, value = layer(x, (keys[:, i], values[:, i]))
            written.append((key, value))
        logits: Tensor = self.out(self.norm(x.squeeze(1)))
        return logits, (shift, *(torch.stack(part, 1) for part in zip(*written, strict=True)))

    def hidden_of(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        shift = self._shift(len(inputs), context).unsqueeze(1)
        x = torch.cat([inputs[:, :1] + shift, inputs[:, 1:]], 1) + self.positions[: inputs.shape[1]]
        for layer in self.layers:
            x, _, _ = layer(x, causal=True)
        normed: Tensor = self.norm(x)
        return normed

    def _shift(self, n: int, context: Tensor | None) -> Tensor:
        self.check_context(n, context)
        if self.condition is None:
            return torch.zeros(n, self.positions.shape[1], dtype=self.positions.dtype, device=self.positions.device)
        shift: Tensor = self.condition(context)
        return shift


class TransformerDiscriminator(EmbeddedDiscriminator):
    """A Transformer that sees the whole sequence, and the mean over its steps; nothing looks at the padding.

    Args:
        vocab_size: V.
        length: T.
        hidden, layers, heads: as of :class:`TransformerPolicy`.
        eos: whether sequences end.
        dropout: behind each part of a layer.
    """

    def __init__(
        self,
        vocab_size: int,
        length: int,
        hidden: int = 64,
        *,
        layers: int = 2,
        heads: int = 4,
        eos: bool = False,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(vocab_size, hidden, eos)
        number("dropout", dropout, 0.0, 1.0)
        self.positions = nn.Parameter(torch.randn(integer("length", length), hidden) * 0.02)
        self.layers = _layers(hidden, layers, heads, dropout)
        self.norm, self.out = nn.LayerNorm(hidden), nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n,) of whole sequences."""
        if x.dim() < 2 or x.shape[1] != len(self.positions):
            raise ValueError(f"sequences must have length {len(self.positions)}, got shape {tuple(x.shape)}")
        seen = self.mask(x)
        vectors = self.embed(x) + self.positions
        for layer in self.layers:
            vectors, _, _ = layer(vectors, seen=seen)
        share = seen.to(vectors.dtype).unsqueeze(-1)
        mean = (self.norm(vectors) * share).sum(1) / share.sum(1)
        logits: Tensor = self.out(mean).squeeze(-1)
        return logits
