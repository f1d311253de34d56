"""Find the image files below a folder, the same ones for training and for prediction."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from paddle_resnet.errors import printable, shown

EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".avif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".ico"),
)
CONVERTIBLE_SUFFIXES = (".heic", ".heif", ".hif")  # images that cannot be read here; other programs can convert them
IGNORED_SUFFIXES = {  # labels, annotations and what file managers leave: skipped without a word
    *(".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".md", ".rst", ".yaml", ".yml", ".ini", ".log", ".html"),
    *(".db", ".ds_store", ".pbtxt", ".names"),
}
SYSTEM_FOLDERS = {"__macosx", "@eadir", "lost+found", "$recycle.bin", "system volume information"}
"""What archives, file servers and operating systems put beside a user's folders."""
KINDS_SHOWN = 6


@dataclass(frozen=True)
class SkippedFile:
    """A folder that cannot be read, or a file without a known suffix."""

    path: Path
    reason: str  # one line that names it
    suffix: str | None = None  # in lower case, empty where it has none; None for a folder

    @property
    def may_hold_images(self) -> bool:
        return self.suffix is None or self.suffix in CONVERTIBLE_SUFFIXES


def find_image_files(folder: Path) -> Iterator[Path | SkippedFile]:
    """Yield those of `find_files` with a known suffix, and why others are skipped."""
    for each in find_files(folder):
        if (found := check_suffix(each) if isinstance(each, Path) else each) is not None:
            yield found


def find_files(folder: Path) -> Iterator[Path | SkippedFile]:
    """Yield the files at any depth, folder by folder in the order of names, without hidden ones.

    Links to folders are followed, but not to those that `folder` lies in: they hold other classes. Each folder is
    entered once, as a link may lead to one of its parents.
    """
    above = [parent.stat() for parent in Path(os.path.realpath(folder)).parents if os.path.isdir(parent)]  # noqa: PTH112
    entered = {(status.st_dev, status.st_ino) for status in above}
    waiting = [folder]
    while waiting:
        parent = waiting.pop()
        try:
            status = parent.stat()
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(parent) as entries:
                found = sorted((each.name, is_folder(each)) for each in entries if not is_hidden(each.name))
        except OSError as error:
            reason = f"{printable(str(parent))}: this folder cannot be read ({error.strerror or error})"
            yield SkippedFile(parent, reason)
            continue
        yield from (parent / name for name, folds in found if not folds)
        waiting += [parent / name for name, folds in reversed(found) if folds]


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is no user's: its name begins with a dot, or is one of `SYSTEM_FOLDERS`."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder or a link to one; False for a link to itself."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def has_image_suffix(name: str) -> bool:
    """Return whether a file's name has a known suffix."""
    return name.lower().endswith(EXTENSIONS)


def check_suffix(path: Path) -> Path | SkippedFile | None:
    """Return `path` if its suffix is an image's, None for labels and the like, else why it is skipped."""
    suffix = path.suffix.lower()
    if has_image_suffix(path.name):
        return path
    if suffix in IGNORED_SUFFIXES:
        return None
    why = f'the suffix "{shown(suffix, 20)}" is not one of an image that can be read' if suffix else "it has no suffix"
    advice = "convert it, e.g. to JPEG" if suffix in CONVERTIBLE_SUFFIXES else "rename it if it is an image"
    return SkippedFile(path, f"{printable(str(path))}: skipped, {why}; {advice}", suffix)


def summarize_skipped(counts: Counter[str]) -> str:
    """Say how many files of each suffix are skipped, the most frequent ones first."""
    most_common = counts.most_common(KINDS_SHOWN)
    kinds = []
    for suffix, count in most_common:
        advice = " (convert them, e.g. to JPEG)" if suffix in CONVERTIBLE_SUFFIXES else ""
        kinds.append(f"{count} {shown(suffix, 20) or 'without one'}{advice}")
    if others := counts.total() - sum(count for _, count in most_common):
        kinds.append(f"{others} others")
    files = "1 file is" if counts.total() == 1 else f"{counts.total():,} files are"
    return f"{files} left out by suffix: {', '.join(kinds)}"
