"""The machine that a lesson's times are of."""

from __future__ import annotations

import paddle

from paddle_resnet import machine, runtime
from paddle_resnet.lessons.page import Text


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
