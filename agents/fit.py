"""One loop for every trainer: progress, logs, callbacks, checkpoints, exact resume.

A trainer knows what a step is (``step(batch) -> dict of detached scalars``, ``state_dict``, ``load_state_dict``,
``steps``, ``batches_per_step``, ``device``); everything around the step is here.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from advrl.agents.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from advrl.agents.logs import MetricsLog
from advrl.agents.meter import DivergedError, Meter
from advrl.checks import integer
from advrl.data import Batches, Stream, cycle
from advrl.seeding import isolated, rng_state, set_rng_state


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


class Interrupted(KeyboardInterrupt):
    """Ctrl-C (or SIGTERM) arrived; the run was saved at ``step`` first, if it has a folder."""

    def __init__(self, step: int, checkpoint: Path | None) -> None:
        self.step, self.checkpoint = step, checkpoint
        super().__init__(f"interrupted at step {step}" + (f", saved in {checkpoint}" if checkpoint else ""))


class WriteError(OSError):
    """The run's folder can no longer be written; names the last checkpoint that is whole."""


def fit(
    trainer: Trainer,
    data: Tensor | Iterable[Any],
    steps: int,
    *,
    batch_size: int = 128,
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    callbacks: Sequence[Every] = (),
    monitor: str | None = None,
    log_every: int = 100,
    checkpoint_every: int = 1000,
    progress: bool = True,
) -> dict[str, float]:
    """Train until ``trainer.steps`` is ``steps``.

    Args:
        trainer: what to train.
        data: a tensor of samples (N, *event), of which random batches are taken on the trainer's device; a
            ``Stream`` of ``advrl.data``, whose batches serve whole steps; or a ``DataLoader`` or other iterable of
            batches, gone round for ever.
        steps: the step count to reach.
        batch_size: rows of a batch, for a tensor.
        seed: of the data order, for a tensor.
        out: the run's folder: ``metrics.csv``, TensorBoard events, ``checkpoint.pt``; with ``monitor``, ``best.pt``.
        resume: go on from ``out``'s checkpoint. With a tensor or a ``Stream`` the continuation is the run that was
            never interrupted, bit for bit on one machine; a loader starts its round anew.
        callbacks: run after the log, before the checkpoint.
        monitor: a number that a callback returns; the checkpoint with its lowest value is kept as ``best.pt``.
        log_every: steps between two log rows, which hold the means over them.
        checkpoint_every: steps between two checkpoints; one is written at the end too.
        progress: show a bar, or a line now and then where there is no terminal.

    Returns:
        The last value of everything that was logged.

    Raises:
        ValueError: for sizes out of range, or a folder that holds a run although ``resume`` is false.
        CheckpointError: if there is no checkpoint to resume, or it is damaged or of another trainer.
        DivergedError: when a metric or a parameter is not finite; no checkpoint is written after it.
        Interrupted: after Ctrl-C, when the run is saved.
        WriteError: when the folder cannot be written any more.
    """
    for name, value in (("steps", steps), ("log_every", log_every), ("checkpoint_every", checkpoint_every)):
        integer(name, value)
    folder = None if out is None else Path(out)
    stream = _stream(data, trainer, batch_size, seed)
    run = _Run(trainer, stream, folder, monitor)
    if resume:
        run.load()
    elif folder is not None and (run.checkpoint.exists() or (folder / "metrics.csv").exists()):
        raise ValueError(f"{folder} already holds a run: resume it, or choose another folder")

    log = None
    last: dict[str, float] = {}
    start, before = time.perf_counter(), run.seconds
    bar = _Progress(trainer.steps, steps, progress)
    stop = _StopRequest()
    try:
        if folder is not None:
            with run.writing():
                folder.mkdir(parents=True, exist_ok=True)
                log = MetricsLog(folder, resume_step=trainer.steps if resume else None)
                if not resume:
                    run.save()  # from here on a kill at any moment leaves a checkpoint
        with stop.listening():
            while trainer.steps < steps:
                metrics = trainer.step(_next_batch(stream, trainer))
                step = trainer.steps
                run.meter.add(step, metrics)
                run.seconds = before + time.perf_counter() - start
                final = step == steps
                row: dict[str, float] = {}
                due = [callback for callback in callbacks if step % callback.steps == 0 or final]
                logging = step % log_every == 0 or final
                if logging or due:
                    run.check()  # before a callback stumbles over what is not finite
                if logging:
                    row |= run.meter.read()
                with run.writing():
                    for callback in due:
                        with isolated(step):
                            row |= callback.call(step) or {}
                    if row and log is not None:
                        log.write(step, run.seconds, row)
                    if monitor is not None and row.get(monitor, float("inf")) < run.best:
                        run.best = row[monitor]
                        run.save("best.pt")
                    if step % checkpoint_every == 0 or final or stop.requested:
                        if log is not None:
                            log.sync()  # no checkpoint outlives its rows, even when the power fails
                        run.save()
                if row:
                    last |= row
                    bar.show(step, last)
                bar.advance(step)
                if stop.requested and not final:
                    raise Interrupted(step, run.checkpoint if folder is not None else None)
    finally:
        bar.close()
        if log is not None:
            with run.writing():
                log.close()
    return last


def _stream(data: Tensor | Iterable[Any], trainer: Trainer, batch_size: int, seed: int) -> Iterator[Any]:
    if isinstance(data, Tensor):
        return Batches(data, integer("batch_size", batch_size) * trainer.batches_per_step, seed, trainer.device)
    return data if isinstance(data, Stream) else cycle(data)


def _next_batch(stream: Iterator[Any], trainer: Trainer) -> Tensor:
    batch: Tensor = next(stream)
    if isinstance(stream, Stream):
        return batch
    count = trainer.batches_per_step
    if count > 1:
        batch = torch.cat([batch, *(next(stream) for _ in range(count - 1))])
        batch = batch[: len(batch) // count * count]  # the last batch of a round may be smaller
    return batch.to(trainer.device, non_blocking=True)


class _Run:
    """What a checkpoint holds beside the trainer, and where it goes."""

    def __init__(self, trainer: Trainer, stream: Iterator[Any], folder: Path | None, monitor: str | None) -> None:
        self.trainer, self.stream, self.folder = trainer, stream, folder
        self.meter = Meter()
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

    def check(self) -> None:
        """Raise a DivergedError if a metric, or a parameter, is not finite."""
        try:
            self.meter.check()
            for part, value in vars(self.trainer).items():
                if isinstance(value, nn.Module) and not _all_finite(value):
                    raise DivergedError(f"the parameters of {part} were not finite after step {self.trainer.steps}")
        except DivergedError as error:
            raise DivergedError(f"{error}; {self.kept()}") from None

    def save(self, name: str = "checkpoint.pt") -> None:
        if self.folder is None:
            return
        self.check()
        state = {
            "step": self.trainer.steps,
            "trainer": self.trainer.state_dict(),
            "data": self.stream.state_dict() if isinstance(self.stream, Stream) else None,
            "rng": rng_state(),
            "meter": self.meter.state_dict(),
            "best": self.best,
            "seconds": self.seconds,
        }
        save_checkpoint(self.folder / name, state)
        if name == "checkpoint.pt":
            self.saved = self.trainer.steps

    def load(self) -> None:
        state = load_checkpoint(self.checkpoint)
        try:
            self.trainer.load_state_dict(state["trainer"])
            if isinstance(self.stream, Stream) and state["data"] is not None:
                self.stream.load_state_dict(state["data"])
            self.meter.load_state_dict(state["meter"])
            self.best, self.seconds, self.saved = state["best"], state["seconds"], state["step"]
            set_rng_state(state["rng"])
        except (KeyError, RuntimeError, ValueError) as error:  # parts that are missing, or of other names or shapes
            raise CheckpointError(f"{self.checkpoint} is of another trainer than this one: {error}") from error


def _all_finite(module: nn.Module) -> bool:
    parameters = [p.detach() for p in module.parameters()]
    return not parameters or bool(torch.stack([torch.isfinite(p).all() for p in parameters]).all())


class _StopRequest:
    """Turns the first Ctrl-C or SIGTERM into a request, honoured between two steps; the second one is immediate."""

    requested = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield  # signals reach the main thread alone
            return
        before = {number: signal.signal(number, self._request) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


class _Progress:
    """A tqdm bar on a terminal, a line every ten seconds elsewhere."""

    def __init__(self, start: int, total: int, shown: bool) -> None:
        self.total, self.lines = total, shown and not sys.stderr.isatty()
        self.bar = tqdm(total=total, initial=start, unit="step", disable=not shown or self.lines, dynamic_ncols=True)
        self.printed = time.perf_counter()

    def advance(self, step: int) -> None:
        self.bar.update(step - self.bar.n)

    def show(self, step: int, values: Mapping[str, float]) -> None:
        text = "  ".join(f"{name} {value:.3g}" for name, value in values.items())
        self.bar.set_postfix_str(text, refresh=False)
        now = time.perf_counter()
        if self.lines and (now - self.printed > 10 or step == self.total):
            print(f"step {step}/{self.total}  {text}", file=sys.stderr, flush=True)
            self.printed = now

    def close(self) -> None:
        self.bar.close()
