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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from advrl.agents.record import Every, Run, Trainer, WriteError
from advrl.checks import integer
from advrl.data import Batches, Stream, cycle
from advrl.distributed import anywhere, process_group, rank, share, world_size

__all__ = ["Every", "Interrupted", "Trainer", "WriteError", "fit"]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C (or SIGTERM) arrived; the run was saved at ``step`` first, if it has a folder."""

    def __init__(self, step: int, checkpoint: Path | None) -> None:
        self.step, self.checkpoint = step, checkpoint
        super().__init__(f"interrupted at step {step}" + (f", saved in {checkpoint}" if checkpoint else ""))


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
            batches, gone round for ever. Of a tensor's or stream's batches every rank takes its share; a loader's are
            this rank's own (``DistributedSampler``).
        steps: the step count to reach.
        batch_size: rows of a batch, for a tensor; of all ranks together.
        seed: of the data order, for a tensor; of the random streams of every rank but 0, whose state is left as it is.
        out: the run's folder: ``metrics.csv``, TensorBoard events, ``checkpoint.pt``; with ``monitor``, ``best.pt``.
        resume: go on from ``out``'s checkpoint. With a tensor or a ``Stream`` the continuation is the run that was
            never interrupted, bit for bit on one machine and as many ranks; a loader starts its round anew.
        callbacks: run after the log, before the checkpoint.
        monitor: a number that a callback returns; the checkpoint with its lowest value is kept as ``best.pt``.
        log_every: steps between two log rows, which hold the means over them.
        checkpoint_every: steps between two checkpoints; one is written at the end too.
        progress: show a bar, or a line now and then where there is no terminal.

    Returns:
        The last value of everything that was logged.

    Raises:
        ValueError: for sizes out of range, or a folder that holds a run although ``resume`` is false.
        CheckpointError: if there is no checkpoint to resume, or it is damaged, of another trainer or number of ranks.
        DivergedError: when a metric or a parameter is not finite on any rank; no checkpoint is written after it.
        RankError: when another rank failed.
        Interrupted: after Ctrl-C, when the run is saved.
        WriteError: when the folder cannot be written any more.
    """
    for name, value in (("steps", steps), ("log_every", log_every), ("checkpoint_every", checkpoint_every)):
        integer(name, value)
    with process_group(trainer.device):
        stream = _stream(data, trainer, batch_size, seed)
        run = Run(trainer, stream, None if out is None else Path(out), monitor)
        with run.ending():
            if resume:
                run.load()
            else:
                run.begin(seed)
            start, before = time.perf_counter(), run.seconds
            stop = _StopRequest()
            with closing(_Progress(trainer.steps, steps, progress and rank() == 0, monitor)) as bar, stop.listening():
                while trainer.steps < steps:
                    metrics = trainer.step(_next_batch(stream, trainer))
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
    if isinstance(data, Stream):
        share(data.batch_size // trainer.batches_per_step)
        return data
    return cycle(data)


def _next_batch(stream: Iterator[Any], trainer: Trainer) -> Tensor:
    """This rank's rows of the next batches that a step takes, one batch after the other."""
    batch: Tensor = next(stream)
    count = trainer.batches_per_step
    if isinstance(stream, Stream):
        if world_size() > 1:  # (count, ranks, rows of a rank): every rank has drawn the one order, and takes its part
            batch = batch.unflatten(0, (count, world_size(), -1))[:, rank()].flatten(0, 1)
        return batch
    if count > 1:
        batch = torch.cat([batch, *(next(stream) for _ in range(count - 1))])
        batch = batch[: len(batch) // count * count]  # the last batch of a round may be smaller
    return batch.to(trainer.device, non_blocking=True)


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

    def __init__(self, start: int, total: int, shown: bool, monitor: str | None) -> None:
        self.monitor = monitor
        self.total, self.lines = total, shown and not sys.stderr.isatty()
        self.bar = tqdm(total=total, initial=start, unit="step", disable=not shown or self.lines, dynamic_ncols=True)
        self.printed = time.perf_counter()

    def advance(self, step: int) -> None:
        self.bar.update(step - self.bar.n)

    def show(self, step: int, values: Mapping[str, float]) -> None:
        text = "  ".join(f"{name} {value:.3g}" for name, value in values.items())
        told = [
            name for i, name in enumerate(values) if i == 0 or name in ("g_cost", self.monitor)
        ]  # what a line holds
        self.bar.set_postfix_str("  ".join(f"{name} {values[name]:.3g}" for name in told), refresh=False)
        now = time.perf_counter()
        if self.lines and (now - self.printed > 10 or step == self.total):
            print(f"step {step}/{self.total}  {text}", file=sys.stderr, flush=True)
            self.printed = now

    def close(self) -> None:
        self.bar.close()
