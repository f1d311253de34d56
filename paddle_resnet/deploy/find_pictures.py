"""Which picture files are meant: by files, folders and patterns, or by a list."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from paddle_resnet.data.walk import EXTENSIONS, is_picture, pictures_below

BLOCK = 1 << 16


@dataclass(frozen=True)
class Unreadable:
    """A file, folder or pattern that gave no picture, and why, in a line that names it."""

    path: Path
    reason: str


def find_pictures(paths: Iterable[str | Path]) -> Iterator[Path | Unreadable]:
    """Name the picture files: files as they are given, folders walked to their depth, patterns expanded.

    A pattern is a path that does not exist and has ``*``, ``?`` or ``[`` in it; ``**`` stands for folders of any depth.
    In a folder what counts is the file's suffix; so it does with a pattern whose last part names none. Hidden files
    are passed over. All in the order of names. A folder without any picture, or a pattern without, is `Unreadable`.
    """
    for path in map(Path, paths):
        if os.path.isdir(path):  # noqa: PTH112 (Path's raises where a name is too long)
            yield from _or_none(path, pictures_below(path), "no pictures in this folder")
        elif glob.has_magic(str(path)) and not os.path.lexists(path):
            yield from _or_none(path, _expand(path), "no picture matches this pattern")
        else:
            yield path


def listed_pictures(lines: BinaryIO, separator: bytes = b"\n") -> Iterator[Path | Unreadable]:
    r"""Name the pictures of a list, as its lines come: files and folders, taken literally; empty lines mean nothing.

    Args:
        lines: the list, as bytes, which is what names of files are.
        separator: ``b"\n"``, or ``b"\0"`` for names of any characters (``find -print0``).
    """
    for line in _split(lines, separator):
        name = line.removesuffix(b"\r") if separator == b"\n" else line
        if name:
            path = Path(os.fsdecode(name))
            yield from find_pictures([path]) if os.path.isdir(path) else [path]  # noqa: PTH112


def _or_none(path: Path, pictures: Iterator[Path], complaint: str) -> Iterator[Path | Unreadable]:
    empty = True
    for picture in pictures:
        empty = False
        yield picture
    if empty:
        yield Unreadable(path, f"{path}: {complaint}; expected {', '.join(EXTENSIONS)}")


def _expand(pattern: Path) -> Iterator[Path]:
    any_suffix = bool(pattern.suffix)
    # Not Path.glob, which enters hidden folders.
    for path in map(Path, sorted(glob.iglob(str(pattern), recursive=True))):  # noqa: PTH207
        if path.is_file():
            if any_suffix or is_picture(path.name):
                yield path
        elif "**" not in pattern.parts:  # which reaches the files in this folder by itself
            yield from pictures_below(path)


def _split(lines: BinaryIO, separator: bytes) -> Iterator[bytes]:
    if separator == b"\n":  # a line is given on as it comes, however slowly
        for line in lines:
            yield line.removesuffix(b"\n")
        return
    rest = b""
    while block := lines.read(BLOCK):
        *whole, rest = (rest + block).split(separator)
        yield from whole
    yield rest
