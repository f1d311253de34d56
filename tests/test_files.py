"""Files are whole or not there at all."""

from __future__ import annotations

import hashlib
import json

import pytest

from paddle_resnet.errors import RunFailure
from paddle_resnet.files import md5_of, recover_folder, write_aside, write_folder, write_json, write_text


def test_write_text_replaces_the_file(tmp_path):
    path = tmp_path / "new" / "a.txt"
    write_text(path, "ä1")
    write_text(path, "ä2")
    assert path.read_text(encoding="utf-8") == "ä2"
    assert list(path.parent.iterdir()) == [path]


def full_disk(_):
    raise OSError(28, "No space left on device")


def test_failure_keeps_the_earlier_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "first")
    with pytest.raises(RunFailure, match="No space left"):
        write_aside(path, full_disk)
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []
    write_json(tmp_path / "a.json", {"loss": 1.5})
    assert json.loads((tmp_path / "a.json").read_text()) == {"loss": 1.5}


def test_unwritable_place_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFailure, match="cannot be written"):
        write_text(tmp_path / "file" / "a.txt", "x")


def fill(text):
    return lambda folder: (folder / "a.txt").write_text(text)


def test_write_folder_replaces_whole_folders(tmp_path):
    path = tmp_path / "last"
    write_folder(path, lambda folder: (folder / "old.txt").write_text("old"))
    write_folder(path, fill("new"))
    assert [each.name for each in path.iterdir()] == ["a.txt"]
    assert list(tmp_path.iterdir()) == [path]


def test_write_folder_failure_keeps_the_earlier_folder(tmp_path):
    path = tmp_path / "last"
    write_folder(path, fill("first"))
    with pytest.raises(RunFailure):
        write_folder(path, full_disk)
    assert (path / "a.txt").read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_write_folder_failure_of_any_kind_leaves_no_temporary(tmp_path):
    with pytest.raises(ZeroDivisionError):
        write_folder(tmp_path / "last", lambda _: 1 / 0)
    assert list(tmp_path.iterdir()) == []


def test_recover_folder_after_a_kill_between_the_two_renames(tmp_path):
    path = tmp_path / "last"
    write_folder(path, fill("first"))
    path.rename(tmp_path / ".last.old")
    recover_folder(path)
    assert (path / "a.txt").read_text() == "first"
    recover_folder(path)
    assert list(tmp_path.iterdir()) == [path]


def test_md5(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x" * (3 << 20))
    assert md5_of(path) == hashlib.md5(b"x" * (3 << 20)).hexdigest()
