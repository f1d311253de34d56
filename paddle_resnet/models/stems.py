"""Stems: the layers before the first stage."""

from __future__ import annotations

import numpy as np
import paddle
from numpy.lib.stride_tricks import sliding_window_view
from paddle import nn

from paddle_resnet.models.blocks import convolution
from paddle_resnet.zoo.registry import Stem


class DeepStem(nn.Sequential):
    """ResNet-C's three 3x3 convolutions instead of one 7x7: ``[N, in, H, W]`` to ``[N, channels, H / 2, W / 2]``.

    The first two have half the channels (He T. et al. 2018, https://arxiv.org/abs/1812.01187, figure 2b; names as in
    timm). BatchNorm and ReLU after the last one are the network's `bn1` and `relu`.
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


class WhiteningStem(nn.Sequential):
    """A whitening 2x2 convolution, then 3x3: ``[N, in, H, W]`` to ``[N, channels, H - 1, W - 1]``.

    Neighbouring pixels and their colours are strongly correlated. `whiten` removes the correlation before training, so
    that the network need not learn to (Page 2018, "How to train your ResNet", part 8; Jordan 2024,
    https://arxiv.org/abs/2404.00498, section 3.2).
    """

    def __init__(self, in_channels: int, channels: int, bias: bool) -> None:
        filters = 2 * in_channels * PATCH * PATCH
        super().__init__(
            nn.Conv2D(in_channels, filters, PATCH, bias_attr=None if bias else False),
            nn.BatchNorm2D(filters),
            nn.ReLU(),
            convolution(filters, channels, 3, bias=bias),
        )
        self.whitened = False

    def whiten(self, images: paddle.Tensor) -> None:
        """Set and freeze filters that whiten the patches of `images`, float32 ``[N, in, H, W]``.

        They are the eigenvectors of the patches' second moments, each divided by the root of its eigenvalue. Each comes
        with both signs, as the ReLU after them drops one.
        """
        weight = self[0].weight
        size = int(np.prod(weight.shape[1:]))
        moments = np.zeros((size, size))
        for image in images.numpy():
            patches = sliding_window_view(image, (len(image), PATCH, PATCH)).reshape(-1, size)
            moments += patches.T @ patches / (len(patches) * len(images))
        eigenvalues, eigenvectors = np.linalg.eigh(moments)
        filters = (eigenvectors / np.sqrt(eigenvalues + EIGENVALUE_EPSILON)).T
        weight.set_value(np.concatenate([filters, -filters]).reshape(weight.shape).astype(np.float32))
        self.fix_filters()

    def fix_filters(self) -> None:
        """Take the filters as they are for whitening ones, which do not train, also after `ImageClassifier.freeze`."""
        self.whitened = True
        self[0].weight.stop_gradient = True


PATCH = 2
EIGENVALUE_EPSILON = 0.01
"""Added to each eigenvalue, so that nearly constant directions, such as JPEG noise, are not amplified."""


def stem_convolution(stem: Stem, in_channels: int, channels: int, bias: bool) -> nn.Layer:
    """Make the stem's convolution: CIFAR's keep H and W (He et al. 2015, section 4.2), ImageNet's halve them."""
    if stem == "deep":
        return DeepStem(in_channels, channels, bias)
    if stem == "whitening":
        return WhiteningStem(in_channels, channels, bias)
    if stem in ("cifar", "cifar_pool"):
        return convolution(in_channels, channels, 3, bias=bias)
    return convolution(in_channels, channels, 7, stride=2, bias=bias)


def stem_pool(stem: Stem) -> nn.Layer:
    """Make the stem's max-pooling, which halves H and W; ``"cifar"`` has none."""
    if stem == "cifar":
        return nn.Identity()
    return nn.MaxPool2D(2, 2) if stem == "whitening" else nn.MaxPool2D(kernel_size=3, stride=2, padding=1)
