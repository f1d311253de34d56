"""Jobs in PyTorch, channels last: the same networks, trained and timed.

Imports no paddle: a process that measures PyTorch must not load both.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from paddle_resnet.benchmark.cases import LEARNING_RATE, TrainCase
from paddle_resnet.benchmark.timing import (
    PRODUCT_SIZE,
    peak_megabytes,
    product_rate,
    step_speed,
    time_calls,
)
from paddle_resnet.benchmark.torch_models import make_torch_model


def _prepare(threads: int) -> None:
    torch.set_num_threads(threads)
    torch.manual_seed(0)


def train(job: dict[str, Any]) -> dict[str, Any]:
    """Train a case: keys `case`, `network` (see `train.describe`), `precision`, `threads`, `steps`, `warm_up`."""
    case = TrainCase.parse(job["case"])
    _prepare(job["threads"])
    network = make_torch_model(job["network"]).to(memory_format=torch.channels_last).train()
    images = torch.randn(case.batch, 3, case.size, case.size).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (case.batch,))
    optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE, momentum=0.9, nesterov=True, weight_decay=5e-4)
    loss_of = torch.nn.CrossEntropyLoss()
    begins, ends = [], []
    for _ in range(job["warm_up"] + job["steps"]):
        begins.append(time.perf_counter())
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=job["precision"] == "bfloat16"):
            loss = loss_of(network(images), labels)
        loss.backward()
        optimizer.step()
        loss.item()
        ends.append(time.perf_counter())
    peak = peak_megabytes()
    matrix = torch.rand(PRODUCT_SIZE, PRODUCT_SIZE)
    return {
        **step_speed(begins, ends, job["warm_up"], case.batch),
        "peak_megabytes": peak,
        "product_gflops": product_rate(lambda: torch.matmul(matrix, matrix)),
    }


def infer(job: dict[str, Any]) -> dict[str, Any]:
    """Time calls on random pixels: keys `network`, `size`, `precision`, and those of `paddle_jobs.infer`."""
    _prepare(job["threads"])
    network = make_torch_model(job["network"]).eval().to(memory_format=torch.channels_last)
    pixels = torch.randint(0, 256, (job["batch"], job["size"], job["size"], 3), dtype=torch.uint8)

    def predict() -> Tensor:
        # Permuted, the pixels are channels last without a copy.
        return network((pixels.permute(0, 3, 1, 2).float() - 120) / 60).softmax(-1)

    autocast = torch.autocast("cpu", torch.bfloat16) if job["precision"] == "bfloat16" else nullcontext()
    with torch.inference_mode(), autocast:
        return time_calls(predict, job["batch"], job["calls"], job["warm_up"])
