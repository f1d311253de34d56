"""Time calls, and make calls in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

Name = TypeVar("Name")
Result = TypeVar("Result")


def seconds(call: Callable[[], object]) -> float:
    """Return the wall-clock time of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def interleave(
    calls: Mapping[Name, Callable[[], Result]], rounds: int, before: Callable[[Name, int], object] | None = None
) -> dict[Name, list[Result]]:
    """Call A, B, A, B, ... `rounds` times, so that whatever slows the machine for a while slows all of them.

    `before` is called ahead of each call, with its name and the round, counted from 1. Returns the results of each, by
    round.
    """
    results: dict[Name, list[Result]] = {name: [] for name in calls}
    for number in range(1, rounds + 1):
        for name, call in calls.items():
            if before is not None:
                before(name, number)
            results[name].append(call())
    return results
