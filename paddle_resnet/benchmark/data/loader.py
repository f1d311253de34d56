"""A job: iterate over the training loader without training."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from paddle_resnet import runtime
from paddle_resnet.benchmark.timing import step_speed
from paddle_resnet.config import AugmentConfig
from paddle_resnet.data import MemorySplit, Normalize, Split, TrainLoader
from paddle_resnet.data.datasets.file_split import FileSplit, ImageFiles

DIFFERENT_BATCHES = 4
"""Of random images in memory; they are repeated."""


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Load batches: keys of `LoaderCase.job`.

    Returns:
        What `step_speed` does, and ``times``, when each batch came.
    """
    runtime.select_device("cpu")
    runtime.keep_freed_memory()  # as in training
    count, side = (job["steps"] + job["warm_up"]) * job["batch"], job["stored"]
    split: Split
    if job["files"]:
        labels = np.arange(count) % 10
        files = ImageFiles(Path(), job["files"], labels, side, job["workers"], in_memory=False, examine=False)
        split = FileSplit(files)
    else:
        generator = np.random.default_rng(0)
        stored = DIFFERENT_BATCHES * job["batch"]
        pixels = generator.integers(0, 256, (stored, side, side, 3), dtype=np.uint8)
        split = MemorySplit(pixels, generator.integers(0, 10, stored), "random", np.arange(count) % stored)
    normalize, augment = Normalize((0.5,) * 3, (0.25,) * 3), AugmentConfig.model_validate(job["augment"])
    loader = TrainLoader(split, job["batch"], job["size"], side, normalize, augment, seed=0)
    times = [time.perf_counter() for _ in loader]
    return {**step_speed(times, times, job["warm_up"], job["batch"]), "times": times}
