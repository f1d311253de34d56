"""Grouped convolutions: equivalent dense weights, costs, dependencies between channels, and times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional

from paddle_resnet.lessons.common.network_costs import time_interleaved
from paddle_resnet.models import model_entry
from paddle_resnet.models.blocks import BlockOptions, Bottleneck, projection_shortcut
from paddle_resnet.models.factory import make_network
from paddle_resnet.models.resnet import ResNet
from paddle_resnet.onednn import layers as onednn_layers
from paddle_resnet.onednn.availability import unavailable_reason
from paddle_resnet.zoo.registry import ResNetEntry

PADDLE, ONEDNN = "Paddle's own layer", "oneDNN's layer"


def conv_by_slices(x: paddle.Tensor, weight: paddle.Tensor, groups: int) -> paddle.Tensor:
    """Convolve each group of channels separately and concatenate the results.

    Args:
        x: ``[N, in, H, W]``.
        weight: of the grouped convolution, ``[out, in / groups, k, k]``, k odd.
        groups: number of groups.
    """
    pairs = zip(x.chunk(groups, axis=1), weight.chunk(groups, axis=0), strict=True)
    padding = weight.shape[-1] // 2
    return paddle.concat([functional.conv2d(part, kernel, padding=padding) for part, kernel in pairs], axis=1)


def to_dense(weight: np.ndarray, groups: int) -> np.ndarray:
    """Convert a grouped weight ``[out, in / groups, k, k]`` to a block-diagonal dense one ``[out, in, k, k]``."""
    out_channels, group_in, *kernel = weight.shape
    group_out = out_channels // groups
    dense = np.zeros((groups, group_out, groups, group_in, *kernel), weight.dtype)
    for group, block in enumerate(weight.reshape(groups, group_out, group_in, *kernel)):
        dense[group, :, group] = block
    return dense.reshape(out_channels, groups * group_in, *kernel)


@dataclass(frozen=True)
class BlockCost:
    """A bottleneck on 256 channels: groups (cardinality), channels per group, and weights of its three convolutions."""

    groups: int
    group_width: int
    by_layer: tuple[int, int, int]

    @classmethod
    def of(cls, groups: int, group_width: int) -> BlockCost:
        """Count the weights of the bottleneck in a ResNeXt's first stage, equation 4 of the paper."""
        block = Bottleneck(256, 64, 1, projection_shortcut, BlockOptions(groups=groups, group_width=group_width))
        return cls(groups, group_width, (block.conv1.weight.size, block.conv2.weight.size, block.conv3.weight.size))

    @property
    def width(self) -> int:
        return self.groups * self.group_width

    @property
    def weights(self) -> int:
        return sum(self.by_layer)

    @property
    def grouped_share(self) -> float:
        return self.by_layer[1] / self.weights

    @property
    def label(self) -> str:
        """As the paper writes it, ``32x4d``."""
        return f"{self.groups}x{self.group_width}d"


def resnext50(groups: int, group_width: int) -> ResNet:
    """Make a network of 50 layers with these groups, without creating its weights."""
    entry = model_entry("resnet50")
    assert isinstance(entry, ResNetEntry)
    grouped = replace(entry, groups=groups, group_width=group_width)
    with paddle.utils.unique_name.guard(), paddle.LazyGuard():
        return make_network(grouped, num_classes=entry.num_classes, in_channels=entry.in_channels)


@paddle.no_grad()
def channel_dependencies(layer: nn.Layer, channels: int, seed: int = 0) -> np.ndarray:
    """Find which output channels change with which input channel: bool ``[out, in]``."""
    generator = np.random.default_rng(seed)
    image = generator.normal(size=(1, channels, 9, 9))
    changes = np.zeros((channels, channels, 9, 9))
    changes[range(channels), range(channels)] = generator.normal(size=(channels, 9, 9))
    outputs = layer(paddle.to_tensor(np.concatenate([image, image + changes]).astype(np.float32))).numpy()
    moved = np.abs(outputs[1:] - outputs[:1]).max(axis=(2, 3)).transpose()  # [out, in]
    rounding = 1e-4 * moved.max()
    return moved > rounding


@dataclass(frozen=True)
class ConvShape:
    """A 3x3 convolution with as many output as input channels, for a varying number of groups."""

    channels: int
    side: int
    batch: int

    def macs(self, groups: int) -> int:
        """Return the multiply-adds for the batch."""
        return self.batch * self.side**2 * self.channels * (self.channels // groups) * 9

    def numbers_moved(self, groups: int) -> int:
        """Return the number of values in input, output and weight, each of which is read or written at least once."""
        return 2 * self.batch * self.channels * self.side**2 + self.channels * (self.channels // groups) * 9


def forward_times(layer: ConvShape, groups: Sequence[int], repeats: int) -> dict[str, list[float]]:
    """Return the median seconds of a forward pass for each number of groups, by backend."""
    image = np.random.default_rng(0).normal(size=(layer.batch, layer.channels, layer.side, layer.side))
    inputs = {PADDLE: paddle.to_tensor(image.astype(np.float32))}
    kinds: dict[str, type[nn.Layer]] = {PADDLE: nn.Conv2D}
    if unavailable_reason() is None:
        inputs[ONEDNN] = inputs[PADDLE].transpose([0, 2, 3, 1])
        kinds[ONEDNN] = onednn_layers.Convolution
    settings = {"kernel_size": 3, "padding": 1, "bias_attr": False}
    passes: dict[tuple[str, int], Callable[[], object]] = {
        (backend, number): partial(kind(layer.channels, layer.channels, groups=number, **settings), inputs[backend])
        for number in groups
        for backend, kind in kinds.items()
    }
    with paddle.no_grad():
        seconds = time_interleaved(passes, 1 + repeats)  # the first call of each is a warm-up
    return {backend: [float(np.median(seconds[backend, number][1:])) for number in groups] for backend in kinds}
