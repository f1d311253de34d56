"""Residual blocks with the activation after the addition, and shortcuts (He et al. 2015, https://arxiv.org/abs/1512.03385).

Every operation of a block is a layer, so that another backend can replace it layer by layer.
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

Shortcut: TypeAlias = Callable[[int, int, int], nn.Layer]
"""Makes the shortcut of a block that changes shape, from its in channels, out channels and stride."""


@dataclass(frozen=True)
class BlockOptions:
    """Options of a block beyond its shape; each kind of block says which ones it uses."""

    # of the bottleneck's 3x3 convolution; ResNeXt's cardinality (Xie et al. 2017, https://arxiv.org/abs/1611.05431)
    groups: int = 1
    # channels of each group at a block width of 64, proportional at others; 128 with one group gives torchvision's
    # ``wide_resnet``
    group_width: int = 64
    bias: bool = False  # the convolutions have a bias
    dropout: float = 0.0  # probability that a feature between the two 3x3 convolutions is dropped
    stochastic_depth: float = 0.0  # probability that the residual branch is dropped, see `StochasticDepth`
    activated: bool = False  # the block's input has already passed BatchNorm and ReLU


DEFAULT_OPTIONS = BlockOptions()


def convolution(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, *, groups: int = 1, bias: bool = False
) -> nn.Conv2D:
    """Make a convolution that keeps H and W at stride 1.

    The weight is Kaiming normal by fan-out with ReLU gain, as in torchvision (He et al. 2015b,
    https://arxiv.org/abs/1502.01852, equation 14); `groups` do not count in the fan-out. The bias starts at 0.
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
    """Return the input twice, for a block's two paths; backward adds their gradients."""

    def forward(self, x: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        return x, x


class AddReLU(nn.Layer):
    """``relu(x + shortcut)``, the end of a block."""

    def forward(self, x: paddle.Tensor, shortcut: paddle.Tensor) -> paddle.Tensor:
        return functional.relu(x + shortcut)


class ZeroPadShortcut(nn.Layer):
    """Option A of section 4.2: take every `stride`-th pixel, and append channels of zeros. No parameters.

    Maps ``[N, in, H, W]`` to ``[N, out, ceil(H / stride), ceil(W / stride)]``.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.new_channels = out_channels - in_channels

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        # Not `pad`: over channels, its oneDNN kernel in Paddle Inference (2.6.2, 3.3.1) writes outside its memory.
        zeros = paddle.zeros_like(x[:, :1]).expand([-1, self.new_channels, -1, -1])
        return paddle.concat([x, zeros], axis=1)


def projection_shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """Make option B of section 4.1: a strided 1x1 convolution and BatchNorm."""
    return nn.Sequential(convolution(in_channels, out_channels, 1, stride), nn.BatchNorm2D(out_channels))


def pointwise_shortcut(in_channels: int, out_channels: int, stride: int, bias: bool = False) -> nn.Conv2D:
    """Make a strided 1x1 convolution without BatchNorm."""
    return convolution(in_channels, out_channels, 1, stride, bias=bias)


def average_pool_shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """Make ResNet-D's shortcut: 2x2 average pooling, then a 1x1 convolution of stride 1, and BatchNorm.

    He T. et al. 2018, https://arxiv.org/abs/1812.01187, figure 2c. Windows at the border average the pixels inside.
    """
    pool = nn.AvgPool2D(2, stride, ceil_mode=True) if stride > 1 else nn.Identity()
    return nn.Sequential(pool, convolution(in_channels, out_channels, 1), nn.BatchNorm2D(out_channels))


class StochasticDepth(nn.Layer):
    """Drop a residual branch with a probability, independently for each sample; the identity in evaluation.

    As torchvision's ``StochasticDepth(mode="row")``: kept branches are divided by the probability of keeping them.
    The paper (Huang et al. 2016, https://arxiv.org/abs/1603.09382, equations 2 and 5) drops a block for the whole
    batch, and multiplies by that probability in evaluation instead: the expectation is the same.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        if not self.training or self.probability == 0.0:
            return x
        kept = 1.0 - self.probability
        shape = [x.shape[0]] + [1] * (x.ndim - 1)
        return x * (paddle.bernoulli(paddle.full(shape, kept)) / kept).astype(x.dtype)

    def extra_repr(self) -> str:
        return f"probability={self.probability:g}"


def make_stochastic_depth(probability: float) -> nn.Layer:
    """Make the layer at a residual branch's end: the identity if nothing is dropped."""
    return StochasticDepth(probability) if probability else nn.Identity()


class ResidualBlock(nn.Layer):
    """Base of all blocks: ``[N, in, H, W]`` to ``[N, width * expansion, H / stride, W / stride]``."""

    expansion: ClassVar[int] = 1
    pre_activation: ClassVar[bool] = False
    """BatchNorm and ReLU come before the convolutions, so the last stage needs one more pair after it."""
    last_layer: ClassVar[str] = "bn2"  # the last layer of the residual branch with a weight

    def __init__(
        self, in_channels: int, width: int, stride: int, shortcut: Shortcut, options: BlockOptions = DEFAULT_OPTIONS
    ) -> None:
        super().__init__()

    def zero_init_last(self) -> None:
        """Set the residual branch's last weight to zero, so that the block starts as its shortcut.

        In most blocks it is BatchNorm's scale (Goyal et al. 2017, https://arxiv.org/abs/1706.02677, section 5.1).
        """
        weight = getattr(self, self.last_layer).weight
        weight.set_value(paddle.zeros_like(weight))


def make_shortcut(in_channels: int, out_channels: int, stride: int, shortcut: Shortcut) -> nn.Layer:
    """Make a block's shortcut: the identity where the shape stays."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return shortcut(in_channels, out_channels, stride)


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions (figure 5, left): ``[N, in, H, W]`` to ``[N, width, H / stride, W / stride]``.

    Uses the options `bias` and `stochastic_depth`.
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
        self.stochastic_depth = make_stochastic_depth(options.stochastic_depth)
        self.downsample = make_shortcut(in_channels, width, stride, shortcut)
        self.add_relu = AddReLU()

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Return ``relu(F(x) + shortcut(x))``, equation 1 or 2."""
        x, shortcut = self.fork(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.stochastic_depth(self.bn2(self.conv2(out)))
        return self.add_relu(out, self.downsample(shortcut))


class Bottleneck(ResidualBlock):
    """1x1, 3x3, 1x1 (figure 5, right): ``[N, in, H, W]`` to ``[N, 4 width, H / stride, W / stride]``.

    The stride is in the 3x3 convolution, as in torchvision and paddle.vision ("v1.5"); the paper's is in the first 1x1.
    Uses the options `groups`, `group_width` and `stochastic_depth`.
    """

    expansion = 4
    last_layer = "bn3"

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
        self.stochastic_depth = make_stochastic_depth(options.stochastic_depth)
        self.downsample = make_shortcut(in_channels, out_channels, stride, shortcut)
        self.add_relu = AddReLU()

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Return ``relu(F(x) + shortcut(x))``, equation 1 or 2."""
        x, shortcut = self.fork(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.stochastic_depth(self.bn3(self.conv3(out)))
        return self.add_relu(out, self.downsample(shortcut))


class PlainBlock(ResidualBlock):
    """`BasicBlock` without the shortcut: ``[N, in, H, W]`` to ``[N, width, H / stride, W / stride]``.

    Uses neither options nor `shortcut`.
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
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(out)))


class ConvPoolBlock(ResidualBlock):
    """A 3x3 convolution and max-pooling, then ``relu(x + F(x))`` with one 3x3 convolution as F.

    ``[N, in, H, W]`` to ``[N, width, floor(H / stride), floor(W / stride)]``, after the stages of Page's ResNet-9 ("How
    to train your ResNet", 2018) and of Jordan's networks (2024, https://arxiv.org/abs/2404.00498). Where the shape
    stays, the first convolution is left out. Uses neither options nor `shortcut`.
    """

    def __init__(
        self, in_channels: int, width: int, stride: int, shortcut: Shortcut, options: BlockOptions = DEFAULT_OPTIONS
    ) -> None:
        super().__init__(in_channels, width, stride, shortcut, options)
        changes_shape = in_channels != width or stride > 1
        self.conv1 = convolution(in_channels, width, 3) if changes_shape else nn.Identity()
        self.pool = nn.MaxPool2D(stride, stride) if stride > 1 else nn.Identity()
        self.bn1 = nn.BatchNorm2D(width) if changes_shape else nn.Identity()
        self.relu = nn.ReLU() if changes_shape else nn.Identity()
        self.fork = Fork()
        self.conv2 = convolution(width, width, 3)
        self.bn2 = nn.BatchNorm2D(width)
        self.add_relu = AddReLU()

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x, shortcut = self.fork(self.relu(self.bn1(self.pool(self.conv1(x)))))
        return self.add_relu(self.bn2(self.conv2(x)), shortcut)


Block: TypeAlias = type[ResidualBlock]
