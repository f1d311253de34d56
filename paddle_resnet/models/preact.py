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
    shortcut_where_shape_changes,
)
from paddle_resnet.models.stochastic_depth import stochastic_depth


class Add(nn.Layer):
    """``x + shortcut``: where the two paths of a block meet."""

    def forward(self, x: paddle.Tensor, shortcut: paddle.Tensor) -> paddle.Tensor:
        """Add two tensors of one shape."""
        return x + shortcut


class PreActBlock(ResidualBlock):
    """What the two blocks share: how they begin."""

    pre_activation = True

    def __init__(
        self, in_channels: int, width: int, stride: int, shortcut: Shortcut, options: BlockOptions = DEFAULT_OPTIONS
    ) -> None:
        super().__init__(in_channels, width, stride, shortcut, options)
        self.fork = Fork()
        self.changes_shape = stride != 1 or in_channels != width * self.expansion
        # The ReLU after it changes nothing of an activated input.
        self.bn1 = nn.Identity() if options.activated else nn.BatchNorm2D(in_channels)
        self.relu = nn.ReLU()

    def _activate(self, x: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Return both paths' inputs: ``a(x)``, and ``x`` or, if the shape changes, ``a(x)``."""
        if self.changes_shape:
            return self.fork(self.relu(self.bn1(x)))
        x, shortcut = self.fork(x)
        return self.relu(self.bn1(x)), shortcut


class PreActBasicBlock(PreActBlock):
    """Two 3x3 convolutions: ``[N, in, H, W]`` to ``[N, width, H / stride, W / stride]``.

    With `dropout` it is the wide ResNet's block (Zagoruyko and Komodakis 2016, figure 1d). Of the options it knows
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
        self.stochastic_depth = stochastic_depth(options.stochastic_depth)
        self.downsample = shortcut_where_shape_changes(in_channels, width, stride, shortcut)
        self.add = Add()

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Return ``F(a(x)) + shortcut``, where the shortcut is of ``x``, or of ``a(x)`` if the shape changes."""
        activated, shortcut = self._activate(x)
        out = self.dropout(self.relu(self.bn2(self.conv1(activated))))
        out = self.stochastic_depth(self.conv2(out))
        return self.add(out, self.downsample(shortcut))

    def silence_branch(self) -> None:
        """Set the last convolution to zero, as timm does.

        With a BatchNorm at zero, the ReLU after it would pass no gradient, and the branch would never wake.
        """
        self.conv2.weight.set_value(paddle.zeros_like(self.conv2.weight))


class PreActBottleneck(PreActBlock):
    """1x1, 3x3, 1x1: ``[N, in, H, W]`` to ``[N, 4 width, H / stride, W / stride]``.

    Of the options it knows `activated` and `stochastic_depth`.
    """

    expansion = 4

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
        self.stochastic_depth = stochastic_depth(options.stochastic_depth)
        self.downsample = shortcut_where_shape_changes(in_channels, out_channels, stride, shortcut)
        self.add = Add()

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Return ``F(a(x)) + shortcut``, where the shortcut is of ``x``, or of ``a(x)`` if the shape changes."""
        activated, shortcut = self._activate(x)
        out = self.relu(self.bn2(self.conv1(activated)))
        out = self.relu(self.bn3(self.conv2(out)))
        out = self.stochastic_depth(self.conv3(out))
        return self.add(out, self.downsample(shortcut))

    def silence_branch(self) -> None:
        """Set the last convolution to zero, as `PreActBasicBlock` does."""
        self.conv3.weight.set_value(paddle.zeros_like(self.conv3.weight))
