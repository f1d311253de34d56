"""Picture files found by folders, patterns and lists."""

from __future__ import annotations

import glob
import io
import os
from pathlib import Path

import pytest

from paddle_resnet.errors import UsageError
from paddle_resnet.images.find import EXTENSIONS
from paddle_resnet.inference.find_pictures import Unreadable, find_pictures, listed_pictures


@pytest.fixture
def tree(tmp_path):
    for name in ("b.png", "a.jpg", "notes.txt", "deep/c.PNG", "deep/er/d.jpg", "deep/.hidden.jpg", ".secret/e.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["a.jpg"]),
        ("**/*.jpg", ["a.jpg", "deep/er/d.jpg"]),
        ("**/*", ["a.jpg", "b.png", "deep/c.PNG", "deep/er/d.jpg"]),
        ("[ab].*", ["a.jpg", "b.png"]),
        ("*", ["a.jpg", "b.png", "deep/c.PNG", "deep/er/d.jpg"]),
        ("de?p", ["deep/c.PNG", "deep/er/d.jpg"]),
        ("*.txt", ["notes.txt"]),
        ("**/*.txt", ["notes.txt"]),
        ("**", ["a.jpg", "b.png", "deep/c.PNG", "deep/er/d.jpg"]),
        ("**/er/*", ["deep/er/d.jpg"]),
        ("d*/**/[cd].*", ["deep/c.PNG", "deep/er/d.jpg"]),
        ("**/deep/**/e*/**/d.jpg", ["deep/er/d.jpg"]),
        ("deep/**/c.*/**", []),
    ],
)
def test_patterns_match_pictures(tree, pattern, expected):
    found = [each for each in find_pictures([tree / pattern]) if isinstance(each, Path)]
    assert [each.relative_to(tree).as_posix() for each in found] == expected
    if "**" in pattern:
        reference = map(Path, glob.glob(str(tree / pattern), recursive=True))  # noqa: PTH207
        suffixes = (*EXTENSIONS, Path(pattern).suffix)
        assert set(found) == {each for each in reference if each.is_file() and each.suffix.lower() in suffixes}


def test_a_pattern_enters_each_folder_once(tree):
    """Python's glob would enter them in 2**40 orders."""
    for number in range(2):
        (tree / "deep" / f"up{number}").symlink_to(tree)
    assert list(find_pictures([tree / "**" / "*.jpg"])) == [tree / "a.jpg", tree / "deep/er/d.jpg"]


def test_a_pattern_reads_no_folder_beside_those_it_names(tree, monkeypatch):
    """Such as one that cannot be read, or all the others of a disk; a hidden one only where the pattern names it."""
    for name in ("deeper/f.jpg", "deep/.kept/g/h.jpg", "beside/i.jpg"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()
    scan, read = os.scandir, set()
    monkeypatch.setattr(os, "scandir", lambda path: (read.add(Path(path)), scan(path))[1])
    assert list(find_pictures([tree / "dee*" / "**" / "*.jpg"])) == [tree / "deep/er/d.jpg", tree / "deeper/f.jpg"]
    assert {tree / "deep/er", tree / "deeper"} <= read
    assert tree / "beside" not in read
    assert list(find_pictures([tree / "*/.kept/**/*.jpg"])) == [tree / "deep/.kept/g/h.jpg"]


def test_a_pattern_without_a_match_is_unreadable(tree):
    (found,) = find_pictures([tree / "*.gif"])
    assert isinstance(found, Unreadable)
    assert "*.gif: no picture matches" in found.reason


def test_a_file_whose_name_is_a_pattern_is_that_file(tree):
    odd = tree / "a[1].jpg"
    odd.touch()
    assert list(find_pictures([odd])) == [odd]


@pytest.mark.parametrize(
    ("content", "separator"), [(b"x.jpg\n\r\n%s\r\nlast [1].png", b"\n"), (b"x.jpg\0%s\0last [1].png\0", b"\0")]
)
def test_a_list_names_files_and_folders(tree, content, separator):
    listing = io.BytesIO(content % os.fsencode(tree / "deep"))
    expected = [Path("x.jpg"), tree / "deep/c.PNG", tree / "deep/er/d.jpg", Path("last [1].png")]
    assert list(listed_pictures(listing, separator)) == expected


def test_an_impossible_name_does_not_end_a_list():
    """Python's own Path.is_dir raises for one: the picture is reported as unreadable, and the list goes on."""
    long = "x" * 5000
    assert list(listed_pictures(io.BytesIO(f"{long}\na.jpg\n".encode()))) == [Path(long), Path("a.jpg")]
    assert list(find_pictures([long])) == [Path(long)]


def test_a_list_may_begin_with_the_mark_of_utf8():
    assert list(listed_pictures(io.BytesIO("\u732b.jpg\r\n".encode("utf-8-sig")))) == [Path("\u732b.jpg")]


def test_a_list_in_utf16_says_how_to_save_it():
    with pytest.raises(UsageError, match="standard input: is no text in UTF-8; save it as UTF-8"):
        list(listed_pictures(io.BytesIO("a.jpg\r\n".encode("utf-16"))))


def test_zero_separated_lists_hold_names_with_line_ends():
    assert list(listed_pictures(io.BytesIO(b"odd\nname.jpg\0"), b"\0")) == [Path("odd\nname.jpg")]


@pytest.mark.parametrize("data", [b"a.jpg\0b.jpg\0", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"a.jpg\n" + b"x" * (1 << 21)])
def test_other_than_a_list_is_refused(data):
    with pytest.raises(UsageError, match="no list of files"):
        list(listed_pictures(io.BytesIO(data)))


def test_a_list_of_lines_is_no_list_of_zero_bytes():
    with pytest.raises(UsageError, match="no list of files"):
        list(listed_pictures(io.BytesIO(b"a.jpg\n" * (1 << 18)), b"\0"))
