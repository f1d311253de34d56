"""Which picture files are meant: by files, folders and patterns, or by a list."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from paddle_resnet.images.find import EXTENSIONS, SkippedFile, check_suffix, find_image_files

BLOCK = 1 << 16


@dataclass(frozen=True)
class Unreadable:
    """A file, folder or pattern that gave no picture, and why, in a line that names it."""

    path: Path
    reason: str


def find_pictures(paths: Iterable[str | Path], passed_over: Counter[str] | None = None) -> Iterator[Path | Unreadable]:
    """Name the picture files: files as they are given, folders walked to their depth, patterns expanded.

    A pattern is a path that does not exist and has ``*``, ``?`` or ``[`` in it; ``**`` stands for folders of any depth.
    In a folder what counts is the file's suffix; so it does with a pattern whose last part names none. Hidden files
    are passed over. All in the order of names. A folder without any picture, or a pattern without, is `Unreadable`, and
    so is a folder that cannot be read, at any depth.

    Args:
        paths: files, folders and patterns.
        passed_over: counts, by suffix, the files whose name is no picture's (see `find.summarize_skipped`).
    """
    for path in map(Path, paths):
        if os.path.isdir(path):  # noqa: PTH112 (Path's raises where a name is too long)
            yield from _or_none(path, find_image_files(path), passed_over, "no pictures in this folder")
        elif glob.has_magic(str(path)) and not os.path.lexists(path):
            yield from _or_none(path, _expand(path), passed_over, "no picture matches this pattern")
        else:
            yield path


def listed_pictures(
    lines: BinaryIO, separator: bytes = b"\n", passed_over: Counter[str] | None = None
) -> Iterator[Path | Unreadable]:
    r"""Name the pictures of a list, as its lines come: files and folders, taken literally; empty lines mean nothing.

    Args:
        lines: the list, as bytes, which is what names of files are.
        separator: ``b"\n"``, or ``b"\0"`` for names of any characters (``find -print0``).
        passed_over: as `find_pictures`.
    """
    for line in _split(lines, separator):
        name = line.removesuffix(b"\r") if separator == b"\n" else line
        if name:
            path = Path(os.fsdecode(name))
            yield from find_pictures([path], passed_over) if os.path.isdir(path) else [path]  # noqa: PTH112


def _or_none(
    path: Path, found: Iterator[Path | SkippedFile], passed_over: Counter[str] | None, complaint: str
) -> Iterator[Path | Unreadable]:
    empty = True
    for each in found:
        if isinstance(each, Path):
            yield each
        elif each.suffix is None:
            yield Unreadable(each.path, each.reason)
        else:
            if passed_over is not None:
                passed_over[each.suffix] += 1
            continue
        empty = False
    if empty:
        yield Unreadable(path, f"{path}: {complaint}; expected {', '.join(EXTENSIONS)}")


def _expand(pattern: Path) -> Iterator[Path | SkippedFile]:
    any_suffix = bool(pattern.suffix)
    deep = (
        "**" in pattern.parts
    )  # which reaches the files in a folder by itself, and says nothing of what it cannot read
    # Not Path.glob, which enters hidden folders.
    for path in map(Path, sorted(glob.iglob(str(pattern), recursive=True))):  # noqa: PTH207
        if path.is_dir():
            yield from () if deep else find_image_files(path)
        elif any_suffix:
            yield path
        elif (each := check_suffix(path)) is not None:
            yield each
    if deep:
        below = Path(*pattern.parts[: next(n for n, part in enumerate(pattern.parts) if glob.has_magic(part))])
        yield from (each for each in find_image_files(below) if isinstance(each, SkippedFile) and each.suffix is None)


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
