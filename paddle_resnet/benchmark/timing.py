"""Measure within a job's process: times of calls and steps, the rate of a matrix product, memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from paddle_resnet.timing import seconds

PRODUCT_SIZE = 2048
PRODUCTS = 5
MIN_SECONDS = 0.5
PERCENTILES = {"p50_ms": 50, "p95_ms": 95, "p99_ms": 99}
STATUS = Path("/proc/self/status")


def product_rate(multiply: Callable[[], object]) -> float:
    """Return GFLOP/s of the fastest of several products of two float32 matrices of `PRODUCT_SIZE` rows and columns."""
    multiply()
    return 2 * PRODUCT_SIZE**3 / 1e9 / min(seconds(multiply) for _ in range(PRODUCTS))


def percentiles_ms(taken: Sequence[float]) -> dict[str, float]:
    """Return percentiles of times in seconds, as milliseconds: ``p50_ms``, ``p95_ms`` and ``p99_ms``."""
    return {key: 1000 * float(np.percentile(taken, share)) for key, share in PERCENTILES.items()}


def time_calls(call: Callable[[], object], batch: int, calls: int, warm_up: int) -> dict[str, float]:
    """Time at least `calls` calls of `batch` images, and at least half a second of them, after `warm_up` calls.

    Returns:
        Images/s, percentiles of a call's time in milliseconds, and this process's peak memory.
    """
    for _ in range(warm_up):
        call()
    taken: list[float] = []
    while len(taken) < calls or sum(taken) < MIN_SECONDS:
        taken += [seconds(call) for _ in range(min(calls, 50))]  # in groups, as the sum takes time too
    return {
        "images_per_second": batch * len(taken) / sum(taken),
        **percentiles_ms(taken),
        "peak_megabytes": peak_megabytes(),
    }


def peak_megabytes() -> float:
    """Return the peak memory of this process in 10^6 bytes.

    Linux counts it for the running program, Windows as `peak_wset`. Elsewhere it is the memory in use now.
    """
    peak = re.search(r"^VmHWM:\s*(\d+) kB$", STATUS.read_text(), re.MULTILINE) if STATUS.exists() else None
    if peak:
        return int(peak[1]) * 1024 / 1e6
    memory = psutil.Process().memory_info()
    return getattr(memory, "peak_wset", memory.rss) / 1e6


def step_speed(begins: Sequence[float], ends: Sequence[float], warm_up: int, batch: int) -> dict[str, Any]:
    """Summarise a run's steps after the first `warm_up` (at least 1).

    A step lasts from the end of the one before to its own end: it loads its batch, then trains.

    `begins` and `ends` are the times, in seconds, at which each step of `batch` images began to train and ended.

    Returns:
        Images/s by the median step, the fraction of the time spent waiting for batches, and each step's seconds.
    """
    begin, end = np.asarray(begins[warm_up:]), np.asarray(ends[warm_up - 1 :])
    steps = np.diff(end)
    return {
        "images_per_second": batch / float(np.median(steps)),
        "waiting_share": float((begin - end[:-1]).sum() / steps.sum()),
        "step_seconds": [round(value, 6) for value in steps.tolist()],
    }
