r"""Learning to play a finite zero-sum game: fictitious play, Hedge and regret matching, many games at once.

The strategies themselves go round and round; their averages over time converge, and what they could still gain, the
duality gap, is at most the sum of both players' regrets divided by t:

    fictitious play    best reply to the other's past actions: gap -> 0, Robinson (1951); here near 1 / sqrt(t)
    Hedge              x ~ exp(-eta sum_s A y_s): regret <= range (log n / eta + eta t / 8), Freund & Schapire (1999)
    regret matching    x ~ positive part of the regrets: regret <= range sqrt(n t), Hart & Mas-Colell (2000)

Fictitious play is what a GAN with a pool of past samples and past discriminators does by sampling. Shapes: T times at
which averages are kept, n rows, m columns, any batch dimensions before those.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from advrl.checks import integer, number
from advrl.games.matrix import _matrix, _reply_x, _reply_y, _strategies, duality_gap

Strategies = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Play:
    """Averages of what both players did up to each of some times.

    Args:
        times: the T numbers of steps.
        x: (T, *batch, n) average strategies.
        y: (T, *batch, m) the same of the other player.
        gap: (T, *batch) their duality gaps.
    """

    times: tuple[int, ...]
    x: Tensor
    y: Tensor
    gap: Tensor


def fictitious_play(cost: Tensor, times: Sequence[int]) -> Play:
    """Both answer at once, each with the best reply to the other's actions so far; of equal ones, the first.

    Brown (1951). Pure actions, so averages are frequencies.

    Args:
        cost: (*batch, n, m) what x pays to y.
        times: numbers of steps at which averages are kept, increasing.
    """
    _matrix("cost", cost)
    n, m = cost.shape[-2:]
    rows, columns = cost.reshape(-1, n, m), cost.reshape(-1, n, m).mT
    index = torch.arange(len(rows), device=cost.device)
    owed, won = (torch.zeros(len(rows), k, dtype=cost.dtype, device=cost.device) for k in (n, m))
    counts = [torch.zeros_like(owed), torch.zeros_like(won)]
    one = torch.ones(len(rows), 1, dtype=cost.dtype, device=cost.device)

    def step() -> None:
        i, j = owed.argmin(-1), won.argmax(-1)
        counts[0].scatter_add_(1, i[:, None], one)
        counts[1].scatter_add_(1, j[:, None], one)
        owed.add_(columns[index, j])
        won.add_(rows[index, i])

    with torch.no_grad():
        return _play(cost, times, counts, step)


def hedge(cost: Tensor, times: Sequence[int], eta: float | None = None, start: Strategies | None = None) -> Play:
    """Both follow the exponential weights of what each action would have cost.

    Args:
        cost: (*batch, n, m) what x pays to y.
        times: numbers of steps at which averages are kept, increasing.
        eta: the rate, per unit of payment; sqrt(8 log max(n, m) / T) over the range of payments if ``None``, T the last
            time: near the best for both bounds.
        start: (*batch, n) and (*batch, m) positive strategies to start from; uniform if ``None``.
    """
    x, y = _begin(cost, start)
    spread = cost.amax((-2, -1)) - cost.amin((-2, -1))
    if eta is None:
        last = max(integer("a time", times[-1]), 1) if len(times) else 1
        best = math.sqrt(8 * math.log(max(*cost.shape[-2:], 2)) / last)
        rate = (best / spread.clamp(min=torch.finfo(cost.dtype).tiny))[..., None]
    else:
        rate = torch.full_like(spread, number("eta", eta, 0, exclusive=True))[..., None]
    logits, totals = [x.log(), y.log()], [torch.zeros_like(x), torch.zeros_like(y)]

    def step() -> None:
        x, y = logits[0].softmax(-1), logits[1].softmax(-1)
        totals[0] += x
        totals[1] += y
        logits[0] -= rate * _reply_x(cost, y)
        logits[1] += rate * _reply_y(cost, x)

    with torch.no_grad():
        return _play(cost, times, totals, step)


def regret_matching(cost: Tensor, times: Sequence[int], plus: bool = False, start: Strategies | None = None) -> Play:
    """Both play each action in proportion to how much they regret not having played it; the start if they regret none.

    Args:
        cost: (*batch, n, m) what x pays to y.
        times: numbers of steps at which averages are kept, increasing.
        plus: forget negative regrets at once, which is quicker in practice: Tammelin (2014).
        start: (*batch, n) and (*batch, m) strategies to start from; uniform if ``None``.
    """
    first = _begin(cost, start)
    regrets, totals = ([torch.zeros_like(s) for s in first] for _ in range(2))

    def strategy(player: int) -> Tensor:
        wanted = regrets[player].clamp(min=0)
        total = wanted.sum(-1, keepdim=True)
        return torch.where(total > 0, wanted / total, first[player])

    def step() -> None:
        x, y = strategy(0), strategy(1)
        owed, won = _reply_x(cost, y), _reply_y(cost, x)
        totals[0] += x
        totals[1] += y
        regrets[0] += (x * owed).sum(-1, keepdim=True) - owed
        regrets[1] += won - (y * won).sum(-1, keepdim=True)
        if plus:
            regrets[0].clamp_(min=0)
            regrets[1].clamp_(min=0)

    with torch.no_grad():
        return _play(cost, times, totals, step)


def _begin(cost: Tensor, start: Strategies | None) -> Strategies:
    _matrix("cost", cost)
    *batch, n, m = cost.shape
    if start is None:
        x, y = cost.new_full((*batch, n), 1 / n), cost.new_full((*batch, m), 1 / m)
    else:
        _strategies(cost, *start)
        for side, given in zip("xy", start, strict=True):
            if bool((given < 0).any()) or not torch.allclose(given.sum(-1), given.new_ones(()), atol=1e-4):
                raise ValueError(
                    f"start must be strategies, each at least 0 and adding up to 1; that of {side} is none"
                )
        x, y = start[0].expand(*batch, n), start[1].expand(*batch, m)
    return x, y


def _play(cost: Tensor, times: Sequence[int], totals: list[Tensor], step: Callable[[], None]) -> Play:
    """Take steps, which add to the totals, and keep the averages at the given times."""
    if not times or list(times) != sorted(set(times)):
        raise ValueError(f"times must be increasing numbers of steps, got {list(times)}")
    kept: list[list[Tensor]] = [[], []]
    done = 0
    for time in times:
        for _ in range(integer("a time", time) - done):
            step()
        done = time
        for player, count in enumerate(cost.shape[-2:]):
            kept[player].append((totals[player] / time).reshape(*cost.shape[:-2], count))
    x, y = torch.stack(kept[0]), torch.stack(kept[1])
    return Play(tuple(times), x, y, duality_gap(cost, x, y))
