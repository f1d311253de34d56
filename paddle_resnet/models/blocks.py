"""Residual blocks with the activation after the addition, and shortcuts (He et al. 2015, https://arxiv.org/abs/1512.03385).

Every operation of a block is a layer, so that another backend can take its place layer by layer.
Shapes are ``[N, C, H, W]``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import paddle
from paddle import nn
from paddle.nn import functional

from paddle_resnet.models.stochastic_depth import stochastic_depth

Shortcut: TypeAlias = Callable[[int, int, int], nn.Layer]
"""Makes the shortcut of a block that changes shape, from its in channels, out channels and stride."""


@dataclass(frozen=True)
class BlockOptions:
    """What a block may have beyond its shape; each kind of block says which of them it knows.

    Attributes:
        groups: of the bottleneck's 3x3 convolution: ResNeXt's cardinality (Xie et al. 2017,
            https://arxiv.org/abs/1611.05431).
        group_width: channels of each group where the block's width is 64, in proportion elsewhere; 128 in one group are
            torchvision's ``wide_resnet``.
        bias: the convolutions have a bias.
        dropout: probability that a feature between the two 3x3 convolutions is dropped.
        stochastic_depth: probability that the residual branch is dropped, see `StochasticDepth`.
        activated: the block's input has been through BatchNorm and ReLU already.
    """

    groups: int = 1
    group_width: int = 64
    bias: bool = False
    dropout: float = 0.0
    stochastic_depth: float = 0.0
    activated: bool = False


DEFAULT_OPTIONS = BlockOptions()


def convolution(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, *, groups: int = 1, bias: bool = False
) -> nn.Conv2D:
    """Make a convolution that keeps H and W at stride 1.

    Its weight is Kaiming normal by fan-out with ReLU gain, as torchvision's (He et al. 2015b,
    https://arxiv.org/abs/1502.01852, equation 14); as there, `groups` do not count in the fan-out. A bias starts at 0.
    """
    fan_out = out_channels * kernel_size * kernel_size
    return nn.Conv2D(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=kernel_size // 2,
        groups=groups,
        weight_attr=paddle.ParamAttr(initializer=nn.initializer.Normal(std=math.sqrt(2.0 / fan_out))),
        bias_attr=None if bias else False,
    )


class Fork(nn.Layer):
    """Where the two paths of a block part: the input for each. Their gradients are added up on the way back."""

    def forward(self, x: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Give `x` to both."""
        return x, x


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


def pointwise_shortcut(in_channels: int, out_channels: int, stride: int, bias: bool = False) -> nn.Conv2D:
    """A strided 1x1 convolution without BatchNorm."""
    return convolution(in_channels, out_channels, 1, stride, bias=bias)


def average_pool_shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """ResNet-D's: 2x2 average pooling, then a 1x1 convolution that skips no pixel, and BatchNorm.

    He T. et al. 2018, https://arxiv.org/abs/1812.01187, figure 2c. Windows that leave the image average what is inside.
    """
    pool = nn.AvgPool2D(2, stride, ceil_mode=True) if stride > 1 else nn.Identity()
    return nn.Sequential(pool, convolution(in_channels, out_channels, 1), nn.BatchNorm2D(out_channels))


class ResidualBlock(nn.Layer):
    """What `ResNet` asks of its blocks: ``[N, in, H, W]`` to ``[N, width * expansion, H / stride, W / stride]``."""

    expansion: ClassVar[int] = 1
    pre_activation: ClassVar[bool] = False
    """BatchNorm and ReLU stand before the convolutions; the last stage needs one more pair after it."""

    def __init__(
        self, in_channels: int, width: int, stride: int, shortcut: Shortcut, options: BlockOptions = DEFAULT_OPTIONS
    ) -> None:
        super().__init__()

    def silence_branch(self) -> None:
        """Set the last weights of the residual branch to zero, so that the block starts as its shortcut."""
        raise NotImplementedError


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions (figure 5, left): ``[N, in, H, W]`` to ``[N, width, H / stride, W / stride]``.

    Of the options it knows `bias` and `stochastic_depth`.
    """

    def __init__(
        self, in_channels: int, width: int, stride: int, shortcut: Shortcut, options: BlockOptions = DEFAULT_OPTIONS
    ) -> None:
        super().__init__(in_channels, width, stride, shortcut, options)
        self.fork = Fork()
        self.conv1 = convolution(in_channels, width, 3, stride, bias=options.bias)
        self.bn1 = nn.BatchNorm2D(width)
        self.relu = nn.ReLU()
        self.conv2 = convolution(width, width, 3, bias=options.bias)
        self.bn2 = nn.BatchNorm2D(width)
        self.stochastic_depth = stochastic_depth(options.stochastic_depth)
        self.downsample = shortcut_where_shape_changes(in_channels, width, stride, shortcut)
        self.add_relu = AddReLU()

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Return ``relu(F(x) + shortcut(x))``, equation 1 or 2."""
        x, shortcut = self.fork(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.stochastic_depth(self.bn2(self.conv2(out)))
        return self.add_relu(out, self.downsample(shortcut))

    def silence_branch(self) -> None:
        """Set the last BatchNorm's scale to zero (Goyal et al. 2017, https://arxiv.org/abs/1706.02677, section 5.1)."""
        self.bn2.weight.set_value(paddle.zeros_like(self.bn2.weight))


class Bottleneck(ResidualBlock):
    """1x1, 3x3, 1x1 (figure 5, right): ``[N, in, H, W]`` to ``[N, 4 width, H / stride, W / stride]``.

    The stride is in the 3x3 convolution, as in torchvision and paddle.vision ("v1.5"); the paper's is in the first 1x1.
    Of the options it knows `groups`, `group_width` and `stochastic_depth`.
    """

    expansion = 4

    def __init__(
        self, in_channels: int, width: int, stride: int, shortcut: Shortcut, options: BlockOptions = DEFAULT_OPTIONS
    ) -> None:
        super().__init__(in_channels, width, stride, shortcut, options)
        self.fork = Fork()
        out_channels = width * self.expansion
        inner = width * options.group_width // 64 * options.groups
        self.conv1 = convolution(in_channels, inner, 1)
        self.bn1 = nn.BatchNorm2D(inner)
        self.conv2 = convolution(inner, inner, 3, stride, groups=options.groups)
        self.bn2 = nn.BatchNorm2D(inner)
        self.conv3 = convolution(inner, out_channels, 1)
        self.bn3 = nn.BatchNorm2D(out_channels)
        self.relu = nn.ReLU()
        self.stochastic_depth = stochastic_depth(options.stochastic_depth)
        self.downsample = shortcut_where_shape_changes(in_channels, out_channels, stride, shortcut)
        self.add_relu = AddReLU()

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Return ``relu(F(x) + shortcut(x))``, equation 1 or 2."""
        x, shortcut = self.fork(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.stochastic_depth(self.bn3(self.conv3(out)))
        return self.add_relu(out, self.downsample(shortcut))

    def silence_branch(self) -> None:
        """Set the last BatchNorm's scale to zero (Goyal et al. 2017)."""
        self.bn3.weight.set_value(paddle.zeros_like(self.bn3.weight))


Block: TypeAlias = type[ResidualBlock]


def shortcut_where_shape_changes(in_channels: int, out_channels: int, stride: int, shortcut: Shortcut) -> nn.Layer:
    """Make the shortcut of a block: the identity where the shape stays."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return shortcut(in_channels, out_channels, stride)


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
