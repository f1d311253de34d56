"""A job: the training loader alone, with nothing else to do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from paddle_resnet import runtime
from paddle_resnet.benchmark.synthetic_image import QUALITY, draw_picture
from paddle_resnet.benchmark.timing import StepTimes
from paddle_resnet.config import AugmentConfig
from paddle_resnet.data import MemorySplit, Normalize, Split, TrainLoader
from paddle_resnet.data.datasets.folder_split import FolderSplit, ImageFiles
from paddle_resnet.files import scratch_folder

PICTURE = (500, 375)
"""Pixels of the pictures in a folder, as most of ImageNet's."""
DECODING_THREADS = 2


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Read batches: keys `source` (memory, or files), `stored`, `size`, `batch`, `augment`, `steps`, `warm_up`."""
    runtime.select_device("cpu")
    steps = job["steps"] + job["warm_up"]
    with _source(job) as split:
        repeated = _Repeated(split, steps * job["batch"])
        normalize = Normalize((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
        augment = AugmentConfig.model_validate(job["augment"])
        loader = TrainLoader(repeated, job["batch"], job["size"], job["stored"], normalize, augment, seed=0)
        moments = []
        for _ in loader:
            moments.append(time.perf_counter())
    return StepTimes(moments, moments, job["warm_up"]).measurement(job["batch"])


class _Repeated(Split):
    """The pictures of a split again and again, for an epoch of any length."""

    def __init__(self, split: Split, count: int) -> None:
        self._split = split
        self.labels = split.labels[np.arange(count) % len(split)]

    def batch(self, indices: Any) -> Any:
        """The stored pictures, uint8 ``[n, H, W, 3]``."""
        return self._split.batch(np.asarray(indices) % len(self._split))

    def names(self, indices: Any) -> list[str]:
        """What the split calls them."""
        return self._split.names(np.asarray(indices) % len(self._split))


@contextmanager
def _source(job: dict[str, Any]) -> Iterator[Split]:
    generator = np.random.default_rng(0)
    count, side = 4 * job["batch"], job["stored"]
    labels = generator.integers(0, 10, count)
    if job["source"] == "memory":
        yield MemorySplit(generator.integers(0, 256, (count, side, side, 3), dtype=np.uint8), labels, "random")
        return
    with scratch_folder() as folder:
        files = [_write_picture(folder / f"{number}.jpg", generator) for number in range(count)]
        yield FolderSplit(ImageFiles(folder, files, labels, side, DECODING_THREADS, in_memory=False))


def _write_picture(path: Path, generator: np.random.Generator) -> Path:
    draw_picture(generator, PICTURE).save(path, quality=QUALITY)
    return path
