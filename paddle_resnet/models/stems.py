"""The layers before the first stage: a convolution, and maybe max-pooling."""

from __future__ import annotations

from typing import Literal, TypeAlias

from paddle import nn

from paddle_resnet.models.blocks import convolution

Stem: TypeAlias = Literal["imagenet", "cifar", "cifar_pool", "deep"]


class DeepStem(nn.Sequential):
    """ResNet-C's three 3x3 convolutions for the one of 7x7: ``[N, in, H, W]`` to ``[N, channels, H / 2, W / 2]``.

    The first two have half the channels (He T. et al. 2018, https://arxiv.org/abs/1812.01187, figure 2b; the names are
    timm's). The last one's BatchNorm and ReLU are the network's `bn1` and `relu`.
    """

    def __init__(self, in_channels: int, channels: int, bias: bool) -> None:
        half = channels // 2
        super().__init__(
            convolution(in_channels, half, 3, stride=2, bias=bias),
            nn.BatchNorm2D(half),
            nn.ReLU(),
            convolution(half, half, 3, bias=bias),
            nn.BatchNorm2D(half),
            nn.ReLU(),
            convolution(half, channels, 3, bias=bias),
        )


def stem_convolution(stem: Stem, in_channels: int, channels: int, bias: bool) -> nn.Layer:
    """Make the stem's convolution: CIFAR's keep H and W (He et al. 2015, section 4.2), the others halve them."""
    if stem == "deep":
        return DeepStem(in_channels, channels, bias)
    if stem in ("cifar", "cifar_pool"):
        return convolution(in_channels, channels, 3, bias=bias)
    return convolution(in_channels, channels, 7, stride=2, bias=bias)


def stem_pool(stem: Stem) -> nn.Layer:
    """Make the stem's max-pooling, which halves H and W; there is none in ``"cifar"``."""
    return nn.Identity() if stem == "cifar" else nn.MaxPool2D(kernel_size=3, stride=2, padding=1)
