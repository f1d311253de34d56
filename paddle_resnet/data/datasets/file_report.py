"""Report the faults of image files before training: unreadable and skipped files, and duplicates."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path

import numpy as np

from paddle_resnet.console import logger
from paddle_resnet.data.datasets.file_split import FileSplit, read_source
from paddle_resnet.data.splits import Splits
from paddle_resnet.errors import printable
from paddle_resnet.files import write_atomically
from paddle_resnet.images.find import summarize_skipped
from paddle_resnet.text_files import csv_line, write_text

FILE_NAME = "pictures.csv"
HEADER = ("file", "finding", "detail")
Row = tuple[str, str, str]  # of ``pictures.csv``: a file, what was found, and the reason


def report_files(splits: Splits, folder: Path) -> None:
    """Log in a few lines the faults of the image files, and list them in ``folder/pictures.csv``.

    Reads every file, unless there are too many (`ImageFiles`). Does nothing for other sources.

    Raises:
        UsageError: a file cannot be read and the config is strict, or no file of a class can be read.
        RunFailure: the list cannot be written.
    """
    parts = file_splits(splits)
    if not parts:
        return
    if rows := [*report_left_out(parts), *_report_duplicates(parts)]:
        write_text(folder / FILE_NAME, "".join(map(_line, [HEADER, *rows])))
        logger.info("all of them are listed in %s", folder / FILE_NAME)


def report_left_out(parts: Sequence[FileSplit]) -> list[Row]:
    """Log what cannot be read or is no image; errors as of `report_files`."""
    skipped = _report_skipped(parts)
    return [*_report_unreadable(parts), *skipped]


def update_findings(splits: Splits, folder: Path) -> None:
    """Add to ``folder/pictures.csv`` what turned out to be unreadable during training."""
    rows = _unreadable([part for part in file_splits(splits) if not part.table.examined])
    if rows:
        path = folder / FILE_NAME
        # As bytes: a spreadsheet may have saved it in another encoding.
        earlier = path.read_bytes() if path.is_file() else _line(HEADER).encode()
        added = [line for line in (_line(row).encode() for row in rows) if line not in earlier]
        write_atomically(path, lambda temporary: temporary.write_bytes(earlier + b"".join(added)))


def _line(row: Row) -> str:
    return csv_line(map(printable, row))


def file_splits(splits: Splits) -> list[FileSplit]:
    """Return the splits of files; a test split that is the validation split counts once."""
    distinct = dict.fromkeys((splits.train, splits.validation, splits.test))
    return [part for part in distinct if isinstance(part, FileSplit)]


def _log_first(message: str, rows: Sequence[Row]) -> None:
    """Log the number of the rows and the reason of the first one, if there is any."""
    if rows:
        logger.info(f"{message}, the first: %s", len(rows), rows[0][2])


def _report_skipped(parts: Sequence[FileSplit]) -> list[Row]:
    skipped = {name: each for part in parts for name, each in part.table.skipped.items()}
    if counts := Counter(each.suffix for each in skipped.values() if each.suffix is not None):
        logger.info("%s", summarize_skipped(counts))
    lost: list[Row] = [(name, "unreadable", each.reason) for name, each in skipped.items() if each.suffix is None]
    _log_first("%d unreadable folders or images without a class are left out (data.strict makes this an error)", lost)
    return lost + [(name, "skipped", each.reason) for name, each in skipped.items() if each.suffix is not None]


def _unreadable(parts: Sequence[FileSplit]) -> list[Row]:
    reasons = {name: reason for part in parts for name, reason in part.table.unreadable().items()}
    return [(name, "unreadable", reason) for name, reason in reasons.items()]


def _report_unreadable(parts: Sequence[FileSplit]) -> list[Row]:
    """Report what is left out, and what Pillow warns of."""
    rows = _unreadable(parts)
    files = f"of {sum(map(len, parts)) + len(rows)} files"
    _log_first(f"%d {files} cannot be read and are left out (data.strict makes this an error)", rows)
    left_out = {name for name, _, _ in rows}
    root = parts[0].table.root
    lines = {os.path.relpath(path, root): line for part in parts for path, line in part.table.warnings.items()}
    warned: list[Row] = [(name, "warning", line) for name, line in lines.items() if name not in left_out]
    _log_first(f"%d {files} are read with a warning", warned)
    return rows + warned


def _report_duplicates(parts: Sequence[FileSplit]) -> list[Row]:
    """Report files with the same bytes as another one before them; of files that are not read, those listed twice."""
    names = [name for part in parts for name in part.names(np.arange(len(part)))]
    split = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    label = np.concatenate([part.labels for part in parts])
    examined = parts[0].table.examined
    originals: dict[Hashable, int] = {}
    copies = []
    for index, key in enumerate(_content_keys(parts, names) if examined else names):
        if (first := originals.setdefault(key, index)) != index:
            leaks, contradicts = bool(split[index] != split[first]), bool(label[index] != label[first])
            copies.append((names[index], names[first], leaks, contradicts))
    copies.sort()
    if not examined:
        logger.info(
            f"{len(names)} images, not read before training: unreadable ones are replaced when they come, and "
            "duplicates are not looked for (data.check does both first)"
        )
    elif copies:
        logger.info("%d of %d images are byte-for-byte duplicates", len(copies), len(names))
    else:
        logger.info("%d images, no duplicate files", len(names))
    in_two = "two of training, validation and test, so measured accuracy is too high"
    for found, prefix, where in (
        ([each for each in copies if each[2]], "LEAKAGE: ", in_two),
        ([each for each in copies if each[3]], "", "two classes, one of which must be wrong"),
    ):
        if found:
            name, original = map(printable, found[0][:2])
            logger.info(f"{prefix}{len(found)} of them are in {where}: {name} is {original}")
    return [
        (name, ", ".join(["copy", *["leakage"] * leaks, *["two classes"] * contradicts]), f"the same as {original}")
        for name, original, leaks, contradicts in copies
    ]


def _content_keys(parts: Sequence[FileSplit], names: Sequence[str]) -> Iterator[Hashable]:
    """Yield a key of each file's content; only files of equal size are read."""
    sizes = [size for part in parts for size in part.sizes()]
    frequency = Counter(sizes)
    for size, name in zip(sizes, names, strict=True):
        if frequency[size] > 1:
            content = read_source(parts[0].table.source(name))
            yield size, hashlib.md5(content, usedforsecurity=False).digest()
        else:
            yield size
