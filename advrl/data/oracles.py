r"""Known laws of sequences to learn from: what a generator writes has an exact probability under them.

The LSTM oracle of Yu et al. (2017): all weights N(0, 1), h = c = 0, the first input the embedding of token 0, softmax
of a linear layer, no end. A hidden Markov model: log p(x) = log sum over its paths, by the forward algorithm of Baum.
Shapes: n sequences, T steps, V tokens, S hidden states.
"""

from __future__ import annotations

import pathlib
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from advrl.checks import integer, number
from advrl.distributions.categorical import sample_categorical
from advrl.distributions.sequence import Sequence
from advrl.metrics.likelihood import nll
from advrl.nn.sequences import LSTMPolicy
from advrl.seeding import isolated


class Oracle(ABC):
    """``sample(n)`` draws ids (n, T), ``log_prob(x)`` gives their exact log-probabilities (n,)."""

    vocab_size: int
    length: int
    eos: bool = False

    @abstractmethod
    def sample(self, n: int) -> Tensor:
        """Ids (n, T)."""

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x), (n,), of ids (n, T)."""

    def nll(self, x: Tensor) -> tuple[float, float]:
        """-log p(x) in nats per token, its end counted, over ids (n, T), and the standard error.

        Raises:
            ValueError: for fewer than two sequences, which have no spread.
        """
        found = nll(self.log_prob(x), self.counts(x))
        return found.value, found.error

    def counts(self, x: Tensor) -> Tensor:
        """(n,) how many tokens each sequence has, its end among them."""
        return (x <= self.vocab_size - (not self.eos)).sum(-1)

    def check(self, x: Tensor) -> None:
        """Raise a ``ValueError`` if x is not (n, T) integers of ids, an end and padding among them if there are any."""
        most = self.vocab_size + 1 if self.eos else self.vocab_size - 1
        if x.dim() != 2 or x.shape[1] != self.length or x.is_floating_point():
            raise ValueError(f"sequences must be (n, {self.length}) ids, got shape {tuple(x.shape)} of {x.dtype}")
        if x.numel() and not 0 <= int(x.min()) <= int(x.max()) <= most:
            raise ValueError(f"ids must lie in [0, {most}], got {int(x.min())} to {int(x.max())}")


class LSTMOracle(Oracle):
    """The synthetic task of Yu et al. (2017), section 5.1, with weights of a seed, or the published ones.

    Args:
        vocab_size, length, hidden: V, T, and the units of the cell and of the embedding.
        seed: of the weights, which are N(0, std^2).
        std: of the weights.
        temperature: of its softmax; other than 1 it is the same model, sampled wrongly.
    """

    def __init__(
        self,
        vocab_size: int = 5000,
        length: int = 20,
        hidden: int = 32,
        *,
        seed: int = 0,
        std: float = 1.0,
        temperature: float = 1.0,
    ) -> None:
        self.temperature = number("temperature", temperature, 0.0, exclusive=True)
        number("std", std, 0.0, exclusive=True)
        self.vocab_size, self.length = integer("vocab_size", vocab_size), integer("length", length)
        with isolated(integer("seed", seed, 0)):
            self.policy = LSTMPolicy(vocab_size, length, hidden, start_token=0).requires_grad_(False)
            for weight in self.policy.parameters():
                weight.normal_(0.0, std)
            dict(self.policy.named_parameters())["rnn.bias_hh_l0"].zero_()  # one bias a gate, as published

    @classmethod
    def from_npz(cls, path: str | pathlib.Path, length: int = 20, *, temperature: float = 1.0) -> LSTMOracle:
        """The oracle whose arrays ``emb``, ``W_k``, ``U_k``, ``b_k`` (k = i, f, o, c), ``W_out``, ``b_out`` are stored.

        Raises:
            ValueError: if arrays are missing or do not fit together.
        """
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: torch.from_numpy(stored[name]) for name in stored.files}
        names = ["emb", "W_out", "b_out", *(f"{part}_{gate}" for part in "WUb" for gate in "ifoc")]
        missing = [name for name in names if name not in arrays]
        if missing:
            raise ValueError(f"{path} lacks the arrays {', '.join(missing)}: it is no oracle")
        vocab, hidden = arrays["emb"].shape
        oracle = cls(vocab, length, hidden, temperature=temperature)
        weights = dict(oracle.policy.named_parameters())
        stack = {part: torch.cat([arrays[f"{part}_{gate}"] for gate in "ifco"], -1) for part in "WUb"}  # torch's order
        pairs = [
            (weights["embedding.weight"][:vocab], arrays["emb"]),
            (weights["rnn.weight_ih_l0"], stack["W"].T),
            (weights["rnn.weight_hh_l0"], stack["U"].T),
            (weights["rnn.bias_ih_l0"], stack["b"]),
            (weights["out.weight"], arrays["W_out"].T),
            (weights["out.bias"], arrays["b_out"]),
        ]
        for mine, theirs in pairs:
            if mine.shape != theirs.shape:
                raise ValueError(f"{path} holds an array of shape {tuple(theirs.shape)}, expected {tuple(mine.shape)}")
            mine.copy_(theirs)
        return oracle

    @property
    def law(self) -> Sequence:
        """The oracle as a distribution."""
        return self.policy.distribution(temperature=self.temperature)

    def sample(self, n: int) -> Tensor:
        return self.law.sample((n,))

    @torch.no_grad()
    def log_prob(self, x: Tensor) -> Tensor:
        return torch.cat([self.law.log_prob(part) for part in x.split(256)])  # (n, T, V) logits are large


class HMMOracle(Oracle):
    """A hidden Markov model with random tables, softmax of N(0, scale^2) logits.

    Args:
        vocab_size, length, states: V, T, S.
        seed: of the tables.
        scale: 0 for uniform tables; the larger, the closer to deterministic.
    """

    def __init__(
        self, vocab_size: int = 50, length: int = 20, states: int = 8, *, seed: int = 0, scale: float = 2.0
    ) -> None:
        number("scale", scale, 0.0)
        self.vocab_size, self.length = integer("vocab_size", vocab_size), integer("length", length)
        integer("states", states)
        with isolated(integer("seed", seed, 0)):
            shapes = (states,), (states, states), (states, vocab_size)
            tables = [torch.randn(*shape, dtype=torch.float64, device="cpu") * scale for shape in shapes]
        self.initial, self.transition, self.emission = (table.log_softmax(-1) for table in tables)

    def sample(self, n: int) -> Tensor:
        state = sample_categorical(self.initial.expand(n, -1))
        tokens = []
        for _ in range(self.length):
            tokens.append(sample_categorical(self.emission[state]))
            state = sample_categorical(self.transition[state])
        return torch.stack(tokens, -1)

    def log_prob(self, x: Tensor) -> Tensor:
        self.check(x)
        forward = self.initial + self.emission.T[x[:, 0]]
        for t in range(1, self.length):
            forward = (forward.unsqueeze(-1) + self.transition).logsumexp(1) + self.emission.T[x[:, t]]
        return forward.logsumexp(-1)
