"""A job: iterate over the training loader without training."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from paddle_resnet import runtime
from paddle_resnet.benchmark.synthetic_image import synthetic_jpeg
from paddle_resnet.benchmark.timing import step_speed
from paddle_resnet.config import AugmentConfig
from paddle_resnet.data import MemorySplit, Normalize, Split, TrainLoader
from paddle_resnet.data.datasets.file_split import FileSplit, ImageFiles
from paddle_resnet.files import scratch_folder

FILE_SIZE = (500, 375)
"""Width and height of the image files, as of most of ImageNet's."""
DECODING_THREADS = 2


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Load batches: keys `source` (memory or files), `stored`, `size`, `batch`, `augment`, `steps`, `warm_up`."""
    runtime.select_device("cpu")
    with _source(job) as split:
        normalize = Normalize((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
        augment = AugmentConfig.model_validate(job["augment"])
        loader = TrainLoader(split, job["batch"], job["size"], job["stored"], normalize, augment, seed=0)
        times = [time.perf_counter() for _ in loader]
    return step_speed(times, times, job["warm_up"], job["batch"])


def measure_files(job: dict[str, Any]) -> dict[str, Any]:
    """Load an epoch of files, and return when each batch came: keys as of `comparison.Files`, `files` and `workers`."""
    runtime.select_device("cpu")
    runtime.keep_freed_memory()  # as in training
    labels = np.arange(len(job["files"])) % 10
    files = ImageFiles(Path(), job["files"], labels, job["resize"], job["workers"], in_memory=False, examine=False)
    normalize, augment = Normalize((0.5,) * 3, (0.25,) * 3), AugmentConfig.model_validate(job["augment"])
    loader = TrainLoader(FileSplit(files), job["batch"], job["size"], job["resize"], normalize, augment, seed=0)
    return {"times": [time.perf_counter() for _ in loader]}


@contextmanager
def _source(job: dict[str, Any]) -> Iterator[Split]:
    """Make a split of 4 batches of different images, repeated to the images of all steps."""
    generator = np.random.default_rng(0)
    count, side = 4 * job["batch"], job["stored"]
    labels = generator.integers(0, 10, count)
    repeated = np.arange((job["steps"] + job["warm_up"]) * job["batch"]) % count
    if job["source"] == "memory":
        pixels = generator.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
        yield MemorySplit(pixels, labels, "random", repeated)
        return
    with scratch_folder() as folder:
        names = [f"{number}.jpg" for number in range(count)]
        for name in names:
            (folder / name).write_bytes(synthetic_jpeg(generator, FILE_SIZE))
        yield FileSplit(ImageFiles(folder, names, labels, side, DECODING_THREADS, in_memory=False), lambda _: repeated)
