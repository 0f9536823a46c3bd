r"""Language models as judges of text: one of real text is asked of samples, and one of samples is asked of real text.

    LM score          -E_{x ~ G} log p_real(x)     nats per token; low when samples are likely: quality
    reverse LM score  -E_{x ~ real} log p_G(x)     low when nothing real is missing from samples: diversity

where p_real is trained on real text, and p_G on samples (Zhao et al., 2018; Caccia et al., 2020). Both depend on the
model, so that rows compare only under one architecture and one number of sentences. The first alone, like NLL_oracle,
rewards repetition.

The models are ``LSTMPolicy``. A tenth of the sentences is held out; training ends once a round does not help to predict
it, and the weights before are kept. Shapes: N sequences of T ids; V an end, V + 1 padding behind it.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from advrl.checks import integer
from advrl.metrics import Estimate, step_nll
from advrl.nn import LSTMPolicy
from advrl.seeding import isolated

WIDTH, DROPOUT = 64, 0.2
LEARNING_RATE, BATCH = 1e-2, 32
ROUNDS = 30
HELD_OUT = 0.1


@dataclass(frozen=True)
class LanguageModel:
    """A trained judge.

    Args:
        policy: whose ``log_probs`` are asked.
        sentences: how many it learned from, the held-out ones among them.
        rounds: through the data, until the weights that were kept.
        held_out: nats per token of the held-out tenth.
    """

    policy: LSTMPolicy
    sentences: int
    rounds: int
    held_out: float

    @torch.no_grad()
    def score(self, x: Tensor) -> Estimate:
        """Nats per token of sequences (N, T), their ends counted, with a 95 % interval."""
        there = x < self.policy.outcomes
        steps = torch.zeros(x.shape, dtype=self.policy.out.weight.dtype, device=x.device)
        steps[there] = torch.cat([-_losses(self.policy, part) for part in x.split(256)])
        return step_nll(steps, there)

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """(N, H) mean of the hidden states of each sequence: the encoder of a Fréchet distance between texts."""
        found = []
        for part in x.split(256):
            mask = (part < self.policy.outcomes).unsqueeze(-1)
            hidden = _hidden(self.policy, part)
            found.append((hidden * mask).sum(1) / mask.sum(1))
        return torch.cat(found)


def train_language_model(
    x: Tensor, vocab: int, *, eos: bool = True, seed: int = 0, rounds: int = ROUNDS
) -> LanguageModel:
    """A language model of sequences, by maximum likelihood with early stopping; no generator is disturbed.

    Args:
        x: (N, T) ids, at least 10 sequences; it learns where they are.
        vocab: number of tokens.
        eos: whether sequences may end, with id ``vocab``.
        seed: of its weights, its held-out tenth and its batches.
        rounds: the most that it goes through the data.

    Raises:
        ValueError, TypeError: if there are too few sequences, or they are no (N, T) ids.
    """
    if x.ndim != 2 or x.is_floating_point() or len(x) < 10:
        raise ValueError(f"a language model needs (N, T) ids of at least 10 sequences, got {tuple(x.shape)} {x.dtype}")
    integer("rounds", rounds)
    with isolated(seed):
        policy = LSTMPolicy(vocab, x.shape[1], WIDTH, eos=eos, dropout=DROPOUT).to(x.device)
        x = x[torch.randperm(len(x), device="cpu").to(x.device)]
        cut = max(1, int(HELD_OUT * len(x)))
        held_out, train = x[:cut], x[cut:]
        optimiser = torch.optim.Adam(policy.parameters(), lr=LEARNING_RATE, fused=x.device.type in ("cpu", "cuda"))
        best, kept, at = math.inf, policy, 0
        for number in range(1, rounds + 1):
            policy.train()
            for rows in torch.randperm(len(train), device="cpu").to(x.device).split(BATCH):
                optimiser.zero_grad()
                _losses(policy, train[rows]).mean().backward()
                clip_grad_norm_(policy.parameters(), 5.0)
                optimiser.step()
            policy.eval()
            with torch.no_grad():
                now = float(_losses(policy, held_out).mean())
            if now < best:
                best, kept, at = now, copy.deepcopy(policy), number
            else:
                break
    return LanguageModel(kept.eval().requires_grad_(False), len(x), at, best)


def _losses(policy: LSTMPolicy, x: Tensor) -> Tensor:
    """-log p of every token there is, row by row."""
    return -policy.log_probs(x)[x < policy.outcomes]


def _hidden(policy: LSTMPolicy, x: Tensor) -> Tensor:
    """(N, T, H) before each token."""
    return policy.hidden_of(policy.before(x), None)
