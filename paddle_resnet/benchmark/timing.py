"""How fast this process multiplies matrices, and how much memory it has taken."""

from __future__ import annotations

import re
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

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


class Summary(NamedTuple):
    """The median of some measurements, the smallest and the largest, and how many there are."""

    median: float
    smallest: float
    largest: float
    number: int

    def as_json(self) -> dict[str, float]:
        """As a JSON object."""
        return {"median": self.median, "smallest": self.smallest, "largest": self.largest, "count": self.number}


def summarise(values: Sequence[float]) -> Summary:
    """Summarise at least one measurement."""
    return Summary(float(np.median(values)), float(min(values)), float(max(values)), len(values))


def paired_ratios(values: Sequence[float], references: Sequence[float]) -> list[float]:
    """Divide round by round: what slows the whole machine for a while slows both sides of a pair."""
    return [value / reference for value, reference in zip(values, references, strict=True)]


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` percent of the measurements do not exceed, linear between neighbours."""
    return float(np.percentile(values, share))


class StepTimes:
    """Times of the steps of one run, those of the warm-up left out."""

    def __init__(self, begins: Sequence[float], ends: Sequence[float], warm_up: int) -> None:
        """Take the moments, in seconds, at which each step began and ended; `warm_up`, at least 1, are not counted."""
        begin, end = np.asarray(begins[warm_up:]), np.asarray(ends[warm_up - 1 :])
        self.whole = np.diff(end)
        """Seconds from the end of a step to the end of the next: waiting for its batch, and training."""
        self.waiting = begin - end[:-1]
        """Seconds of it in which the batch was waited for."""

    def measurement(self, batch: int) -> dict[str, Any]:
        """Median speed, the share of the time spent waiting for data, and every step's seconds."""
        return {
            "images_per_second": batch / float(np.median(self.whole)),
            "waiting_share": float(self.waiting.sum() / self.whole.sum()),
            "step_seconds": [round(value, 6) for value in self.whole.tolist()],
        }
