"""The diary of a run: ``metrics.csv`` (:mod:`advrl.plots.table`) and TensorBoard events beside it.

A row reaches the operating system before :meth:`MetricsLog.write` returns, whole or not at all: a killed process
loses none, and a disk that fills leaves both files valid up to the row before. TensorBoard's own writer hands events
to a thread, which on a full disk prints a traceback and may lose the last two minutes when the process is killed; the
events are therefore written here, in its format, by the same rule as the rows.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from advrl import checks
from advrl.files import write_atomically
from advrl.plots.table import INDEX, format_rows, read_rows

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event


class MetricsLog:
    """Writes the metrics of one run; a context manager that closes its files.

    Args:
        folder: the run folder; made if it is missing.
        resume_step: step of the checkpoint that the run goes on from. Rows after it are cut, as is a half-written last
            one, and TensorBoard forgets events after it. None begins a new log.
        tensorboard: also write TensorBoard events, to ``folder/tensorboard``.
        name: of the table, ``folder/name.csv``; events of another than ``metrics`` go to ``folder/tensorboard/name``.

    Raises:
        FileExistsError: if a new log is to begin where there is one already.
        ValueError: if the table that should be continued is no metrics table.
        OSError: if the folder cannot be written.
    """

    def __init__(
        self, folder: str | Path, resume_step: int | None = None, *, tensorboard: bool = True, name: str = "metrics"
    ):
        self.path = Path(folder) / f"{name}.csv"
        self._names: list[str] = list(INDEX)
        rows: list[list[str]] = []
        if self.path.exists():
            if resume_step is None:
                raise FileExistsError(f"{self.path} exists already; resume that run or choose another folder")
            self._names, rows = read_rows(self.path)
            rows = [row for row in rows if int(row[0]) <= resume_step]
        write_atomically(self.path, format_rows(self._names, rows))
        events = Path(folder) / "tensorboard" / ("" if name == "metrics" else name)
        self._events = _EventFile(events, resume_step) if tensorboard else None
        self._table = _AllOrNothing(self.path)

    def write(self, step: int, seconds: float, values: Mapping[str, float]) -> None:
        """Add one row; metrics seen for the first time get a new column, empty in the rows above.

        Raises:
            ValueError: if the step is negative, or a name is empty, taken, or holds a comma, quote or line break.
            OSError: if the disk is full; the files are then as they were before the call.
        """
        checks.integer("step", step, minimum=0)
        new = [name for name in values if name not in self._names]
        for name in [*new, *(name for name in INDEX if name in values)]:
            if name in INDEX or not name or name != name.strip() or set(name) & set(',"\r\n'):
                raise ValueError(f"{name!r} cannot name a metric: it is empty, taken, or holds a comma, quote or break")
        if new:
            self._widen(new)
        numbers = {name: float(value) for name, value in values.items()}
        cells = [repr(numbers[name]) if name in numbers else "" for name in self._names[2:]]
        row = format_rows([str(step), repr(float(seconds)), *cells], [])
        start = self._table.size
        self._table.write(row)
        if self._events is not None:
            try:
                self._events.write(step, numbers)
            except OSError:
                self._table.cut(start)
                raise

    def sync(self) -> None:
        """Wait until all rows are on the disk itself; call it before a checkpoint, so that none outlives its rows."""
        for file in self._files():
            file.sync()

    def close(self) -> None:
        """Close both files; every row is in them already. A second call does nothing."""
        for file in self._files():
            file.close()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _files(self) -> list[_AllOrNothing]:
        return [self._table] if self._events is None else [self._table, self._events.file]

    def _widen(self, new: list[str]) -> None:
        """Rewrite the table with columns for ``new`` metrics."""
        names, rows = read_rows(self.path)
        names += new
        self._table.close()  # an open file cannot be replaced on every system
        try:
            write_atomically(self.path, format_rows(names, [row + [""] * len(new) for row in rows]))
        finally:
            self._table = _AllOrNothing(self.path)
        self._names = names


class _AllOrNothing:
    """A file that is only appended to; each write is there whole once it returns, or raises and leaves no trace."""

    def __init__(self, path: Path):
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 (closed by close)
        self.size = self._file.tell()

    def write(self, data: bytes) -> None:
        left = memoryview(data)
        try:
            while left:  # a disk that fills takes a part first and refuses the next
                left = left[self._file.write(left) :]
        except BaseException:
            self.cut(self.size)
            raise
        self.size += len(data)

    def cut(self, size: int) -> None:
        """Take back what was written after ``size`` bytes."""
        self._file.truncate(size)
        self.size = size

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class _EventFile:
    """A TensorBoard event file: one record per row; its head says from which step on older files are void."""

    def __init__(self, folder: Path, resume_step: int | None):
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        index = len(list(folder.glob("events.out.tfevents.*")))  # TensorBoard reads files in the order of their names
        self.file = _AllOrNothing(folder / f"events.out.tfevents.{int(time.time()):010d}.{index:04d}")
        head = [Event(wall_time=time.time(), file_version="brain.Event:2")]
        if resume_step is not None:
            start = SessionLog(status=SessionLog.START)
            head.append(Event(wall_time=time.time(), step=resume_step + 1, session_log=start))
        try:
            for event in head:
                self._add(event)
        except OSError:
            self.file.close()
            raise

    def write(self, step: int, values: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        entries: list[Any] = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._add(Event(wall_time=time.time(), step=step, summary=Summary(value=entries)))

    def _add(self, event: Event) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        RecordWriter(self.file).write(event.SerializeToString())  # frames the event and hands it over in one piece
