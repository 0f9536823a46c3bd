r"""Policies that write sequences of tokens, with a cached state: h_t = f(h_{t-1}, x_{t-1}), logits = W h_t + b.

Shapes: n sequences, T steps, L layers, H hidden units, K = V outcomes of a step, or V + 1 with an end of sequence.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, embedding, linear

from advrl.checks import integer, number
from advrl.distributions.sequence import Sequence, State


class WritingPolicy(nn.Module):
    """What all sequence policies share: their vocabulary, the embedding of ids and of relaxed tokens, and their law.

    Subclasses have ``start``, ``step`` and ``hidden``, and a layer ``out`` from H to K.
    """

    out: nn.Linear

    def __init__(
        self,
        vocab_size: int,
        length: int,
        embedding: int,
        *,
        eos: bool = False,
        context: int = 0,
        start_token: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.vocab_size, self.length = integer("vocab_size", vocab_size), integer("length", length)
        self.eos, self.context_size = bool(eos), integer("context", context, 0)
        number("dropout", dropout, 0.0, 1.0)
        self.outcomes = vocab_size + self.eos
        if start_token is not None and integer("start_token", start_token, 0) >= self.outcomes:
            raise ValueError(f"start_token must be below {self.outcomes}, got {start_token}")
        self.first = self.outcomes + 1 if start_token is None else start_token
        self.embedding = nn.Embedding(self.outcomes + 2, integer("embedding", embedding))  # the padding, and a start
        self.dropout = nn.Dropout(dropout)

    def start(self, n: int, context: Tensor | None = None) -> State:
        """The state of ``n`` empty sequences, tensors (n, ...)."""
        raise NotImplementedError

    def step(self, tokens: Tensor | None, state: State) -> tuple[Tensor, State]:
        """Logits (n, K) of the next token given the last (n,), relaxed (n, K) or ``None`` at first; the new state."""
        raise NotImplementedError

    def hidden_of(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        """(n, T, H) of all steps at once, given embeddings (n, T, E) of what was written before each."""
        raise NotImplementedError

    def logits(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Logits (n, T, K) of every step, given the true tokens x (n, T) before it, or relaxed ones (n, T, K)."""
        logits: Tensor = self.out(self.hidden_of(self.before(x), context))
        return logits

    def log_probs(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """log p(x_t | x_<t) of ids (n, T), teacher-forced in one pass, (n, T); 0 on the padding."""
        law = self.distribution(context)
        if not self.eos or x.dim() != 2 or x.device.type != "cpu":
            return law.log_probs(x)
        law._check(x)  # where counting is free, no logits of padding are made: three times as fast on captions
        there = x < self.outcomes
        columns = int(there.any(0).sum())
        hidden = self.hidden_of(self.before(x[:, :columns]), context)[there[:, :columns]]
        found = -cross_entropy(self.out(hidden), x[there], reduction="none")
        return found.new_zeros(x.shape).masked_scatter(there, found)

    def distribution(self, context: Tensor | None = None, **options: float | int | None) -> Sequence:
        """The policy given a context (*batch, C); ``temperature``, ``top_k`` and ``top_p`` as of :class:`Sequence`."""
        return Sequence(self, context, **options)  # type: ignore[arg-type]

    def sample(self, n: int, **options: float | int | None) -> Tensor:
        """(n, T) sequences; options as of :meth:`distribution`, without a context."""
        return self.distribution(None, **options).sample((n,))

    def continued(self, begun: Tensor, temperature: float = 1.0) -> Tensor:
        """(n, T) sequences that begin as ``begun`` (n, t) and go on by the policy."""
        return self.distribution(temperature=temperature).sample((len(begun),), begun)

    def embed(self, tokens: Tensor) -> Tensor:
        """Embeddings of ids (*), or of relaxed tokens (*, K): their weighted mean."""
        if tokens.is_floating_point():
            vectors = tokens @ self.embedding.weight[: self.outcomes]
        else:
            vectors = self.embedding(tokens)
        dropped: Tensor = self.dropout(vectors)
        return dropped

    def beginning(self, n: int) -> Tensor:
        """(n,) of the id that is fed to the first step."""
        return torch.full((n,), self.first, dtype=torch.int64, device=self.out.weight.device)

    def check_context(self, n: int, context: Tensor | None) -> None:
        """Raise a ``ValueError`` if the context is missing, not expected, or not (n, C)."""
        if not self.context_size and context is not None:
            raise ValueError("this policy takes no context: build it with context=C")
        if self.context_size and (context is None or context.shape != (n, self.context_size)):
            shape = None if context is None else tuple(context.shape)
            raise ValueError(f"context must be ({n}, {self.context_size}), got {shape}")

    def before(self, x: Tensor) -> Tensor:
        """Embeddings (n, T, E) of what stands before each step of x (n, T), or of relaxed x (n, T, K): the inputs."""
        first = self.beginning(len(x)).unsqueeze(1)
        if x.is_floating_point():
            return torch.cat([self.embed(first), self.embed(x[:, :-1])], 1)
        return self.embed(torch.cat([first, x[:, :-1]], 1))


class _Recurrent(WritingPolicy):
    """Shared by the LSTM and GRU policies.

    Args:
        vocab_size: V tokens, ids 0 ... V-1.
        length: T, the most tokens of a sequence, its end included.
        hidden: units H.
        embedding: size of a token's embedding; H by default.
        layers: L.
        eos: whether sequences may end, with id V, padded by V + 1.
        context: size C of the vectors they are conditioned on (through the first state), 0 for none.
        start_token: id whose embedding is the first input; by default a row of its own.
        dropout: on the embeddings and between layers, in training.

    Raises:
        ValueError, TypeError: for numbers out of range.
    """

    cell: type[nn.LSTM] | type[nn.GRU]
    parts: int

    def __init__(
        self,
        vocab_size: int,
        length: int,
        hidden: int = 32,
        *,
        embedding: int | None = None,
        layers: int = 1,
        eos: bool = False,
        context: int = 0,
        start_token: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        size = integer("hidden", hidden) if embedding is None else embedding
        super().__init__(vocab_size, length, size, eos=eos, context=context, start_token=start_token, dropout=dropout)
        self.hidden, self.layers = integer("hidden", hidden), integer("layers", layers)
        self.rnn = self.cell(size, hidden, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.out = nn.Linear(hidden, self.outcomes)
        self.condition = nn.Linear(context, self.parts * layers * hidden) if context else None

    def start(self, n: int, context: Tensor | None = None) -> State:
        """The state of ``n`` empty sequences: tensors (n, L, H), zero or, with a context (n, C), a map of it.

        Raises:
            ValueError: if the context is missing, not expected, or of another shape.
        """
        self.check_context(n, context)
        if self.condition is None:
            like = self.out.weight
            zeros = torch.zeros(n, self.layers, self.hidden, dtype=like.dtype, device=like.device)
            return (zeros,) * self.parts
        numbers = self.condition(context).tanh()
        return tuple(numbers.unflatten(-1, (self.parts, self.layers, self.hidden)).unbind(1))

    def step(self, tokens: Tensor | None, state: State) -> tuple[Tensor, State]:
        """One token more.

        Args:
            tokens: ids (n,), relaxed rows (n, K), or ``None`` for the first step.
            state: of :meth:`start` or the step before.

        Returns:
            logits (n, K) of the next token, and the new state.
        """
        if tokens is None:
            tokens = self.beginning(len(state[0]))
        hidden, after = self._run(self.embed(tokens).unsqueeze(1), state)
        logits: Tensor = self.out(hidden.squeeze(1))
        return logits, after

    def hidden_of(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        return self._run(inputs, self.start(len(inputs), context))[0]

    def _run(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        before = tuple(part.transpose(0, 1).contiguous() for part in state)  # torch's layout is (L, n, H)
        hidden, after = self.rnn(inputs, before if self.parts > 1 else before[0])
        after = after if self.parts > 1 else (after,)
        return hidden, tuple(part.transpose(0, 1) for part in after)


class LSTMPolicy(_Recurrent):
    __doc__ = "Hochreiter & Schmidhuber (1997). " + (_Recurrent.__doc__ or "")
    cell = nn.LSTM
    parts = 2


class GRUPolicy(_Recurrent):
    __doc__ = "Cho et al. (2014). " + (_Recurrent.__doc__ or "")
    cell = nn.GRU
    parts = 1

    def step(self, tokens: Tensor | None, state: State) -> tuple[Tensor, State]:
        tokens = self.beginning(len(state[0])) if tokens is None else tokens
        if not self._by_table(tokens):
            return super().step(tokens, state)
        hidden = self._next(embedding(tokens, self._table()), state[0].squeeze(1))
        logits: Tensor = self.out(hidden)
        return logits, (hidden.unsqueeze(1),)

    def logits(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        if not self._by_table(x):
            return super().logits(x, context)
        before = torch.cat([self.beginning(len(x)).unsqueeze(0), x.T[:-1]])
        hidden, written = self.start(len(x), context)[0].squeeze(1), []
        for gates in embedding(before, self._table()).unbind(0):
            hidden = self._next(gates, hidden)
            written.append(hidden)
        logits: Tensor = self.out(torch.stack(written, 1))
        return logits

    def _by_table(self, tokens: Tensor) -> bool:
        """Whether W e(token) is quicker from a table of all tokens: torch's own cell on a CPU multiplies each anew."""
        plain = self.layers == 1 and not (self.training and self.dropout.p)
        ids = not tokens.is_floating_point() and tokens.numel() > self.embedding.num_embeddings
        return plain and ids and tokens.device.type == "cpu"

    def _table(self) -> Tensor:
        """(K + 2, 3 H) what each token adds to the gates."""
        rnn = cast(Any, self.rnn)
        return linear(self.embedding.weight, rnn.weight_ih_l0, rnn.bias_ih_l0)

    def _next(self, gates: Tensor, hidden: Tensor) -> Tensor:
        """(n, H) h' = (1 - z) tanh(W x + r * U h) + z h, given W x for all three (n, 3 H)."""
        size, rnn = self.hidden, cast(Any, self.rnn)
        own = linear(hidden, rnn.weight_hh_l0, rnn.bias_hh_l0)
        r, z = (gates[:, : 2 * size] + own[:, : 2 * size]).sigmoid().chunk(2, 1)
        new = torch.addcmul(gates[:, 2 * size :], r, own[:, 2 * size :]).tanh()
        return torch.lerp(new.to(hidden), hidden, z.to(hidden))  # what comes of autocast is shorter than the state
