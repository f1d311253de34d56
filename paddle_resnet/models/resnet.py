"""The residual network: one class makes every member of the family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import paddle
from paddle import nn

from paddle_resnet.models.blocks import Block, Shortcut, convolution, projection_shortcut


class ResNet(nn.Layer):
    """A stem, stages of residual blocks, global average pooling and a linear head (He et al. 2015, table 1).

    The names and shapes in its state dict are those of `paddle.vision.models.ResNet`.

    Args:
        block: the kind of residual block.
        depths: blocks in each stage; every stage but the first halves H and W.
        widths: the blocks' width in each stage; a stage has ``width * block.expansion`` channels.
        num_classes: outputs of the head.
        in_channels: channels of the images.
        stem: ``"imagenet"`` is a 7x7 convolution and max-pooling, a quarter of H and W; ``"cifar"`` a 3x3 convolution
            that keeps them (section 4.2).
        shortcut: makes the shortcuts of the blocks that change shape.
    """

    def __init__(
        self,
        block: Block,
        depths: Sequence[int],
        *,
        widths: Sequence[int],
        num_classes: int,
        in_channels: int,
        stem: Literal["imagenet", "cifar"],
        shortcut: Shortcut = projection_shortcut,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.in_channels = in_channels
        channels = widths[0]
        if stem == "imagenet":
            self.conv1 = convolution(in_channels, channels, 7, stride=2)
            self.maxpool = nn.MaxPool2D(kernel_size=3, stride=2, padding=1)
        else:
            self.conv1 = convolution(in_channels, channels, 3)
            self.maxpool = nn.Identity()
        self.bn1 = nn.BatchNorm2D(channels)
        self.relu = nn.ReLU()

        self.stage_names = [f"layer{number}" for number in range(1, len(depths) + 1)]
        for name, depth, width in zip(self.stage_names, depths, widths, strict=True):
            stage = nn.Sequential()
            for index in range(depth):
                stride = 2 if index == 0 and name != "layer1" else 1
                stage.add_sublayer(str(index), block(channels, width, stride, shortcut))
                channels = width * block.expansion
            self.add_sublayer(name, stage)

        self.avgpool = nn.AdaptiveAvgPool2D((1, 1))
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(channels, num_classes)

    def forward_features(self, x: paddle.Tensor) -> paddle.Tensor:
        """Images float32 ``[N, in_channels, H, W]`` to the last stage's features ``[N, channels, H', W']``."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for name in self.stage_names:
            x = getattr(self, name)(x)
        return x

    def forward_head(self, x: paddle.Tensor) -> paddle.Tensor:
        """Features ``[N, channels, H', W']`` to logits ``[N, num_classes]``."""
        return self.fc(self.flatten(self.avgpool(x)))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Images float32 ``[N, in_channels, H, W]`` to logits ``[N, num_classes]``."""
        return self.forward_head(self.forward_features(x))


def count_parameters(network: nn.Layer) -> int:
    """Count the trainable parameters, as papers do.

    `parameters()` of Paddle also holds BatchNorm's running statistics, which are not trained.
    """
    return sum(parameter.size for parameter in network.parameters() if not parameter.stop_gradient)
