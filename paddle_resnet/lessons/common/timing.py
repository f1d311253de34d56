"""Timing within a lesson."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import TypeVar

import numpy as np
import paddle

from paddle_resnet import machine, runtime
from paddle_resnet.lessons.framework.texts import LessonTexts, Text
from paddle_resnet.timing import interleave, seconds

Name = TypeVar("Name", bound=Hashable)


def describe_machine() -> Text:
    """Name processor, cores, threads and Paddle's version in a sentence."""
    processor = machine.processor().model or "an unknown processor"
    cores = machine.physical_cores()
    threads = runtime.thread_count(runtime.prepare_process().threads) or cores
    values = {"processor": processor, "cores": cores, "threads": threads, "paddle": paddle.__version__}
    return LessonTexts("common").fill("measured_on", values)


def time_interleaved(calls: Mapping[Name, Callable[[], object]], rounds: int) -> dict[Name, np.ndarray]:
    """Run A, B, ..., A, B, ... and return the seconds of each call, ``[rounds]``; see `timing.interleave`.

    On a GPU a call must end with its result in host memory.
    """
    timed = {name: partial(seconds, call) for name, call in calls.items()}
    return {name: np.array(taken) for name, taken in interleave(timed, rounds).items()}
