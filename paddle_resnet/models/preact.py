"""Residual blocks with the activation before the convolutions (He et al. 2016, https://arxiv.org/abs/1603.05027).

Figure 4e: BatchNorm, ReLU, convolution, and nothing after the addition. A block that changes shape activates its input
for both paths, and its shortcut is a 1x1 convolution alone, as in the authors' code (KaimingHe/resnet-1k-layers); the
stride is in the 3x3 convolution, as in fb.resnet.torch (theirs: in the first 1x1). The network's first block gets its
input activated by the stem (the paper's appendix), and has no BatchNorm of its own before the first convolution.
"""

from __future__ import annotations

import paddle
from paddle import nn

from paddle_resnet.models.blocks import BlockOptions, ShortcutBlock, convolution


class Add(nn.Layer):
    """``x + shortcut``, the end of a block."""

    def forward(self, x: paddle.Tensor, shortcut: paddle.Tensor) -> paddle.Tensor:
        return x + shortcut


class PreActBlock(ShortcutBlock):
    """Base of the two blocks: the first activation, and the sum.

    `zero_init_last` zeroes the last convolution, as timm does. With a zero BatchNorm, the ReLU after it would pass no
    gradient, and the branch would never start to learn.
    """

    pre_activation = True
    last_layer = "conv2"

    def _make_branch(self, in_channels: int, width: int, stride: int, options: BlockOptions) -> None:
        self.changes_shape = stride != 1 or in_channels != width * self.expansion
        # The ReLU after it leaves an activated input unchanged.
        self.bn1 = nn.Identity() if options.activated else nn.BatchNorm2D(in_channels)
        self.relu = nn.ReLU()
        self.add = Add()

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Return ``F(a(x)) + shortcut``; the shortcut's input is ``x``, or ``a(x)`` if the shape changes."""
        if self.changes_shape:
            activated, shortcut = self.fork(self.relu(self.bn1(x)))
        else:
            x, shortcut = self.fork(x)
            activated = self.relu(self.bn1(x))
        return self.add(self.stochastic_depth(self._branch(activated)), self.downsample(shortcut))


class PreActBasicBlock(PreActBlock):
    """Two 3x3 convolutions: ``[N, in, H, W]`` to ``[N, width, H / stride, W / stride]``.

    With `dropout` it is the wide ResNet's block (Zagoruyko and Komodakis 2016, figure 1d). Uses the options
    `activated`, `dropout` and `stochastic_depth`.
    """

    def _make_branch(self, in_channels: int, width: int, stride: int, options: BlockOptions) -> None:
        super()._make_branch(in_channels, width, stride, options)
        self.conv1 = convolution(in_channels, width, 3, stride)
        self.bn2 = nn.BatchNorm2D(width)
        self.dropout = nn.Dropout(options.dropout) if options.dropout else nn.Identity()
        self.conv2 = convolution(width, width, 3)

    def _branch(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.conv2(self.dropout(self.relu(self.bn2(self.conv1(x)))))


class PreActBottleneck(PreActBlock):
    """1x1, 3x3, 1x1: ``[N, in, H, W]`` to ``[N, 4 width, H / stride, W / stride]``.

    Uses the options `activated` and `stochastic_depth`.
    """

    expansion = 4
    last_layer = "conv3"

    def _make_branch(self, in_channels: int, width: int, stride: int, options: BlockOptions) -> None:
        super()._make_branch(in_channels, width, stride, options)
        self.conv1 = convolution(in_channels, width, 1)
        self.bn2 = nn.BatchNorm2D(width)
        self.conv2 = convolution(width, width, 3, stride)
        self.bn3 = nn.BatchNorm2D(width)
        self.conv3 = convolution(width, width * self.expansion, 1)

    def _branch(self, x: paddle.Tensor) -> paddle.Tensor:
        out = self.relu(self.bn2(self.conv1(x)))
        out = self.relu(self.bn3(self.conv2(out)))
        return self.conv3(out)
