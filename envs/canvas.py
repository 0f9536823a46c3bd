"""Drawing stroke by stroke on a small canvas: ``gymnasium.make("advrl/Canvas-v0")``.

In the manner of SPIRAL (Ganin et al., 2018): the painter sees the canvas and its own pen, and only the finished picture
is judged. The renderer is a few lines of torch, so a thousand canvases are drawn at once. Shapes: n episodes, S x S
pixels.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from advrl.checks import choice, integer
from advrl.envs.contexts import Reward
from advrl.envs.generation import Generation, State
from advrl.envs.pictures import grey
from advrl.envs.views import GenerationEnv, GenerationVectorEnv

BRUSHES = ("stroke", "pixel")


class CanvasGeneration(Generation):
    """Pictures of S x S pixels, drawn with a fixed number of strokes and paid when they are finished.

    Action: with ``brush="stroke"``, a number 0 .. 2 S^2 - 1. Below S^2 the pen moves to that pixel, row by row, without
    ink; from S^2 on it draws a straight line to pixel ``action - S^2``. With ``brush="pixel"``, 0 .. S^2 - 1: a dot on
    that pixel. A line has soft edges, and a pixel keeps the larger of its old and new ink; a dot is a line without
    length. Observation: (S^2 + 3,) in [0, 1]: the canvas, row by row, the pen's row and column, and the share of the
    strokes that is left. The pen starts in the middle. The reward sees (n, 1, S, S) in [-1, 1].

    Args:
        size: S, at least 2.
        strokes: actions in an episode.
        brush: ``stroke`` or ``pixel``.
        reward: a name, or a function of pictures (n, 1, S, S) -> (n,); see :class:`Generation`.
        dense: pay each step with the reward of the picture so far, in place of the last step alone.
        device: of all tensors.

    Raises:
        TypeError, ValueError: for sizes out of range, an unknown brush.
    """

    def __init__(
        self, size: int = 8, strokes: int = 12, brush: str = "stroke", reward: str | Reward = "nearest-digit", *,
        dense: bool = False, device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        super().__init__(reward, dense=dense, device=device)
        self.size, self.strokes = integer("size", size, 2), integer("strokes", strokes)
        self.horizon = self.strokes
        self.brush = choice("brush", brush, BRUSHES)
        self.observation_space = gym.spaces.Box(0, 1, (size**2 + 3,), np.float32)
        self.action_space = gym.spaces.Discrete(size**2 * (2 if brush == "stroke" else 1))
        line = torch.arange(size, dtype=torch.float32, device=self.device)
        self._pixels = torch.cartesian_prod(line, line)  # (S^2, 2) row and column

    def blank(self, n: int) -> State:
        """Empty canvases, the pen in the middle."""
        return {
            "canvas": torch.zeros(n, self.size**2, dtype=torch.float32, device=self.device),
            "pen": torch.full((n, 2), (self.size - 1) / 2, dtype=torch.float32, device=self.device),
        }

    def advance(self, state: State, action: Tensor) -> tuple[State, Tensor]:
        """The pen has moved, with ink or without."""
        count = self.size**2
        to = self._pixels[action % count]
        steps = state["steps"] + 1
        if self.brush == "pixel":
            ink = self.line(to, to)
        else:
            ink = self.line(state["pen"], to) * (action >= count)[:, None]
        canvas = torch.maximum(state["canvas"], ink)
        return {"canvas": canvas, "pen": to, "steps": steps}, steps >= self.strokes

    def line(self, start: Tensor, end: Tensor) -> Tensor:
        """(n, S^2) ink in [0, 1] of lines between places (n, 2): 1 on the line, 0 from a pixel off."""
        (row, column), (down, right) = start.T[..., None], (end - start).T[..., None]  # (n, 1) each: planes are quick
        y, x = self._pixels[:, 0] - row, self._pixels[:, 1] - column  # (n, S^2) from the start
        length = (down**2 + right**2).clamp(min=1e-9)
        share = ((y * down + x * right) / length).clamp(0, 1)  # of the way, at the line's nearest place
        distance = torch.hypot(y - share * down, x - share * right)
        return (1 - distance).clamp(0, 1)

    def observe(self, state: State) -> Tensor:
        """(n, S^2 + 3)."""
        left = 1 - state["steps"] / self.strokes
        return torch.cat([state["canvas"], state["pen"] / (self.size - 1), left.clamp(min=0)[:, None]], 1)

    def sample(self, state: State) -> Tensor:
        """(n, 1, S, S) in [-1, 1]."""
        return 2 * state["canvas"].view(-1, 1, self.size, self.size) - 1

    def text(self, state: State, row: int) -> str:
        """The canvas in signs, dark to light."""
        levels = (state["canvas"][row].view(self.size, self.size) * 4).round().long().tolist()
        return "\n".join("".join(" .+*#"[level] for level in line) for line in levels)

    def picture(self, state: State, row: int) -> np.ndarray:
        """The canvas in grey."""
        return grey(self.sample(state)[row, 0].cpu().numpy())


class CanvasEnv(GenerationEnv):
    """:class:`CanvasGeneration`, one picture at a time. ``advrl/Canvas-v0``. Version 0.

    Args:
        render_mode: ``ansi`` or ``rgb_array``.
        options: those of :class:`CanvasGeneration`.
    """

    dynamics: CanvasGeneration

    def __init__(self, render_mode: str | None = None, **options: Any) -> None:
        super().__init__(CanvasGeneration(**options), render_mode)


class CanvasVectorEnv(GenerationVectorEnv):
    """:class:`CanvasGeneration`, many pictures side by side.

    Args:
        num_envs: n.
        autoreset_mode, render_mode: as :class:`GenerationVectorEnv` has them.
        options: those of :class:`CanvasGeneration`.
    """

    dynamics: CanvasGeneration

    def __init__(
        self, num_envs: int = 1, *, autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        render_mode: str | None = None, **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(CanvasGeneration(**options), num_envs, autoreset_mode=autoreset_mode, render_mode=render_mode)
