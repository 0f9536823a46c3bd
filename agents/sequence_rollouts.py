r"""What a step of a sequence is worth, by writing the rest of it many times: Yu et al. (2017), eq. 4.

    Q(x_1 ... x_t) = 1/R sum_r D(x_1 ... x_t, x^r_{t+1} ... x^r_T),    x^r ~ p(. | x_1 ... x_t),    Q(x) = D(x) at t = T

All rollouts of all prefixes that are alive at a step are one batch, and each begins from the state that its prefix
left: no prefix is read twice, and what has ended is neither stepped nor rolled out.
Shapes: n sequences, T steps, R rollouts.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from advrl.checks import integer
from advrl.distributions.sequence import SequencePolicy, State, draw_step


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
        ValueError, TypeError: for a number below 1, ids of another length or out of range, scores of another shape.
    """
    integer("rollouts", rollouts)
    integer("rows", rows)
    if x.dim() != 2 or x.shape[1] != policy.length:
        raise ValueError(f"sequences must be (n, {policy.length}) ids, got shape {tuple(x.shape)}")
    n, length = x.shape
    end = policy.vocab_size if policy.eos else None
    ids = policy.vocab_size + 2 * policy.eos  # the end and the padding behind it among them
    if bool(((x < 0) | (x >= ids)).any()):
        raise ValueError(f"ids must lie in [0, {ids}), got {int(x.min())} to {int(x.max())}")
    text, last = x.clone(), None  # x itself in front, the rollouts behind it
    state: State = policy.start(n, context)
    alive, reading = torch.arange(n, device=x.device), n  # rows that have not ended; how many of them are x's own
    prefixes = []
    for t in range(length - 1):
        drawn, state = draw_step(policy, last, state, rows=rows)
        text[alive[reading:], t] = drawn[reading:]
        last = text[alive, t]
        if end is not None:
            goes_on = last < end
            reading = int(goes_on[:reading].sum())
            alive, last, state = alive[goes_on], last[goes_on], tuple(part[goes_on] for part in state)
        prefixes.append(alive[:reading])
        begun = text[alive[:reading]].repeat(rollouts, 1)
        begun[:, t + 1 :] = policy.vocab_size + 1  # padding where a rollout ends; the rest is written over
        alive = torch.cat([alive, torch.arange(len(text), len(text) + len(begun), device=x.device)])
        text = torch.cat([text, begun])
        last = torch.cat([last, *[last[:reading]] * rollouts])
        state = tuple(torch.cat([part, *[part[:reading]] * rollouts]) for part in state)
        if not len(alive):
            break
    else:
        text[alive[reading:], -1] = draw_step(policy, last, state, rows=rows)[0][reading:]
    scores = torch.cat([score(part) for part in text.split(rows)])
    if scores.shape != (len(text),):
        raise ValueError(f"score must map (m, T) ids to (m,), got shape {tuple(scores.shape)} of {len(text)} rows")
    values = scores[:n, None].repeat(1, length)  # of a prefix that has ended, and of the last step
    finished = scores[n:].split([rollouts * len(rows_) for rows_ in prefixes])
    for t, (rows_, part) in enumerate(zip(prefixes, finished, strict=True)):
        values[rows_, t] = part.reshape(rollouts, len(rows_)).mean(0)
    return values if end is None else torch.where(x <= end, values, torch.zeros_like(values))
