"""Image files as splits: decoded by a pool of threads, once into memory or batch by batch."""

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
from paddle_resnet.images.decode import check_readable, decode_image
from paddle_resnet.images.find import SkippedFile
from paddle_resnet.images.image_file import read_file

MAX_FILES_PER_TASK = 32


class ImageFiles:
    """Files below `root`, each decoded to the square centre of side `size`.

    Nothing is read at first. The first access decodes each file once; unreadable files are left out, or raise an error
    if `strict`.

    Args:
        root: names are relative to it.
        files: the image files.
        labels: their classes, ``[N]``.
        size: pixels a side of the stored images.
        workers: threads that decode.
        in_memory: keep the decoded images.
        strict: an unreadable file is an error.
        skipped: other files and folders found beside the images.
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
        skipped: Sequence[SkippedFile] = (),
    ) -> None:
        self._root = root
        self.skipped = {self.name(each.path): each for each in skipped}
        self._files = files
        self._all_labels = labels.astype(np.int64)
        self._size = size
        self._workers = workers
        self._in_memory = in_memory
        self._strict = strict
        self._lock = threading.Lock()
        self._failures: dict[int, UsageError] | None = None
        self._readable = np.zeros(0, dtype=np.int64)
        self._decoded: Pixels | None = None

    def name(self, file: Path) -> str:
        return file.relative_to(self._root).as_posix()

    def labels(self) -> Indices:
        """Return the class of each readable file, int64 ``[N]``.

        Raises:
            UsageError: a file cannot be read and `strict` is set, or no file of a class can be read.
        """
        return self._all_labels[self._examine()]

    def unreadable(self) -> dict[str, str]:
        """Return the reason for each file that is left out, by name; errors as of `labels`."""
        self._examine()
        assert self._failures is not None
        return {self.name(self._files[index]): str(self._failures[index]) for index in sorted(self._failures)}

    def readable(self, positions: Indices) -> list[Path]:
        """Return the files at these positions among the readable ones."""
        return [self._files[index] for index in self._examine()[positions]]

    def decode(self, positions: Indices) -> Pixels:
        """Return the images at these positions among the readable ones, uint8 ``[n, size, size, 3]``.

        Raises:
            UsageError: a file has become unreadable; the line names the first one.
        """
        indices = self._examine()[positions]
        if self._decoded is not None:
            return self._decoded[indices]
        images = np.empty((len(indices), self._size, self._size, 3), dtype=np.uint8)
        raise_first_failure(self._decode(indices, images), len(indices))
        return images

    def _examine(self) -> Indices:
        """Read every file once; return the indices of the readable ones among all."""
        with self._lock:
            if self._failures is None:
                count = len(self._files)
                if self._in_memory:
                    self._decoded = np.empty((count, self._size, self._size, 3), dtype=np.uint8)
                    failures = self._decode(np.arange(count), self._decoded)
                else:
                    failures = run_in_threads(lambda index: check_readable(self._files[index]), count, self._workers)
                if self._strict:
                    raise_first_failure(failures, count)
                readable = np.setdiff1d(np.arange(count), np.array(list(failures), dtype=np.int64))
                lost = np.setdiff1d(self._all_labels, self._all_labels[readable])
                if len(lost):
                    first = min(index for index in failures if self._all_labels[index] == lost[0])
                    raise UsageError(f"{failures[first]} (and no other file of its class can be read)")
                self._readable, self._failures = readable, failures
        return self._readable

    def _decode(self, indices: Indices, images: Pixels) -> dict[int, UsageError]:
        def decode(position: int) -> None:
            images[position] = decode_image(self._files[indices[position]], self._size, self._size)

        return run_in_threads(decode, len(indices), self._workers)


class FolderSplit(Split):
    """All readable files of `images`, or those that `choose` selects.

    Args:
        images: the files.
        choose: returns the positions of the split, given the labels of the readable files.
    """

    def __init__(self, images: ImageFiles, choose: Callable[[Indices], Indices] | None = None) -> None:
        self._images = images
        self._choose = choose

    @functools.cached_property
    def _positions(self) -> Indices:
        labels = self._images.labels()
        return np.arange(len(labels)) if self._choose is None else self._choose(labels)

    @functools.cached_property
    def labels(self) -> Indices:  # type: ignore[override]
        return self._images.labels()[self._positions]

    @property
    def unreadable(self) -> dict[str, str]:
        """The reason for each file that is left out, by name; of a divided folder, all of them."""
        return self._images.unreadable()

    @property
    def skipped(self) -> dict[str, SkippedFile]:
        return self._images.skipped

    def batch(self, indices: Sequence[int] | Indices) -> Pixels:
        return self._images.decode(self._positions[np.asarray(indices, dtype=np.int64)])

    def checksum(self, indices: Sequence[int] | Indices) -> int:
        """Return a CRC of the files: decoders differ by a level here and there."""
        return functools.reduce(lambda crc, path: zlib.crc32(read_file(path), crc), self.files(indices), 0)

    def names(self, indices: Sequence[int] | Indices) -> list[str]:
        """Return the files' names relative to the root: ``train/cat/0001.jpg``."""
        return [self._images.name(file) for file in self.files(indices)]

    def files(self, indices: Sequence[int] | Indices) -> list[Path]:
        return self._images.readable(self._positions[np.asarray(indices, dtype=np.int64)])


def raise_first_failure(failures: dict[int, UsageError], count: int) -> None:
    """Raise the first failure in order of the files, if any, with the number of the others."""
    if failures:
        others = f" (and {len(failures) - 1} more of {count} files)" if len(failures) > 1 else ""
        raise UsageError(f"{failures[min(failures)]}{others}")


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
    tasks = [range(start, min(start + step, count)) for start in range(0, count, step)]
    if workers == 1 or len(tasks) < 2:
        for task in tasks:
            run(task)
    else:
        with ThreadPoolExecutor(min(workers, len(tasks)), thread_name_prefix="decode") as pool:
            list(pool.map(run, tasks))
    return failures
