r"""Tic-tac-toe, solved: the value of every position by minimax, backwards from full boards, as array operations.

A position is an array (9,) of 1 for the first player's marks, -1 for the second's and 0, and is worth 1, 0 or -1 to the
first player under perfect play: the largest (his move) or smallest (the other's) worth of the positions that follow,
von Neumann (1928). There are 5,478 that play can reach; their codes are numbers to base 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LINES = ((0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6))


@dataclass(frozen=True)
class TicTacToe:
    """Every position that play can reach, in the order of marks placed, with its value.

    Args:
        boards: (5478, 9) int8 positions, the empty one first.
        values: (5478,) int8 what each is worth to the first player.
        won: (5478,) int8 1 or -1 where that player has three in a row, else 0.
        index: (19683,) int64 where the position of each code stands in ``boards``; -1 if play cannot reach it.
    """

    boards: Tensor
    values: Tensor
    won: Tensor
    index: Tensor

    def value(self, board: Tensor) -> Tensor:
        """(*batch,) values of positions (*batch, 9).

        Raises:
            ValueError: if one is no position that play can reach.
        """
        where = self.index[_codes(board)]
        if bool((where < 0).any()):
            raise ValueError("no play from the empty board reaches a position with these marks, or it ended before")
        return self.values[where]

    def best_moves(self, board: Tensor) -> Tensor:
        """(9,) which squares keep the value of one position (9,), for the player who is to move; none at the end."""
        here = int(self.value(board))
        if bool(self.won[self.index[_codes(board)]] != 0):
            return torch.zeros_like(board, dtype=torch.bool)
        free = board == 0
        after = board + _mover(board) * torch.eye(9, dtype=board.dtype, device=board.device)
        best = torch.zeros_like(free)
        best[free] = self.value(after[free]) == here
        return best


def solve_tic_tac_toe() -> TicTacToe:
    """All positions and their values, from full boards back to the empty one, which is worth 0: a draw."""
    squares = torch.eye(9, dtype=torch.int8, device="cpu")
    layers = [torch.zeros(1, 9, dtype=torch.int8, device="cpu")]
    for marks in range(9):
        running = layers[-1][_winner(layers[-1]) == 0]
        after = running[:, None] + (1 if marks % 2 == 0 else -1) * squares
        layers.append(torch.unique(after[running == 0], dim=0))
    boards = torch.cat(layers)
    index = torch.full((3**9,), -1, dtype=torch.int64, device="cpu")
    index[_codes(boards)] = torch.arange(len(boards), device="cpu")
    won = _winner(boards)
    values = won.clone()
    end = len(boards)
    for marks in range(9, -1, -1):
        begin = end - len(layers[marks])
        here, sign = boards[begin:end], 1 if marks % 2 == 0 else -1
        open_ = (won[begin:end] == 0) & (marks < 9)
        after = here[:, None] + sign * squares
        free = (here == 0) & open_[:, None]
        worth = torch.full((len(here), 9), -2, dtype=torch.int8, device="cpu")
        worth[free] = sign * values[index[_codes(after[free])]]
        values[begin:end] = torch.where(open_, sign * worth.amax(1), values[begin:end])
        end = begin
    return TicTacToe(boards, values, won, index)


def _codes(boards: Tensor) -> Tensor:
    powers = 3 ** torch.arange(9, device=boards.device)
    return ((boards.long() + 1) * powers).sum(-1)


def _mover(board: Tensor) -> int:
    return 1 if int(board.sum()) == 0 else -1


def _winner(boards: Tensor) -> Tensor:
    """(N,) 1 or -1 if that player has a line, else 0; positions of play have no two winners."""
    sums = boards[:, torch.tensor(LINES, device=boards.device)].sum(-1)
    return ((sums == 3).any(1).to(torch.int8)) - (sums == -3).any(1).to(torch.int8)
