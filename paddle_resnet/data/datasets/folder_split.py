"""Picture files as a split: decoded by a pool of threads, once into memory or batch by batch."""

from __future__ import annotations

import functools
import threading
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from paddle_resnet.data.splits import Split
from paddle_resnet.errors import UsageError
from paddle_resnet.images import Indices, Pixels
from paddle_resnet.images.decode import check_picture, decode_image
from paddle_resnet.images.find import PassedOver
from paddle_resnet.images.picture_file import read_file

MOST_FILES_A_TASK = 32


class FolderSplit(Split):
    """Files below `root`, every one decoded to the square centre of side `size`.

    Nothing is read before something is asked for: then each file is decoded once, and those that cannot be are left
    out, or are an error where `strict`.
    """

    def __init__(
        self,
        root: Path,
        files: Sequence[Path],
        labels: Indices,
        size: int,
        workers: int,
        in_memory: bool,
        strict: bool = False,
        passed_over: Sequence[PassedOver] = (),
    ) -> None:
        """Take `files` with their `labels` ``[N]``.

        Args:
            root: what `names` are relative to.
            files: the pictures.
            labels: the class of each.
            size: pixels a side of the stored pictures.
            workers: threads that decode.
            in_memory: keep what was decoded.
            strict: a file that cannot be read is an error.
            passed_over: what else was found with the pictures.
        """
        self._root = root
        self.passed_over = {self._name(each.path): each for each in passed_over}
        self._all_files = files
        self._all_labels = labels.astype(np.int64)
        self._size = size
        self._workers = workers
        self._in_memory = in_memory
        self._strict = strict
        self._lock = threading.Lock()
        self._failures: dict[int, UsageError] | None = None
        self._readable = self._labels = np.zeros(0, dtype=np.int64)
        self._pictures: Pixels | None = None

    @property
    def labels(self) -> Indices:  # type: ignore[override]
        """The class of every readable picture, int64 ``[N]``.

        Raises:
            UsageError: a file cannot be read and the split is strict, or none of a class can.
        """
        self._examined()
        return self._labels

    @property
    def unreadable(self) -> dict[str, str]:
        """Why a file is left out, by its name relative to the root; the errors are those of `labels`."""
        self._examined()
        assert self._failures is not None
        return {self._name(self._all_files[index]): str(self._failures[index]) for index in sorted(self._failures)}

    def batch(self, indices: Sequence[int] | Indices) -> Pixels:
        """The pictures, uint8 ``[n, size, size, 3]``.

        Raises:
            UsageError: a file that could be read cannot be any more; the line names the first one.
        """
        places = self._examined()[np.asarray(indices, dtype=np.int64)]
        if self._pictures is not None:
            return self._pictures[places]
        pictures = np.empty((len(places), self._size, self._size, 3), dtype=np.uint8)
        failures = self._decode(places, pictures)
        raise_first(failures, len(places))
        return pictures

    def checksum(self, indices: Sequence[int] | Indices) -> int:
        """Of the files themselves: decoders differ by a level here and there."""
        return functools.reduce(lambda crc, path: zlib.crc32(read_file(path), crc), self.files(indices), 0)

    def names(self, indices: Sequence[int] | Indices) -> list[str]:
        """The files, relative to the root: ``train/cat/0001.jpg``."""
        return [self._name(file) for file in self.files(indices)]

    def files(self, indices: Sequence[int] | Indices) -> list[Path]:
        """The files themselves."""
        return [self._all_files[index] for index in self._examined()[np.asarray(indices, dtype=np.int64)]]

    def _name(self, file: Path) -> str:
        return file.relative_to(self._root).as_posix()

    def _examined(self) -> Indices:
        """Read every file once; return the places of the readable ones among all."""
        with self._lock:
            if self._failures is None:
                count = len(self._all_files)
                if self._in_memory:
                    self._pictures = np.empty((count, self._size, self._size, 3), dtype=np.uint8)
                    failures = self._decode(np.arange(count), self._pictures)
                else:
                    failures = failures_of(lambda index: check_picture(self._all_files[index]), count, self._workers)
                if self._strict:
                    raise_first(failures, count)
                self._readable = np.setdiff1d(np.arange(count), np.array(list(failures), dtype=np.int64))
                self._labels = self._all_labels[self._readable]
                self._require_every_class(failures)
                self._failures = failures
        return self._readable

    def _require_every_class(self, failures: dict[int, UsageError]) -> None:
        lost = np.setdiff1d(self._all_labels, self._labels)
        if len(lost):
            first = min(index for index in failures if self._all_labels[index] == lost[0])
            raise UsageError(f"{failures[first]} (and no other file of its class can be read)")

    def _decode(self, places: Indices, pictures: Pixels) -> dict[int, UsageError]:
        def decode(position: int) -> None:
            pictures[position] = decode_image(self._all_files[places[position]], self._size, self._size)

        return failures_of(decode, len(places), self._workers)


class FolderPart(Split):
    """Some of the readable pictures of a folder that is divided."""

    def __init__(self, whole: FolderSplit, choose: Callable[[Indices], Indices]) -> None:
        """Take what `choose` chooses by the labels ``[N]`` of the readable pictures: their positions."""
        self._whole = whole
        self.passed_over = whole.passed_over
        self._choose = choose

    @functools.cached_property
    def _positions(self) -> Indices:
        return self._choose(self._whole.labels)

    @property
    def labels(self) -> Indices:  # type: ignore[override]
        """The class of each picture, int64 ``[n]``; errors as `FolderSplit.labels`."""
        return self._whole.labels[self._positions]

    @property
    def unreadable(self) -> dict[str, str]:
        """Of the whole folder."""
        return self._whole.unreadable

    def batch(self, indices: Sequence[int] | Indices) -> Pixels:
        """The pictures, as `FolderSplit.batch`."""
        return self._whole.batch(self._in_whole(indices))

    def checksum(self, indices: Sequence[int] | Indices) -> int:
        """Of the files themselves."""
        return self._whole.checksum(self._in_whole(indices))

    def names(self, indices: Sequence[int] | Indices) -> list[str]:
        """The files, relative to the root."""
        return self._whole.names(self._in_whole(indices))

    def files(self, indices: Sequence[int] | Indices) -> list[Path]:
        """The files themselves."""
        return self._whole.files(self._in_whole(indices))

    def _in_whole(self, indices: Sequence[int] | Indices) -> Indices:
        return self._positions[np.asarray(indices, dtype=np.int64)]


def raise_first(failures: dict[int, UsageError], count: int) -> None:
    """Raise the first failure in order of the files, with the number of the others, if there is any."""
    if failures:
        others = f" (and {len(failures) - 1} more of {count} files)" if len(failures) > 1 else ""
        raise UsageError(f"{failures[min(failures)]}{others}")


def failures_of(action: Callable[[int], None], count: int, workers: int) -> dict[int, UsageError]:
    """Call ``action(0..count-1)`` in threads, several files a task (a task costs as much as a small picture).

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

    step = max(1, min(MOST_FILES_A_TASK, -(-count // (4 * workers))))
    tasks = [range(start, min(start + step, count)) for start in range(0, count, step)]
    if workers == 1 or len(tasks) < 2:
        for task in tasks:
            run(task)
    else:
        with ThreadPoolExecutor(min(workers, len(tasks)), thread_name_prefix="decode") as pool:
            list(pool.map(run, tasks))
    return failures
