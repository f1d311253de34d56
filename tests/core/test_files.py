"""Files and folders are written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from paddle_resnet import files
from paddle_resnet.errors import RunFailure, UsageError
from paddle_resnet.files import (
    folder_lock,
    md5_of,
    recover_folder,
    remove_leftovers,
    require_writable,
    require_writable_file,
    sha256_of,
    write_atomically,
    write_folder,
)
from paddle_resnet.paths import expand_home
from paddle_resnet.system import portable
from paddle_resnet.text_files import write_text


def test_write_text_replaces_the_file(tmp_path):
    path = tmp_path / "new" / "a.txt"
    write_text(path, "ä1")
    write_text(path, "ä2")
    assert path.read_text(encoding="utf-8") == "ä2"
    assert list(path.parent.iterdir()) == [path]


def full_disk(_):
    raise OSError(28, "No space left on device")


def test_failure_keeps_the_earlier_file(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "first")
    with pytest.raises(RunFailure, match="No space left"):
        write_atomically(path, full_disk)
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_unwritable_place_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFailure, match="cannot be written"):
        write_text(tmp_path / "file" / "a.txt", "x")
    with pytest.raises(RunFailure, match=r"folder: cannot be written \(.*file is no folder\)"):
        require_writable(tmp_path / "file" / "folder")


@pytest.mark.parametrize(
    ("name", "words"),
    [("afile/x.npz", r"x\.npz: cannot be written \(.*afile is no folder"), ("folder", "folder: cannot be written")],
)
def test_a_file_that_cannot_be_written_is_told_before_the_work(tmp_path, name, words):
    (tmp_path / "afile").write_text("mine")
    (tmp_path / "folder").mkdir()
    for check in (require_writable_file, lambda path: write_text(path, "x")):
        with pytest.raises(RunFailure, match=words):
            check(tmp_path / name)
    require_writable_file(tmp_path / "afile")
    require_writable_file(tmp_path / "new" / "file")
    assert (tmp_path / "afile").read_text() == "mine"
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "afile", tmp_path / "folder", tmp_path / "new"]


def test_the_check_of_a_writable_place_changes_no_file(tmp_path):
    (tmp_path / ".trial").write_text("mine")
    require_writable(tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(".trial", "mine")]


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


def test_write_folder_failure_leaves_no_temporary(tmp_path):
    with pytest.raises(ZeroDivisionError):
        write_folder(tmp_path / "last", lambda _: 1 / 0)
    assert list(tmp_path.iterdir()) == []


def test_recover_folder_after_a_kill_between_renames(tmp_path):
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
    assert sha256_of(path) == hashlib.sha256(b"x" * (3 << 20)).hexdigest()


def test_remove_leftovers_removes_only_leftovers(tmp_path):
    kept = ["a.json", ".hidden", ".notes.txt", ".notes.20241130", "x.abcdefgh"]
    for name in [*kept, ".a.json.tmp-k3_x9abc.json"]:
        (tmp_path / name).write_text("x")
    for name in ("last", ".last.old", ".last.tmp-abcd_123", ".best.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state").write_text(name)
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "last", "best"}
    # What stood in the middle of its two renames is there again; what was whole is as it was.
    assert (tmp_path / "best" / "state").read_text() == ".best.old"
    assert (tmp_path / "last" / "state").read_text() == "last"


def killed_within(make):
    """Let a process make a temporary and die of SIGKILL before it has removed it."""
    child = os.fork()
    if child == 0:
        with make():
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)


@pytest.mark.posix
def test_a_writer_removes_leftovers_of_killed_ones(tmp_path):
    killed_within(lambda: files._temporary_beside(tmp_path / "a.json", folder=False))
    killed_within(lambda: files._temporary_beside(tmp_path / "a.json", folder=True))
    killed_within(lambda: files._temporary_beside(tmp_path / "b.json", folder=False))
    assert len(list(tmp_path.iterdir())) == 2  # the second one of a.json removed the first
    write_text(tmp_path / "a.json", "x")
    (other,) = [path.name for path in tmp_path.iterdir() if path.name != "a.json"]
    assert other.startswith(".b.json.")


def test_a_temporary_in_use_is_kept(tmp_path):
    def write(temporary):
        temporary.write_text("outer")
        write_text(tmp_path / "a.json", "inner")

    write_atomically(tmp_path / "a.json", write)
    assert (tmp_path / "a.json").read_text() == "outer"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.posix
def test_scratch_folders_of_killed_processes_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    killed_within(files.scratch_folder)
    (tmp_path / "paddle_resnet-of-mine").mkdir()
    assert len(list(tmp_path.iterdir())) == 2
    with files.scratch_folder() as first, files.scratch_folder() as second:
        assert {path.name for path in tmp_path.iterdir()} == {"paddle_resnet-of-mine", first.name, second.name}
    assert [path.name for path in tmp_path.iterdir()] == ["paddle_resnet-of-mine"]


@pytest.mark.parametrize("write", [write_atomically, write_folder])
def test_a_full_disk_is_named_for_any_exception(tmp_path, monkeypatch, write):
    def fail(temporary):
        raise RuntimeError("(Unavailable) Failed to save tensor")

    with pytest.raises(RuntimeError, match="Unavailable"):
        write(tmp_path / "a", fail)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))

    def fail_later(temporary):
        raise UsageError(f"{temporary}: cannot be read again")

    for failing in (fail, fail_later):
        with pytest.raises(RunFailure, match=r"a: cannot be written \(No space left on device\)"):
            write(tmp_path / "a", failing)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_has_one_process_at_a_time(tmp_path):
    with folder_lock(tmp_path):
        with pytest.raises(UsageError, match="another process"), folder_lock(tmp_path):
            pass
        assert list(tmp_path.iterdir()) == []
    with folder_lock(tmp_path):
        pass


@pytest.mark.posix  # elsewhere the lock is a file beside it
def test_a_lock_is_of_what_has_the_name_now(tmp_path, monkeypatch):
    """Another process renamed the folder and made a new one, between opening and locking: that one is locked."""
    folder, lock = tmp_path / "run", portable._flock
    folder.mkdir()

    def renamed_before(descriptor: int, wait: bool) -> bool | None:
        monkeypatch.setattr(portable, "_flock", lock)
        folder.rename(tmp_path / "run.1")
        folder.mkdir()
        return lock(descriptor, wait)

    monkeypatch.setattr(portable, "_flock", renamed_before)
    with folder_lock(folder):
        with pytest.raises(UsageError, match="another process"), folder_lock(folder):
            pass
        with folder_lock(tmp_path / "run.1"):
            pass


def test_a_file_is_synced_before_it_is_renamed(tmp_path, monkeypatch):
    """Renamed first, it could be empty after a power cut, and the earlier one gone."""
    events = []
    fsync, replace, rename = os.fsync, Path.replace, Path.rename
    monkeypatch.setattr(os, "fsync", lambda descriptor: (events.append(opened(descriptor)), fsync(descriptor)))
    monkeypatch.setattr(Path, "replace", lambda path, to: (events.append(f"to {to.name}"), replace(path, to)))
    monkeypatch.setattr(Path, "rename", lambda path, to: (events.append(f"to {to.name}"), rename(path, to)))
    write_text(tmp_path / "a.txt", "12345")
    assert events == ["5 bytes", "to a.txt", tmp_path.name]
    events.clear()
    write_folder(tmp_path / "last", fill("1234567"))
    assert events[0] == "7 bytes"
    assert events[1].startswith(".last.")
    assert events[2:] == ["to last", tmp_path.name]


def opened(descriptor):
    """A file by its size, as it has no name yet; a folder by its name."""
    path = Path(f"/proc/self/fd/{descriptor}").readlink()
    return path.name if path.is_dir() else f"{path.stat().st_size} bytes"


def test_write_folder_replaces_a_leftover_earlier_folder(tmp_path):
    path = tmp_path / "last"
    write_folder(path, fill("first"))
    write_folder(tmp_path / ".last.old", fill("left"))
    write_folder(path, fill("second"))
    assert (path / "a.txt").read_text() == "second"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_may_hold_a_broken_link(tmp_path):
    write_folder(tmp_path / "last", lambda folder: (folder / "link").symlink_to(tmp_path / "nowhere"))
    assert (tmp_path / "last" / "link").is_symlink()


@pytest.mark.posix
def test_write_atomically_follows_links_and_refuses_pipes(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(RunFailure, match="fifo"):
        write_text(tmp_path / "fifo", "lost")
    assert (tmp_path / "fifo").is_fifo()


@pytest.mark.parametrize("target", [None, "nowhere", "output"], ids=["file", "link-to-nothing", "loop"])
def test_what_is_in_the_place_of_a_folder_is_named(tmp_path, target):
    folder = tmp_path / "output"
    if target is None:
        folder.touch()
    else:
        folder.symlink_to(target)

    def write(temporary):
        (temporary / "x").touch()

    for path in (folder / "run" / "x", folder / "x"):
        with pytest.raises(RunFailure, match=r"cannot be written \((.*/output is no folder|Too many levels.*)\)$"):
            write_text(path, "")
        with pytest.raises(RunFailure, match=r"cannot be written \((.*/output is no folder|Too many levels.*)\)$"):
            write_folder(path, write)
    with pytest.raises(UsageError, match="output: exists and is no folder; choose another name"):
        write_folder(folder, write)


@pytest.mark.posix
@pytest.mark.parametrize("write", [require_writable, lambda path: write_folder(path, lambda folder: None)])
def test_a_link_to_a_name_that_no_file_can_have_is_no_folder(tmp_path, write):
    (tmp_path / "output").symlink_to("x" * 300)
    with pytest.raises(UsageError, match="output: exists and is no folder; choose another name"):
        write(tmp_path / "output")


@pytest.mark.posix
@pytest.mark.parametrize(
    "name", ["x" * 251 + ".txt", "\u732b" * 83 + ".jsonl", "x." + "y" * 253, "x" * 219 + "." + "\u732b" * 11, "x" * 255]
)
def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path, name):
    path = tmp_path / name
    for text in ("first", "second"):
        write_text(path, text)
        assert path.read_text() == text
    path.unlink()
    for text in ("first", "second"):
        write_folder(path, fill(text))
        assert (path / "a.txt").read_text() == text
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_within_a_temporary_folder_names_the_folder_to_be(tmp_path, monkeypatch):
    def write(temporary):
        (temporary / "weights").mkdir()
        monkeypatch.setattr(os, "fsync", full_disk)
        write_text(temporary / "weights" / "a.txt", "x")

    with pytest.raises(RunFailure) as caught:
        write_folder(tmp_path / "last", write)
    written = tmp_path / "last" / "weights" / "a.txt"
    assert str(caught.value) == f"{written}: cannot be written (No space left on device)"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [None, 3, ["a"], b"a"])
def test_what_is_no_path_is_refused(value):
    with pytest.raises(UsageError, match="expected the path of a file or folder, got "):
        expand_home(value)
