"""How fast this process multiplies matrices, and how much memory it has taken."""

from __future__ import annotations

import re
import resource
import time
from collections.abc import Callable
from pathlib import Path

from paddle_resnet.benchmark.statistics import percentile

PRODUCT_SIZE = 2048
PRODUCTS = 5
LEAST_SECONDS = 0.5
STATUS = Path("/proc/self/status")


def product_rate(multiply: Callable[[], object], size: int = PRODUCT_SIZE) -> float:
    """GFLOP/s of the fastest of several products of two float32 matrices ``[size, size]``; `multiply` does one."""
    multiply()
    return 2 * size**3 / 1e9 / min(seconds(multiply) for _ in range(PRODUCTS))


def seconds(work: Callable[[], object]) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def call_times(answer: Callable[[], object], batch: int, calls: int, warm_up: int) -> dict[str, float]:
    """Time at least `calls` calls, and half a second of them; percentiles of one call's time, images/s of all.

    Args:
        answer: answers a batch.
        batch: its images.
        calls: at least so many calls count.
        warm_up: calls before them.
    """
    for _ in range(warm_up):
        answer()
    taken: list[float] = []
    while len(taken) < calls or sum(taken) < LEAST_SECONDS:
        # Summed up every 50 calls only: that takes time too.
        taken += [seconds(answer) for _ in range(min(calls, 50))]
    return {
        "images_per_second": batch * len(taken) / sum(taken),
        **{f"p{share}_ms": 1000 * percentile(taken, share) for share in (50, 95, 99)},
        "peak_megabytes": peak_megabytes(),
    }


def peak_megabytes() -> float:
    """The most memory (10^6 bytes) that this process has held.

    Of Linux's own count for the running program: `ru_maxrss` starts from what the parent process held.
    """
    peak = re.search(r"^VmHWM:\s*(\d+) kB$", STATUS.read_text(), re.MULTILINE) if STATUS.exists() else None
    kibibytes = int(peak[1]) if peak else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kibibytes * 1024 / 1e6
