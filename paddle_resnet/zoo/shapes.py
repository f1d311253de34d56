"""Tensor shapes and costs of the table's networks, by arithmetic: it needs no Paddle, which takes seconds to import."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from paddle_resnet.zoo.registry import ModelEntry, ResNetEntry

Shape = tuple[int, ...]


class WeightedLayer(NamedTuple):
    """A convolution, linear layer or BatchNorm."""

    name: str  # in the state dict, for example ``layer1.0.conv1``
    weight: Shape  # convolution ``[out, in / groups, k, k]``, linear layer ``[in, out]``, BatchNorm ``[channels]``
    bias: bool
    positions: int = 1  # pixels of a convolution's output

    @property
    def is_batch_norm(self) -> bool:
        return len(self.weight) == 1

    @property
    def parameters(self) -> int:
        """The trainable ones."""
        return math.prod(self.weight) + self.bias * self._outputs

    @property
    def macs(self) -> int:
        """Multiply-adds for one image."""
        return 0 if self.is_batch_norm else math.prod(self.weight) * self.positions

    @property
    def tensors(self) -> dict[str, Shape]:
        """The layer's part of the state dict."""
        shapes = {"weight": self.weight}
        if self.bias:
            shapes["bias"] = (self._outputs,)
        if self.is_batch_norm:
            shapes |= {"_mean": self.weight, "_variance": self.weight}
        return {f"{self.name}.{tensor}": shape for tensor, shape in shapes.items()}

    @property
    def _outputs(self) -> int:
        return self.weight[1] if len(self.weight) == 2 else self.weight[0]


class Costs(NamedTuple):
    """What `summarize` counts, for one image."""

    parameters: int
    macs: int
    depth: int


def costs(entry: ModelEntry) -> Costs:
    """Count for images of the entry's size, channels and classes."""
    layers = list(weighted_layers(entry))
    depth = sum(not layer.is_batch_norm and "downsample" not in layer.name for layer in layers)
    return Costs(sum(layer.parameters for layer in layers), sum(layer.macs for layer in layers), depth)


def state_shapes(entry: ModelEntry, in_channels: int | None = None) -> dict[str, Shape]:
    """Return the shapes of the network's state dict."""
    layers = weighted_layers(entry, in_channels)
    return {name: shape for layer in layers for name, shape in layer.tensors.items()}


def weighted_layers(entry: ModelEntry, in_channels: int | None = None) -> Iterator[WeightedLayer]:
    """Yield the layers with weights, for images of the entry's size; None: its own channels."""
    classes, channels = entry.num_classes, in_channels or entry.in_channels
    if isinstance(entry, ResNetEntry):
        yield from _Outline(entry, channels).resnet(classes)
    else:  # LeNet
        yield WeightedLayer("layer1.0", (6, channels, 5, 5), True, 28 * 28)
        yield WeightedLayer("layer2.0", (16, 6, 5, 5), True, 10 * 10)
        for name, inputs, outputs in (("fc1", 400, 120), ("fc2", 120, 84), ("fc", 84, classes)):
            yield WeightedLayer(name, (inputs, outputs), True)


class _Outline:
    """Walks through a ResNet with the channels and the side of what reaches each layer."""

    def __init__(self, entry: ResNetEntry, in_channels: int) -> None:
        self.entry, self.channels, self.side = entry, in_channels, entry.input_size
        self.pre_activation = entry.block.startswith("preact")
        self.expansion = 4 if entry.block.endswith("bottleneck") else 1

    def resnet(self, classes: int) -> Iterator[WeightedLayer]:
        entry = self.entry
        yield from self._stem(entry.stem_channels or entry.widths[0])
        for stage, (depth, width) in enumerate(zip(entry.depths, entry.widths, strict=True), start=1):
            for index in range(depth):
                yield from self._block(f"layer{stage}.{index}", width, 2 if stage > 1 and index == 0 else 1)
        if self.pre_activation and entry.outer_activations:
            yield self._batch_norm("final_bn")
        yield WeightedLayer("fc", (self.channels, classes), True)

    def _stem(self, channels: int) -> Iterator[WeightedLayer]:
        half, stem = channels // 2, self.entry.stem
        if stem == "deep":
            yield self._convolution("conv1.0", half, 3, 2)
            yield self._batch_norm("conv1.1")
            yield self._convolution("conv1.3", half, 3)
            yield self._batch_norm("conv1.4")
            yield self._convolution("conv1.6", channels, 3)
        elif stem == "whitening":
            self.side -= 1  # its 2x2 convolution has no padding
            yield self._convolution("conv1.0", 8 * self.channels, 2)
            yield self._batch_norm("conv1.1")
            yield self._convolution("conv1.3", channels, 3)
        else:
            yield self._convolution("conv1", channels, *((7, 2) if stem == "imagenet" else (3, 1)))
        if self.entry.outer_activations:
            yield self._batch_norm("bn1")
        if stem != "cifar":
            self.side = self.side // 2 if stem == "whitening" else math.ceil(self.side / 2)

    def _block(self, name: str, width: int, stride: int) -> Iterator[WeightedLayer]:
        if self.entry.block == "conv_pool":
            yield from self._conv_pool_block(name, width, stride)
            return
        inputs, side, outputs = self.channels, self.side, width * self.expansion
        first = name == "layer1.0"
        if self.pre_activation and not (first and self.entry.outer_activations):
            yield self._batch_norm(f"{name}.bn1")
        inner = width * self.entry.group_width // 64 * self.entry.groups if self.entry.block == "bottleneck" else width
        kernels = [(inner, 1, 1), (inner, 3, stride), (outputs, 1, 1)]
        for number, kernel in enumerate(
            kernels if self.expansion == 4 else [(width, 3, stride), (width, 3, 1)], start=1
        ):
            if self.pre_activation and number > 1:
                yield self._batch_norm(f"{name}.bn{number}")
            yield self._convolution(f"{name}.conv{number}", *kernel)
            if not self.pre_activation:
                yield self._batch_norm(f"{name}.bn{number}")
        projects = stride > 1 or inputs != outputs or (first and self.entry.first_projection)
        if projects and self.entry.block != "plain":
            self.channels, self.side = inputs, side
            yield from self._shortcut(f"{name}.downsample", outputs, stride)

    def _conv_pool_block(self, name: str, width: int, stride: int) -> Iterator[WeightedLayer]:
        if stride > 1 or self.channels != width:
            yield self._convolution(f"{name}.conv1", width, 3)
            yield self._batch_norm(f"{name}.bn1")
        self.side //= stride
        yield self._convolution(f"{name}.conv2", width, 3)
        yield self._batch_norm(f"{name}.bn2")

    def _shortcut(self, name: str, channels: int, stride: int) -> Iterator[WeightedLayer]:
        kind = self.entry.shortcut
        position = {"zero_pad": None, "pointwise": "", "projection": ".0", "average_pool": ".1"}[kind]
        layer = self._convolution(f"{name}{position}", channels, 1, stride)
        if position is not None:
            yield layer
        if kind in ("projection", "average_pool"):
            yield self._batch_norm(f"{name}{'.1' if kind == 'projection' else '.2'}")

    def _convolution(self, name: str, channels: int, kernel: int, stride: int = 1) -> WeightedLayer:
        """Make a convolution that keeps the side at stride 1, and go to its output."""
        groups = self.entry.groups if name.endswith(".conv2") else 1
        weight = (channels, self.channels // groups, kernel, kernel)
        self.channels, self.side = channels, math.ceil(self.side / stride)
        return WeightedLayer(name, weight, self.entry.bias, self.side**2)

    def _batch_norm(self, name: str) -> WeightedLayer:
        return WeightedLayer(name, (self.channels,), True)
