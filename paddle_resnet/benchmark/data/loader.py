"""A job: iterate over the training loader without training."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from paddle_resnet import runtime
from paddle_resnet.benchmark.synthetic_image import synthetic_jpeg
from paddle_resnet.benchmark.timing import step_speed
from paddle_resnet.config import AugmentConfig
from paddle_resnet.data import MemorySplit, Normalize, Split, TrainLoader
from paddle_resnet.data.datasets.folder_split import FolderSplit, ImageFiles
from paddle_resnet.files import scratch_folder

FILE_SIZE = (500, 375)
"""Width and height of the image files, as of most of ImageNet's."""
DECODING_THREADS = 2


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Load batches: keys `source` (memory or files), `stored`, `size`, `batch`, `augment`, `steps`, `warm_up`."""
    runtime.select_device("cpu")
    with _source(job) as split:
        repeated = _Repeated(split, (job["steps"] + job["warm_up"]) * job["batch"])
        normalize = Normalize((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
        augment = AugmentConfig.model_validate(job["augment"])
        loader = TrainLoader(repeated, job["batch"], job["size"], job["stored"], normalize, augment, seed=0)
        times = [time.perf_counter() for _ in loader]
    return step_speed(times, times, job["warm_up"], job["batch"])


class _Repeated(Split):
    """A split repeated to `count` images."""

    def __init__(self, split: Split, count: int) -> None:
        self._split = split
        self.labels = split.labels[np.arange(count) % len(split)]

    def batch(self, indices: Any) -> Any:
        return self._split.batch(np.asarray(indices) % len(self._split))

    def names(self, indices: Any) -> list[str]:
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
        files = [folder / f"{number}.jpg" for number in range(count)]
        for file in files:
            file.write_bytes(synthetic_jpeg(generator, FILE_SIZE))
        yield FolderSplit(ImageFiles(folder, files, labels, side, DECODING_THREADS, in_memory=False))
