"""How long calls take that should do the same: in turns, each call by itself, the first ones kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np

Call = Callable[[np.ndarray], np.ndarray]


def seconds_of(call: Call, batch: np.ndarray) -> float:
    """Time one call; its answer is a numpy array, so that nothing is still being computed when it returns."""
    started = time.perf_counter()
    call(batch)
    return time.perf_counter() - started


def in_turns(calls: Mapping[str, Call], batch: np.ndarray, rounds: int) -> dict[str, np.ndarray]:
    """Call A, B, A, B, ... and return the seconds of each, ``[rounds]``, in order.

    What slows the machine for a while then slows all of them.
    """
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            taken[name].append(seconds_of(call, batch))
    return {name: np.array(seconds) for name, seconds in taken.items()}
