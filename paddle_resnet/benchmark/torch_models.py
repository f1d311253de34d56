"""The networks of `paddle_resnet.models` in PyTorch, layer by layer, made from `train.describe`.

Imports no paddle: a process that measures PyTorch must not load both.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional


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
