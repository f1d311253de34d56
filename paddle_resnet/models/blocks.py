"""The two residual blocks and their shortcuts (He et al. 2015, https://arxiv.org/abs/1512.03385).

Every operation of a block is a layer, so that another backend can take its place layer by layer.
Shapes are ``[N, C, H, W]``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, TypeAlias

import paddle
from paddle import nn
from paddle.nn import functional

Shortcut: TypeAlias = Callable[[int, int, int], nn.Layer]
"""Makes the shortcut of a block that changes shape, from its in channels, out channels and stride."""


def convolution(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Conv2D:
    """Make a convolution without bias that keeps H and W at stride 1.

    Its weight is Kaiming normal by fan-out with ReLU gain, as torchvision's (He et al. 2015b,
    https://arxiv.org/abs/1502.01852, equation 14).
    """
    fan_out = out_channels * kernel_size * kernel_size
    return nn.Conv2D(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=kernel_size // 2,
        weight_attr=paddle.ParamAttr(initializer=nn.initializer.Normal(std=math.sqrt(2.0 / fan_out))),
        bias_attr=False,
    )


class AddReLU(nn.Layer):
    """``relu(x + shortcut)``: where the two paths of a block meet."""

    def forward(self, x: paddle.Tensor, shortcut: paddle.Tensor) -> paddle.Tensor:
        """Add two tensors of one shape, then rectify."""
        return functional.relu(x + shortcut)


class ZeroPadShortcut(nn.Layer):
    """Option A of section 4.2: take every `stride`-th pixel, and append channels of zeros. No parameters.

    ``[N, in, H, W]`` to ``[N, out, ceil(H / stride), ceil(W / stride)]``.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.new_channels = out_channels - in_channels

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Subsample, then append zeros."""
        x = x[:, :, :: self.stride, :: self.stride]
        # Not `pad`: over channels, its oneDNN kernel in Paddle Inference (2.6.2, 3.3.1) writes outside its memory.
        zeros = paddle.zeros_like(x[:, :1]).expand([-1, self.new_channels, -1, -1])
        return paddle.concat([x, zeros], axis=1)


def projection_shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """Option B of section 4.1: a strided 1x1 convolution and BatchNorm."""
    return nn.Sequential(convolution(in_channels, out_channels, 1, stride), nn.BatchNorm2D(out_channels))


class BasicBlock(nn.Layer):
    """Two 3x3 convolutions (figure 5, left): ``[N, in, H, W]`` to ``[N, width, H / stride, W / stride]``."""

    expansion: ClassVar[int] = 1

    def __init__(self, in_channels: int, width: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = convolution(in_channels, width, 3, stride)
        self.bn1 = nn.BatchNorm2D(width)
        self.relu = nn.ReLU()
        self.conv2 = convolution(width, width, 3)
        self.bn2 = nn.BatchNorm2D(width)
        self.downsample = _shortcut_where_shape_changes(in_channels, width, stride, shortcut)
        self.add_relu = AddReLU()

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Return ``relu(F(x) + shortcut(x))``, equation 1 or 2."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.add_relu(out, self.downsample(x))


class Bottleneck(nn.Layer):
    """1x1, 3x3, 1x1 (figure 5, right): ``[N, in, H, W]`` to ``[N, 4 width, H / stride, W / stride]``.

    The stride is in the 3x3 convolution, as in torchvision and paddle.vision ("v1.5"); the paper's is in the first 1x1.
    """

    expansion: ClassVar[int] = 4

    def __init__(self, in_channels: int, width: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        out_channels = width * self.expansion
        self.conv1 = convolution(in_channels, width, 1)
        self.bn1 = nn.BatchNorm2D(width)
        self.conv2 = convolution(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2D(width)
        self.conv3 = convolution(width, out_channels, 1)
        self.bn3 = nn.BatchNorm2D(out_channels)
        self.relu = nn.ReLU()
        self.downsample = _shortcut_where_shape_changes(in_channels, out_channels, stride, shortcut)
        self.add_relu = AddReLU()

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Return ``relu(F(x) + shortcut(x))``, equation 1 or 2."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.add_relu(out, self.downsample(x))


Block: TypeAlias = type[BasicBlock] | type[Bottleneck]


def _shortcut_where_shape_changes(in_channels: int, out_channels: int, stride: int, shortcut: Shortcut) -> nn.Layer:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return shortcut(in_channels, out_channels, stride)
