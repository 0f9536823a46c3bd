"""Beam search: likely sequences of a policy, by keeping the best few prefixes at every step."""

from __future__ import annotations

import torch
from torch import Tensor

from advrl.checks import integer
from advrl.distributions.sequence import SequencePolicy


@torch.no_grad()
def beam_search(
    policy: SequencePolicy, width: int = 8, n: int = 1, context: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The likeliest sequences that a beam finds, and their log-probabilities, best first.

    ``width`` 1 is greedy; with as many as there are prefixes it is exact. The likeliest sequences are no samples: their
    likelihood under an oracle says nothing of the policy. Lengths are not normalised.

    Args:
        policy: what writes.
        width: W prefixes kept at every step.
        n: searches at a time, which differ by their context.
        context: (n, C), for a policy that is conditioned.

    Returns:
        ids (n, W, T) and log p(x) (n, W), which is minus infinity where there are fewer than W sequences.

    Raises:
        ValueError, TypeError: for numbers below 1, or a context that does not fit.
    """
    integer("width", width)
    integer("n", n)
    outcomes, end = policy.vocab_size + policy.eos, policy.vocab_size
    shared = None if context is None else context.repeat_interleave(width, 0)
    state, tokens, written = policy.start(n * width, shared), None, None
    for _ in range(policy.length):
        logits, state = policy.step(tokens, state)
        step = logits.log_softmax(-1)
        if tokens is None or written is None:
            total = torch.full((n, width), -torch.inf, dtype=step.dtype, device=step.device)
            total[:, 0] = 0.0  # all prefixes are the empty one
            written = torch.zeros(n * width, 0, dtype=torch.int64, device=step.device)
        elif policy.eos:  # what has ended goes on in one way, by padding
            ended = (tokens >= end).unsqueeze(-1)
            stay = torch.full_like(step, -torch.inf)
            stay[:, 0] = 0.0
            step = torch.where(ended, stay, step)
        total, best = (total.unsqueeze(-1) + step.unflatten(0, (n, width))).flatten(1).topk(width, -1)
        rows = (best // outcomes + width * torch.arange(n, device=best.device)[:, None]).flatten()
        chosen = best.flatten() % outcomes
        if tokens is not None and policy.eos:
            chosen = torch.where(tokens[rows] >= end, torch.full_like(chosen, end + 1), chosen)
        state = tuple(part[rows] for part in state)
        tokens, written = chosen, torch.cat([written[rows], chosen.unsqueeze(-1)], -1)
    assert written is not None
    return written.unflatten(0, (n, width)), total
