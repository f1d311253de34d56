"""A network as a list of oneDNN primitives with fixed buffers: nothing else runs between its layers.

All tensors are channels last, the layout in which oneDNN computes bfloat16 and int8 fastest, and float32 as fast as in
any other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from paddle_resnet.inference.onnx_layers import RELU, Layer, Network, Quantization
from paddle_resnet.onednn.bindings import (
    SUCCESS,
    Algorithm,
    Argument,
    DataType,
    Propagation,
    Query,
    check,
    functions,
    holding_lock,
)
from paddle_resnet.onednn.geometry import Image, Window, overruns_its_scratch
from paddle_resnet.onednn.primitives import (
    Context,
    Handle,
    Primitive,
    Sum,
    any_layout,
    attributes,
    channels_last,
    contiguous,
    copy,
    layout_of,
    size_of,
)

ALIGNMENT = 64
MOST_BYTES = 1 << 32
"""Of a tensor, so that a foreign file cannot fill the memory."""
POOLING = {"maximum": Algorithm.POOLING_MAX, "average": Algorithm.POOLING_AVERAGE_WITHOUT_PADDING}
ELEMENTWISE: dict[str, Any] = {"relu": ("eltwise_forward", Algorithm.RELU, 0.0, 0.0)}
ELEMENTWISE |= {"softmax": ("softmax_forward", Algorithm.SOFTMAX, 1)}
FORWARD = Propagation.FORWARD_INFERENCE


class Tensor(NamedTuple):
    """Images, channels last, at the beginning of a buffer of bytes."""

    image: Image
    buffer: np.ndarray

    def array(self) -> np.ndarray:
        """Return a view, `[N, H, W, C]`, uint8 or float32."""
        kind = np.dtype(np.uint8 if self.image.data_type == DataType.UINT8 else np.float32)
        return self.buffer[: math.prod(self.image.shape) * kind.itemsize].view(kind).reshape(self.image.shape)


Arguments = list[tuple[int, Any, np.ndarray]]
"""The role, layout and memory of each of a primitive's arguments."""


@dataclass
class Shared:
    """What the recordings of a network for several batch sizes share; one of them may run at a time.

    Attributes:
        buffers: for tensors, each large enough for a power of two images, so that few are added for another batch.
        weights: of each layer, with the primitives whose choice of a layout they are in.
    """

    buffers: list[np.ndarray] = field(default_factory=list)
    weights: dict[int, list[tuple[Handle, np.ndarray]]] = field(default_factory=dict)


class Recording:
    """A network's primitives for one `shape` of the input, `[N, H, W, C]`.

    Convolutions whose weights are not int8 compute in `precision`, float32 or bfloat16.

    Attributes:
        input: uint8 or float32 `shape`.
        output: float32 `[N, 1, 1, classes]`.

    Raises:
        ValueError: the layers do not fit together, or one is not supported.
        OneDNNError: oneDNN has no primitive for one.
    """

    def __init__(self, network: Network, shape: tuple[int, int, int, int], precision: DataType, shared: Shared) -> None:
        self._quantized: dict[str, Quantization] = network.quantized
        self._precision, self._shared = precision, shared
        self._context = Context()
        self._last_use = {name: i for i, each in enumerate(network.layers) for name in (each.source, *each.after)}
        self._in_float32 = {network.output, *(each.source for each in network.layers if each.kind == "softmax")}
        self._free = sorted(shared.buffers, key=len)
        self._steps: list[tuple[Primitive, list[np.ndarray]]] = []
        batch, height, width, channels = shape
        given = DataType.UINT8 if network.input in network.quantized else DataType.FLOAT32
        self._tensors = {network.input: self._tensor(Image(batch, channels, height, width, given))}
        self.input = self._tensors[network.input].array()
        for number, layer in enumerate(network.layers):
            self._add(number, layer)
        self.output = self._tensors[network.output].array()
        self._scratch = _memory(max(primitive.scratch_size for primitive, _ in self._steps))
        self._calls = [_bind(primitive, buffers, self._scratch) for primitive, buffers in self._steps]
        self._execute = holding_lock("primitive_execute")

    def run(self) -> None:
        """Compute `output` from `input`."""
        execute = self._execute
        for call in self._calls:
            status = execute(*call)
            if status != SUCCESS:
                check(status, "primitive_execute")

    def _add(self, number: int, layer: Layer) -> None:
        """Record a layer; later layers use the memory of what it is the last to read."""
        self._lent: list[np.ndarray] = []
        result = self._convolve(number, layer) if layer.kind == "convolution" else self._pool(layer)
        for name in {layer.source, *layer.after} - {RELU}:
            if self._last_use[name] == number:
                self._lent.append(self._tensors.pop(name).buffer)
        self._free += [buffer for buffer in self._lent if buffer is not result.buffer]
        self._free.sort(key=len)
        self._tensors[layer.output] = result

    def _convolve(self, number: int, layer: Layer) -> Tensor:
        data_type = DataType.INT8 if layer.scales is not None else self._precision
        source = self._converted(layer.source, DataType.UINT8 if data_type == DataType.INT8 else data_type)
        window = layer.window or _whole(source.image)
        shape = _check_weights(layer, source.image, window)
        scaling = _Scaling()
        if layer.scales is not None:
            scaling.add(Argument.SOURCE, self._quantized[layer.source])
            scaling.add(Argument.WEIGHTS, Quantization(layer.scales, 0), 3 if layer.groups > 1 else 1)
        scaling.add(Argument.DESTINATION, self._quantized.get(layer.output))
        image = self._output_image(layer, source.image, window, len(layer.bias))
        result, total = self._added(number, layer, image)
        after = [None if name == RELU else total for name in layer.after]
        bias, ends = contiguous(len(layer.bias)), (channels_last(source.image), channels_last(image))
        layouts = ends[0], any_layout(*shape, data_type=data_type), bias, ends[1]
        description = self._context.describe(
            *("convolution_forward", FORWARD, Algorithm.CONVOLUTION_DIRECT, *layouts),
            *window.as_arguments(with_size=False),
            attributes=scaling.attributes(after),
        )
        weights = layout_of(description, Query.WEIGHTS), self._arranged(number, layer, shape, description)
        arguments = (Argument.WEIGHTS, *weights), (Argument.BIAS, bias, layer.bias), *scaling.arguments
        return self._record(description, source, result, arguments)

    def _added(self, number: int, layer: Layer, image: Image) -> tuple[Tensor, Sum]:
        """Return the tensor for a convolution's result, and how to add what is in it already, if anything is.

        That is the tensor to add itself, or its copy where it is needed longer.
        """
        names = {*layer.after} - {RELU}
        if len(names) > 1:
            raise ValueError("a convolution with two additions")
        if not names:
            return self._tensor(image), Sum(1.0, 0, image.data_type)
        (name,) = names
        needed = name == layer.source or self._last_use[name] > number
        tensor = self._converted(name, image.data_type, copy=needed)
        if tensor.image != image:
            raise ValueError(f"an addition of {tensor.image} to {image}")
        scale, zero_point = 1.0, 0
        if image.data_type == DataType.UINT8:
            scale, zero_point = self._quantized[name].scale.item(), self._quantized[name].zero_point
        return tensor, Sum(scale, zero_point, image.data_type)

    def _arranged(self, number: int, layer: Layer, shape: tuple[int, ...], description: Handle) -> np.ndarray:
        """Return the weights in the layout that the primitive chose."""
        needed, known = layout_of(description, Query.WEIGHTS), self._shared.weights.setdefault(number, [])
        for earlier, weights in known:
            if functions().memory_desc_equal(layout_of(earlier, Query.WEIGHTS), needed):
                return weights
        stored = contiguous(*shape, data_type=DataType.FLOAT32 if layer.scales is None else DataType.INT8)
        reorder, given, weights = copy(self._context, stored, needed), layer.weights, _memory(size_of(needed))
        scratch = _memory(reorder.scratch_size)
        check(functions().primitive_execute(*_bind(reorder, [given, weights], scratch)), "reorder")
        known.append((description, weights))
        return weights

    def _pool(self, layer: Layer) -> Tensor:
        """Record a pooling, a softmax or a ReLU."""
        if layer.kind in ELEMENTWISE:
            operation, algorithm, *parameters = ELEMENTWISE[layer.kind]
            source = self._converted(layer.source, DataType.FLOAT32 if layer.kind == "softmax" else self._precision)
            ends = channels_last(source.image), channels_last(source.image)
            description = self._context.describe(operation, FORWARD, algorithm, *ends, *parameters)
            return self._record(description, source, self._tensor(source.image))
        source = self._tensors[layer.source]
        window = layer.window or _whole(source.image)
        window = _covering(window, source.image) if layer.ceil else window
        image = self._output_image(layer, source.image, window, source.image.channels)
        if layer.output in self._quantized and self._quantized[layer.output] != self._quantized.get(layer.source):
            raise ValueError("a pooling between two scales")
        source = self._converted(layer.source, image.data_type)
        ends = channels_last(source.image), channels_last(image)
        arguments = FORWARD, POOLING[layer.kind], *ends, *window.as_arguments(with_size=True)
        return self._record(self._context.describe("pooling_forward", *arguments), source, self._tensor(image))

    def _converted(self, name: str, data_type: DataType, copy: bool = False) -> Tensor:
        """Return a tensor in a type of numbers: itself if it has it, unless a `copy` is wanted."""
        source = self._tensors[name]
        scaling, engine = _Scaling(), self._context.engine
        if source.image.data_type != data_type:
            scaling.add(Argument.SOURCE, self._quantized.get(name))
            if data_type == DataType.UINT8:
                raise ValueError("an int8 operation on a tensor that is not quantised")
        elif not copy:
            return source
        result = self._tensor(source.image._replace(data_type=data_type))
        ends = channels_last(source.image), engine, channels_last(result.image), engine
        create = functions().reorder_primitive_desc_create
        self._lent.append(result.buffer)
        description = Handle("primitive_desc", create, *ends, scaling.attributes())
        return self._record(description, source, result, scaling.arguments)

    def _output_image(self, layer: Layer, image: Image, window: Window, channels: int) -> Image:
        largest = max(*window.extent, *window.padding_before, *window.padding_after)
        if largest > 4 * max(image.height, image.width) + 8 or not window.sees_pixels(image.height, image.width):
            raise ValueError(f"{window} on images of {image.height} x {image.width}")
        data_type = DataType.FLOAT32 if layer.output in self._in_float32 else self._precision
        if layer.output in self._quantized:
            data_type = DataType.UINT8
        return Image(image.batch, channels, *window.positions(image.height, image.width), data_type)

    def _tensor(self, image: Image) -> Tensor:
        """Make a tensor in the smallest free memory that is large enough, or in new memory."""
        size = size_of(channels_last(image))
        size = max(size, min(size // image.batch << (image.batch - 1).bit_length(), MOST_BYTES))
        fitting = next((index for index, buffer in enumerate(self._free) if len(buffer) >= size), None)
        if fitting is not None:
            return Tensor(image, self._free.pop(fitting))
        buffer = _memory(size)
        self._shared.buffers.append(buffer)
        return Tensor(image, buffer)

    def _record(self, description: Handle, source: Tensor, result: Tensor, more: Sequence[Any] = ()) -> Tensor:
        ends = (Argument.SOURCE, source), (Argument.DESTINATION, result)
        arguments = [*((role, channels_last(each.image), each.buffer) for role, each in ends), *more]
        primitive = Primitive(self._context, description, [(role, layout) for role, layout, _ in arguments])
        self._steps.append((primitive, [np.ascontiguousarray(memory) for _, _, memory in arguments]))
        return result


class _Scaling:
    """The scales and zero points of a primitive's arguments."""

    def __init__(self) -> None:
        self.arguments: Arguments = []
        self._masks: dict[int, int] = {}
        self._zero_points: list[int] = []

    def add(self, argument: Argument, quantization: Quantization | None, per_output: int = 0) -> None:
        """Add those of one argument, if it has any; `per_output` are the bits of the dimensions of several scales."""
        if quantization is None:
            return
        scales = np.array(quantization.scale, np.float32).reshape(-1)
        self._masks[argument] = per_output if scales.size > 1 else 0
        self.arguments.append((Argument.SCALES | argument, contiguous(scales.size), scales))
        if quantization.zero_point:
            self._zero_points.append(argument)
            layout, value = contiguous(1, data_type=DataType.INT32), np.array([quantization.zero_point], np.int32)
            self.arguments.append((Argument.ZERO_POINTS | argument, layout, value))

    def attributes(self, after: Sequence[Sum | None] = ()) -> Handle:
        return attributes(after, self._masks, self._zero_points)


def _memory(size: int) -> np.ndarray:
    """Allocate bytes, aligned for vectors."""
    if size > MOST_BYTES:
        raise ValueError(f"a tensor of {size} bytes, more than {MOST_BYTES}")
    memory = np.empty(size + ALIGNMENT, np.uint8)
    return memory[-memory.ctypes.data % ALIGNMENT :][:size]


def _bind(primitive: Primitive, buffers: list[np.ndarray], scratch: np.ndarray) -> tuple[Any, ...]:
    """Return the arguments of ``primitive_execute``; the caller keeps the memory."""
    addresses = [each.ctypes.data for each in buffers]
    return primitive.bind(*addresses, *([scratch.ctypes.data] if primitive.scratch_size else []))


def _whole(image: Image) -> Window:
    return Window((image.height, image.width), (1, 1), (0, 0), (0, 0))


def _covering(window: Window, image: Image) -> Window:
    """Pad below and on the right until the positions of the window cover the whole image."""
    lengths = zip((image.height, image.width), *window[1:4], window.extent, strict=True)
    below, right = (
        after + (extent - length - before - after) % stride for length, stride, before, after, extent in lengths
    )
    return window._replace(padding_after=(below, right))


def _check_weights(layer: Layer, image: Image, window: Window) -> tuple[int, ...]:
    """Return the weights' shape for oneDNN, which reads as much memory whatever there is."""
    out, groups = len(layer.bias), layer.groups
    if groups < 1 or image.channels % groups or out % groups:
        raise ValueError(f"a convolution of {image.channels} channels in {groups} groups")
    inputs = image.channels // groups
    shape = (out, inputs, *window.size) if groups == 1 else (groups, out // groups, inputs, *window.size)
    scales = 1 if layer.scales is None else layer.scales.size
    if layer.weights.size != math.prod(shape) or scales not in (1, out):
        raise ValueError(f"weights {list(layer.weights.shape)} on {image.channels} channels in {groups} groups")
    if overruns_its_scratch(window, inputs):
        raise ValueError(f"a strided 1x1 convolution of {inputs} channels, no multiple of 16")
    return shape
