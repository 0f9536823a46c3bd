r"""What a step of a sequence is worth, by writing the rest of it many times: Yu et al. (2017), eq. 4.

    Q(x_1 ... x_t) = 1/R sum_r D(x_1 ... x_t, x^r_{t+1} ... x^r_T),    x^r ~ p(. | x_1 ... x_t),    Q(x) = D(x) at t = T

All rollouts of all prefixes that are alive at a step are one batch, and each begins from the state that its prefix
left: no prefix is read twice. Shapes: n sequences, T steps, R rollouts.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from advrl.checks import integer
from advrl.distributions import SequencePolicy, sample_categorical


@torch.no_grad()
def rollout_values(
    policy: SequencePolicy,
    x: Tensor,
    score: Callable[[Tensor], Tensor],
    rollouts: int = 16,
    *,
    context: Tensor | None = None,
    rows: int = 4096,
) -> Tensor:
    """Q of every prefix, (n, T): the mean score of its completions by the policy; 0 on the padding.

    Unbiased for the expected score, step by step, so that ``Score(..., advantage=lambda cost, x: -Q)`` with per-step
    costs is SeqGAN's gradient. A prefix that has ended is scored as it is.

    Args:
        policy: who writes the rest; SeqGAN's is a copy that lags behind.
        x: (n, T) ids.
        score: maps ids (m, T) to (m,), high is good; its dropout is its own affair, so call ``eval()`` before.
        rollouts: R.
        context: (n, C) what the sequences are conditioned on.
        rows: most rows that are stepped or scored at a time, for memory.

    Raises:
        ValueError, TypeError: for a number below 1, or ids of another length.
    """
    integer("rollouts", rollouts)
    integer("rows", rows)
    if x.dim() != 2 or x.shape[1] != policy.length:
        raise ValueError(f"sequences must be (n, {policy.length}) ids, got shape {tuple(x.shape)}")
    n, length = x.shape
    state, last = policy.start(n, context), None
    written = x[:0]
    for t in range(length):
        logits_of = len(written)  # the rollouts stand in front, the sequences themselves behind
        tokens, parts = [], []
        for begin in range(0, logits_of + n, rows):
            chunk = slice(begin, begin + rows)
            logits, after = policy.step(None if last is None else last[chunk], tuple(part[chunk] for part in state))
            tokens.append(sample_categorical(logits))
            parts.append(after)
        state = tuple(torch.cat(part) for part in zip(*parts, strict=True))
        drawn = torch.cat(tokens)[:logits_of]
        if policy.eos and t:
            drawn = torch.where(written[:, t - 1] < policy.vocab_size, drawn, policy.vocab_size + 1)
        written[:, t] = drawn
        if t == length - 1:
            break
        fork = torch.cat([torch.arange(logits_of, device=x.device), _copies(n, rollouts, x) + logits_of])
        fork = torch.cat([fork, torch.arange(n, device=x.device) + logits_of])
        state = tuple(part[fork] for part in state)
        written = torch.cat([written, x.repeat(rollouts, 1)])  # what stands behind t is written over
        last = torch.cat([written[:, t], x[:, t]])
    finished = torch.cat([written, x])
    scores = torch.cat([score(part) for part in finished.split(rows)])
    if scores.shape != (len(finished),):
        raise ValueError(f"score must map (m, T) ids to (m,), got shape {tuple(scores.shape)} of {len(finished)} rows")
    mean = scores[: len(written)].reshape(length - 1, rollouts, n).mean(1)
    values = torch.cat([mean, scores[None, len(written) :]]).T
    if policy.eos:
        values = torch.where(x <= policy.vocab_size, values, torch.zeros_like(values))
    return values


def _copies(n: int, times: int, like: Tensor) -> Tensor:
    return torch.arange(n, device=like.device).repeat(times)
