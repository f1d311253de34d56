"""The machine that a lesson's times are of."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
import paddle

from paddle_resnet import machine, runtime
from paddle_resnet.lessons.framework.page import Text


def measured_where() -> Text:
    """Name processor, cores, threads and Paddle's version, as a sentence."""
    processor = machine.processor().model or "an unknown processor"
    cores = machine.physical_cores()
    threads = runtime.thread_count(runtime.prepare_process().threads) or cores
    return Text(
        f"Measured on {processor}, {cores} core{'s' * (cores > 1)}, {threads} thread{'s' * (threads > 1)}, "
        f"PaddlePaddle {paddle.__version__}.",
        f"测量环境：{processor}，{cores} 核，{threads} 线程，PaddlePaddle {paddle.__version__}。",
    )


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
