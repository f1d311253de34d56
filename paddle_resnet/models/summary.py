"""Summarise a network: shapes, trainable parameters, multiply-adds and depth, without computing with its weights."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import paddle
from paddle import nn

from paddle_resnet.errors import UsageError
from paddle_resnet.models.batch_norm import BatchNorm
from paddle_resnet.models.blocks import Fork
from paddle_resnet.models.classifier import count_parameters
from paddle_resnet.paddle_compat import Sizes, convolution_settings

Shape = tuple[int, ...]


@dataclass(frozen=True)
class LayerSummary:
    """One call of one layer."""

    name: str  # as in the state dict, for example ``"layer1.0.conv1"``
    kind: str  # the layer's class, and a convolution's kernel, stride and groups
    input_shape: Shape  # of its first input
    output_shape: Shape
    parameters: int  # trainable ones, of the layer and its sublayers
    macs: int  # of the layer and its sublayers
    is_leaf: bool  # it has no sublayers

    @property
    def is_block(self) -> bool:
        """Whether it has sublayers and is not just a list of them."""
        return not self.is_leaf and self.kind != "Sequential"


@dataclass(frozen=True)
class ModelSummary:
    """A network at one input size."""

    input_shape: Shape  # ``[N, C, H, W]``
    output_shape: Shape  # ``[N, classes]``
    parameters: int  # trainable ones
    macs: int  # multiply-adds of convolutions and linear layers for the whole batch
    depth: int  # convolutions and linear layers as the papers count them: without those in shortcuts
    # the calls of all layers in the order of their return: a layer follows its sublayers
    layers: tuple[LayerSummary, ...]

    def leaves(self) -> list[LayerSummary]:
        return [row for row in self.layers if row.is_leaf]

    def walk(self) -> list[LayerSummary]:
        """Return the layers of stem and head, and each block as one, in the order of the forward pass."""
        blocks = tuple(f"{row.name}." for row in self.layers if row.is_block)
        return [row for row in self.layers if (row.is_leaf or row.is_block) and not row.name.startswith(blocks)]


def summarize(network: nn.Layer, input_shape: Shape) -> ModelSummary:
    """Trace the shape of a batch through the network.

    Multiply-adds of a convolution are ``N * H' * W' * out_channels * (in_channels / groups) * kernel height * kernel
    width``, of a linear layer ``N * in * out``. Biases, BatchNorm, ReLU, pooling and additions are not counted, as in
    the papers and in torchvision's table (where they are called GFLOPS).

    Layers with weights only compute their output's shape, so the network may be made under `paddle.LazyGuard`, without
    weights. The network is left unchanged. oneDNN's layers have other shapes inside: call `onednn.restore` first.

    Raises:
        UsageError: a layer cannot take its input at this size.
    """
    rows: list[LayerSummary] = []
    with _traced(network, rows), paddle.no_grad():
        output = network(paddle.zeros(input_shape))
    weighted = [
        name
        for name, layer in network.named_sublayers()
        if isinstance(layer, nn.Conv2D | nn.Linear) and "downsample" not in name
    ]
    return ModelSummary(
        input_shape=input_shape,
        output_shape=tuple(output.shape),
        parameters=count_parameters(network),
        macs=sum(row.macs for row in rows if row.is_leaf),
        depth=len(weighted),
        layers=tuple(rows),
    )


@contextlib.contextmanager
def _traced(network: nn.Layer, rows: list[LayerSummary]) -> Iterator[None]:
    """Make each layer's call add a row, in evaluation mode, with layers that have weights replaced by their shapes."""
    modes = [(layer, layer.training) for layer in network.sublayers(include_self=True)]
    weighted = [
        (name, layer)
        for name, layer in network.named_sublayers()
        if isinstance(layer, nn.Conv2D | nn.Linear | nn.BatchNorm2D | BatchNorm)
    ]
    hooks = []
    network.eval()
    try:
        for name, layer in weighted:
            layer.forward = _shape_only(name, layer)  # type: ignore[method-assign]  # computing takes most of the time
        for name, layer in network.named_sublayers():
            if not isinstance(layer, Fork):
                hooks.append(layer.register_forward_post_hook(_recorder(name, rows)))
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for _, layer in weighted:
            del layer.forward  # the class's own is visible again
        for layer, training in modes:
            layer.training = training


def _shape_only(name: str, layer: nn.Layer) -> Callable[[paddle.Tensor], paddle.Tensor]:
    """Return a forward function for `layer` that returns zeros of the right shape."""

    def forward(x: paddle.Tensor) -> paddle.Tensor:
        if not isinstance(layer, nn.Conv2D | nn.Linear):
            return x
        shape = _output_shape(layer, tuple(x.shape))
        if shape is None or min(shape) < 1:
            raise UsageError(f"{name} cannot take {list(x.shape)}: choose another size of input")
        return paddle.zeros(shape)

    return forward


def _output_shape(layer: nn.Conv2D | nn.Linear, shape: Shape) -> Shape | None:
    """Return the output's shape; None if the layer cannot take that input.

    That of a convolution is relationship 15 of Dumoulin and Visin 2016, https://arxiv.org/abs/1603.07285.
    """
    if isinstance(layer, nn.Linear):
        in_features, out_features = layer.weight.shape
        return (*shape[:-1], out_features) if shape[-1] == in_features else None
    batch, channels, *sizes = shape
    out_channels, group_channels, *kernel = layer.weight.shape
    settings = convolution_settings(layer)
    if channels != group_channels * settings.groups:
        return None
    positions = (
        (size + 2 * padding - dilation * (length - 1) - 1) // stride + 1
        for size, length, stride, padding, dilation in zip(
            sizes, kernel, _pair(settings.stride), _pair(settings.padding), _pair(settings.dilation), strict=True
        )
    )
    return (batch, out_channels, *positions)


def _pair(value: Sizes) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def _recorder(
    name: str, rows: list[LayerSummary]
) -> Callable[[nn.Layer, tuple[paddle.Tensor, ...], paddle.Tensor], None]:
    """Return a hook that adds a row for a layer's call."""

    def record(layer: nn.Layer, inputs: tuple[paddle.Tensor, ...], output: paddle.Tensor) -> None:
        inner = layer.sublayers()
        macs = sum(row.macs for row in rows if inner and row.is_leaf and row.name.startswith(f"{name}."))
        if isinstance(layer, nn.Conv2D | nn.Linear):
            # A product for each output value and each weight of one output channel.
            one_channel = layer.weight.shape[1:] if isinstance(layer, nn.Conv2D) else layer.weight.shape[:1]
            macs += math.prod(output.shape) * math.prod(one_channel)
        rows.append(
            LayerSummary(
                name=name,
                kind=_kind(layer),
                input_shape=tuple(inputs[0].shape),
                output_shape=tuple(output.shape),
                parameters=count_parameters(layer),
                macs=macs,
                is_leaf=not inner,
            )
        )

    return record


def _kind(layer: nn.Layer) -> str:
    kind = type(layer).__name__
    if not isinstance(layer, nn.Conv2D):
        return kind
    _, _, height, width = layer.weight.shape
    settings = convolution_settings(layer)
    strides = _pair(settings.stride)
    parts = [f"{kind} {height}x{width}"]
    if strides != [1, 1]:
        parts.append(f"stride {strides[0]}" if strides[0] == strides[1] else f"stride {strides[0]}x{strides[1]}")
    if settings.groups > 1:
        parts.append(f"{settings.groups} groups")
    return ", ".join(parts)
