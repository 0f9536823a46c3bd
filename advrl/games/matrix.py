r"""Finite two-player games: who plays what when neither gains by moving alone, by linear programming.

Rows are the actions of player x, columns those of y. In a zero-sum game one matrix A (n, m) holds what x pays to y, so
x minimises x^T A y over the simplex and y maximises it, and von Neumann's (1928) value v is

    v = min_x max_j (A^T x)_j = max_y min_i (A y)_i.

How far a pair of mixed strategies is from equilibrium is what the players could gain by moving alone,
max_j (A^T x)_j - min_i (A y)_i >= 0. Shapes: n rows, m columns, any batch dimensions before them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from advrl.checks import finite, integer


def matching_pennies(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Tensor:
    """(2, 2) x pays 1 if the coins agree and gets 1 if they differ: value 0 at 1/2, 1/2."""
    return torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=dtype, device=device)


def rock_paper_scissors(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Tensor:
    """(3, 3) x pays 1 if y's throw beats its own: value 0 at 1/3, 1/3, 1/3."""
    rows = [[0.0, 1.0, -1.0], [-1.0, 0.0, 1.0], [1.0, -1.0, 0.0]]
    return torch.tensor(rows, dtype=dtype, device=device)


def random_game(rows: int, columns: int, batch: tuple[int, ...] = (), *, device: torch.device | str = "cpu") -> Tensor:
    """(*batch, rows, columns) independent standard normal payments, from the global generator."""
    return torch.randn(*batch, integer("rows", rows), integer("columns", columns), device=device)


def equilibrium(cost: Tensor) -> tuple[Tensor, Tensor, float]:
    """A pair of optimal mixed strategies of a zero-sum game, and its value.

    One linear program, min v with A^T x <= v on the simplex; y is its dual solution. Dantzig (1951).

    Args:
        cost: (n, m) what x pays to y.

    Returns:
        x (n,), y (m,) and v = x^T A y. Where there are several equilibria, one of them.

    Raises:
        ValueError, TypeError: if the game is not a finite matrix of floating-point numbers.
    """
    from scipy.optimize import linprog

    _matrix("cost", cost)
    finite("cost", cost)
    if cost.dim() != 2:
        raise ValueError(f"equilibrium solves one game (n, m) at a time, got {tuple(cost.shape)}")
    a = cost.detach().to("cpu", torch.float64).numpy()
    n, m = a.shape
    shift = a.min()  # the program's value is then of known sign and size
    a = (a - shift) / max(a.max() - shift, 1e-300)
    objective = [0.0] * n + [1.0]
    upper = np.hstack([a.T, -np.ones((m, 1))])
    found = linprog(
        objective, upper, [0.0] * m, [[1.0] * n + [0.0]], [1.0], bounds=[(0, None)] * n + [(None, None)], method="highs"
    )
    if found.status != 0:
        raise RuntimeError(f"the linear program of the game was not solved: {found.message}")
    x, y = (_simplex(torch.as_tensor(s, device="cpu").to(cost)) for s in (found.x[:n], -found.ineqlin.marginals))
    return x, y, float(x @ cost.detach() @ y)


def duality_gap(cost: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """(*batch,) max_j (A^T x)_j - min_i (A y)_i: 0 at equilibria alone; the sum of what both could gain.

    Args:
        cost: (*batch, n, m) what x pays to y.
        x: (*batch, n) mixed strategies.
        y: (*batch, m) the same of the other player.
    """
    _matrix("cost", cost)
    _strategies(cost, x, y)
    return _reply_y(cost, x).amax(-1) - _reply_x(cost, y).amin(-1)


def nash_gap(cost_x: Tensor, cost_y: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """(*batch,) what both players together could save by moving alone, each paying a matrix of its own.

    x^T A y - min_i (A y)_i + x^T B y - min_j (B^T x)_j; with B = -A it is the duality gap.

    Args:
        cost_x: (*batch, n, m) A, what x pays.
        cost_y: (*batch, n, m) B, what y pays.
        x: (*batch, n) mixed strategies.
        y: (*batch, m) the same of the other player.
    """
    _matrix("cost_x", cost_x)
    _matrix("cost_y", cost_y)
    _strategies(cost_x, x, y)
    _strategies(cost_y, x, y)
    own, other = _reply_x(cost_x, y), _reply_y(cost_y, x)
    return (x * own).sum(-1) - own.amin(-1) + (y * other).sum(-1) - other.amin(-1)


def exploitability(cost: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """(*batch,) half the duality gap: what the better of each player's opponents wins above the value, on average."""
    return duality_gap(cost, x, y) / 2


def _reply_x(cost: Tensor, y: Tensor) -> Tensor:
    """(*batch, n) the expected payment of every action of x."""
    return (cost @ y[..., None])[..., 0]


def _reply_y(cost: Tensor, x: Tensor) -> Tensor:
    """(*batch, m) the same for every action of y."""
    return (x[..., None, :] @ cost)[..., 0, :]


def _matrix(name: str, cost: Tensor) -> None:
    if not isinstance(cost, Tensor) or not cost.is_floating_point():
        kind = cost.dtype if isinstance(cost, Tensor) else type(cost).__name__
        raise TypeError(
            f"{name} must be a tensor of floating-point payments, got {kind}: torch.as_tensor(..., "
            "dtype=torch.float64) makes one"
        )
    if cost.dim() < 2 or not cost.numel():
        raise ValueError(f"{name} must be (*batch, n, m) payments, got {tuple(cost.shape)}")


def _strategies(cost: Tensor, x: Tensor, y: Tensor) -> None:
    if x.shape[-1:] != cost.shape[-2:-1] or y.shape[-1:] != cost.shape[-1:]:
        raise ValueError(
            f"strategies must have as many entries as the game {tuple(cost.shape)} has rows and columns, "
            f"got {tuple(x.shape)} and {tuple(y.shape)}"
        )


def _simplex(weights: Tensor) -> Tensor:
    weights = weights.clamp(min=0)
    return weights / weights.sum()
