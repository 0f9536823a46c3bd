"""What every trainer keeps of itself: the state of its parts, by name, and its step count."""

from __future__ import annotations

from typing import Any


class Parts:
    """A trainer whose state is that of its parts: networks, optimisers and whatever else has a ``state_dict``."""

    steps: int

    def _parts(self) -> dict[str, Any]:
        """The parts by the names that they have in a checkpoint."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """The state of every part, and the step count."""
        return {"steps": self.steps} | {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state_dict` returned.

        Raises:
            ValueError: if it has other parts than this trainer.
        """
        parts = self._parts()
        if state.keys() - {"steps"} != parts.keys():
            raise ValueError(f"the state has parts {sorted(state.keys() - {'steps'})}, this trainer {sorted(parts)}")
        for name, part in parts.items():
            part.load_state_dict(state[name])
        self.steps = int(state["steps"])
