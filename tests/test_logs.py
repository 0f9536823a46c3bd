"""The diary of a run: what was written is read bit for bit, through kills, resumes and full disks."""

from __future__ import annotations

import math
import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from advrl.agents.logs import MetricsLog
from advrl.plots import read_metrics

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL and file size limits")


def write_rows(log: MetricsLog, steps: range) -> None:
    """Rows whose values depend on the step alone; ``frechet`` is there every second step, from step 2 on."""
    for step in steps:
        rng = random.Random(step)
        values = {"d_loss": rng.gauss(0, 1), "g_loss": rng.expovariate(1)}
        log.write(step, step / 3, values | ({"frechet": rng.lognormvariate(0, 9)} if step % 2 == 0 else {}))


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a run: (step, value) by metric."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    seen = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    seen.Reload()
    return {tag: [(e.step, e.value) for e in seen.Scalars(tag)] for tag in seen.Tags()["scalars"]}


def test_floats_come_back_bit_for_bit(tmp_path):
    rng = random.Random(0)
    values = [struct.unpack("<d", rng.randbytes(8))[0] for _ in range(500)]
    values += [0.0, -0.0, 5e-324, 0.1 + 0.2, 1e16, math.inf, -math.inf, math.nan]
    with MetricsLog(tmp_path, tensorboard=False) as log:
        for step, value in enumerate(values):
            log.write(step, value, {"a": value})
    table = read_metrics(tmp_path / "metrics.csv")
    assert table["step"] == list(range(len(values)))
    for column in (table["seconds"], table["a"]):
        for written, read in zip(values, column, strict=True):
            assert math.isnan(read) if math.isnan(written) else struct.pack("<d", written) == struct.pack("<d", read)


def test_a_new_metric_gets_a_column_with_blanks_above_it(tmp_path):
    with MetricsLog(tmp_path, tensorboard=False) as log:
        log.write(1, 0.5, {"b": 1})
        log.write(2, 1.0, {"a": 2.5, "b": 2})
        log.write(3, 1.5, {"a": 0.1})
    assert (tmp_path / "metrics.csv").read_text() == "step,seconds,b,a\n1,0.5,1.0,\n2,1.0,2.0,2.5\n3,1.5,,0.1\n"
    table = read_metrics(tmp_path / "metrics.csv")
    assert list(table) == ["step", "seconds", "b", "a"]
    assert math.isnan(table["a"][0]) and math.isnan(table["b"][2])
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]  # no temporary file is left


def test_resume_cuts_rows_after_the_checkpoint_and_goes_on_as_if_never_stopped(tmp_path):
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    with MetricsLog(straight, tensorboard=False) as log:
        write_rows(log, range(1, 21))
    with MetricsLog(resumed, tensorboard=False) as log:
        write_rows(log, range(1, 16))
    with MetricsLog(resumed, resume_step=10, tensorboard=False) as log:
        assert read_metrics(resumed / "metrics.csv")["step"] == list(range(1, 11))
        write_rows(log, range(11, 21))
    assert (resumed / "metrics.csv").read_bytes() == (straight / "metrics.csv").read_bytes()


def test_a_row_cut_anywhere_by_a_kill_is_dropped(tmp_path):
    path = tmp_path / "metrics.csv"
    with MetricsLog(tmp_path, tensorboard=False) as log:
        write_rows(log, range(1, 4))
        start = path.stat().st_size
        write_rows(log, range(4, 5))
    whole = path.read_bytes()
    for end in range(start, len(whole) + 1):
        path.write_bytes(whole[:end])
        kept = [1, 2, 3, 4] if end == len(whole) else [1, 2, 3]
        assert read_metrics(path)["step"] == kept
        with MetricsLog(tmp_path, resume_step=4, tensorboard=False) as log:
            assert path.read_bytes() == (whole if end == len(whole) else whole[:start])
            if end < len(whole):
                write_rows(log, range(4, 5))
        assert path.read_bytes() == whole


def test_resume_without_a_table_begins_one(tmp_path):
    with MetricsLog(tmp_path, resume_step=100, tensorboard=False) as log:
        log.write(101, 1.0, {"a": 1.0})
    assert read_metrics(tmp_path / "metrics.csv")["step"] == [101]


def test_tensorboard_shows_the_rows_and_forgets_those_after_the_checkpoint(tmp_path):
    with MetricsLog(tmp_path) as log:
        write_rows(log, range(1, 8))
    with MetricsLog(tmp_path, resume_step=4) as log:
        log.write(5, 2.0, {"d_loss": 0.5})
        log.sync()
        seen = events(tmp_path)  # while the run goes on
    table = read_metrics(tmp_path / "metrics.csv")
    assert [step for step, _ in seen["d_loss"]] == table["step"] == [1, 2, 3, 4, 5]
    assert [value for _, value in seen["d_loss"]] == pytest.approx(table["d_loss"], rel=2**-23)  # kept as float32
    assert [step for step, _ in seen["frechet"]] == [2, 4]


KILLED = """
import os, signal, sys
from advrl.agents.logs import MetricsLog
log = MetricsLog(sys.argv[1])
for step in range(5):
    log.write(step, 0.5, {"a": step / 3})
os.kill(os.getpid(), signal.SIGKILL)
"""


@posix
def test_a_killed_process_loses_no_row(tmp_path):
    assert subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], timeout=120).returncode == -9
    assert read_metrics(tmp_path / "metrics.csv")["a"] == [step / 3 for step in range(5)]
    assert [step for step, _ in events(tmp_path)["a"]] == [0, 1, 2, 3, 4]


# A limit on the size of a file stands for the full disk: write() takes what fits and then fails, as it does there.
FULL = """
import os, resource, sys
from advrl.agents.logs import MetricsLog
from advrl.plots import read_metrics

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

def fill(folder, tensorboard):
    log, step = MetricsLog(folder, tensorboard=tensorboard), 0
    limit(5000)
    try:
        while True:
            log.write(step, 0.5, {"a": step, "b": step})
            step += 1
    except OSError as error:
        print(type(error).__name__)
    assert read_metrics(folder + "/metrics.csv")["step"] == list(range(step)) and step > 20
    before = open(folder + "/metrics.csv", "rb").read()
    limit(len(before) // 2)
    try:
        log.write(step, 0.5, {"a": step, "late": 1.0})  # rewriting the table with a new column must fail
    except OSError as error:
        print(type(error).__name__)
    assert open(folder + "/metrics.csv", "rb").read() == before
    assert sorted(os.listdir(folder)) == ["metrics.csv"] + ["tensorboard"] * tensorboard
    limit(resource.RLIM_INFINITY)
    for later in range(step, step + 3):
        log.write(later, 0.5, {"a": later, "b": later})
    log.close()
    assert read_metrics(folder + "/metrics.csv")["a"] == list(range(step + 3))

fill(sys.argv[1], False)  # the table fills the disk
fill(sys.argv[2], True)  # the events, larger than these short rows, do
"""


@posix
def test_a_full_disk_is_an_error_that_leaves_both_files_whole(tmp_path):
    table, both = tmp_path / "table", tmp_path / "both"
    run = subprocess.run(
        [sys.executable, "-c", FULL, str(table), str(both)], timeout=120, capture_output=True, text=True
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.split() == ["OSError"] * 4
    assert [step for step, _ in events(both)["a"]] == read_metrics(both / "metrics.csv")["step"]


@pytest.mark.parametrize("name", ["", "step", "seconds", "a,b", 'a"b', "a\nb", " a"])
def test_names_that_would_break_the_table_are_refused(tmp_path, name):
    with MetricsLog(tmp_path, tensorboard=False) as log:
        with pytest.raises(ValueError, match="cannot name a metric"):
            log.write(1, 1.0, {name: 1.0})
        log.write(1, 1.0, {"a": 1.0})
    assert (tmp_path / "metrics.csv").read_text() == "step,seconds,a\n1,1.0,1.0\n"


def test_a_log_is_neither_overwritten_nor_mixed_up_with_another_file(tmp_path):
    MetricsLog(tmp_path, tensorboard=False).close()
    with pytest.raises(FileExistsError, match="resume that run or choose another folder"):
        MetricsLog(tmp_path)
    for foreign in ("", "a,b\n1,2\n", "step,seconds", "step,seconds,a,a\n", "\x00\x80"):
        (tmp_path / "metrics.csv").write_text(foreign)
        with pytest.raises(ValueError, match="is no metrics table: its first line must be"):
            MetricsLog(tmp_path, resume_step=5)
    for broken in ("1,2.0\n", "1,2.0,x\n", "1.5,2.0,3.0\n", ",2.0,3.0\n", "-1,2.0,3.0\n"):
        (tmp_path / "metrics.csv").write_text("step,seconds,a\n0,0.0,\n" + broken)
        with pytest.raises(ValueError, match="line 3: expected a step and 2 numbers"):
            read_metrics(tmp_path / "metrics.csv")


def test_a_step_is_a_count(tmp_path):
    with MetricsLog(tmp_path, tensorboard=False) as log:
        with pytest.raises(ValueError, match="step must be at least 0, got -1"):
            log.write(-1, 0.0, {"a": 1.0})
        with pytest.raises(TypeError, match="step must be an integer"):
            log.write(1.0, 0.0, {"a": 1.0})
    log.close()  # a second time
