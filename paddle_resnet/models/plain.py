"""The plain network's pair of layers: what residual networks were compared with (He et al. 2015, section 3.3)."""

from __future__ import annotations

import paddle
from paddle import nn

from paddle_resnet.models.blocks import DEFAULT_OPTIONS, BlockOptions, ResidualBlock, Shortcut, convolution


class PlainBlock(ResidualBlock):
    """`BasicBlock` without the shortcut: ``[N, in, H, W]`` to ``[N, width, H / stride, W / stride]``.

    It knows none of the options, and makes no use of `shortcut`: there is no second path to add.
    """

    def __init__(
        self, in_channels: int, width: int, stride: int, shortcut: Shortcut, options: BlockOptions = DEFAULT_OPTIONS
    ) -> None:
        super().__init__(in_channels, width, stride, shortcut, options)
        self.conv1 = convolution(in_channels, width, 3, stride)
        self.bn1 = nn.BatchNorm2D(width)
        self.conv2 = convolution(width, width, 3)
        self.bn2 = nn.BatchNorm2D(width)
        self.relu = nn.ReLU()

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Return ``relu(F(x))``."""
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(out)))
