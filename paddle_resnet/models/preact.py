"""Residual blocks with the activation before the convolutions (He et al. 2016, https://arxiv.org/abs/1603.05027).

Figure 4e: BatchNorm, ReLU, convolution, and nothing after the addition. A block that changes shape activates its input
for both paths, and its shortcut is a 1x1 convolution alone, as in the authors' code (KaimingHe/resnet-1k-layers); the
stride is in the 3x3 convolution, as in fb.resnet.torch (theirs: in the first 1x1). The network's first block gets its
input activated by the stem (the paper's appendix), and has no BatchNorm of its own before the first convolution.
"""

from __future__ import annotations

import paddle
from paddle import nn

from paddle_resnet.models.blocks import (
    DEFAULT_OPTIONS,
    BlockOptions,
    Fork,
    ResidualBlock,
    Shortcut,
    convolution,
    make_shortcut,
    make_stochastic_depth,
)


class Add(nn.Layer):
    """``x + shortcut``, the end of a block."""

    def forward(self, x: paddle.Tensor, shortcut: paddle.Tensor) -> paddle.Tensor:
        return x + shortcut


class PreActBlock(ResidualBlock):
    """Base of the two blocks: the first activation.

    `zero_init_last` zeroes the last convolution, as timm does. With a zero BatchNorm, the ReLU after it would pass no
    gradient, and the branch would never start to learn.
    """

    pre_activation = True
    last_layer = "conv2"

    def __init__(
        self, in_channels: int, width: int, stride: int, shortcut: Shortcut, options: BlockOptions = DEFAULT_OPTIONS
    ) -> None:
        super().__init__(in_channels, width, stride, shortcut, options)
        self.fork = Fork()
        self.changes_shape = stride != 1 or in_channels != width * self.expansion
        # The ReLU after it leaves an activated input unchanged.
        self.bn1 = nn.Identity() if options.activated else nn.BatchNorm2D(in_channels)
        self.relu = nn.ReLU()

    def _activate(self, x: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Return the inputs of branch, ``a(x)``, and shortcut, ``x`` or, if the shape changes, ``a(x)``."""
        if self.changes_shape:
            return self.fork(self.relu(self.bn1(x)))
        x, shortcut = self.fork(x)
        return self.relu(self.bn1(x)), shortcut


class PreActBasicBlock(PreActBlock):
    """Two 3x3 convolutions: ``[N, in, H, W]`` to ``[N, width, H / stride, W / stride]``.

    With `dropout` it is the wide ResNet's block (Zagoruyko and Komodakis 2016, figure 1d). Uses the options
    `activated`, `dropout` and `stochastic_depth`.
    """

    def __init__(
        self, in_channels: int, width: int, stride: int, shortcut: Shortcut, options: BlockOptions = DEFAULT_OPTIONS
    ) -> None:
        super().__init__(in_channels, width, stride, shortcut, options)
        self.conv1 = convolution(in_channels, width, 3, stride)
        self.bn2 = nn.BatchNorm2D(width)
        self.dropout = nn.Dropout(options.dropout) if options.dropout else nn.Identity()
        self.conv2 = convolution(width, width, 3)
        self.stochastic_depth = make_stochastic_depth(options.stochastic_depth)
        self.downsample = make_shortcut(in_channels, width, stride, shortcut)
        self.add = Add()

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Return ``F(a(x)) + shortcut``; the shortcut's input is ``x``, or ``a(x)`` if the shape changes."""
        activated, shortcut = self._activate(x)
        out = self.dropout(self.relu(self.bn2(self.conv1(activated))))
        out = self.stochastic_depth(self.conv2(out))
        return self.add(out, self.downsample(shortcut))


class PreActBottleneck(PreActBlock):
    """1x1, 3x3, 1x1: ``[N, in, H, W]`` to ``[N, 4 width, H / stride, W / stride]``.

    Uses the options `activated` and `stochastic_depth`.
    """

    expansion = 4
    last_layer = "conv3"

    def __init__(
        self, in_channels: int, width: int, stride: int, shortcut: Shortcut, options: BlockOptions = DEFAULT_OPTIONS
    ) -> None:
        super().__init__(in_channels, width, stride, shortcut, options)
        out_channels = width * self.expansion
        self.conv1 = convolution(in_channels, width, 1)
        self.bn2 = nn.BatchNorm2D(width)
        self.conv2 = convolution(width, width, 3, stride)
        self.bn3 = nn.BatchNorm2D(width)
        self.conv3 = convolution(width, out_channels, 1)
        self.stochastic_depth = make_stochastic_depth(options.stochastic_depth)
        self.downsample = make_shortcut(in_channels, out_channels, stride, shortcut)
        self.add = Add()

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Return ``F(a(x)) + shortcut``; the shortcut's input is ``x``, or ``a(x)`` if the shape changes."""
        activated, shortcut = self._activate(x)
        out = self.relu(self.bn2(self.conv1(activated)))
        out = self.relu(self.bn3(self.conv2(out)))
        out = self.stochastic_depth(self.conv3(out))
        return self.add(out, self.downsample(shortcut))
