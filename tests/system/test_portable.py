"""What Windows and macOS do differently, where its mechanism can be tested on any system."""

from __future__ import annotations

import ctypes
import io
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from paddle_resnet import files, paths, text_files
from paddle_resnet.errors import UsageError
from paddle_resnet.system import portable, streams


@pytest.mark.parametrize(
    "name",
    ["CON", "nul", "aux.txt", "Com1.tar.gz", "LPT9", "com\u00b9", "run.", "run ", "nul .txt", "a:b", "a\\b", "what?"],
)
def test_names_that_windows_cannot_have(name):
    assert name in portable.name_problem(name)


@pytest.mark.parametrize(
    "name", ["console", "com10", "com", "aux_1", ".nul", "run.1", "null", "photos 2026", "..", "\u732b"]
)
def test_names_that_windows_can_have(name):
    assert portable.name_problem(name) == ""


@pytest.mark.parametrize("posix", [True, False])
def test_a_reserved_name_is_one_line_on_every_system(tmp_path, monkeypatch, posix):
    monkeypatch.setattr(paths, "IS_POSIX", posix)
    for write in (files.write_folder, files.write_atomically):
        with pytest.raises(UsageError, match="aux is the name of a device on Windows; choose another name"):
            write(tmp_path / "aux" / "model", lambda path: None)
    assert not (tmp_path / "aux").exists()


@pytest.mark.posix
def test_a_folder_that_exists_may_have_any_name(tmp_path):
    (tmp_path / "10:30").mkdir()
    text_files.write_text(tmp_path / "10:30" / ".." / "10:30" / "notes.txt", "here")
    assert (tmp_path / "10:30" / "notes.txt").read_text() == "here"


CLASSES = (
    "../etc",
    "a/b",
    "a:b",
    "con",
    "Con.txt",
    "nul .a.b",
    "..",
    "end. ",
    "",
    "x" * 49 + ". y",
    "\N{HAMSTER FACE}" * 99,
)


@pytest.mark.parametrize("text", CLASSES)
def test_a_name_made_of_a_text_is_portable(text):
    name = portable.portable_name(text)
    assert name not in ("", ".", "..") and portable.name_problem(name) == ""
    assert len(name.encode()) < 255
    assert portable.portable_name(name) == name


def test_a_path_too_long_for_windows_is_one_line(tmp_path, monkeypatch):
    folder = tmp_path / ("x" * 200) / ("y" * 40)
    paths.require_name_for_folder(folder)
    monkeypatch.setattr(paths, "IS_POSIX", False)
    paths.require_name_for_folder(folder)  # where the setting allows it
    monkeypatch.setattr(paths, "allows_long_paths", lambda: False)
    paths.require_name_for_folder(tmp_path / "run")
    with pytest.raises(UsageError, match="Windows allows 259; choose a folder nearer to the drive"):
        paths.require_name_for_folder(folder)


def test_names_of_a_list_are_in_utf8_or_the_code_page_on_windows(monkeypatch):
    monkeypatch.setattr(portable, "IS_POSIX", False)
    monkeypatch.setattr("locale.getpreferredencoding", lambda do_setlocale: "cp936")
    for encoding in ("utf-8", "gbk"):
        assert portable.decode_name("\u732b\\\u72d7.jpg".encode(encoding)) == "\u732b\\\u72d7.jpg"


def test_paddle_opens_ascii_paths_on_windows(tmp_path, monkeypatch):
    folder = tmp_path / "\u732b"
    monkeypatch.setattr(paths, "IS_POSIX", True)
    assert paths.path_for_paddle(folder / "model.json") == str(folder / "model.json")
    with pytest.raises(UsageError, match="Paddle cannot open a path with such characters"):
        paths.path_for_paddle(Path("x\udcff/model.json"))
    monkeypatch.setattr(paths, "IS_POSIX", False)
    assert paths.path_for_paddle(Path("output/run/model.json")) == str(Path("output/run/model.json"))
    with pytest.raises(UsageError, match="take a folder whose path is plain ASCII"):  # no short names on this disk
        paths.path_for_paddle(folder / "model.json")
    monkeypatch.setattr(paths, "short_path", lambda folder: Path("C:/USERS/28F3~1"))
    assert paths.path_for_paddle(folder / "model.json") == str(Path("C:/USERS/28F3~1/model.json"))


def test_the_short_path_is_the_one_that_windows_has(monkeypatch):
    """By a function that acts as Windows' own: it returns the length that it needs, or that of its answer."""
    answer = "C:\\28F3~1"

    def get_short_path(folder, buffer, length):
        assert folder == "C:\\\u732b"
        if length <= len(answer):
            return len(answer) + 1
        buffer.value = answer
        return len(answer)

    assert portable.short_path(Path("C:\\\u732b")) == Path("C:\\\u732b")
    kernel = SimpleNamespace(GetShortPathNameW=get_short_path)
    monkeypatch.setattr(ctypes, "WinDLL", lambda name: kernel, raising=False)
    assert portable.short_path(Path("C:\\\u732b")) == Path(answer)


class Busy:
    """A file that a reader has open for its first calls."""

    def __init__(self, times):
        self.times = times

    def replace(self, target):
        self.times -= 1
        if self.times >= 0:
            raise PermissionError(13, "a reader has it open")


def test_a_file_that_is_read_is_replaced_later_on_windows(monkeypatch):
    monkeypatch.setattr(portable, "IS_POSIX", False)
    monkeypatch.setattr(portable, "REPLACE_PAUSE", 0)
    portable.replace(Busy(portable.REPLACE_ATTEMPTS - 1), "target")
    with pytest.raises(PermissionError):
        portable.replace(Busy(portable.REPLACE_ATTEMPTS), "target")
    monkeypatch.setattr(portable, "IS_POSIX", True)
    with pytest.raises(PermissionError):
        portable.replace(Busy(1), "target")


def test_a_console_of_windows_stays_pythons(monkeypatch):
    """Bytes written to its descriptor would be read in the console's code page, such as GBK."""
    raw = type("_WindowsConsoleIO", (io.BytesIO,), {"fileno": lambda self: streams.OUTPUT})()
    console = io.TextIOWrapper(io.BufferedWriter(raw), "utf-8")
    monkeypatch.setattr(sys, "stdout", console)
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO()))
    streams.prepare(output_may_be_lost=True)
    assert sys.stdout is console
    console.write("┏ 猫 \udcff\n")
    console.flush()
    assert raw.getvalue().decode() == f"┏ 猫 \\udcff{os.linesep}"
