"""The picture files below a folder: what training and prediction alike find there."""

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
"""Of the formats that can be read."""
TO_CONVERT = (".heic", ".heif", ".hif")
"""Of pictures that cannot be read."""
NOT_MEANT = {
    *(".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".md", ".rst", ".yaml", ".yml", ".ini", ".log", ".html"),
    *(".db", ".ds_store", ".pbtxt", ".names"),
}
"""Of labels, annotations and what file managers leave: nothing is said about them."""
KINDS_SHOWN = 6


@dataclass(frozen=True)
class PassedOver:
    """A folder that cannot be read, or a file whose name is no picture's.

    Attributes:
        path: of it.
        reason: a line that names it.
        suffix: why a file is passed over: its own in lower case, empty where it has none; None for a folder.
    """

    path: Path
    reason: str
    suffix: str | None = None

    @property
    def is_lost(self) -> bool:
        """Whether it holds or may hold pictures."""
        return self.suffix is None or self.suffix in TO_CONVERT


def pictures_below(folder: Path) -> Iterator[Path | PassedOver]:
    """Name the files with a known suffix at any depth, folder by folder in the order of names, without hidden ones.

    Links to folders are followed, and each folder is entered once: a link may lead to a folder that it is in.
    """
    entered = set()
    waiting = [folder]
    while waiting:
        parent = waiting.pop()
        try:
            status = parent.stat()
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(parent) as entries:
                found = sorted((each.name, is_folder(each)) for each in entries if not each.name.startswith("."))
        except OSError as error:
            yield PassedOver(
                parent, f"{printable(str(parent))}: this folder cannot be read ({error.strerror or error})"
            )
            continue
        for path in (parent / name for name, folds in found if not folds):
            if (each := by_name(path)) is not None:
                yield each
        waiting += [parent / name for name, folds in reversed(found) if folds]


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or leads to one; a link to itself leads nowhere."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_picture(name: str) -> bool:
    """Whether a file's name has a known suffix."""
    return name.lower().endswith(EXTENSIONS)


def by_name(path: Path) -> Path | PassedOver | None:
    """Return a file that is a picture by its suffix as it is, of others why not, and None for labels and the like."""
    suffix = path.suffix.lower()
    if is_picture(path.name):
        return path
    if suffix in NOT_MEANT:
        return None
    why = f'the suffix "{shown(suffix, 20)}" is none of a picture that can be read' if suffix else "it has no suffix"
    advice = "convert it, e.g. to JPEG" if suffix in TO_CONVERT else "rename it if it is a picture"
    return PassedOver(path, f"{printable(str(path))}: passed over, {why}; {advice}", suffix)


def passed_over_by_suffix(counts: Counter[str]) -> str:
    """Say how many files of each suffix are passed over, the most frequent ones first."""
    kinds = [
        f"{count} {shown(suffix, 20) or 'without one'}{' (convert them, e.g. to JPEG)' * (suffix in TO_CONVERT)}"
        for suffix, count in counts.most_common(KINDS_SHOWN)
    ]
    if others := counts.total() - sum(count for _, count in counts.most_common(KINDS_SHOWN)):
        kinds.append(f"{others} others")
    files = "1 file is" if counts.total() == 1 else f"{counts.total():,} files are"
    return f"{files} left out by suffix: {', '.join(kinds)}"
