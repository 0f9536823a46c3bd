r"""Writing a sequence token by token, solved exactly: backward induction over the tree of prefixes.

A prefix of t tokens is a state, the next token an action; the finished sequence is paid. With V tokens to choose
from, prefix x_1 .. x_t has the number sum_i x_i V^(t - i) in its layer, so the children of node i are i V + token and

    V_t = reduce(V_{t+1}.view(V^t, V)),   reduce = max | sum_a pi(a) | temperature * logsumexp(. / temperature)

without transition probabilities and without indices. Q_t is that view itself: the exact target of the roll-outs of
SeqGAN (Yu et al., 2017, eq. 4), for any policy. Shapes: N prefixes, T horizon, t tokens written so far.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from advrl.checks import finite, integer, number
from advrl.tabular.mdp import MDP
from advrl.tabular.transitions import Successors

Policy = Callable[[Tensor], Tensor] | Sequence[Tensor]
"""Logits (or log-probabilities) of the next token: a function (N, t) -> (N, V) of prefixes, or T tables (V^t, V)."""


class Forest(NamedTuple):
    """Consecutive nodes ``low`` .. ``high`` - 1 of layer ``root``, with all that is below them."""

    root: int
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class TreeValues:
    """Exact values at every prefix. ``V[t]`` (V^t,) for prefixes of t tokens, in the order of their numbers.

    ``V`` ends with the leaves, or with the layer of the chunks' roots where the tree was too large to keep.
    """

    tree: LayeredTree
    V: list[Tensor]

    @property
    def value(self) -> Tensor:
        """() the value of the empty prefix."""
        return self.V[0].squeeze(0)

    def Q(self, t: int) -> Tensor:
        """(V^t, V) value of each next token after each prefix of t tokens; -inf for what cannot be written."""
        if not 0 <= t < len(self.V) - 1:
            raise ValueError(f"Q is kept for prefixes of 0..{len(self.V) - 2} tokens, got {t}")
        tree, whole = self.tree, Forest(0, 0, 1)
        Q = tree._q(whole, t, self.V[t + 1])
        closed = tree._closed(whole, t)
        return Q if closed is None else Q.masked_fill(closed, -torch.inf)

    def policy(self, t: int) -> Tensor:
        """(V^t,) the first of the best next tokens."""
        return self.Q(t).argmax(-1)

    def optimal_set(self, t: int, tolerance: float = 1e-9) -> Tensor:
        """(V^t, V) bool: next tokens within ``tolerance`` of the best."""
        Q = self.Q(t)
        least = Q.amax(-1, keepdim=True) - tolerance
        return least <= Q

    def best(self) -> Tensor:
        """(t,) the tokens of a best sequence, as far as the values are kept."""
        node, tokens = 0, []
        for t in range(len(self.V) - 1):
            token = int(self.policy(t)[node])
            node = self.tree._child(t, node, token)
            tokens.append(token)
        return torch.tensor(tokens, device=self.tree.device)


class LayeredTree:
    """All sequences of ``horizon`` tokens, what each is paid, and the exact answers that follow. Undiscounted.

    Args:
        vocab: V, number of tokens.
        horizon: T, number of tokens written.
        leaf_reward: a function of finished sequences (N, T) int64 -> (N,), such as a discriminator's; or (V^T,) rewards
            in the order of the sequences' numbers.
        eos: a token that ends the sequence: after it nothing but itself can be written, and nothing more is paid on the
            way. ``leaf_reward`` sees the tail filled with it.
        step_reward: a function (N, t) -> (N, V) of prefixes, paid for each next token beside the reward of the leaf.
        merge: a function (N, t) -> (N,) integer keys: prefixes of one length and one key become one node, which makes a
            graph of the tree. The key must hold all that the rewards and the policies still depend on.
        chunk: most leaves in memory at a time; larger trees are treated in pieces, and only the layers above are kept.
        dtype, device: of the values.

    Raises:
        ValueError: for sizes that are not positive, rewards of the wrong shape or not finite, a token out of range.
    """

    def __init__(
        self,
        vocab: int,
        horizon: int,
        leaf_reward: Callable[[Tensor], Tensor] | Tensor,
        *,
        eos: int | None = None,
        step_reward: Callable[[Tensor], Tensor] | None = None,
        merge: Callable[[Tensor], Tensor] | None = None,
        chunk: int = 2**24,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        self.vocab, self.horizon = integer("vocab", vocab, 2), integer("horizon", horizon)
        if eos is not None and not 0 <= integer("eos", eos, 0) < vocab:
            raise ValueError(f"eos must be a token, 0..{vocab - 1}, got {eos}")
        self.eos, self.step_reward, self.chunk = eos, step_reward, integer("chunk", chunk)
        self.dtype, self.device = dtype, torch.device(device)
        if vocab**horizon >= 2**62:
            raise ValueError(f"{vocab}^{horizon} sequences are more than can be numbered, let alone visited")
        if chunk < vocab:
            raise ValueError(f"chunk must hold the vocabulary, {vocab}, got {chunk}")
        self.leaf_reward = leaf_reward
        if isinstance(leaf_reward, Tensor):
            if merge is not None:
                raise ValueError("with merge the leaf reward must be a function: a table has a row for every sequence")
            if tuple(leaf_reward.shape) != (vocab**horizon,):
                raise ValueError(f"leaf_reward must have shape ({vocab**horizon},), got {tuple(leaf_reward.shape)}")
            self.dtype, self.device = leaf_reward.dtype, leaf_reward.device
            finite("leaf_reward", leaf_reward)
        self._merged = None if merge is None else self._merge(merge)
        self._leaves: Tensor | None = None

    def _merge(self, key: Callable[[Tensor], Tensor]) -> list[tuple[Tensor, Tensor]]:
        """For every layer one prefix per node (S_t, t), and what number each child has (S_t, V)."""
        prefix = torch.zeros(1, 0, dtype=torch.int64, device=self.device)
        layers = []
        for _ in range(self.horizon):
            token = torch.arange(self.vocab, device=self.device).repeat(len(prefix))
            grown = self._canonical(torch.cat([prefix.repeat_interleave(self.vocab, 0), token[:, None]], 1))
            keys = key(grown)
            if tuple(keys.shape) != (len(grown),):
                raise ValueError(
                    f"merge must map prefixes {tuple(grown.shape)} to ({len(grown)},) keys, got {tuple(keys.shape)}"
                )
            unique, child = torch.unique(keys, return_inverse=True)
            layers.append((prefix, child.view(-1, self.vocab)))
            first = torch.full((len(unique),), len(grown), device=self.device)
            first.scatter_reduce_(0, child, torch.arange(len(grown), device=self.device), "amin")
            prefix = grown[first]
        layers.append((prefix, prefix.new_zeros(0, self.vocab)))
        return layers

    def size(self, t: int) -> int:
        """Number of nodes of layer t: V^t, or as many as merging has left."""
        return self.vocab**t if self._merged is None else len(self._merged[t][0])

    def prefixes(self, t: int, low: int = 0, high: int | None = None) -> Tensor:
        """(N, t) tokens of the prefixes numbered ``low`` .. ``high`` - 1 of layer t; what follows an end is the end."""
        high = self.size(t) if high is None else high
        if self._merged is not None:
            return self._merged[t][0][low:high]
        number = torch.arange(low, high, device=self.device)
        places = [self.vocab**i for i in range(t - 1, -1, -1)]
        tokens = (
            torch.stack([number // place % self.vocab for place in places], 1) if t else number.new_zeros(high - low, 0)
        )
        return self._canonical(tokens)

    def _canonical(self, tokens: Tensor) -> Tensor:
        if self.eos is None:
            return tokens
        return tokens.masked_fill((tokens == self.eos).cummax(1).values if tokens.shape[1] else tokens.bool(), self.eos)

    def optimal(self) -> TreeValues:
        """The best that can be reached from every prefix: V_t = max_a Q_t."""
        return self._backward(lambda t, Q, span: Q.amax(-1))

    def soft(self, temperature: float = 1.0) -> TreeValues:
        """Maximum-entropy values: V_t = temperature * logsumexp(Q_t / temperature).

        The policy that they belong to has logits Q_t / temperature, and draws a sequence in proportion to
        exp(its reward / temperature).
        """
        scale = number("temperature", temperature, 0.0, exclusive=True)

        def reduce(t: int, Q: Tensor, span: Forest) -> Tensor:
            closed = self._closed(span, t)
            open_ = Q if closed is None else Q.masked_fill(closed, -torch.inf)
            value: Tensor = scale * (open_ / scale).logsumexp(-1)
            return value

        return self._backward(reduce)

    def evaluate(self, policy: Policy) -> TreeValues:
        """The expected reward from every prefix under a policy; differentiable in the policy's parameters."""

        def reduce(t: int, Q: Tensor, span: Forest) -> Tensor:
            return (Q * self.probabilities(policy, t, span)).sum(-1)

        return self._backward(reduce)

    def expected_reward(self, policy: Policy) -> Tensor:
        """() exact expected reward of a policy, differentiable in its parameters."""
        return self.evaluate(policy).value

    def gradient(self, policy: Policy, parameters: Sequence[Tensor]) -> list[Tensor]:
        """Exact gradient of the expected reward with respect to ``parameters``; piece by piece for trees in chunks."""
        top, *chunks = self._pieces()
        if not chunks:
            found = torch.autograd.grad(self.expected_reward(policy), parameters, allow_unused=True)
            return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
        with torch.no_grad():
            below = self.evaluate(policy).V[-1]
            reach = self.occupancy(policy)[-1]
        total = [torch.zeros_like(p) for p in parameters]

        def add(value: Tensor) -> None:
            found = torch.autograd.grad(value, parameters, allow_unused=True)
            for into, part in zip(total, found, strict=True):
                if part is not None:
                    into += part

        def reduce(t: int, Q: Tensor, span: Forest) -> Tensor:
            return (Q * self.probabilities(policy, t, span)).sum(-1)

        add(self._climb(top, below, chunks[0].root, reduce)[0].squeeze(0))
        for piece in chunks:  # what a parameter does below a chunk's roots counts as often as they are reached
            value = self._climb(piece, self._rewards(piece), self.horizon, reduce)[0]
            add((reach[piece.low : piece.high] * value).sum())
        return total

    def occupancy(self, policy: Policy) -> list[Tensor]:
        """T + 1 tensors (V^t,): the probability that each prefix is written. The last is the law of the sequences.

        Of a tree in chunks, only the layers that are kept.
        """
        _, *chunks = self._pieces()
        depth = chunks[0].root if chunks else self.horizon
        reach = [torch.ones(1, dtype=self.dtype, device=self.device)]
        for t in range(depth):
            flow = reach[-1][:, None] * self.probabilities(policy, t)
            if self._merged is None:
                reach.append(flow.flatten())
            else:
                child = self._merged[t][1].flatten()
                reach.append(
                    torch.zeros(self.size(t + 1), dtype=flow.dtype, device=self.device).index_add(
                        0, child, flow.flatten()
                    )
                )
        return reach

    def probabilities(self, policy: Policy, t: int, span: Forest | None = None) -> Tensor:
        """(N, V) probabilities of the next token after the prefixes of layer t, those after the end put on ``eos``.

        Raises:
            ValueError: for logits of another shape, or that allow no token.
        """
        span = Forest(0, 0, 1) if span is None else span
        low, high = self._range(span, t)
        logits = policy(self.prefixes(t, low, high)) if callable(policy) else policy[t][low:high]
        if tuple(logits.shape) != (high - low, self.vocab):
            shape = (high - low, self.vocab)
            raise ValueError(f"a policy must give logits of shape {shape} after {t} tokens, got {tuple(logits.shape)}")
        closed = self._closed(span, t)
        if closed is not None:
            logits = torch.where(closed.any(-1, keepdim=True), torch.where(closed, -torch.inf, 0.0), logits)
        return logits.to(self.dtype).softmax(-1)

    def to_mdp(self) -> MDP:
        """The same problem as an :class:`~advrl.tabular.MDP`: for small trees, to hold the one against the other.

        States are the prefixes of 0 .. T - 1 tokens, layer after layer; the last token ends the episode. gamma is 1.
        """
        sizes = [self.size(t) for t in range(self.horizon)]
        starts = [sum(sizes[:t]) for t in range(self.horizon + 1)]
        if starts[-1] > 1_000_000:
            raise ValueError(
                f"{starts[-1]:,} prefixes are too many for an MDP that is written out: ask the tree itself"
            )
        following, prob, R, stop, mask = [], [], [], [], []
        whole = Forest(0, 0, 1)
        for t, count in enumerate(sizes):
            last = t == self.horizon - 1
            number = torch.arange(count * self.vocab, device=self.device).view(count, self.vocab)
            child = number if self._merged is None else self._merged[t][1]
            following.append(torch.zeros_like(child) if last else child + starts[t + 1])
            prob.append(torch.full((count, self.vocab), float(not last), dtype=self.dtype, device=self.device))
            beyond = (
                self._rewards(whole) if last else torch.zeros(self.size(t + 1), dtype=self.dtype, device=self.device)
            )
            R.append(self._q(whole, t, beyond))
            stop.append(1 - prob[-1])
            closed = self._closed(whole, t)
            mask.append(torch.ones_like(child, dtype=torch.bool) if closed is None else ~closed)
        p0 = torch.zeros(starts[-1], dtype=self.dtype, device=self.device)
        p0[0] = 1
        P = Successors(torch.cat(following)[..., None].int(), torch.cat(prob)[..., None])
        return MDP(P, torch.cat(R), 1.0, stop=torch.cat(stop), p0=p0, mask=torch.cat(mask))

    def _pieces(self) -> list[Forest]:
        """The whole tree; or what is above the chunks, then each chunk."""
        if self._merged is not None or self.vocab**self.horizon <= self.chunk:
            return [Forest(0, 0, 1)]
        root = math.ceil(self.horizon - math.log(self.chunk, self.vocab) - 1e-9)
        group = self.chunk // self.vocab ** (self.horizon - root)
        count = self.vocab**root
        return [Forest(0, 0, 1), *(Forest(root, low, min(low + group, count)) for low in range(0, count, group))]

    def _range(self, span: Forest, t: int) -> tuple[int, int]:
        if self._merged is not None:
            return 0, self.size(t)
        factor = self.vocab ** (t - span.root)
        return span.low * factor, span.high * factor

    def _rewards(self, span: Forest) -> Tensor:
        """Rewards of the leaves below."""
        low, high = self._range(span, self.horizon)
        if self._leaves is not None:
            return self._leaves[low:high]
        if isinstance(self.leaf_reward, Tensor):
            if self.eos is None:
                return self.leaf_reward[low:high]
            tokens = self.prefixes(self.horizon, low, high)
            places = torch.tensor([self.vocab**i for i in range(self.horizon - 1, -1, -1)], device=self.device)
            return self.leaf_reward[(tokens * places).sum(1)]
        value = self.leaf_reward(self.prefixes(self.horizon, low, high))
        if tuple(value.shape) != (high - low,):
            raise ValueError(
                f"leaf_reward must map ({high - low}, {self.horizon}) tokens to ({high - low},) rewards, got "
                f"{tuple(value.shape)}"
            )
        value = finite("leaf_reward", value.detach().to(dtype=self.dtype, device=self.device))
        if span == (0, 0, 1):
            self._leaves = value
        return value

    def _q(self, span: Forest, t: int, following: Tensor) -> Tensor:
        """(N, V) what each next token pays and leads to."""
        Q = following.view(-1, self.vocab) if self._merged is None else following[self._merged[t][1]]
        if self.step_reward is None:
            return Q
        low, high = self._range(span, t)
        paid = self.step_reward(self.prefixes(t, low, high)).to(Q)
        if paid.shape != Q.shape:
            raise ValueError(f"step_reward must have shape {tuple(Q.shape)} after {t} tokens, got {tuple(paid.shape)}")
        finished = self._finished(span, t)
        return Q + (paid if finished is None else paid.masked_fill(finished[:, None], 0.0))

    def _finished(self, span: Forest, t: int) -> Tensor | None:
        """(N,) bool: which prefixes of layer t have ended."""
        if self.eos is None:
            return None
        low, high = self._range(span, t)
        return (self.prefixes(t, low, high) == self.eos).any(1)

    def _closed(self, span: Forest, t: int) -> Tensor | None:
        """(N, V) bool: which tokens cannot be written."""
        finished = self._finished(span, t)
        if finished is None:
            return None
        other = torch.arange(self.vocab, device=self.device) != self.eos
        return finished[:, None] & other

    def _child(self, t: int, node: int, token: int) -> int:
        return node * self.vocab + token if self._merged is None else int(self._merged[t][1][node, token])

    def _climb(self, span: Forest, values: Tensor, layer: int, reduce: Reduce) -> list[Tensor]:
        """Values of the layers span.root .. layer, given those of the last."""
        found = [values]
        for t in range(layer - 1, span.root - 1, -1):
            found.append(reduce(t, self._q(span, t, found[-1]), span))
        return found[::-1]

    def _backward(self, reduce: Reduce) -> TreeValues:
        top, *chunks = self._pieces()
        if not chunks:
            return TreeValues(self, self._climb(top, self._rewards(top), self.horizon, reduce))
        below = torch.cat([self._climb(piece, self._rewards(piece), self.horizon, reduce)[0] for piece in chunks])
        return TreeValues(self, self._climb(top, below, chunks[0].root, reduce))


Reduce = Callable[[int, Tensor, Forest], Tensor]
"""(layer, Q (N, V), which nodes) -> (N,)."""
