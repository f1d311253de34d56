"""A job: each operation by Paddle's own layers or by oneDNN's."""

from __future__ import annotations

from typing import Any

import paddle
from paddle import nn

from paddle_resnet import onednn, runtime
from paddle_resnet.benchmark.kernels.cases import Kernel, time_kernels
from paddle_resnet.errors import UsageError
from paddle_resnet.models.blocks import AddReLU
from paddle_resnet.onednn import layers
from paddle_resnet.training.cpu_backend import keep_freed_memory


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Time the passes: keys `backend` (native or onednn), `kernels` (lists) and `repeats`."""
    device = runtime.select_device("cpu")
    keep_freed_memory()  # as in training
    fast = job["backend"] == "onednn"
    reason = onednn.unavailable_reason(device) if fast else None
    if reason is not None:
        raise UsageError(reason)

    def prepare(kernel: Kernel) -> tuple[Any, list[paddle.Tensor]]:
        layer = _layer(kernel, fast)
        shape = [kernel.batch, kernel.channels, kernel.side, kernel.side]
        if fast:
            shape = [shape[0], *shape[2:], shape[1]]
        inputs = [paddle.rand(shape) for _ in range(2 if kernel.operation == "add_relu" else 1)]
        for tensor in inputs:
            tensor.stop_gradient = False
        return layer, inputs

    return time_kernels(job, prepare, paddle.ones_like)


def _layer(kernel: Kernel, fast: bool) -> nn.Layer:
    if kernel.operation == "convolution":
        kind = layers.Convolution if fast else nn.Conv2D
        sizes = (kernel.channels, kernel.out_channels, kernel.size, kernel.stride, kernel.size // 2)
        return kind(*sizes, bias_attr=False)
    if kernel.operation == "bn_relu":
        return (
            layers.BatchNormReLU(kernel.channels) if fast else nn.Sequential(nn.BatchNorm2D(kernel.channels), nn.ReLU())
        )
    if kernel.operation == "add_relu":
        return layers.AddReLU() if fast else AddReLU()
    return (layers.MaxPool if fast else nn.MaxPool2D)(3, 2, 1)
