"""A run on its way: what is checked, logged and saved at a step, by which rank, and how all of it is found again.

A checkpoint is one file: the trainer's state, which is the same on all ranks, and beside it what every rank has of its
own. Rank 0 writes it, while the others wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from advrl.agents.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from advrl.agents.logs import MetricsLog
from advrl.agents.meter import DivergedError, Meter
from advrl.data import Stream
from advrl.distributed import RankError, everyones, first, gathered, rank, rank_seed, world_size
from advrl.seeding import isolated, rng_state, seed_everything, set_rng_state


class Trainer(Protocol):
    """What :func:`fit` needs of a trainer."""

    steps: int

    @property
    def device(self) -> torch.device: ...

    @property
    def batches_per_step(self) -> int: ...

    def step(self, batch: Tensor) -> dict[str, Tensor]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Every:
    """Call ``call(step)`` every ``steps`` steps and after the last one; the numbers it returns are logged.

    It runs with random generators of its own and cannot change the run.
    """

    steps: int
    call: Callable[[int], Mapping[str, float] | None]


class WriteError(OSError):
    """The run's folder can no longer be written; names the last checkpoint that is whole."""


class Run:
    """What a checkpoint holds beside the trainer, and where it goes. Its folder is rank 0's to write."""

    def __init__(self, trainer: Trainer, stream: Iterator[Any], folder: Path | None, monitor: str | None) -> None:
        self.trainer, self.stream, self.folder, self.monitor = trainer, stream, folder, monitor
        self.meter = Meter()
        self.log: MetricsLog | None = None
        self.last: dict[str, float] = {}
        self.best = float("inf")
        self.seconds = 0.0
        self.saved: int | None = None

    @property
    def checkpoint(self) -> Path:
        return (self.folder or Path()) / "checkpoint.pt"

    def kept(self) -> str:
        return "nothing was saved yet" if self.saved is None else f"{self.checkpoint} of step {self.saved} is whole"

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn the disk's refusal into a WriteError that says what is safe."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or error
            raise WriteError(f"cannot write to {self.folder}: {reason}; {self.kept()}") from error

    def begin(self, seed: int) -> None:
        """A new run: rank 0's weights for all, a random stream for each, and a checkpoint of step 0."""
        state = first(self._unless_taken)
        if rank():
            self.trainer.load_state_dict(state)
            seed_everything(rank_seed(seed))
        if self.folder is not None:
            self.check()
            first(partial(self._open, None, gathered(self._own())))
            self.saved = self.trainer.steps

    def _unless_taken(self) -> dict[str, Any]:
        if self.folder is not None and (self.checkpoint.exists() or (self.folder / "metrics.csv").exists()):
            raise ValueError(f"{self.folder} already holds a run: resume it, or choose another folder")
        return _to(self.trainer.state_dict(), torch.device("cpu")) if world_size() > 1 else {}

    def _open(self, resume_step: int | None, owns: list[dict[str, Any]]) -> None:
        assert self.folder is not None
        with self.writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            if resume_step is None:
                self._save("checkpoint.pt", owns)  # from here on a kill at any moment leaves a checkpoint
            self.log = MetricsLog(self.folder, resume_step=resume_step)

    def check(self) -> None:
        """Raise a DivergedError, on every rank, if a metric or a parameter is not finite on any."""
        wrong = None
        try:
            self.meter.check()
            for name, part in self._networks():
                if not _all_finite(part):
                    raise DivergedError(f"the parameters of {name} were not finite after step {self.trainer.steps}")
        except DivergedError as error:
            wrong = str(error)
        for where, sentence in enumerate(everyones(wrong)):
            if sentence is not None:
                on = f" on rank {where}" if world_size() > 1 else ""
                raise DivergedError(f"{sentence}{on}; {self.kept()}")

    def look(self, logged: bool, due: Sequence[Every], saving: bool) -> dict[str, float]:
        """Check, log, call back and save what is due after a step; returns the row that was logged."""
        may_save = self.folder is not None and (saving or (self.monitor is not None and len(due) > 0))
        if logged or due or may_save:
            self.check()  # before a callback stumbles over what is not finite
        row = self.meter.read() if logged else {}
        owns = gathered(self._own()) if may_save else []
        row = first(partial(self._write, row, due, saving, owns))
        if saving and self.folder is not None:
            self.saved = self.trainer.steps
        self.last |= row
        return row

    def _write(
        self, row: dict[str, float], due: Sequence[Every], saving: bool, owns: list[dict[str, Any]]
    ) -> dict[str, float]:
        step = self.trainer.steps
        with self.writing():
            for callback in due:
                with isolated(step):
                    row |= callback.call(step) or {}
            if row and self.log is not None:
                self.log.write(step, self.seconds, row)
            if self.monitor is not None and row.get(self.monitor, float("inf")) < self.best:
                self.best = row[self.monitor]
                self._save("best.pt", owns)
            if saving:
                if self.log is not None:
                    self.log.sync()  # no checkpoint outlives its rows, even when the power fails
                self._save("checkpoint.pt", owns)
        return row

    def _own(self) -> dict[str, Any]:
        """What each rank has of its own: random state, data order, unread metrics, and buffers such as batch norm's."""
        own = {
            "data": self.stream.state_dict() if isinstance(self.stream, Stream) else None,
            "rng": rng_state(),
            "meter": self.meter.state_dict(),
        }
        if rank():
            own["buffers"] = {name: dict(part.named_buffers()) for name, part in self._networks()}
        return own if world_size() == 1 else _to(own, torch.device("cpu"))

    def _networks(self) -> list[tuple[str, nn.Module]]:
        return [(name, part) for name, part in vars(self.trainer).items() if isinstance(part, nn.Module)]

    def _save(self, name: str, owns: list[dict[str, Any]]) -> None:
        if self.folder is None:
            return
        state = {
            "step": self.trainer.steps,
            "trainer": self.trainer.state_dict(),
            "best": self.best,
            "seconds": self.seconds,
            **owns[0],
            "others": owns[1:],
        }
        save_checkpoint(self.folder / name, state)
        if name == "checkpoint.pt":
            self.saved = self.trainer.steps

    def load(self) -> None:
        """Go on with the run in the folder."""
        state = first(partial(load_checkpoint, self.checkpoint, ranks=world_size()))
        try:
            own = [state, *state["others"]][rank()]
            self.trainer.load_state_dict(state["trainer"])
            if rank():
                for name, part in self._networks():
                    for key, buffer in part.named_buffers():
                        buffer.copy_(own["buffers"][name][key])
            if isinstance(self.stream, Stream) and own["data"] is not None:
                self.stream.load_state_dict(own["data"])
            self.meter.load_state_dict(own["meter"])
            self.best, self.seconds, self.saved = state["best"], state["seconds"], state["step"]
            set_rng_state(own["rng"])
        except (KeyError, RuntimeError, ValueError) as error:  # parts that are missing, or of other names or shapes
            raise CheckpointError(f"{self.checkpoint} is of another trainer than this one: {error}") from error
        if self.folder is not None:
            first(partial(self._open, self.trainer.steps, []))

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Close the log in the end, and say what is safe when another rank was lost."""
        try:
            yield
        except RankError as error:
            raise RankError(f"{error}; {self.kept()}") from error
        finally:
            if self.log is not None:
                with self.writing():
                    self.log.close()


def _all_finite(module: nn.Module) -> bool:
    parameters = [p.detach() for p in module.parameters()]
    return not parameters or bool(torch.stack([torch.isfinite(p).all() for p in parameters]).all())


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _to(item, device) for key, item in value.items()}
    return [_to(item, device) for item in value] if isinstance(value, list) else value
