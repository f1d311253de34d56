"""Report the faults of image files before training: unreadable and skipped files, and duplicates."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paddle_resnet.console import logger
from paddle_resnet.data.datasets.file_split import FileSplit
from paddle_resnet.data.splits import Splits
from paddle_resnet.errors import counted, printable
from paddle_resnet.files import csv_line, md5_of, write_text
from paddle_resnet.images.find import SkippedFile, summarize_skipped

FILE_NAME = "pictures.csv"
HEADER = ("file", "finding", "detail")


@dataclass(frozen=True)
class Duplicate:
    """A file with the same bytes as another one before it."""

    name: str
    original: str  # name of the other file
    leaks: bool  # they are in different splits, so the accuracy measured there is too high
    contradicts: bool  # they are of different classes


@dataclass(frozen=True)
class _Entry:
    name: str
    part: int
    label: int


def report_files(splits: Splits, folder: Path) -> None:
    """Log in a few lines the faults of the image files, and list them in ``folder/pictures.csv``.

    Reads every file, unless there are too many (`ImageFiles`). Does nothing for other sources.

    Raises:
        UsageError: a file cannot be read and the config is strict, or no file of a class can be read.
        RunFailure: the list cannot be written.
    """
    parts = _file_splits(splits)
    if not parts:
        return
    skipped = {name: each for part in parts for name, each in part.table.skipped.items()}
    _log_skipped(list(skipped.values()))
    entries = [
        _Entry(name, number, int(label))
        for number, part in enumerate(parts)
        for name, label in zip(part.names(np.arange(len(part))), part.labels, strict=True)
    ]
    table = parts[0].table
    if table.examined:
        _log_unreadable(len(entries), _unreadable(parts))
        if warnings := _warnings(parts):
            count = counted(len(warnings), "image")
            logger.info("%s read with a warning, the first: %s", count, next(iter(warnings.values())))
        duplicates = find_duplicates(entries, lambda entry: table.path(entry.name))
        _log_duplicates(len(entries), duplicates)
    else:
        logger.info(
            "%s images, not read before training: unreadable ones are replaced when they come, and duplicates are not "
            "looked for (--check does both first)",
            f"{len(entries):,}",
        )
        duplicates = _find_listed_twice(entries)
        _log_leaks(duplicates)
    rows = (
        _rows("unreadable", _unreadable(parts))
        + _rows("warning", _warnings(parts))
        + _rows_of_skipped(skipped)
        + _rows_of_duplicates(duplicates)
    )
    if rows:
        write_text(folder / FILE_NAME, "".join(map(csv_line, [HEADER, *rows])))
        logger.info("all of them are listed in %s", folder / FILE_NAME)


def update_findings(splits: Splits, folder: Path) -> None:
    """Add to ``folder/pictures.csv`` what turned out to be unreadable during training."""
    parts = [part for part in _file_splits(splits) if not part.table.examined]
    if unreadable := _unreadable(parts):
        path = folder / FILE_NAME
        earlier = path.read_text(encoding="utf-8") if path.is_file() else csv_line(HEADER)
        lines = [csv_line(row) for row in _rows("unreadable", unreadable)]
        write_text(path, earlier + "".join(line for line in lines if line not in earlier))


def _file_splits(splits: Splits) -> list[FileSplit]:
    """Return the splits of files; a test split that is the validation split counts once."""
    distinct = dict.fromkeys((splits.train, splits.validation, splits.test))
    return [part for part in distinct if isinstance(part, FileSplit)]


def _unreadable(parts: Sequence[FileSplit]) -> dict[str, str]:
    return {name: reason for part in parts for name, reason in part.table.unreadable().items()}


def _warnings(parts: Sequence[FileSplit]) -> dict[str, str]:
    """Return Pillow's warnings by the names of the files, without those of files that are left out."""
    found: dict[str, str] = {}
    for table in dict.fromkeys(part.table for part in parts):
        left_out = table.unreadable()
        names = {os.path.relpath(path, table.root): line for path, line in table.warnings.items()}
        found |= {name: line for name, line in names.items() if name not in left_out}
    return found


def _find_listed_twice(entries: Iterable[_Entry]) -> list[Duplicate]:
    """Find files that two lists name."""
    originals: dict[str, _Entry] = {}
    pairs = ((entry, originals.setdefault(entry.name, entry)) for entry in entries)
    return [_duplicate(entry, first) for entry, first in pairs if first is not entry]


def _duplicate(entry: _Entry, first: _Entry) -> Duplicate:
    return Duplicate(entry.name, first.name, first.part != entry.part, first.label != entry.label)


def find_duplicates(entries: Iterable[_Entry], path: Callable[[_Entry], Path]) -> list[Duplicate]:
    """Find files with the same bytes; only files of equal size are read."""
    by_size: dict[int, list[_Entry]] = defaultdict(list)
    for entry in entries:
        by_size[path(entry).stat().st_size].append(entry)
    originals: dict[tuple[int, str], _Entry] = {}
    duplicates = []
    for size, candidates in by_size.items():
        for entry in candidates if len(candidates) > 1 else ():
            first = originals.setdefault((size, md5_of(path(entry))), entry)
            if first is not entry:
                duplicates.append(_duplicate(entry, first))
    return sorted(duplicates, key=lambda duplicate: duplicate.name)


def _log_skipped(skipped: list[SkippedFile]) -> None:
    if counts := Counter(each.suffix for each in skipped if each.suffix is not None):
        logger.info("%s", summarize_skipped(counts))
    if others := [each.reason for each in skipped if each.suffix is None]:
        logger.info(
            "%d unreadable folders or images without a class are left out (data.strict makes this an "
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
    _log_leaks(duplicates)


def _log_leaks(duplicates: list[Duplicate]) -> None:
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


def _rows(finding: str, reasons: dict[str, str]) -> list[list[str]]:
    return [[printable(name), finding, reason] for name, reason in reasons.items()]


def _rows_of_skipped(skipped: dict[str, SkippedFile]) -> list[list[str]]:
    return [
        [printable(name), "unreadable" if each.suffix is None else "skipped", each.reason]
        for name, each in skipped.items()
    ]


def _rows_of_duplicates(duplicates: Iterable[Duplicate]) -> list[list[str]]:
    return [
        [
            printable(each.name),
            ", ".join(["copy", *["leakage"] * each.leaks, *["two classes"] * each.contradicts]),
            f"the same as {printable(each.original)}",
        ]
        for each in duplicates
    ]
