"""The picture files that a user names: by files, folders and patterns, or in a list."""

from __future__ import annotations

import codecs
import fnmatch
import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from paddle_resnet.errors import UsageError
from paddle_resnet.images.find import EXTENSIONS, SkippedFile, check_suffix, find_files, find_image_files
from paddle_resnet.system.portable import decode_name
from paddle_resnet.text_files import UTF16_MARKS, not_utf8

BLOCK_BYTES = 1 << 16
LONGEST_NAME = 1 << 20  # bytes of a name in a list; no system has longer ones


@dataclass(frozen=True)
class Unreadable:
    """A file, folder or pattern that gave no picture, and the reason in a line that names it."""

    path: Path
    reason: str


def find_pictures(paths: Iterable[str | Path], skipped: Counter[str] | None = None) -> Iterator[Path | Unreadable]:
    """Yield the picture files: files as they are given, folders with all folders in them, patterns expanded.

    A pattern is a path that does not exist and has ``*``, ``?`` or ``[`` in it; ``**`` matches folders of any depth.
    In folders, and for patterns whose last part has no suffix, a file is a picture by its suffix. Hidden files are left
    out. The order is by name. A folder or pattern without any picture is `Unreadable`, and so is a folder at any depth
    that cannot be read. `skipped` counts the other files of folders by suffix (see `images.find.summarize_skipped`).
    """
    for path in map(Path, paths):
        if os.path.isdir(path):  # noqa: PTH112 (Path's raises where a name is too long)
            yield from _or_none(path, find_image_files(path), skipped, "no pictures in this folder")
        elif glob.has_magic(str(path)) and not os.path.lexists(path):
            yield from _or_none(path, _expand(path), skipped, "no picture matches this pattern")
        else:
            yield path


def listed_pictures(
    lines: BinaryIO, separator: bytes = b"\n", skipped: Counter[str] | None = None
) -> Iterator[Path | Unreadable]:
    r"""Yield the pictures of a list while it is read: files and folders, without patterns; empty lines are left out.

    It is of bytes, as file names are. Its separator is ``b"\n"``, or ``b"\0"`` for names of any characters (``find
    -print0``). `skipped` is as in `find_pictures`. Anything but a list, such as a picture, is a UsageError.
    """
    for path in map(Path, listed_names(lines, separator)):
        yield from find_pictures([path], skipped) if os.path.isdir(path) else [path]  # noqa: PTH112


def listed_names(lines: BinaryIO, separator: bytes = b"\n") -> Iterator[str]:
    """Yield the names of a list while it is read, in blocks, without empty lines."""
    for number, line in enumerate(_split(lines, separator)):
        if number == 0:
            line = line.removeprefix(codecs.BOM_UTF8)
        if name := line.removesuffix(b"\r") if separator == b"\n" else line:
            yield decode_name(name)


def _or_none(
    path: Path, found: Iterator[Path | SkippedFile], skipped: Counter[str] | None, complaint: str
) -> Iterator[Path | Unreadable]:
    """Yield what was found, and count what was passed over; if there was nothing, yield the complaint."""
    empty = True
    for each in found:
        if isinstance(each, SkippedFile) and each.suffix is not None:
            if skipped is not None:
                skipped[each.suffix] += 1
            continue
        empty = False
        yield each if isinstance(each, Path) else Unreadable(each.path, each.reason)
    if empty:
        yield Unreadable(path, f"{path}: {complaint}; expected {', '.join(EXTENSIONS)}")


def _expand(pattern: Path) -> Iterator[Path | SkippedFile]:
    any_suffix = bool(pattern.suffix)
    for each in _matching_below(pattern) if "**" in pattern.parts else _matching(pattern):
        found = each if any_suffix or isinstance(each, SkippedFile) else check_suffix(each)
        if found is not None:
            yield found


def _matching(pattern: Path) -> Iterator[Path | SkippedFile]:
    """Yield the files of a pattern without ``**``, and those in its folders."""
    # Not Path.glob, which enters hidden folders.
    for path in map(Path, sorted(glob.iglob(str(pattern)))):  # noqa: PTH207
        yield from find_image_files(path) if path.is_dir() else [path]


def _matching_below(pattern: Path) -> Iterator[Path | SkippedFile]:
    """Yield the files of a pattern with ``**``. Not by glob, which follows links to parents over and over."""
    before = pattern.parts.index("**")  # glob finds the folders before it, so that those beside are not read
    for folder in map(Path, sorted(glob.iglob(str(Path(*pattern.parts[:before]))))):  # noqa: PTH207
        for each in find_files(folder) if folder.is_dir() else ():
            if isinstance(each, SkippedFile) or _matches(each.relative_to(folder).parts, pattern.parts[before:]):
                yield each


def _matches(names: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not names
    if pattern[0] == "**":
        return any(_matches(names[skipped:], pattern[1:] or "*") for skipped in range(len(names)))
    return bool(names) and fnmatch.fnmatch(names[0], pattern[0]) and _matches(names[1:], pattern[1:])


def _split(lines: BinaryIO, separator: bytes) -> Iterator[bytes]:
    rest = b""
    while block := lines.read(BLOCK_BYTES):
        *whole, rest = (rest + block).split(separator)
        yield from map(_checked, whole)
        _checked(rest)
    yield rest


def _checked(name: bytes) -> bytes:
    """Refuse what is no name: another kind of list, or a picture itself."""
    if name.startswith(UTF16_MARKS) and b"\0" in name:
        raise not_utf8("standard input")
    if b"\0" in name or len(name) >= LONGEST_NAME:
        raise UsageError(
            "standard input is no list of files, a name a line; name a picture itself on the command line, and a list "
            "of names that end with a zero byte (find -print0) needs -0"
        )
    return name
