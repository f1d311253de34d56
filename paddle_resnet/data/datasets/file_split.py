"""Image files with their labels, as splits: decoded once into memory, or batch by batch."""

from __future__ import annotations

import errno
import functools
import os
import stat
import threading
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paddle_resnet.console import logger
from paddle_resnet.data.reading import PictureSplit
from paddle_resnet.errors import UsageError
from paddle_resnet.images import Indices, Pixels
from paddle_resnet.images.decode import Source, check_readable, decode_whole, pillow_warnings
from paddle_resnet.images.find import SkippedFile
from paddle_resnet.images.image_file import FilePart, read_file, read_part

MAX_FILES_PER_TASK = 32
MAX_EXAMINED = 50_000
"""More files than this, which do not fit in memory, are examined before training only if the config asks for it."""
MAX_STAND_INS = 0.01
"""Share of a split's files that others may stand in for; more bad files mean that the whole disk is gone."""
WARNED_FILES = 20


class LostImageError(UsageError):
    """An image cannot be read, and no other one may stand in for it."""


@dataclass(eq=False)
class ImageFiles:
    """A table of image files and labels.

    It holds one string and one integer for each file, and reads nothing at first. If `examine` or `in_memory`, the
    first access decodes each file once; unreadable files are left out, or raise an error if `strict`. Otherwise all
    files count as readable until one turns out not to be (`FileSplit.stand_in`).
    """

    root: Path  # names are relative to it
    all_names: Sequence[str]  # the image files, with ``/`` between folders
    all_labels: Indices  # their classes, int64 ``[N]``
    size: int  # pixels of the shorter side of images in memory
    workers: int  # processes that decode, or threads that crop
    in_memory: bool  # keep the decoded images (`decode_whole`)
    strict: bool = False  # an unreadable file is an error
    examine: bool = True  # read each file at the first access
    beside: Sequence[SkippedFile] = ()  # other files and folders found beside the images
    in_shards: bool = False  # the names are those of `FilePart.as_name`

    def __post_init__(self) -> None:
        self.all_labels = self.all_labels.astype(np.int64)
        self.examined = self.in_memory or self.examine
        self.skipped = {each.path.relative_to(self.root).as_posix(): each for each in self.beside}
        self.failures: dict[int, UsageError] = {}
        self.warnings: dict[str, str] = {}
        self._lock = threading.Lock()
        self._readable = None if self.examined else np.arange(len(self.all_names))
        self._decoded: dict[int, Pixels] = {}

    def labels(self) -> Indices:
        """Return the class of each readable file, int64 ``[N]``.

        Raises:
            UsageError: a file cannot be read and `strict` is set, or no file of a class can be read.
        """
        return self.all_labels[self._examine()]

    def unreadable(self) -> dict[str, str]:
        """Return the reason for each file that cannot be read, by name; errors as of `labels`."""
        self._examine()
        return {self.all_names[index]: str(self.failures[index]) for index in sorted(self.failures)}

    def names(self, positions: Indices) -> list[str]:
        """Return the names of the files at these positions among the readable ones."""
        return [self.all_names[index] for index in self._examine()[positions]]

    def source(self, name: str) -> str | FilePart:
        return source_of(self.root, name, self.in_shards)

    def pictures(self, positions: Indices) -> list[Source]:
        """Return the images at these positions among the readable ones: decoded, or the paths of their files."""
        if self.in_memory:
            return [self._decoded[index] for index in self._examine()[positions].tolist()]
        return [self.source(name) for name in self.names(positions)]

    def _examine(self) -> Indices:
        """Read every file once, if the table is examined; return the indices of the readable ones among all."""
        with self._lock:
            if self._readable is None:
                count = len(self.all_names)
                with pillow_warnings() as self.warnings:
                    failures = run_in_threads(self._examine_one, count, self.workers)
                if self.strict and failures:
                    others = f" (and {len(failures) - 1} more of {count} files)" if len(failures) > 1 else ""
                    raise UsageError(f"{failures[min(failures)]}{others}")
                readable = np.setdiff1d(np.arange(count), np.array(list(failures), dtype=np.int64))
                lost = np.setdiff1d(self.all_labels, self.all_labels[readable])
                if len(lost):
                    first = min(index for index in failures if self.all_labels[index] == lost[0])
                    raise UsageError(f"{failures[first]} (and no other file of its class can be read)")
                self._readable, self.failures = readable, failures
        return self._readable

    def _examine_one(self, index: int) -> None:
        source = self.source(self.all_names[index])
        if self.in_memory:
            self._decoded[index] = decode_whole(source, self.size)
        else:
            check_readable(source)


class FileSplit(PictureSplit):
    """All readable files of a table, or those at the positions that `choose` returns, given the files' labels."""

    def __init__(self, images: ImageFiles, choose: Callable[[Indices], Indices] | None = None) -> None:
        self.table = images
        self.in_memory, self.workers, self.resize = images.in_memory, images.workers, images.size
        self._choose = choose

    @functools.cached_property
    def _positions(self) -> Indices:
        labels = self.table.labels()
        return np.arange(len(labels)) if self._choose is None else self._choose(labels)

    @functools.cached_property
    def labels(self) -> Indices:  # type: ignore[override]
        return self.table.labels()[self._positions]

    def pictures(self, indices: Sequence[int] | Indices) -> list[Source]:
        return self.table.pictures(self._positions[np.asarray(indices, dtype=np.int64)])

    def stand_in(self, index: int, error: UsageError) -> int:
        """Return the index of another image of the same class, to be decoded instead of the unreadable one at `index`.

        The bad file is logged, and is one of `ImageFiles.unreadable`.

        Raises:
            LostImageError: the table was examined, so that the file has become unreadable since, or is strict, or too
                many files are unreadable.
        """
        if self.table.examined or self.table.strict:
            raise LostImageError(str(error)) from error
        position, failures = int(self._positions[index]), self.table.failures
        if position not in failures and len(failures) < WARNED_FILES:
            logger.warning("warning: %s; another image of its class and split stands in for it", error)
        failures[position] = error
        if len(failures) > max(WARNED_FILES, MAX_STAND_INS * len(self)):
            raise LostImageError(f"{error} (and {len(failures) - 1} more of {len(self)} files so far)") from error
        same_class = np.flatnonzero(self.labels == self.labels[index])
        start = int(np.searchsorted(same_class, index)) + 1
        for following in np.roll(same_class, -start):
            if int(self._positions[following]) not in failures:
                return int(following)
        raise LostImageError(str(error)) from error

    def checksum(self, indices: Sequence[int] | Indices) -> int:
        """Return a CRC of the files, without those that cannot be read: decoders differ by a level here and there."""
        crc = 0
        for source in self.sources(indices):
            try:
                crc = zlib.crc32(read_source(source), crc)
            except (OSError, UsageError):
                if self.table.examined:
                    raise
        return crc

    def names(self, indices: Sequence[int] | Indices) -> list[str]:
        """Return the files' names relative to the root: ``train/cat/0001.jpg``."""
        return self.table.names(self._positions[np.asarray(indices, dtype=np.int64)])

    def sources(self, indices: Sequence[int] | Indices) -> list[str | FilePart]:
        return [self.table.source(name) for name in self.names(indices)]

    def sizes(self) -> list[int]:
        return [size_of(source) for source in self.sources(np.arange(len(self)))]


def source_of(root: Path, name: str, in_shards: bool) -> str | FilePart:
    """Return the file of a name relative to `root`, or the part of a shard."""
    return FilePart.parse(root, name) if in_shards else os.path.join(root, name)  # noqa: PTH118 (faster)


def size_of(source: str | FilePart) -> int:
    """Return the bytes of an image's file."""
    if isinstance(source, FilePart):
        return source.size
    status = os.stat(source)  # noqa: PTH116 (faster)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    return status.st_size


def read_source(source: str | FilePart) -> bytes:
    """Return the content of an image's file; errors are those of `read_file`."""
    return read_part(source) if isinstance(source, FilePart) else read_file(source)


def run_in_threads(action: Callable[[int], None], count: int, workers: int) -> dict[int, UsageError]:
    """Call ``action(0..count-1)`` in threads, several files a task, as a task costs as much as a small image.

    Returns:
        The usage errors, by number.
    """
    failures: dict[int, UsageError] = {}

    def run(task: range) -> None:
        for index in task:
            try:
                action(index)
            except UsageError as error:
                failures[index] = error

    step = max(1, min(MAX_FILES_PER_TASK, -(-count // (4 * workers))))
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        list(pool.map(run, (range(start, min(start + step, count)) for start in range(0, count, step))))
    return failures
