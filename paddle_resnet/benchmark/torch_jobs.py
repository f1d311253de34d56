"""Jobs in PyTorch, channels last: the same networks, made from `train.describe`, trained and timed.

Imports no paddle: a process that measures PyTorch must not load both.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from paddle_resnet.benchmark.cases import LEARNING_RATE, TrainCase
from paddle_resnet.benchmark.timing import PRODUCT_SIZE, peak_megabytes, product_rate, step_speed, time_calls


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


def convolution(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    """Make a convolution without bias that keeps H and W at stride 1."""
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)


class ZeroPadShortcut(nn.Module):
    """Option A (He et al. 2015, section 4.2): every `stride`-th pixel, and new channels of zeros."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.new_channels = out_channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        return functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))


class ResidualBlock(nn.Module):
    """A basic block (two 3x3 convolutions) or a bottleneck (1x1, 3x3 with the stride, 1x1)."""

    def __init__(self, in_channels: int, width: int, stride: int, bottleneck: bool, zero_pad: bool) -> None:
        super().__init__()
        out_channels = 4 * width if bottleneck else width
        shapes = [(in_channels, width, 3, stride), (width, width, 3, 1)]
        if bottleneck:
            shapes = [(in_channels, width, 1, 1), (width, width, 3, stride), (width, out_channels, 1, 1)]
        layers: list[nn.Module] = []
        for inputs, outputs, kernel, step in shapes:
            layers += [convolution(inputs, outputs, kernel, step), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        self.residual = nn.Sequential(*layers[:-1])
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            projection = nn.Sequential(convolution(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels))
            self.shortcut = ZeroPadShortcut(in_channels, out_channels, stride) if zero_pad else projection

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.residual(x) + self.shortcut(x), inplace=True)


def make_torch_model(description: dict[str, Any]) -> nn.Sequential:
    """Make the network of a description: images float32 ``[N, 3, H, W]`` to logits ``[N, classes]``."""
    widths, bottleneck = description["widths"], description["bottleneck"]
    channels = widths[0]
    if description["stem"] == "imagenet":
        stem: list[nn.Module] = [convolution(3, channels, 7, 2), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
        stem.append(nn.MaxPool2d(3, 2, 1))
    else:
        stem = [convolution(3, channels, 3), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
    blocks: list[nn.Module] = []
    for stage, (depth, width) in enumerate(zip(description["depths"], widths, strict=True)):
        for index in range(depth):
            stride = 2 if stage > 0 and index == 0 else 1
            blocks.append(ResidualBlock(channels, width, stride, bottleneck, description["zero_pad"]))
            channels = 4 * width if bottleneck else width
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, description["num_classes"])]
    network = nn.Sequential(*stem, *blocks, *head)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network
