"""Tables as files: what is written is what is read, a failed write leaves the file as it was; what a study notes."""

import json
import math
from pathlib import Path

import pytest

from advrl.files import as_text, read_csv, write_csv
from advrl.lab.study import claim


def test_rows_are_read_as_they_were_written(tmp_path):
    rows = [{"name": 'a, "b"', "x": 1 / 3, "n": 7}, {"name": "c", "x": math.nan, "more": None}]
    path = write_csv(tmp_path / "new" / "table.csv", rows)
    assert path.read_bytes().startswith(b"name,x,n,more\n")
    first, second = read_csv(path)
    assert first == as_text(rows[0]) | {"more": ""}
    assert float(first["x"]) == 1 / 3
    assert second == {"name": "c", "x": "nan", "n": "", "more": ""}


def test_digits_are_those_of_floats_alone(tmp_path):
    (row,) = read_csv(write_csv(tmp_path / "t.csv", [{"x": 2 / 3, "n": 1234567, "text": "0.6666666", "b": True}], 3))
    assert row == {"x": "0.667", "n": "1234567", "text": "0.6666666", "b": "True"}


def test_no_file_has_no_rows(tmp_path):
    assert read_csv(tmp_path / "none.csv") == []


def test_a_failed_write_leaves_the_table(tmp_path, monkeypatch):
    path = write_csv(tmp_path / "t.csv", [{"x": 1}])
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_csv(path, [{"x": 2}])
    assert [file.name for file in tmp_path.iterdir()] == ["t.csv"]
    assert read_csv(path) == [{"x": "1"}]


def test_a_study_goes_on_with_the_same_options_alone(tmp_path):
    out = tmp_path / "new"
    claim(out, {"seconds": 6.0, "batch_size": None, "data": Path("a.txt")})
    claim(out, {"seconds": 6.0, "batch_size": None, "data": "a.txt"})
    with pytest.raises(
        ValueError, match=r"has a study with --seconds 6\.0, not 7\.0 and --batch-size None, not 8: give"
    ):
        claim(out, {"seconds": 7.0, "batch_size": 8, "data": "a.txt"})
    claim(out, {"seconds": 6.0, "batch_size": 8}, lambda study: {"seconds": study["seconds"]})
    assert json.loads((out / "study.json").read_text())["data"] == "a.txt"
