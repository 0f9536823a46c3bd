"""Gridworlds drawn as text: ``gymnasium.make("advrl/GridWorld-v0", map="rooms")``."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from advrl.envs.tabular import TabularEnv, TabularVectorEnv
from advrl.tabular.problems import gridworld

MAPS = {
    "open": "S...\n....\n....\n...G",
    "pits": "S...\n.H.H\n...H\nH..G",
    "rooms": (
        "S....#.....\n.....#.....\n...........\n.....#.....\n.....#.....\n#.####.....\n.....###.##\n.....#.....\n.....#....."
        "\n...........\n.....#....G"
    ),
}
"""Maps by name; any text of the same kind will do."""

COLOURS = {".": (244, 244, 240), "S": (204, 229, 245), "G": (0, 158, 115), "H": (213, 94, 0), "#": (64, 64, 64)}
CELL = 24  # pixels


def _lines(text: str) -> list[str]:
    text = MAPS.get(text, text)
    if "\n" not in text.strip() and len(text.strip()) and set(text.strip()) - set("SGH#. _F"):
        raise ValueError(f"unknown map {text!r} (one of: {', '.join(MAPS)}; or lines of S, G, H, # and .)")
    return [line.strip() for line in text.strip().splitlines()]


class GridWorldEnv(TabularEnv):
    """A walk on a map of ``S`` starts, ``G`` goals, ``H`` pits, ``#`` walls and floor.

    Observation: the cell's number, row by row. Actions: 0 left, 1 down, 2 right, 3 up; against a wall or the edge one
    stays. With probability ``slip`` the move is at right angles to what was meant. Reward: ``step_reward`` for every
    step, and ``goal_reward`` or ``pit_reward`` beside it on entering those, which ends the episode. Registered with a
    limit of 200 steps. ``P[s][a]`` is the table of transitions, with the reward of each. Version 0.
    """

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 4}

    def __init__(
        self, map: str = "rooms", *, slip: float = 0.0, step_reward: float = 0.0, goal_reward: float = 1.0,
        pit_reward: float = 0.0, gamma: float = 0.99, render_mode: str | None = None,
    ) -> None:  # fmt: skip
        lines = _lines(map)
        mdp = gridworld("\n".join(lines), gamma, slip=slip, step_reward=step_reward, goal_reward=goal_reward,
                        pit_reward=pit_reward)  # fmt: skip
        super().__init__(mdp, render_mode)
        self.cells = np.array([list(line) for line in lines])
        flat = self.cells.ravel()
        self._entry = step_reward + goal_reward * (flat == "G") + pit_reward * (flat == "H")

    def _paid(self, before: int, action: int) -> float:
        return float(self._entry[self.state])

    @cached_property
    def P(self) -> dict[int, dict[int, list[tuple[float, int, float, bool]]]]:
        """Gymnasium's table ``P[s][a] = [(p, s', r, done), ...]``, with the reward of each transition."""

        def paid(before: int, to: int) -> float:
            return 0.0 if self._over[before] else float(self._entry[to])

        return {
            s: {a: [(p, to, paid(s, to), done) for p, to, _, done in rows] for a, rows in actions.items()}
            for s, actions in super().P.items()
        }

    def render(self) -> Any:
        """The map with ``@`` where one is, as text; or as a picture (H, W, 3) uint8."""
        r, c = divmod(self.state, self.cells.shape[1])
        if self.render_mode == "ansi":
            drawn = self.cells.copy()
            drawn[r, c] = "@"
            return "\n".join("".join(row) for row in drawn)
        if self.render_mode != "rgb_array":
            return None
        colours = np.array([[COLOURS.get(cell, COLOURS["."]) for cell in row] for row in self.cells], dtype=np.uint8)
        picture = colours.repeat(CELL, 0).repeat(CELL, 1)
        picture[::CELL], picture[:, ::CELL] = 255, 255  # lines between cells
        y, x = np.mgrid[:CELL, :CELL] - (CELL - 1) / 2
        disc = np.hypot(y, x) < 0.32 * CELL
        picture[r * CELL : (r + 1) * CELL, c * CELL : (c + 1) * CELL][disc] = (0, 114, 178)
        return picture


class GridWorldVectorEnv(TabularVectorEnv):
    """Many walks on one map side by side: :class:`GridWorldEnv`, with the reward of the cell that is entered."""

    def __init__(
        self, num_envs: int = 1, map: str = "rooms", *, max_episode_steps: int | None = 200, slip: float = 0.0,
        step_reward: float = 0.0, goal_reward: float = 1.0, pit_reward: float = 0.0, gamma: float = 0.99,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
    ) -> None:  # fmt: skip
        import torch

        single = GridWorldEnv(map, slip=slip, step_reward=step_reward, goal_reward=goal_reward, pit_reward=pit_reward,
                              gamma=gamma)  # fmt: skip
        super().__init__(single.mdp, num_envs, max_episode_steps, autoreset_mode=autoreset_mode)
        self._entry = torch.as_tensor(single._entry, dtype=single.mdp.dtype, device=single.mdp.device)

    def _advance(self, actions: Any) -> Any:
        following, _, ended = super()._advance(actions)
        return following, self._entry[following], ended
