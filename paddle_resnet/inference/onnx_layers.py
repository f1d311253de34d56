"""The operations of an ONNX graph as layers, each of which oneDNN computes in one pass.

A convolution takes along its bias, the additions and the ReLUs after it. Casts, transpositions, reshapes and
quantisations are no layers: they say how a tensor is stored.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np

from paddle_resnet.inference.onnx_graph import Graph, Node
from paddle_resnet.onednn.geometry import Window

Kind = Literal["convolution", "maximum", "average", "softmax", "relu"]
RELU = ""  # among what comes after a convolution, beside the names of tensors to add
OF_THE_INPUT = {"Cast", "Transpose", "Sub"}
ATTRIBUTES: dict[str, Any] = {"to": 1, "perm": [0, 3, 1, 2], "alpha": 1, "beta": 1, "transA": 0}
ATTRIBUTES |= {"auto_pad": "NOTSET"}
"""The only values of attributes that are understood: a Cast is to float32, a Transpose puts channels before rows."""
STORAGE = OF_THE_INPUT | {"QuantizeLinear", "DequantizeLinear", "Flatten", "Reshape"}


_nothing = partial(np.zeros, 0, np.float32)


class Quantization(NamedTuple):
    """``value = scale * (stored - zero_point)``; a convolution's weights may have a scale for each output."""

    scale: np.ndarray
    zero_point: int


@dataclass
class Layer:
    """A convolution, a pooling, a softmax or a ReLU that follows no convolution, from tensor `source` to `output`."""

    kind: Kind
    source: str
    output: str
    window: Window | None = None  # None: the whole image
    ceil: bool = False  # the last position of a pooling's window may go beyond the image
    weights: np.ndarray = field(default_factory=_nothing)  # float32 or int8, [out, in / groups, height, width]
    scales: np.ndarray | None = None  # of int8 weights
    bias: np.ndarray = field(default_factory=_nothing)
    groups: int = 1
    after: list[str] = field(default_factory=list)  # a convolution: the names of tensors to add and `RELU`, in order


class Network(NamedTuple):
    """The layers in order. Tensors in `quantized` are uint8, all others float32. `mean` is subtracted from pixels."""

    input: str
    output: str
    layers: list[Layer]
    quantized: dict[str, Quantization]
    mean: np.ndarray


def fuse(graph: Graph) -> Network:
    """Fuse the graph of an exported network; raise `ValueError` if an operation is unknown, or fits into no layer."""
    try:
        return _Fusion(graph).network()
    except (AttributeError, KeyError, IndexError, TypeError) as error:
        raise ValueError(f"an operation has not the constants and attributes it needs ({error})") from None


class _Fusion:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._constants: dict[str, Any] = dict(graph.constants)
        self._int8: dict[str, np.ndarray] = {}  # scales of constants that are int8
        self._same: dict[str, str] = {}
        self._quantized: dict[str, Quantization] = {}
        self._mean = np.zeros(1, np.float32)
        self._layers: list[Layer] = []
        self._convolutions: dict[str, int] = {}  # their places among the layers, by the tensor that they compute
        nodes = _needed(graph)
        if "Transpose" not in {node.operation for node in nodes}:
            raise ValueError("its input is not pixels, channels last")
        for node in nodes:
            for name, value in node.attributes.items():
                of_classes = name == "axis" and node.operation in ("Softmax", "Flatten")
                if value != ATTRIBUTES.get(name, value) or (of_classes and value not in (1, -1)):
                    raise ValueError(f"a {node.operation} with {name} {value}")
            if node.operation in STORAGE:
                self._note_storage(node)
        nodes = [node for node in nodes if node.operation not in STORAGE]
        self._uses = Counter(self._tensor(name) for node in nodes for name in node.inputs)
        add = {"Conv": self._conv, "MatMul": self._matmul, "Gemm": self._matmul, "BatchNormalization": self._batch_norm}
        add |= {"Add": self._add, "Relu": self._relu, "Softmax": partial(self._append, "softmax")}
        add |= dict.fromkeys(("MaxPool", "AveragePool", "GlobalAveragePool"), self._pool)
        for node in nodes:
            if node.operation not in add:
                raise ValueError(f"the operation {node.operation} is not supported")
            add[node.operation](node)

    def network(self) -> Network:
        output = self._tensor(self._graph.output)
        quantized = {name: each for name, each in self._quantized.items() if name != output}
        return Network(self._graph.input, output, self._layers, quantized, self._mean)

    def _tensor(self, name: str) -> str:
        """Return the name of the tensor that a layer computes and `name` is another view of."""
        return self._same.get(name, name)

    def _note_storage(self, node: Node) -> None:
        source, output = node.inputs[0], node.outputs[0]
        tensor = self._tensor(source)
        if node.operation in OF_THE_INPUT and tensor != self._graph.input:
            raise ValueError(f"a {node.operation} of another tensor than the input")
        if node.operation == "Sub":
            self._mean = self._constants[node.inputs[1]]
        if node.operation in ("QuantizeLinear", "DequantizeLinear"):
            scale, zero_point = (self._constants[name] for name in node.inputs[1:3])
            if source in self._constants:
                if zero_point.any() or (scale.size > 1 and node.attributes.get("axis") != 0):
                    raise ValueError(f"{source} has zero points that are not 0, or scales along another axis")
                self._constants[output], self._int8[output] = self._constants[source], scale.astype(np.float32)
                return
            if zero_point.dtype != np.uint8:
                raise ValueError(f"{tensor} is quantised to {zero_point.dtype}, not to uint8")
            of_pixels = node.operation == "QuantizeLinear" and tensor == self._graph.input
            if of_pixels and (scale != 1 or (self._mean != zero_point).any()):
                raise ValueError("quantised pixels that are not the pixels themselves")
            self._quantized[tensor] = Quantization(scale, zero_point.item())
        self._same[output] = tensor

    def _conv(self, node: Node) -> None:
        weights, scales = self._constants[node.inputs[1]], self._int8.get(node.inputs[1])
        if weights.dtype != (np.float32 if scales is None else np.int8):
            raise ValueError(f"weights of {weights.dtype}")
        groups = node.attributes.get("group", 1)
        self._convolve(node, weights, *node.inputs[2:3], window=_window(node), scales=scales, groups=groups)

    def _matmul(self, node: Node) -> None:
        matrix = self._floats(node.inputs[1])
        self._convolve(node, matrix if node.attributes.get("transB") else matrix.T, *node.inputs[2:3])

    def _batch_norm(self, node: Node) -> None:
        """A convolution of each channel by itself, with one weight."""
        scale, shift, mean, variance = (self._floats(name).astype(np.float64) for name in node.inputs[1:])
        factor = scale / np.sqrt(variance + node.attributes["epsilon"])
        window = Window((1, 1))
        weights = factor.astype(np.float32).reshape(-1, 1, 1, 1)
        self._convolve(node, weights, window=window, groups=len(factor))
        self._layers[-1].bias = (shift - mean * factor).astype(np.float32)

    def _pool(self, node: Node) -> None:
        window = None if node.operation == "GlobalAveragePool" else _window(node)
        kind: Kind = "maximum" if node.operation == "MaxPool" else "average"
        self._append(kind, node, window=window, ceil=bool(node.attributes.get("ceil_mode")))

    def _relu(self, node: Node) -> None:
        layer = self._last(node.inputs)
        if layer is None:
            self._append("relu", node)
            return
        layer.after.append(RELU)
        self._take(layer, node)

    def _add(self, node: Node) -> None:
        layer = self._last(node.inputs)
        if layer is None:
            raise ValueError("an addition that follows no convolution")
        for name in node.inputs:
            if name in self._constants:
                if layer.after:
                    raise ValueError("a constant is added after a ReLU or an addition")
                layer.bias = layer.bias + self._floats(name).reshape(-1)
            elif self._tensor(name) != layer.output:
                layer.after.append(self._tensor(name))
        self._take(layer, node)

    def _take(self, layer: Layer, node: Node) -> None:
        """Let a convolution compute the node's output."""
        self._convolutions[node.outputs[0]] = self._convolutions.pop(layer.output)
        layer.output = node.outputs[0]

    def _convolve(self, node: Node, weights: np.ndarray, bias: str | None = None, **values: Any) -> None:
        added = np.zeros(len(weights), np.float32) if bias is None else self._floats(bias)
        self._convolutions[node.outputs[0]] = len(self._layers)
        self._append("convolution", node, weights=np.ascontiguousarray(weights), bias=added, **values)

    def _append(self, kind: Kind, node: Node, **values: Any) -> None:
        """Add a layer that computes the node's output from its first input."""
        self._layers.append(Layer(kind, self._tensor(node.inputs[0]), node.outputs[0], **values))

    def _last(self, names: list[str]) -> Layer | None:
        """Return the last convolution among those that compute the tensors, if nothing else reads its output."""
        tensors = [name for name in map(self._tensor, names) if self._uses[name] == 1]
        places = [self._convolutions[name] for name in tensors if name in self._convolutions]
        return self._layers[max(places)] if places else None

    def _floats(self, name: str) -> np.ndarray:
        return (self._constants[name] * self._int8.get(name, 1)).astype(np.float32)


def _needed(graph: Graph) -> list[Node]:
    """Return the nodes that compute the output, without those that compute shapes."""
    wanted, nodes = {graph.output}, []
    for node in reversed(graph.nodes):
        if wanted & set(node.outputs):
            wanted |= set(node.inputs[:1] if node.operation == "Reshape" else node.inputs)
            nodes.append(node)
    return nodes[::-1]


def _window(node: Node) -> Window:
    values = node.attributes
    top, left, bottom, right = pads = values.get("pads", (0, 0, 0, 0))
    if values.get("count_include_pad") and any(pads):
        raise ValueError(f"an {node.operation} that counts padding")
    pairs = [values["kernel_shape"], values.get("strides", (1, 1)), values.get("dilations", (1, 1))]
    (height, width), (down, across), (rows, columns) = pairs
    if min(height, width, down, across, rows, columns) < 1 or min(top, left, bottom, right) < 0:
        raise ValueError(f"a {node.operation} with the attributes {values}")
    return Window((height, width), (down, across), (top, left), (bottom, right), (rows, columns))
