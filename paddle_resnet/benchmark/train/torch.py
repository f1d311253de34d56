"""A job: train the same network in PyTorch, channels last, on tensors in memory."""

from __future__ import annotations

import time
from typing import Any

import torch

from paddle_resnet.benchmark.timing import PRODUCT_SIZE, peak_megabytes, product_rate, step_speed
from paddle_resnet.benchmark.torch_models import make_torch_model, prepare_torch
from paddle_resnet.benchmark.train.cases import LEARNING_RATE, TrainCase


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Train a case: keys `case`, `network` (see `networks.describe`), `precision`, `threads`, `steps`, `warm_up`."""
    case = TrainCase.parse(job["case"])
    prepare_torch(job["threads"])
    network = make_torch_model(job["network"]).to(memory_format=torch.channels_last).train()
    images = torch.randn(case.batch, 3, case.size, case.size).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (case.batch,))
    optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE, momentum=0.9, nesterov=True, weight_decay=5e-4)
    loss_of = torch.nn.CrossEntropyLoss()
    reduced = job["precision"] == "bfloat16"
    begins, ends = [], []
    for _ in range(job["warm_up"] + job["steps"]):
        begins.append(time.perf_counter())
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=reduced):
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
