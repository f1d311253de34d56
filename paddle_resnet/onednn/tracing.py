"""A trace: the operations of oneDNN's layers in order, on tensors that have no memory yet, and their gradients.

Layers run under a trace as usual. `tensors.allocate`, `tensors.execute` and `tensors.apply` then allocate nothing and
compute nothing: they note what is to be done. What these layers cannot repeat raises `NotTraceableError`, and Paddle's
operators raise errors of their own, as they get no tensors of Paddle.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, NamedTuple

import paddle
from paddle.autograd import PyLayer

from paddle_resnet.onednn.program import Call

BYTES = {paddle.float32: 4, paddle.bfloat16: 2, paddle.uint8: 1}  # the size of an element


class NotTraceableError(Exception):
    """The network computes something else than operations of oneDNN's layers."""


class PlannedTensor:
    """A contiguous tensor without memory: what `paddle.Tensor` knows about itself, as far as the layers ask.

    Attributes:
        number: of its memory in the trace; views have the same one.
    """

    inplace_version = 0

    def __init__(self, number: int, shape: Sequence[int], dtype: paddle.dtype) -> None:
        self.number, self.shape, self.dtype = number, list(shape), dtype
        self.stop_gradient = True

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise NotTraceableError(f"a layer asks for the {name} of a tensor")

    def __getitem__(self, index: Any) -> Any:
        raise NotTraceableError("a layer takes a part of a tensor")

    def is_contiguous(self) -> bool:
        return True

    def detach(self) -> PlannedTensor:
        return self.reshape(self.shape)

    def flatten(self) -> PlannedTensor:
        return self.reshape([math.prod(self.shape)])

    def reshape(self, shape: Sequence[int]) -> PlannedTensor:
        if math.prod(shape) != math.prod(self.shape):
            raise NotTraceableError(f"a view {list(shape)} of {self.shape}")
        return PlannedTensor(self.number, shape, self.dtype)


class _Node(NamedTuple):
    """A differentiable function that was called."""

    function: type[PyLayer]
    context: SimpleNamespace
    inputs: list[Any]
    outputs: tuple[PlannedTensor, ...]


class Trace:
    """What was noted.

    Attributes:
        calls: in order.
        sizes: in bytes, of the memory of each planned tensor, by its number.
        own: the tensors that have memory of their own, by number: parameters and running statistics.
    """

    def __init__(self, lasting: Sequence[paddle.Tensor]) -> None:
        """`lasting` are the tensors that the layers may use: those that stay the same from step to step."""
        self.calls: list[Call] = []
        self.sizes: list[int] = []
        self.own: dict[int, paddle.Tensor] = {}
        self._lasting = {id(tensor): tensor for tensor in lasting}
        self._numbers: dict[int, int] = {}
        self._nodes: list[_Node] = []

    @contextmanager
    def active(self) -> Iterator[None]:
        """Let this thread's layers be traced instead of computed."""
        _local.trace = self
        try:
            with paddle.no_grad():
                yield
        finally:
            _local.trace = None

    def allocate(self, shape: Sequence[int], dtype: paddle.dtype) -> PlannedTensor:
        return PlannedTensor(self._reserve(math.prod(shape) * BYTES[dtype]), shape, dtype)

    def note(self, operation: Callable[..., Any], tensors: Sequence[Any]) -> None:
        """Note that `operation`, or each primitive that it consists of, is called with the tensors' addresses."""
        numbers = [self._number(tensor) for tensor in tensors]
        parts = getattr(operation, "parts", None)  # of a primitive, or of an operation of several
        calls = [(operation, numbers)] if parts is None else parts(numbers, self._reserve)
        self.calls += [Call(*each) for each in calls]

    def _reserve(self, size: int) -> int:
        self.sizes.append(size)
        return len(self.sizes) - 1

    def _number(self, tensor: Any) -> int:
        if isinstance(tensor, PlannedTensor):
            return tensor.number
        if id(tensor) not in self._lasting:
            raise NotTraceableError("a layer uses a tensor that is neither a parameter nor a result of the layers")
        if id(tensor) not in self._numbers:
            self._numbers[id(tensor)] = self._reserve(0)
            self.own[self._numbers[id(tensor)]] = tensor
        return self._numbers[id(tensor)]

    def apply(self, function: type[PyLayer], *arguments: Any) -> Any:
        """Trace the forward pass of a differentiable function."""
        context = SimpleNamespace()
        result = function.forward(context, *arguments)
        outputs = result if isinstance(result, tuple) else (result,)
        for output in outputs:
            output.stop_gradient = False
        inputs = [each for each in arguments if isinstance(each, PlannedTensor | paddle.Tensor)]
        self._nodes.append(_Node(function, context, inputs, outputs))
        return result

    def backward(self, output: PlannedTensor, gradient: PlannedTensor) -> dict[int, PlannedTensor]:
        """Trace the backward pass; return the gradients of the parameters by the parameters' ``id``."""
        gradients = {id(output): gradient}
        for node in reversed(self._nodes):
            of_outputs = [gradients.pop(id(each), None) for each in node.outputs]
            if None in of_outputs:
                raise NotTraceableError("a result of a layer is not used")
            found = node.function.backward(node.context, *of_outputs)
            for tensor, each in zip(node.inputs, found if isinstance(found, tuple) else (found,), strict=True):
                if id(tensor) in gradients:
                    raise NotTraceableError("a tensor is used twice")
                if each is not None:
                    gradients[id(tensor)] = each
        return gradients


_local = threading.local()


def active_trace() -> Trace | None:
    """Return the trace that this thread's layers run under, or None."""
    return getattr(_local, "trace", None)
