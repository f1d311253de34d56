"""What a person should know of a folder of pictures before training on it: unreadable files, and copies."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paddle_resnet.console import logger
from paddle_resnet.data.datasets.folder_split import FolderPart, FolderSplit
from paddle_resnet.data.splits import Splits
from paddle_resnet.errors import printable
from paddle_resnet.files import csv_line, md5_of, write_text
from paddle_resnet.images.find import PassedOver, passed_over_by_suffix

FILE_NAME = "pictures.csv"


@dataclass(frozen=True)
class Copy:
    """A file with the same bytes as another one before it.

    `leaks`: the two are in different splits, so that what is measured there was seen, or chosen by, before.
    `contradicts`: the two are of different classes.
    """

    name: str
    original: str
    leaks: bool
    contradicts: bool


@dataclass(frozen=True)
class _Entry:
    file: Path
    name: str
    part: int
    label: int


def report_pictures(splits: Splits, folder: Path) -> None:
    """Log in a few lines what is wrong with the files of a folder, and list it in ``folder/pictures.csv``.

    Of a source that is no folder of pictures nothing is said. Every file is read for it.

    Raises:
        UsageError: a file cannot be read and the config is strict, or none of a class can.
        RunFailure: the list cannot be written.
    """
    parts = [
        part for part in (splits.train, splits.validation, splits.test) if isinstance(part, FolderSplit | FolderPart)
    ]
    if not parts:
        return
    unreadable = {name: reason for part in parts for name, reason in part.unreadable.items()}
    passed_over = {name: each for part in parts for name, each in part.passed_over.items()}
    entries = [
        _Entry(file, name, number, int(label))
        for number, part in enumerate(parts)
        for file, name, label in zip(
            part.files(np.arange(len(part))), part.names(np.arange(len(part))), part.labels, strict=True
        )
    ]
    copies = find_copies(entries)
    _say_passed_over(list(passed_over.values()))
    _say(len(entries), unreadable, copies)
    if unreadable or copies or passed_over:
        write_text(folder / FILE_NAME, _as_csv(unreadable, passed_over, copies))
        logger.info("each of them stands in %s", folder / FILE_NAME)


def find_copies(entries: Iterable[_Entry]) -> list[Copy]:
    """Find files with the same bytes; those that differ in size are not read."""
    by_size: dict[int, list[_Entry]] = defaultdict(list)
    for entry in entries:
        by_size[entry.file.stat().st_size].append(entry)
    originals: dict[tuple[int, str], _Entry] = {}
    copies = []
    for size, alike in by_size.items():
        for entry in alike if len(alike) > 1 else ():
            first = originals.setdefault((size, md5_of(entry.file)), entry)
            if first is not entry:
                copies.append(Copy(entry.name, first.name, first.part != entry.part, first.label != entry.label))
    return sorted(copies, key=lambda copy: copy.name)


def _say_passed_over(passed_over: list[PassedOver]) -> None:
    if counts := Counter(each.suffix for each in passed_over if each.suffix is not None):
        logger.info("%s", passed_over_by_suffix(counts))
    if others := [each.reason for each in passed_over if each.suffix is None]:
        logger.info(
            "%d folders that cannot be read, or pictures outside of them, are left out (data.strict makes that an "
            "error), the first: %s",
            len(others),
            others[0],
        )


def _say(readable: int, unreadable: dict[str, str], copies: list[Copy]) -> None:
    if unreadable:
        logger.info(
            "%d of %d files cannot be read and are left out (data.strict makes that an error), the first: %s",
            len(unreadable),
            readable + len(unreadable),
            next(iter(unreadable.values())),
        )
    if not copies:
        logger.info("%d pictures, no two files of the same content", readable)
        return
    logger.info("%d of %d pictures are copies of others, byte for byte", len(copies), readable)
    if leaks := [copy for copy in copies if copy.leaks]:
        logger.info(
            "LEAKAGE: %d of them stand in two of training, validation and test, which makes figures too good: %s is %s",
            len(leaks),
            printable(leaks[0].name),
            printable(leaks[0].original),
        )
    if contradictions := [copy for copy in copies if copy.contradicts]:
        logger.info(
            "%d of them stand in two classes, of which one must be wrong: %s is %s",
            len(contradictions),
            printable(contradictions[0].name),
            printable(contradictions[0].original),
        )


def _as_csv(unreadable: dict[str, str], passed_over: dict[str, PassedOver], copies: list[Copy]) -> str:
    rows = [["file", "finding", "detail"]]
    rows += [[printable(name), "unreadable", reason] for name, reason in unreadable.items()]
    for name, each in passed_over.items():
        rows.append([printable(name), "unreadable" if each.suffix is None else "passed over", each.reason])
    for copy in copies:
        kinds = ["copy", *["leakage"] * copy.leaks, *["two classes"] * copy.contradicts]
        rows.append([printable(copy.name), ", ".join(kinds), f"the same as {printable(copy.original)}"])
    return "".join(map(csv_line, rows))
