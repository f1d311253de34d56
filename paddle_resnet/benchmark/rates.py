"""How fast this process multiplies matrices, and how much memory it has taken."""

from __future__ import annotations

import re
import resource
import time
from collections.abc import Callable
from pathlib import Path

PRODUCT_SIZE = 2048
PRODUCTS = 5
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


def peak_megabytes() -> float:
    """The most memory (10^6 bytes) that this process has held.

    Of Linux's own count for the running program: `ru_maxrss` starts from what the parent process held.
    """
    peak = re.search(r"^VmHWM:\s*(\d+) kB$", STATUS.read_text(), re.MULTILINE) if STATUS.exists() else None
    kibibytes = int(peak[1]) if peak else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kibibytes * 1024 / 1e6
