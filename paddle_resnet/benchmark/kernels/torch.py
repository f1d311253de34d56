"""A job: each operation by PyTorch, channels last."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from paddle_resnet.benchmark.kernels.cases import Kernel, time_kernels
from paddle_resnet.benchmark.torch_models import prepare_torch


class AddReLU(nn.Module):
    """``relu(x + shortcut)``."""

    def forward(self, x: torch.Tensor, shortcut: torch.Tensor) -> torch.Tensor:
        return functional.relu(x + shortcut, inplace=True)


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Time the passes: keys `threads`, `kernels` (lists) and `repeats`."""
    prepare_torch(job["threads"])

    def prepare(kernel: Kernel) -> tuple[Any, list[torch.Tensor]]:
        shape = (kernel.batch, kernel.channels, kernel.side, kernel.side)
        inputs = [
            torch.rand(shape).contiguous(memory_format=torch.channels_last).requires_grad_()
            for _ in range(2 if kernel.operation == "add_relu" else 1)
        ]
        return _module(kernel).to(memory_format=torch.channels_last), inputs

    return time_kernels(job, prepare, torch.ones_like)


def _module(kernel: Kernel) -> nn.Module:
    if kernel.operation == "convolution":
        sizes = (kernel.channels, kernel.out_channels, kernel.size, kernel.stride, kernel.size // 2)
        return nn.Conv2d(*sizes, bias=False)
    if kernel.operation == "bn_relu":
        return nn.Sequential(nn.BatchNorm2d(kernel.channels), nn.ReLU(inplace=True))
    return AddReLU() if kernel.operation == "add_relu" else nn.MaxPool2d(3, 2, 1)
