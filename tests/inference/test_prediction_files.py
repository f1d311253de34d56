"""Predictions written to files, links, pipes and devices, and the columns of a CSV."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import pytest

from paddle_resnet.errors import RunFailure, UsageError
from paddle_resnet.inference import Prediction, prediction_files
from paddle_resnet.inference.prediction_files import (
    open_csv,
    open_json_lines,
    open_parquet,
    parse_columns,
    partial_path,
    ranked_columns,
)
from paddle_resnet.inference.predictor import ClassProbability

DOG = Prediction("test/7.jpg", tuple(map(ClassProbability, ("dog", "cat", "eel"), (0.75, 0.2, 0.05))))


def test_columns_for_a_competition():
    columns = parse_columns('id=stem,label=probability:dog,"a,b=name",best=class,p=probability,f=path', ["cat", "dog"])
    assert [column.title for column in columns] == ["id", "label", "a,b", "best", "p", "f"]
    assert [column.cell(DOG) for column in columns] == ["7", "0.750000", "7.jpg", "dog", "0.750000", "test/7.jpg"]
    (cat,) = parse_columns("p=probability:cat", ["cat", "dog"])
    assert cat.cell(DOG) == "0.200000"
    assert [column.needs_every_class for column in columns] == [False, True, False, False, False, False]


def test_columns_by_rank():
    columns = ranked_columns(2)
    assert [column.title for column in columns] == ["file", "class", "probability", "class_2", "probability_2"]
    assert [column.cell(DOG) for column in columns] == ["test/7.jpg", "dog", "0.750000", "cat", "0.200000"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id", ['"id" is no column', "id=stem"]),
        ("id=stam", ['"stam"', 'did you mean "stem"', "probability:CLASS"]),
        ("p=probability:dgo", ['"dgo"', 'did you mean "dog"']),
        ("", ["expected title=content"]),
        ("id=stem\rlabel=class", ["--columns: expected title=content", "in one line"]),
    ],
)
def test_wrong_columns_are_usage_errors(text, words):
    with pytest.raises(UsageError) as caught:
        parse_columns(text, ["cat", "dog"])
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(("threshold", "label"), [(0.75, "dog"), (0.76, "unknown")])
def test_doubtful_predictions_are_unknown_in_files(tmp_path, threshold, label):
    """Not below the threshold: 0.75 is enough for 0.75. The ranking stays."""
    prediction = Prediction(DOG.name, DOG.top, threshold)
    table, lines = tmp_path / "a.csv", tmp_path / "a.jsonl"
    with open_csv(table, ranked_columns(1)) as write_row, open_json_lines(lines, 1) as write_line:
        write_row([prediction])
        write_line([prediction])
    assert table.read_text().splitlines()[1] == f"test/7.jpg,{label},0.750000"
    top = [{"class": "dog", "probability": 0.75}]
    assert json.loads(lines.read_text()) == {"file": "test/7.jpg", "class": label, "top": top}


def test_ctrl_c_keeps_the_predictions_and_an_error_none(tmp_path):
    path = tmp_path / "predictions.jsonl"
    path.write_text("earlier")
    with pytest.raises(KeyboardInterrupt), open_json_lines(path, 1) as write:
        write([DOG])
        raise KeyboardInterrupt
    assert path.read_text() == "earlier"
    expected = {"file": "test/7.jpg", "top": [{"class": "dog", "probability": 0.75}]}
    assert json.loads(partial_path(path).read_text()) == expected
    with pytest.raises(OSError), open_csv(path, ranked_columns(1)) as write:
        write([DOG])
        raise OSError(28, "No space left on device")
    assert sorted(tmp_path.iterdir()) == [path]


def test_a_file_that_another_process_writes_is_refused(tmp_path):
    """Of two runs that overlap, the first one's file is complete; a lock keeps out this process's others too."""
    path = tmp_path / "predictions.csv"
    with open_csv(path, ranked_columns(1)) as write:
        write([DOG])
        with pytest.raises(UsageError, match=r"predictions\.csv: another process is writing it"):
            open_csv(path, ranked_columns(1)).__enter__()
        with open_csv(tmp_path / "other.csv", ranked_columns(1)):
            pass
        write([DOG])
    row = "test/7.jpg,dog,0.750000\n"
    assert path.read_text() == "file,class,probability\n" + row + row
    assert sorted(tmp_path.iterdir()) == [tmp_path / "other.csv", path]


@pytest.mark.posix
def test_a_file_renamed_before_it_is_locked_is_not_emptied(tmp_path, monkeypatch):
    """As by the process that had the lock, and completes the file between the two steps."""
    path = tmp_path / "predictions.csv"
    partial_path(path).write_text("complete")

    @contextlib.contextmanager
    def lock(part):
        part.rename(path)
        part.write_text("of a third process")
        yield True

    monkeypatch.setattr(prediction_files, "lock_path", lock)
    with pytest.raises(UsageError, match="another process"):
        open_csv(path, ranked_columns(1)).__enter__()
    assert (path.read_text(), partial_path(path).read_text()) == ("complete", "of a third process")


def test_what_a_killed_process_left_is_replaced(tmp_path):
    path = tmp_path / "predictions.csv"
    partial_path(path).write_text("x" * 10_000)
    with open_csv(path, ranked_columns(1)):
        pass
    assert path.read_text() == "file,class,probability\n"


@pytest.mark.posix
def test_a_pipe_gets_rows_at_once_and_stays(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with open_csv(path, ranked_columns(1)) as write:
        write([DOG])
        assert os.read(reader, 1000) == b"file,class,probability\ntest/7.jpg,dog,0.750000\n"
    os.close(reader)
    assert path.is_fifo()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.posix
def test_a_lost_reader_is_named(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(RunFailure, match="fifo: its reader has gone"), open_json_lines(path, 1) as write:
        os.close(reader)
        write([DOG])


def test_descriptors_and_devices_are_written_directly():
    reader, writer = os.pipe()
    with open_json_lines(Path(f"/dev/fd/{writer}"), 1) as write:
        write([DOG])
    os.close(writer)
    assert json.loads(os.read(reader, 1000))["file"] == "test/7.jpg"
    os.close(reader)
    if Path("/dev/full").exists():
        with pytest.raises(RunFailure, match="/dev/full"), open_json_lines(Path("/dev/full"), 1) as write:
            write([DOG])


@pytest.mark.parametrize("target", ["store/there.csv", "store/new.csv"])
def test_a_links_target_is_written(tmp_path, target):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "there.csv").write_text("old")
    link = tmp_path / "link.csv"
    link.symlink_to(target)
    with open_csv(link, ranked_columns(1)) as write:
        write([DOG])
    assert link.is_symlink()
    assert (tmp_path / target).read_text() == "file,class,probability\ntest/7.jpg,dog,0.750000\n"
    assert {path.name for path in (tmp_path / "store").iterdir()} == {"there.csv", Path(target).name}


def test_a_link_to_itself_is_an_error(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(RunFailure, match="leads to itself"), open_csv(tmp_path / "loop", ranked_columns(1)):
        pass
    assert (tmp_path / "loop").is_symlink()


@pytest.mark.posix
@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_a_link_or_pipe_named_part_stays(tmp_path, kind):
    (tmp_path / "precious").write_text("mine")
    part = tmp_path / "a.csv.part"
    if kind == "link":
        part.symlink_to("precious")
    else:
        os.mkfifo(part)
    with pytest.raises(RunFailure, match="cannot be written"), open_csv(tmp_path / "a.csv", ranked_columns(1)):
        pass
    assert (tmp_path / "precious").read_text() == "mine"
    assert part.is_symlink() or part.is_fifo()


@pytest.mark.parametrize("name", [b"caf\xe9.png", "caf\u00e9.png".encode()])
def test_json_holds_names_of_any_bytes(tmp_path, name):
    with open_json_lines(tmp_path / "a.jsonl", 1) as write:
        write([Prediction(os.fsdecode(name), (ClassProbability("cat", 1.0),))])
    (line,) = (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()
    assert os.fsencode(json.loads(line)["file"]) == name


@pytest.mark.parametrize("end", [None, KeyboardInterrupt])
def test_parquet_is_readable_also_after_ctrl_c(tmp_path, end):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed (requirements/ray.txt)")
    path = tmp_path / "a.parquet"
    odd = Prediction(os.fsdecode(b"caf\xe9.jpg"), DOG.top, 0.9)
    with contextlib.suppress(KeyboardInterrupt), open_parquet(path, 2) as write:
        write([DOG])
        write([odd])
        if end:
            raise end
    assert path.exists() == (end is None)
    table = parquet.read_table(partial_path(path) if end else path)
    assert [str(column.type) for column in table.columns] == ["string", "string", "float", "string", "float"]
    assert [row["class"] for row in table.to_pylist()] == ["dog", "unknown"]
    assert table["file"].to_pylist() == ["test/7.jpg", r"caf\xe9.jpg"]
    assert table["probability_2"].to_pylist() == pytest.approx([0.2, 0.2])


@pytest.mark.posix
def test_an_output_may_have_a_name_as_long_as_the_file_system_allows(tmp_path):
    path = tmp_path / ("x" * 251 + ".csv")
    with open_csv(path, ranked_columns(1)):
        pass
    assert path.read_text() == "file,class,probability\n"
    assert list(tmp_path.iterdir()) == [path]
