"""One loop for every trainer: progress, logs, callbacks, checkpoints, exact resume.

A trainer knows what a step is (``step(batch) -> dict of detached scalars``, ``state_dict``, ``load_state_dict``,
``steps``, ``batches_per_step``, ``device``); everything around the step is here.

Under ``torchrun`` the ranks walk through the loop together. Rank 0 alone prints, calls callbacks and writes; the others
wait for it where it does, and end when it fails. Each takes its share of every batch, and draws from random streams of
its own.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from advrl.agents.checkpoint import load_checkpoint, save_checkpoint
from advrl.agents.logs import MetricsLog
from advrl.agents.meter import DivergedError, Meter
from advrl.checks import integer
from advrl.data import Batches, cycle
from advrl.distributed import (
    RankError,
    anywhere,
    everyones,
    first,
    gathered,
    process_group,
    rank,
    rank_seed,
    share,
    world_size,
)
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
        data: a tensor of samples (N, *event), of which random batches are taken on the trainer's device; or a
            ``DataLoader`` or other iterable of batches, gone round for ever. Of a tensor's batches every rank takes
            its share; a loader's are this rank's own (``DistributedSampler``).
        steps: the step count to reach.
        batch_size: rows of a batch, for a tensor; of all ranks together.
        seed: of the data order, for a tensor; of the random streams of every rank but 0, whose state is left as it is.
        out: the run's folder: ``metrics.csv``, TensorBoard events, ``checkpoint.pt``; with ``monitor``, ``best.pt``.
        resume: go on from ``out``'s checkpoint. With a tensor the continuation is the run that was never interrupted,
            bit for bit on one machine and as many ranks; a loader starts its round anew.
        callbacks: run after the log, before the checkpoint.
        monitor: a number that a callback returns; the checkpoint with its lowest value is kept as ``best.pt``.
        log_every: steps between two log rows, which hold the means over them.
        checkpoint_every: steps between two checkpoints; one is written at the end too.
        progress: show a bar, or a line now and then where there is no terminal.

    Returns:
        The last value of everything that was logged.

    Raises:
        ValueError: for sizes out of range, or a folder that holds a run although ``resume`` is false.
        CheckpointError: when the run to go on with was made by another number of ranks.
        DivergedError: when a metric or a parameter is not finite on any rank; no checkpoint is written after it.
        RankError: when another rank failed.
        Interrupted: after Ctrl-C, when the run is saved.
        WriteError: when the folder cannot be written any more.
    """
    for name, value in (("steps", steps), ("log_every", log_every), ("checkpoint_every", checkpoint_every)):
        integer(name, value)
    with process_group(trainer.device):
        stream = _stream(data, trainer, batch_size, seed)
        run = _Run(trainer, stream, None if out is None else Path(out), monitor)
        with run.ending():
            if resume:
                run.load()
            else:
                run.begin(seed)
            start, before = time.perf_counter(), run.seconds
            stop = _StopRequest()
            with closing(_Progress(trainer.steps, steps, progress and rank() == 0)) as bar, stop.listening():
                while trainer.steps < steps:
                    metrics = trainer.step(_next_batch(stream, trainer.batches_per_step))
                    step = trainer.steps
                    run.meter.add(step, metrics)
                    run.seconds = before + time.perf_counter() - start
                    final = step == steps
                    stopping = anywhere(stop.requested)
                    logged = step % log_every == 0 or final
                    due = [callback for callback in callbacks if step % callback.steps == 0 or final]
                    saving = step % checkpoint_every == 0 or final or stopping
                    if (logged or due or saving) and run.look(logged, due, saving):
                        bar.show(step, run.last)
                    bar.advance(step)
                    if stopping and not final:
                        raise Interrupted(step, run.checkpoint if run.folder is not None else None)
    return run.last


def _stream(data: Tensor | Iterable[Any], trainer: Trainer, batch_size: int, seed: int) -> Iterator[Any]:
    if isinstance(data, Tensor):
        share(integer("batch_size", batch_size))
        return Batches(data, batch_size * trainer.batches_per_step, seed, trainer.device)
    if isinstance(data, Batches):
        share(data.batch_size // trainer.batches_per_step)
        return data
    return cycle(data)


def _next_batch(stream: Iterator[Any], count: int) -> Tensor:
    """This rank's rows of the next ``count`` batches, one batch after the other."""
    batch: Tensor = next(stream)
    if isinstance(stream, Batches):
        if world_size() > 1:  # (count, ranks, rows of a rank): every rank has drawn the one order, and takes its part
            batch = batch.unflatten(0, (count, world_size(), -1))[:, rank()].flatten(0, 1)
    elif count > 1:
        batch = torch.cat([batch, *(next(stream) for _ in range(count - 1))])
    return batch


class _Run:
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
            self.log = MetricsLog(self.folder, resume_step=resume_step)
            if resume_step is None:
                self._save("checkpoint.pt", owns)  # from here on a kill at any moment leaves a checkpoint

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
        if logged or may_save:
            self.check()
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
            "data": self.stream.state_dict() if isinstance(self.stream, Batches) else None,
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
        own = [state, *state["others"]][rank()]
        self.trainer.load_state_dict(state["trainer"])
        if rank():
            for name, part in self._networks():
                for key, buffer in part.named_buffers():
                    buffer.copy_(own["buffers"][name][key])
        if isinstance(self.stream, Batches) and own["data"] is not None:
            self.stream.load_state_dict(own["data"])
        self.meter.load_state_dict(_to(own["meter"], self.trainer.device))
        self.best, self.seconds, self.saved = state["best"], state["seconds"], state["step"]
        set_rng_state(own["rng"])
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
