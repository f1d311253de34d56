"""Picture files as a split: decoded by a pool of threads, once into memory or batch by batch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from paddle_resnet.data.decode import check_header, decode_image
from paddle_resnet.data.splits import Indices, Pixels, Split
from paddle_resnet.errors import UsageError

MOST_FILES_A_TASK = 32


class FolderSplit(Split):
    """Files below `root`, every one decoded to the square centre of side `size`."""

    def __init__(
        self, root: Path, files: Sequence[Path], labels: Indices, size: int, workers: int, in_memory: bool
    ) -> None:
        """Take `files` with their `labels` ``[N]``; nothing is decoded before the first batch.

        Args:
            root: what `names` are relative to.
            files: the pictures.
            labels: the class of each.
            size: pixels a side of the stored pictures.
            workers: threads that decode.
            in_memory: decode all files at the first batch and keep them.
        """
        self.labels = labels.astype(np.int64)
        self._root = root
        self._files = files
        self._size = size
        self._workers = workers
        self._in_memory = in_memory
        self._pictures: Pixels | None = None
        self._lock = threading.Lock()

    def batch(self, indices: Sequence[int] | Indices) -> Pixels:
        """The pictures, uint8 ``[n, size, size, 3]``.

        Raises:
            UsageError: a file cannot be decoded; the line names the first one.
        """
        indices = np.asarray(indices, dtype=np.int64)
        if not self._in_memory:
            return self._decode([self._files[index] for index in indices])
        with self._lock:
            if self._pictures is None:
                self._pictures = self._decode(self._files)
        return self._pictures[indices]

    def names(self, indices: Sequence[int] | Indices) -> list[str]:
        """The files, relative to the root: ``train/cat/0001.jpg``."""
        return [self._files[index].relative_to(self._root).as_posix() for index in np.asarray(indices, dtype=np.int64)]

    def _decode(self, files: Sequence[Path]) -> Pixels:
        pictures = np.empty((len(files), self._size, self._size, 3), dtype=np.uint8)

        def decode(index: int) -> None:
            pictures[index] = decode_image(files[index], self._size, self._size)

        for_each_file(decode, len(files), self._workers)
        return pictures


def check_headers(files: Sequence[Path], workers: int) -> None:
    """Look at the first bytes of every file, so that a file that is no picture is found before any training.

    Raises:
        UsageError: names the first such file and says how many there are.
    """
    for_each_file(lambda index: check_header(files[index]), len(files), workers)


def for_each_file(action: Callable[[int], None], count: int, workers: int) -> None:
    """Call ``action(0..count-1)`` in threads, several files a task (a task costs as much as a small picture).

    Raises:
        UsageError: the first failure in order of the files, with the number of the others.
    """
    failures: dict[int, UsageError] = {}

    def run(task: range) -> None:
        for index in task:
            try:
                action(index)
            except UsageError as error:
                failures[index] = error

    step = min(MOST_FILES_A_TASK, -(-count // (4 * workers)))
    tasks = [range(start, min(start + step, count)) for start in range(0, count, step)]
    if workers == 1:
        for task in tasks:
            run(task)
    else:
        with ThreadPoolExecutor(min(workers, len(tasks)), thread_name_prefix="decode") as pool:
            list(pool.map(run, tasks))
    if failures:
        others = f" (and {len(failures) - 1} more of {count} files)" if len(failures) > 1 else ""
        raise UsageError(f"{failures[min(failures)]}{others}")
