"""What a network is made of: shapes, trainable parameters, multiply-adds and depth, without its numbers."""

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
    """One call of one layer.

    Attributes:
        name: as in the state dict, for example ``"layer1.0.conv1"``.
        kind: the layer's class, and a convolution's kernel, stride and groups.
        input_shape: of its first input.
        output_shape: of its output.
        parameters: trainable ones, of the layer and all inside it.
        macs: multiply-adds of the convolutions and linear layers in it; 1 MAC is one multiplication and one addition.
        is_leaf: no other layer is inside it.
    """

    name: str
    kind: str
    input_shape: Shape
    output_shape: Shape
    parameters: int
    macs: int
    is_leaf: bool

    @property
    def is_block(self) -> bool:
        """It has other layers inside, and is more than a list of them."""
        return not self.is_leaf and self.kind != "Sequential"


@dataclass(frozen=True)
class ModelSummary:
    """A network at one size of input.

    Attributes:
        input_shape: ``[N, C, H, W]``.
        output_shape: ``[N, classes]``.
        parameters: trainable ones.
        macs: multiply-adds for the whole batch.
        depth: convolutions and linear layers from the input to the output, as the papers count layers; those in a
            block's shortcut, which is the shorter way, do not count.
        layers: every layer's call, in the order in which they returned: what is inside a layer, then the layer.
    """

    input_shape: Shape
    output_shape: Shape
    parameters: int
    macs: int
    depth: int
    layers: tuple[LayerSummary, ...]

    def leaves(self) -> list[LayerSummary]:
        """Every layer that has no other inside."""
        return [row for row in self.layers if row.is_leaf]

    def walk(self) -> list[LayerSummary]:
        """The way of an image: the layers of stem and head, and each block as one, whatever is inside it."""
        blocks = tuple(f"{row.name}." for row in self.layers if row.is_block)
        return [row for row in self.layers if (row.is_leaf or row.is_block) and not row.name.startswith(blocks)]


def summarize(network: nn.Layer, input_shape: Shape) -> ModelSummary:
    """Follow the shape of a batch through the network.

    Multiply-adds of a convolution are ``N * H' * W' * out_channels * (in_channels / groups) * kernel height * kernel
    width``, of a linear layer ``N * in * out``. Biases, BatchNorm, ReLU, pooling and additions are not counted, as in
    the papers and in torchvision's table (which calls them GFLOPS).

    Layers with weights only tell the shape of their answer, so the network may be one made under `paddle.LazyGuard`,
    whose weights do not exist yet; the others run. It is left as it was. A network that oneDNN computes has other
    shapes within: `onednn.restore` it first.

    Raises:
        UsageError: a layer cannot take what reaches it at this size.
    """
    rows: list[LayerSummary] = []
    with _in_evaluation(network), _weights_unused(network), _recorded(network, rows), paddle.no_grad():
        output = network(paddle.zeros(input_shape))
    weighted = [name for name, layer in network.named_sublayers() if _is_weighted(layer) and "downsample" not in name]
    return ModelSummary(
        input_shape=input_shape,
        output_shape=tuple(output.shape),
        parameters=count_parameters(network),
        macs=sum(row.macs for row in rows if row.is_leaf),
        depth=len(weighted),
        layers=tuple(rows),
    )


def _is_weighted(layer: nn.Layer) -> bool:
    return isinstance(layer, nn.Conv2D | nn.Linear)


@contextlib.contextmanager
def _in_evaluation(network: nn.Layer) -> Iterator[None]:
    """Nothing is dropped, and no running statistics move."""
    modes = [(layer, layer.training) for layer in network.sublayers(include_self=True)]
    network.eval()
    try:
        yield
    finally:
        for layer, training in modes:
            layer.training = training


@contextlib.contextmanager
def _weights_unused(network: nn.Layer) -> Iterator[None]:
    """Let layers with weights answer with zeros of the right shape: their numbers would take most of the time."""
    stand_ins = {layer: _stand_in(name, layer) for name, layer in network.named_sublayers() if _has_stand_in(layer)}
    for layer, stand_in in stand_ins.items():
        layer.forward = stand_in
    try:
        yield
    finally:
        for layer in stand_ins:
            del layer.forward  # the class's own shows again


def _has_stand_in(layer: nn.Layer) -> bool:
    return isinstance(layer, nn.Conv2D | nn.Linear | nn.BatchNorm2D | BatchNorm)


def _stand_in(name: str, layer: nn.Layer) -> Callable[[paddle.Tensor], paddle.Tensor]:
    """Return what answers for `layer` while its weights are not used."""
    answer_shape = _convolved if isinstance(layer, nn.Conv2D) else _multiplied

    def answer(x: paddle.Tensor) -> paddle.Tensor:
        if not _is_weighted(layer):
            return x
        shape = answer_shape(layer, tuple(x.shape))
        if shape is None or min(shape) < 1:
            raise UsageError(f"{name} cannot take {list(x.shape)}: choose another size of input")
        return paddle.zeros(shape)

    return answer


def _convolved(layer: nn.Conv2D, shape: Shape) -> Shape | None:
    """The shape of the output (Dumoulin and Visin 2016, https://arxiv.org/abs/1603.07285, relationship 15)."""
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


def _multiplied(layer: nn.Linear, shape: Shape) -> Shape | None:
    in_features, out_features = layer.weight.shape
    return (*shape[:-1], out_features) if shape[-1] == in_features else None


def _pair(value: Sizes) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


@contextlib.contextmanager
def _recorded(network: nn.Layer, rows: list[LayerSummary]) -> Iterator[None]:
    """Add a row for each call of a layer as it returns."""

    def recorder(name: str) -> Callable[[nn.Layer, tuple[paddle.Tensor, ...], paddle.Tensor], None]:
        def record(layer: nn.Layer, inputs: tuple[paddle.Tensor, ...], output: paddle.Tensor) -> None:
            is_leaf = not layer.sublayers()
            inside = 0 if is_leaf else sum(row.macs for row in rows if row.is_leaf and row.name.startswith(f"{name}."))
            rows.append(
                LayerSummary(
                    name=name,
                    kind=_kind(layer),
                    input_shape=tuple(inputs[0].shape),
                    output_shape=tuple(output.shape),
                    parameters=count_parameters(layer),
                    macs=inside + _own_macs(layer, tuple(output.shape)),
                    is_leaf=is_leaf,
                )
            )

        return record

    hooks = [
        layer.register_forward_post_hook(recorder(name))
        for name, layer in network.named_sublayers()
        if not isinstance(layer, Fork)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _own_macs(layer: nn.Layer, output_shape: Shape) -> int:
    """Every number of the output is a sum of as many products as the weight has numbers for each output channel."""
    if isinstance(layer, nn.Conv2D):
        return math.prod(output_shape) * math.prod(layer.weight.shape[1:])
    if isinstance(layer, nn.Linear):
        return math.prod(output_shape) * layer.weight.shape[0]
    return 0


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
