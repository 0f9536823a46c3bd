r"""Sequences of tokens, written one after the other by a policy.

    p(x) = prod_t p(x_t | x_<t),   the product over the steps up to and with the end-of-sequence token, or all T

Ids are 0 ... V-1 for tokens, V for the end of the sequence if there is one, and then V + 1 for the padding behind it.
A sequence that has not ended after T tokens is cut there, so that the probabilities of all sequences sum to one.
Shapes: batch *B of contexts, T steps, K = V outcomes of a step, or V + 1 with an end.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.nn.functional import one_hot

from advrl.checks import integer, number
from advrl.distributions.categorical import sample_categorical
from advrl.distributions.relaxed import relaxed_rsample

State = tuple[Tensor, ...]
CACHED = 2**20  # logits that a CPU steps at a time, 4 MB: beyond its caches a step takes three times as long


class SequencePolicy(Protocol):
    """What a :class:`Sequence` needs: one step from a cached state, and all steps of given sequences at once."""

    vocab_size: int
    length: int
    eos: bool

    def start(self, n: int, context: Tensor | None = None) -> State:
        """The state of ``n`` empty sequences."""

    def step(self, tokens: Tensor | None, state: State) -> tuple[Tensor, State]:
        """Logits (n, K) after the last tokens (n,), or relaxed ones (n, K); ``None`` stands for the start."""

    def logits(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Logits (n, T, K) of every step given the true tokens (n, T) before it."""


def draw_step(
    policy: SequencePolicy,
    tokens: Tensor | None,
    state: State,
    *,
    adjust: Callable[[Tensor], Tensor] | None = None,
    rows: int | None = None,
) -> tuple[Tensor, State]:
    """One token more for every sequence, in pieces of rows whose logits stay in a CPU's caches.

    Args:
        policy: see :class:`SequencePolicy`.
        tokens: (n,) the last tokens, ``None`` at first.
        state: of all n sequences.
        adjust: what is done to logits (m, K) before a draw.
        rows: most rows at a time, for memory; on a CPU fewer where K is large.

    Returns:
        drawn tokens (n,), and the new state.
    """
    n, device = len(state[0]), state[0].device
    piece = n if rows is None else rows
    if device.type == "cpu":
        piece = min(piece, max(1, CACHED // (policy.vocab_size + policy.eos)))
    drawn, after = [], []
    for begin in range(0, max(n, 1), max(piece, 1)):
        chunk = slice(begin, begin + piece)
        logits, new = policy.step(None if tokens is None else tokens[chunk], tuple(part[chunk] for part in state))
        drawn.append(sample_categorical(logits if adjust is None else adjust(logits)))
        after.append(new)
    if len(drawn) == 1:
        return drawn[0], after[0]
    return torch.cat(drawn), tuple(torch.cat(parts) for parts in zip(*after, strict=True))


class Sequence(Distribution):
    """Sequences of a policy's ``length`` as a distribution with event shape (T,) of int64 ids.

    ``temperature``, ``top_k`` and ``top_p`` change the distribution itself: ``log_prob`` is that of what is drawn.

    Args:
        policy: see :class:`SequencePolicy`.
        context: (*batch, C) what the sequences are conditioned on, or ``None`` for batch shape ().
        temperature: the logits are divided by it, > 0.
        top_k: only the k most likely outcomes of each step (Fan et al., 2018).
        top_p: only the smallest set of outcomes with at least this probability (nucleus; Holtzman et al., 2020).

    Raises:
        ValueError, TypeError: for numbers out of range.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    has_enumerate_support = True

    def __init__(
        self,
        policy: SequencePolicy,
        context: Tensor | None = None,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.policy, self.context = policy, context
        self.temperature = number("temperature", temperature, 0.0, exclusive=True)
        self.top_k = None if top_k is None else integer("top_k", top_k)
        self.top_p = None if top_p is None else number("top_p", top_p, 0.0, 1.0, exclusive=True)
        batch = torch.Size() if context is None else context.shape[:-1]
        super().__init__(batch, torch.Size([policy.length]), validate_args=validate_args)

    @property
    def outcomes(self) -> int:
        """K, the outcomes of a step."""
        return self.policy.vocab_size + self.policy.eos

    @property
    def padding(self) -> int:
        """The id behind the end of a sequence."""
        return self.outcomes

    def expand(self, batch_shape: Any, _instance: Any = None) -> Sequence:
        context = self.context
        if context is None and math.prod(batch_shape) != 1:
            raise ValueError("a sequence without a context has one row: draw sample((n,)) in place of expanding it")
        if context is not None:
            context = context.expand(*batch_shape, context.shape[-1])
        elif len(batch_shape):
            raise ValueError(f"a sequence without a context has batch shape (), not {tuple(batch_shape)}")
        return Sequence(
            self.policy, context, temperature=self.temperature, top_k=self.top_k, top_p=self.top_p, validate_args=False
        )

    @torch.no_grad()
    def sample(self, sample_shape: Any = torch.Size(), begun: Tensor | None = None) -> Tensor:
        """Ids (*sample_shape, *batch, T), one policy step per token for all of them together.

        With ``begun``, (*sample_shape, *batch, t) ids, they are what follows on those, given that.
        """
        shape = torch.Size(sample_shape) + self.batch_shape
        given = () if begun is None else begun.reshape(math.prod(shape), begun.shape[-1]).unbind(-1)
        state = self._start(shape)
        tokens, alive, written = None, None, []
        for t in range(self.policy.length):
            tokens, state = draw_step(self.policy, tokens, state, adjust=self._adjust)
            if t < len(given):
                tokens = given[t]
            if self.policy.eos:
                alive = torch.ones_like(tokens, dtype=torch.bool) if alive is None else alive
                written.append(torch.where(alive, tokens, torch.full_like(tokens, self.padding)))
                alive = alive & (tokens != self.policy.vocab_size)
            else:
                written.append(tokens)
        return torch.stack(written, -1).reshape(*shape, self.policy.length)

    def mask(self, x: Tensor) -> Tensor:
        """(*batch, T) True on the steps that a sequence has, its end among them, and False on the padding."""
        if not self.policy.eos:
            return torch.ones_like(x, dtype=torch.bool)
        end = x == self.policy.vocab_size
        return end.cumsum(-1) - end.long() == 0

    def log_probs(self, x: Tensor) -> Tensor:
        """log p(x_t | x_<t), (*sample, *batch, T), in one pass; 0 on the padding.

        Raises:
            ValueError: for another length, ids out of range, or anything but padding behind an end.
        """
        if self._validate_args:
            self._check(x)
        shape = x.shape[:-1]
        mask = self.mask(x)
        flat = x.reshape(-1, x.shape[-1])
        logits = self._adjust(self.policy.logits(flat, self._context(shape)))
        index = flat.clamp(max=self.outcomes - 1).unsqueeze(-1)
        chosen = logits.log_softmax(-1).gather(-1, index).squeeze(-1)
        return torch.where(mask, chosen.reshape(x.shape), torch.zeros_like(chosen.reshape(x.shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(x), (*sample, *batch)."""
        return self.log_probs(value).sum(-1)

    def relaxed(self, n: int, temperature: float = 1.0, hard: bool = False) -> Tensor:
        """Gumbel-softmax sequences (n, *batch, T, K), each step fed to the next through the policy's embedding.

        Rows behind the end are 0. With ``hard`` the rows are the exact one-hot draws, with the relaxation's gradient:
        Jang, Gu & Poole (2017); Kusner & Hernández-Lobato (2016). Biased; the draws themselves are exact if ``hard``.
        """
        number("temperature", temperature, 0.0, exclusive=True)
        shape = torch.Size([n]) + self.batch_shape
        state = self._start(shape)
        rows, written, alive = None, [], None
        for _ in range(self.policy.length):
            logits, state = self.policy.step(rows, state)
            rows = relaxed_rsample(
                torch.distributions.OneHotCategorical(logits=self._adjust(logits), validate_args=False),
                1,
                temperature,
                hard,
            ).squeeze(0)
            if not self.policy.eos:
                written.append(rows)
                continue
            alive = torch.ones_like(rows[:, :1]) if alive is None else alive
            written.append(rows * alive)
            alive = alive * (rows.argmax(-1, keepdim=True) != self.policy.vocab_size)
        return torch.stack(written, -2).reshape(*shape, self.policy.length, self.outcomes)

    def one_hot(self, x: Tensor) -> Tensor:
        """(*batch, T, K) of ids (*batch, T), 0 on the padding: what :meth:`relaxed` gives at temperature 0."""
        return one_hot(x, self.outcomes + 1)[..., : self.outcomes]

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All sequences, (N, *batch, T), for small vocabularies and lengths.

        Raises:
            ValueError: if there are more than a million.
        """
        length, vocab = self.policy.length, self.policy.vocab_size
        if self.outcomes**length > 10**6:
            raise ValueError(f"{self.outcomes}^{length} sequences are too many to enumerate (at most a million)")
        like = self._start(torch.Size([1]) if self.context is None else self.batch_shape)[0]
        tails = itertools.product(range(self.outcomes), repeat=length)
        x = torch.tensor(list(tails), device=like.device)
        x = torch.where(self.mask(x), x, torch.full_like(x, self.padding)).unique(dim=0)
        x = x.reshape(-1, *(1,) * len(self.batch_shape), length)
        return x.expand(-1, *self.batch_shape, length) if expand and vocab else x

    def _context(self, shape: torch.Size) -> Tensor | None:
        if self.context is None:
            return None
        return self.context.expand(*shape, self.context.shape[-1]).reshape(-1, self.context.shape[-1])

    def _start(self, shape: torch.Size) -> State:
        return self.policy.start(math.prod(shape), self._context(shape))

    def _adjust(self, logits: Tensor) -> Tensor:
        logits = logits if self.temperature == 1.0 else logits / self.temperature
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            least = logits.topk(self.top_k, -1).values[..., -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        if self.top_p is not None and self.top_p < 1.0:
            order = logits.argsort(-1, descending=True)
            sorted_probs = logits.softmax(-1).gather(-1, order)
            outside = sorted_probs.cumsum(-1) - sorted_probs >= self.top_p  # the likeliest is always inside
            logits = logits.masked_fill(torch.zeros_like(outside).scatter(-1, order, outside), -torch.inf)
        return logits

    def _check(self, x: Tensor) -> None:
        length = self.policy.length
        if x.dim() == 0 or x.shape[-1] != length:
            raise ValueError(f"sequences must be (*, {length}) ids, got shape {tuple(x.shape)}")
        if x.is_floating_point():
            raise ValueError(f"sequences must be integer ids, got {x.dtype}")
        mask = self.mask(x)
        if bool(((x < 0) | (x >= self.outcomes))[mask].any()):
            raise ValueError(f"ids must lie in [0, {self.outcomes}), got {int(x.min())} to {int(x.max())}")
        if bool((x != self.padding)[~mask].any()):
            raise ValueError(f"behind the end {self.policy.vocab_size} only the padding {self.padding} may follow")


@relaxed_rsample.register
def _(distribution: Sequence, n: int, temperature: float, hard: bool = False) -> Tensor:
    return distribution.relaxed(n, temperature, hard)
