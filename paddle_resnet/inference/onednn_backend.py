"""An exported ONNX model run by the oneDNN library inside Paddle's wheel, without Paddle.

It is a program of primitives, and nothing else runs between its layers. All tensors are channels last, the layout in
which oneDNN computes bfloat16 and int8 fastest, and float32 as fast as in any other.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from paddle_resnet.errors import UsageError
from paddle_resnet.inference.inference_config import InferenceConfig, onnx_file, read_checked
from paddle_resnet.inference.onnx_graph import read_graph
from paddle_resnet.inference.onnx_layers import RELU, Layer, Network, Quantization, fuse
from paddle_resnet.inference.options import Precision
from paddle_resnet.onednn import primitives
from paddle_resnet.onednn.bindings import (
    Algorithm,
    Argument,
    DataType,
    OneDNNError,
    Propagation,
    Query,
    check,
    functions,
    holding_lock,
)
from paddle_resnet.onednn.geometry import Image, Window, overruns_its_scratch
from paddle_resnet.onednn.primitives import Context, Handle, Primitive, Sum, channels_last, contiguous
from paddle_resnet.onednn.program import ALIGNMENT, Call, Program
from paddle_resnet.system import threads

MOST_BATCH_SIZES = 64  # so many are kept
MOST_BYTES = 1 << 32  # of a tensor, so that a foreign file cannot fill the memory
POOLING = {"maximum": Algorithm.POOLING_MAX, "average": Algorithm.POOLING_AVERAGE_WITHOUT_PADDING}
ELEMENTWISE: dict[str, Any] = {"relu": ("eltwise_forward", Algorithm.RELU, 0.0, 0.0)}
ELEMENTWISE |= {"softmax": ("softmax_forward", Algorithm.SOFTMAX, 1)}
FORWARD = Propagation.FORWARD_INFERENCE


class OneDNNBackend:
    """A model as lists of oneDNN primitives, one list for each batch size.

    Calls that overlap wait for each other: a primitive's buffers are fixed. The precision is fp32, int8 or bf16 (of the
    fp32 file). `number` is that of a call's threads. Raise a UsageError if the library or the file is missing, or it
    has an operation that this backend does not know.
    """

    def __init__(self, config: InferenceConfig, precision: Precision, number: int) -> None:
        file = onnx_file(config, precision)
        data = read_checked(config, file)
        self._path, self._number, size = config.folder / file.name, number, config.input.image_size
        try:
            network = fuse(read_graph(data))
            self._mean = np.broadcast_to(network.mean.reshape(-1), (size, 3)).reshape(-1).astype(np.float32)
        except ValueError as error:
            raise self._refusal(error) from None
        data_type = DataType.BFLOAT16 if precision == "bf16" else DataType.FLOAT32
        shared = Shared()

        @lru_cache(MOST_BATCH_SIZES)
        def build(images: int) -> OneDNNNetwork:
            return OneDNNNetwork(network, (images, size, size, 3), data_type, shared)

        self._build, self._turn = build, threading.Lock()
        self.run(np.zeros((config.input.batch or 1, size, size, 3), np.uint8))

    def run(self, batch: np.ndarray) -> np.ndarray:
        with self._turn:
            before = threads.count()
            threads.use(self._number)
            try:
                built = self._build(len(batch))
                if built.input.dtype == np.uint8:
                    built.input[...] = batch
                else:
                    rows = built.input.reshape(-1, len(self._mean))
                    np.subtract(batch.reshape(rows.shape), self._mean, out=rows)
                built.run()
                return built.output.reshape(len(batch), -1).copy()
            except (KeyError, ValueError, MemoryError, OneDNNError) as error:
                raise self._refusal(error) from None
            finally:
                threads.use(before)

    def _refusal(self, error: Exception) -> UsageError:
        reason = f"{error} is needed before it is computed" if isinstance(error, KeyError) else error
        return UsageError(f"{self._path}: backend onednn cannot run it: {reason}; take onnxruntime")


class Tensor(NamedTuple):
    """Images, channels last, at the beginning of a memory of the program."""

    image: Image
    number: int


Constant = tuple[int, Any, np.ndarray]  # the role, layout and values of an argument that stays the same


@dataclass
class Shared:
    """What the programs of a network for several batch sizes share; one of them may run at a time.

    The memory of all tensors is as large as the largest program needs it. The weights of each layer are kept with the
    primitives whose choice of a layout they are in.
    """

    memory: np.ndarray = field(default_factory=lambda: _memory(0))
    weights: dict[int, list[tuple[Handle, np.ndarray]]] = field(default_factory=dict)

    def reserve(self, size: int) -> None:
        """Make the memory at least that large."""
        if len(self.memory) < size:
            self.memory = _memory(0)  # freed first, so that both are never held at once
            self.memory = _memory(size)


class OneDNNNetwork:
    """A network's primitives for one `shape` of the input, `[N, H, W, C]`.

    Convolutions whose weights are not int8 compute in `precision`, float32 or bfloat16. Raise `ValueError` if the
    layers do not fit together or one is not supported, and OneDNNError if oneDNN has no primitive for one.
    """

    def __init__(self, network: Network, shape: tuple[int, int, int, int], precision: DataType, shared: Shared) -> None:
        self._quantized: dict[str, Quantization] = network.quantized
        self._precision, self._shared = precision, shared
        self._context = Context()
        self._last_use = {name: i for i, each in enumerate(network.layers) for name in (each.source, *each.after)}
        self._in_float32 = {network.output, *(each.source for each in network.layers if each.kind == "softmax")}
        self._last_use[network.output] = len(network.layers)
        self._calls: list[Call] = []
        self._sizes: list[int] = []
        self._constants: dict[int, np.ndarray] = {}
        batch, height, width, channels = shape
        given = DataType.UINT8 if network.input in network.quantized else DataType.FLOAT32
        self._input = self._tensor(Image(batch, channels, height, width, given))
        self._tensors = {network.input: self._input}
        for number, layer in enumerate(network.layers):
            is_convolution = layer.kind == "convolution"
            self._tensors[layer.output] = self._convolve(number, layer) if is_convolution else self._pool(layer)
        self._output = self._tensors[network.output]
        ends = {self._input.number, self._output.number}
        self._program = Program(self._calls, self._sizes, {*self._constants}, lasting=ends)
        for number, constant in self._constants.items():
            self._program.place(number, constant.ctypes.data)

    @property
    def input(self) -> np.ndarray:
        """The images of the next run: uint8 or float32 `shape`."""
        return self._array(self._input)

    @property
    def output(self) -> np.ndarray:
        """The result of the last run: float32 `[N, 1, 1, classes]`."""
        return self._array(self._output)

    def run(self) -> None:
        """Compute `output` from `input`."""
        self._shared.reserve(self._program.size)
        self._program.place_planned(self._shared.memory.ctypes.data)
        self._program.run()

    def _array(self, tensor: Tensor) -> np.ndarray:
        kind = np.dtype(np.uint8 if tensor.image.data_type == DataType.UINT8 else np.float32)
        start, size = self._program.offset(tensor.number), math.prod(tensor.image.shape) * kind.itemsize
        self._shared.reserve(self._program.size)
        return self._shared.memory[start : start + size].view(kind).reshape(tensor.image.shape)

    def _convolve(self, number: int, layer: Layer) -> Tensor:
        data_type = DataType.INT8 if layer.scales is not None else self._precision
        source = self._converted(layer.source, DataType.UINT8 if data_type == DataType.INT8 else data_type)
        window = layer.window or Window((source.image.height, source.image.width))
        shape = _check_weights(layer, source.image, window)
        scaling = _Scaling()
        if layer.scales is not None:
            scaling.add(Argument.SOURCE, self._quantized[layer.source])
            scaling.add(Argument.WEIGHTS, Quantization(layer.scales, 0), 3 if layer.groups > 1 else 1)
        scaling.add(Argument.DESTINATION, self._quantized.get(layer.output))
        image = self._output_image(layer, source.image, window, len(layer.bias))
        result, total = self._added(number, layer, image)
        after = [None if name == RELU else total for name in layer.after]
        bias, ends = (
            contiguous(len(layer.bias)),
            (channels_last(source.image), channels_last(image)),
        )
        layouts = ends[0], primitives.any_layout(*shape, data_type=data_type), bias, ends[1]
        description = self._context.describe(
            *("convolution_forward", FORWARD, Algorithm.CONVOLUTION_DIRECT, *layouts),
            *window.as_arguments(with_size=False),
            attributes=scaling.attributes(after),
        )
        weights = primitives.layout_of(description, Query.WEIGHTS), self._arranged(number, layer, shape, description)
        constants = (Argument.WEIGHTS, *weights), (Argument.BIAS, bias, layer.bias), *scaling.constants
        return self._record(description, source, result, constants)

    def _added(self, number: int, layer: Layer, image: Image) -> tuple[Tensor, Sum]:
        """Return a convolution's result tensor, which holds what is added or a copy of it, and how to add that."""
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
        needed, known = primitives.layout_of(description, Query.WEIGHTS), self._shared.weights.setdefault(number, [])
        for earlier, weights in known:
            if functions().memory_desc_equal(primitives.layout_of(earlier, Query.WEIGHTS), needed):
                return weights
        stored = contiguous(*shape, data_type=DataType.FLOAT32 if layer.scales is None else DataType.INT8)
        reorder, weights = primitives.copy(self._context, stored, needed), _memory(primitives.size_of(needed))
        memories = [layer.weights, weights, *([_memory(reorder.scratch_size)] if reorder.scratch_size else [])]
        addresses = [memory.ctypes.data for memory in memories]
        check(functions().primitive_execute(*reorder.bind(*addresses)), "reorder")
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
        window = layer.window or Window((source.image.height, source.image.width))
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
        scaling = _Scaling()
        if source.image.data_type != data_type:
            scaling.add(Argument.SOURCE, self._quantized.get(name))
            if data_type == DataType.UINT8:
                raise ValueError("an int8 operation on a tensor that is not quantised")
        elif not copy:
            return source
        result = self._tensor(source.image._replace(data_type=data_type))
        ends = channels_last(source.image), channels_last(result.image)
        description = self._context.describe_copy(*ends, scaling.attributes())
        return self._record(description, source, result, scaling.constants)

    def _output_image(self, layer: Layer, image: Image, window: Window, channels: int) -> Image:
        largest = max(*window.extent, *window.padding_before, *window.padding_after)
        if largest > 4 * max(image.height, image.width) + 8 or not window.sees_pixels(image.height, image.width):
            raise ValueError(f"{window} on images of {image.height} x {image.width}")
        data_type = DataType.FLOAT32 if layer.output in self._in_float32 else self._precision
        if layer.output in self._quantized:
            data_type = DataType.UINT8
        return Image(image.batch, channels, *window.positions(image.height, image.width), data_type)

    def _tensor(self, image: Image) -> Tensor:
        return Tensor(image, self._reserve(primitives.size_of(channels_last(image))))

    def _reserve(self, size: int) -> int:
        """Return the number of a new memory."""
        if size > MOST_BYTES:
            raise ValueError(f"a tensor of {size} bytes, more than {MOST_BYTES}")
        self._sizes.append(size)
        return len(self._sizes) - 1

    def _record(
        self, description: Handle, source: Tensor, result: Tensor, constants: Sequence[Constant] = ()
    ) -> Tensor:
        ends = (Argument.SOURCE, source), (Argument.DESTINATION, result)
        arguments: list[tuple[Any, Any]] = [(role, channels_last(tensor.image)) for role, tensor in ends]
        numbers = [source.number, result.number]
        for role, layout, values in constants:
            arguments.append((role, layout))
            numbers.append(self._reserve(values.nbytes))
            self._constants[numbers[-1]] = np.ascontiguousarray(values)
        primitive = Primitive(self._context, description, arguments)
        primitive.execute = holding_lock("primitive_execute")
        self._calls += [Call(*part) for part in primitive.parts(numbers, self._reserve)]
        return result


class _Scaling:
    """The scales and zero points of a primitive's arguments."""

    def __init__(self) -> None:
        self.constants: list[Constant] = []
        self._masks: dict[int, int] = {}
        self._zero_points: list[int] = []

    def add(self, argument: Argument, quantization: Quantization | None, per_output: int = 0) -> None:
        """Add those of one argument, if it has any; `per_output` are the bits of the dimensions of several scales."""
        if quantization is None:
            return
        scales = np.array(quantization.scale, np.float32).reshape(-1)
        self._masks[argument] = per_output if scales.size > 1 else 0
        self.constants.append((Argument.SCALES | argument, contiguous(scales.size), scales))
        if quantization.zero_point:
            self._zero_points.append(argument)
            layout, value = (
                contiguous(1, data_type=DataType.INT32),
                np.array([quantization.zero_point], np.int32),
            )
            self.constants.append((Argument.ZERO_POINTS | argument, layout, value))

    def attributes(self, after: Sequence[Sum | None] = ()) -> Handle:
        return primitives.attributes(after, self._masks, self._zero_points)


def _memory(size: int) -> np.ndarray:
    """Allocate bytes, aligned for vectors."""
    memory = np.empty(size + ALIGNMENT, np.uint8)
    return memory[-memory.ctypes.data % ALIGNMENT :][:size]


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
