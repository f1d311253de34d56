"""What grouped convolutions compute, cost and connect."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional

from paddle_resnet.models import model_entry
from paddle_resnet.models.blocks import BlockOptions, Bottleneck, convolution, projection_shortcut
from paddle_resnet.models.registry import ResNetEntry
from paddle_resnet.models.resnet import ResNet
from paddle_resnet.onednn import layers as onednn_layers
from paddle_resnet.onednn.availability import unavailable_reason


def by_slices(x: paddle.Tensor, weight: paddle.Tensor, groups: int) -> paddle.Tensor:
    """Convolve each group of channels by itself, and put the results one behind the other.

    Args:
        x: ``[N, in, H, W]``.
        weight: ``[out, in / groups, k, k]`` as a grouped convolution has it, k odd.
        groups: into how many equal parts both kinds of channels are cut.
    """
    pairs = zip(x.chunk(groups, axis=1), weight.chunk(groups, axis=0), strict=True)
    padding = weight.shape[-1] // 2
    return paddle.concat([functional.conv2d(part, kernel, padding=padding) for part, kernel in pairs], axis=1)


def as_dense(weight: np.ndarray, groups: int) -> np.ndarray:
    """Write a grouped weight ``[out, in / groups, k, k]`` as a full one ``[out, in, k, k]``: blocks on the diagonal."""
    out_channels, group_in, *kernel = weight.shape
    dense = np.zeros((out_channels, group_in * groups, *kernel), weight.dtype)
    group_out = out_channels // groups
    for group in range(groups):
        rows = slice(group * group_out, (group + 1) * group_out)
        dense[rows, group * group_in : (group + 1) * group_in] = weight[rows]
    return dense


@dataclass(frozen=True)
class BlockCost:
    """A bottleneck on 256 channels: its groups (cardinality), channels a group, and weights of each convolution."""

    groups: int
    group_width: int
    reduce: int
    grouped: int
    expand: int

    @property
    def width(self) -> int:
        """Channels of the 3x3 convolution."""
        return self.groups * self.group_width

    @property
    def weights(self) -> int:
        """Of the three convolutions; equation 4 of the paper."""
        return self.reduce + self.grouped + self.expand

    @property
    def label(self) -> str:
        """As the paper writes it, ``32x4d``."""
        return f"{self.groups}x{self.group_width}d"


def block_cost(groups: int, group_width: int) -> BlockCost:
    """Make the bottleneck of a ResNeXt's first stage, and count its weights."""
    block = Bottleneck(256, 64, 1, projection_shortcut, BlockOptions(groups=groups, group_width=group_width))
    sizes = [layer.weight.size for layer in (block.conv1, block.conv2, block.conv3)]
    return BlockCost(groups, group_width, *sizes)


def resnext50(groups: int, group_width: int) -> ResNet:
    """Make a network of 50 layers with these groups, without its numbers: for counting."""
    entry = model_entry("resnet50")
    assert isinstance(entry, ResNetEntry)
    grouped = replace(entry, block_options=BlockOptions(groups=groups, group_width=group_width))
    with paddle.utils.unique_name.guard(), paddle.LazyGuard():
        return grouped.make(num_classes=entry.num_classes, in_channels=entry.in_channels)


@paddle.no_grad()
def dependencies(layer: nn.Layer, channels: int, seed: int = 0) -> np.ndarray:
    """Which output channels move with which input channels: bool ``[out, in]``, by changing one input at a time."""
    generator = np.random.default_rng(seed)
    image = generator.normal(size=(1, channels, 9, 9))
    changes = np.zeros((channels, channels, 9, 9))
    changes[range(channels), range(channels)] = generator.normal(size=(channels, 9, 9))
    outputs = layer(paddle.to_tensor(np.concatenate([image, image + changes]).astype(np.float32))).numpy()
    moved = np.abs(outputs[1:] - outputs[:1]).max(axis=(2, 3)).transpose()  # [out, in]
    rounding = 1e-4 * moved.max()
    return moved > rounding


def chain(channels: int, groups: int, *, pointwise: bool) -> nn.Sequential:
    """Make two grouped 3x3 convolutions, with a 1x1 convolution between them or with a third grouped one."""
    middle = convolution(channels, channels, 1) if pointwise else convolution(channels, channels, 3, groups=groups)
    return nn.Sequential(
        convolution(channels, channels, 3, groups=groups), middle, convolution(channels, channels, 3, groups=groups)
    )


@dataclass(frozen=True)
class Layer:
    """A 3x3 convolution that keeps its channels: what is varied is the number of groups."""

    channels: int
    side: int
    batch: int

    def macs(self, groups: int) -> int:
        """Multiply-adds for the batch."""
        return self.batch * self.side**2 * self.channels * (self.channels // groups) * 9

    def numbers_moved(self, groups: int) -> int:
        """Numbers of input, output and weight: each must be read or written at least once."""
        return 2 * self.batch * self.channels * self.side**2 + self.channels * (self.channels // groups) * 9


def forward_times(layer: Layer, groups: Sequence[int], repeats: int) -> dict[str, list[float]]:
    """Median seconds of a forward pass for each number of groups, by backend: Paddle's own layer, and oneDNN's.

    The backends and the numbers of groups take turns, so that a slow moment of the machine does not fall on one alone.
    """
    image = np.random.default_rng(0).normal(size=(layer.batch, layer.channels, layer.side, layer.side))
    channels_first = paddle.to_tensor(image.astype(np.float32))
    settings = {"kernel_size": 3, "padding": 1, "bias_attr": False}
    passes: dict[tuple[str, int], Callable[[], object]] = {}
    for number in groups:
        native = nn.Conv2D(layer.channels, layer.channels, groups=number, **settings)
        passes["Paddle's own layer", number] = partial(native, channels_first)
        if unavailable_reason() is None:
            channels_last = channels_first.transpose([0, 2, 3, 1])
            fast: nn.Layer = onednn_layers.Convolution(layer.channels, layer.channels, groups=number, **settings)
            passes["oneDNN's layer", number] = partial(fast, channels_last)
    seconds: dict[tuple[str, int], list[float]] = {key: [] for key in passes}
    with paddle.no_grad():
        for _ in range(1 + repeats):
            for key, run in passes.items():
                started = time.perf_counter()
                run()
                seconds[key].append(time.perf_counter() - started)
    backends = dict.fromkeys(backend for backend, _ in passes)
    return {backend: [median(seconds[backend, number][1:]) for number in groups] for backend in backends}
