"""LeNet-5, the small baseline without BatchNorm or shortcuts (LeCun et al. 1998)."""

from __future__ import annotations

import paddle
from paddle import nn

from paddle_resnet.errors import UsageError
from paddle_resnet.models.classifier import ImageClassifier

MIN_SIZE = 16


class LeNet(ImageClassifier):
    """Two stages of 5x5 convolution, ReLU and 2x2 max-pooling, then three linear layers: ``[N, C, 32, 32]`` to logits.

    The shapes are LeNet-5's ("Gradient-based learning applied to document recognition", figure 2). As in today's
    tutorials (PyTorch's for CIFAR-10 has the same 62,006 parameters for 3 channels and 10 classes), ReLU and pooling
    replace tanh and trained subsampling, the second convolution sees all 6 maps, and the last layer is linear. The last
    maps are averaged to 5x5, which changes nothing for images of 32x32.
    """

    def __init__(self, *, num_classes: int, in_channels: int, dropout: float = 0.0) -> None:
        super().__init__(num_classes, in_channels, 84, ("layer1", "layer2"))
        self.layer1 = _stage(in_channels, 6)
        self.layer2 = _stage(6, 16)
        self.avgpool = nn.AdaptiveAvgPool2D((5, 5))
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.fc = nn.Linear(84, num_classes)

    def forward_stages(self, x: paddle.Tensor) -> list[paddle.Tensor]:
        """Return both stages' outputs, for images of 32x32 14x14 and 5x5; a `UsageError` below 16 pixels a side."""
        if 0 <= min(x.shape[2:]) < MIN_SIZE:
            raise UsageError(f"LeNet needs images of at least {MIN_SIZE} pixels a side, got {x.shape[2]}x{x.shape[3]}")
        first = self.layer1(x)
        return [first, self.layer2(first)]

    def forward_features(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.forward_stages(x)[-1]

    def forward_head(self, features: paddle.Tensor) -> paddle.Tensor:
        x = self.relu(self.fc1(self.flatten(self.avgpool(features))))
        return self.fc(self.dropout(self.relu(self.fc2(x))))


def _stage(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2D(in_channels, out_channels, 5), nn.ReLU(), nn.MaxPool2D(2))
