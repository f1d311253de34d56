"""Report the faults of an image folder before training: unreadable and skipped files, and duplicates."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paddle_resnet.console import logger
from paddle_resnet.data.datasets.folder_split import FolderSplit
from paddle_resnet.data.splits import Splits
from paddle_resnet.errors import printable
from paddle_resnet.files import csv_line, md5_of, write_text
from paddle_resnet.images.find import SkippedFile, summarize_skipped

FILE_NAME = "pictures.csv"


@dataclass(frozen=True)
class Duplicate:
    """A file with the same bytes as another one before it."""

    name: str
    original: str  # name of the other file
    leaks: bool  # they are in different splits, so the accuracy measured there is too high
    contradicts: bool  # they are of different classes


@dataclass(frozen=True)
class _Entry:
    file: Path
    name: str
    part: int
    label: int


def report_folder(splits: Splits, folder: Path) -> None:
    """Log in a few lines the faults of an image folder's files, and list them in ``folder/pictures.csv``.

    Reads every file. Does nothing for other sources.

    Raises:
        UsageError: a file cannot be read and the config is strict, or no file of a class can be read.
        RunFailure: the list cannot be written.
    """
    parts = [part for part in (splits.train, splits.validation, splits.test) if isinstance(part, FolderSplit)]
    if not parts:
        return
    unreadable = {name: reason for part in parts for name, reason in part.unreadable.items()}
    skipped = {name: each for part in parts for name, each in part.skipped.items()}
    entries = [
        _Entry(file, name, number, int(label))
        for number, part in enumerate(parts)
        for file, name, label in zip(
            part.files(np.arange(len(part))), part.names(np.arange(len(part))), part.labels, strict=True
        )
    ]
    duplicates = find_duplicates(entries)
    _log_skipped(list(skipped.values()))
    _log_unreadable(len(entries), unreadable)
    _log_duplicates(len(entries), duplicates)
    if unreadable or duplicates or skipped:
        write_text(folder / FILE_NAME, _as_csv(unreadable, skipped, duplicates))
        logger.info("all of them are listed in %s", folder / FILE_NAME)


def find_duplicates(entries: Iterable[_Entry]) -> list[Duplicate]:
    """Find files with the same bytes; only files of equal size are read."""
    by_size: dict[int, list[_Entry]] = defaultdict(list)
    for entry in entries:
        by_size[entry.file.stat().st_size].append(entry)
    originals: dict[tuple[int, str], _Entry] = {}
    duplicates = []
    for size, candidates in by_size.items():
        for entry in candidates if len(candidates) > 1 else ():
            first = originals.setdefault((size, md5_of(entry.file)), entry)
            if first is not entry:
                leaks, contradicts = first.part != entry.part, first.label != entry.label
                duplicates.append(Duplicate(entry.name, first.name, leaks, contradicts))
    return sorted(duplicates, key=lambda duplicate: duplicate.name)


def _log_skipped(skipped: list[SkippedFile]) -> None:
    if counts := Counter(each.suffix for each in skipped if each.suffix is not None):
        logger.info("%s", summarize_skipped(counts))
    if others := [each.reason for each in skipped if each.suffix is None]:
        logger.info(
            "%d unreadable folders or images outside the class folders are left out (data.strict makes this an "
            "error), the first: %s",
            len(others),
            others[0],
        )


def _log_unreadable(readable: int, unreadable: dict[str, str]) -> None:
    if unreadable:
        logger.info(
            "%d of %d files cannot be read and are left out (data.strict makes this an error), the first: %s",
            len(unreadable),
            readable + len(unreadable),
            next(iter(unreadable.values())),
        )


def _log_duplicates(readable: int, duplicates: list[Duplicate]) -> None:
    if not duplicates:
        logger.info("%d images, no duplicate files", readable)
        return
    logger.info("%d of %d images are byte-for-byte duplicates", len(duplicates), readable)
    leaks = (
        "LEAKAGE: %d of them are in two of training, validation and test, so measured accuracy is too high: %s is %s"
    )
    contradicts = "%d of them are in two classes, one of which must be wrong: %s is %s"
    for message, found in (
        (leaks, [each for each in duplicates if each.leaks]),
        (contradicts, [each for each in duplicates if each.contradicts]),
    ):
        if found:
            logger.info(message, len(found), printable(found[0].name), printable(found[0].original))


def _as_csv(unreadable: dict[str, str], skipped: dict[str, SkippedFile], duplicates: list[Duplicate]) -> str:
    rows = [["file", "finding", "detail"]]
    rows += [[printable(name), "unreadable", reason] for name, reason in unreadable.items()]
    for name, each in skipped.items():
        rows.append([printable(name), "unreadable" if each.suffix is None else "skipped", each.reason])
    for copy in duplicates:
        kinds = ["copy", *["leakage"] * copy.leaks, *["two classes"] * copy.contradicts]
        rows.append([printable(copy.name), ", ".join(kinds), f"the same as {printable(copy.original)}"])
    return "".join(map(csv_line, rows))
