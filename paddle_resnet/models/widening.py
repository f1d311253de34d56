"""A block for training in minutes: the channels grow in one convolution, and the shortcut leads around the next."""

from __future__ import annotations

import paddle
from paddle import nn

from paddle_resnet.models.blocks import (
    DEFAULT_OPTIONS,
    AddReLU,
    BlockOptions,
    Fork,
    ResidualBlock,
    Shortcut,
    convolution,
)


class WideningBlock(ResidualBlock):
    """A 3x3 convolution and max-pooling, then ``relu(x + F(x))`` with one 3x3 convolution as F.

    ``[N, in, H, W]`` to ``[N, width, floor(H / stride), floor(W / stride)]``, after the stages of Page's ResNet-9 ("How
    to train your ResNet", 2018) and of Jordan's networks (2024, https://arxiv.org/abs/2404.00498). No shortcut changes
    shape, so there is no use for `shortcut`; with `in_channels` equal to `width` and stride 1 the first convolution is
    left out. It knows none of the options.
    """

    def __init__(
        self, in_channels: int, width: int, stride: int, shortcut: Shortcut, options: BlockOptions = DEFAULT_OPTIONS
    ) -> None:
        super().__init__(in_channels, width, stride, shortcut, options)
        widens = in_channels != width or stride > 1
        self.conv1 = convolution(in_channels, width, 3) if widens else nn.Identity()
        self.pool = nn.MaxPool2D(stride, stride) if stride > 1 else nn.Identity()
        self.bn1 = nn.BatchNorm2D(width) if widens else nn.Identity()
        self.relu = nn.ReLU() if widens else nn.Identity()
        self.fork = Fork()
        self.conv2 = convolution(width, width, 3)
        self.bn2 = nn.BatchNorm2D(width)
        self.add_relu = AddReLU()

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Widen and pool, then add the residual."""
        x, shortcut = self.fork(self.relu(self.bn1(self.pool(self.conv1(x)))))
        return self.add_relu(self.bn2(self.conv2(x)), shortcut)

    def silence_branch(self) -> None:
        """Set the last BatchNorm's scale to zero (Goyal et al. 2017)."""
        self.bn2.weight.set_value(paddle.zeros_like(self.bn2.weight))
