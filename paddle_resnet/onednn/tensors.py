"""What the functions share: memory, execution, which gradients are wanted, tensors kept for the backward pass, shapes.

Images are ``[N, H, W, C]``, float32 or bfloat16; results and their gradients have the same type. Weights, statistics
and their gradients are float32.

A function is a `PyLayer`, of which `apply` calls the forward pass alone where no gradient is wanted. Paddle
(2.6 and 3.3) frees what a `PyLayer` kept in its first backward pass whatever `retain_graph` says, and a second pass
over the same graph ends the process: take all gradients in one pass.

Under a trace (`tracing`), `allocate`, `execute` and `apply` note what they would do.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import paddle
from paddle.autograd import PyLayer

from paddle_resnet.onednn.bindings import DataType
from paddle_resnet.onednn.geometry import Image
from paddle_resnet.onednn.primitives import Context, Primitive, channels_last, contiguous, copy, thread_context
from paddle_resnet.onednn.tracing import BYTES, PlannedTensor, active_trace
from paddle_resnet.paddle_compat import empty_on_cpu

DATA_TYPES = {paddle.float32: DataType.FLOAT32, paddle.bfloat16: DataType.BFLOAT16}
"""The types that these functions compute with."""


def allocate(shape: Sequence[int], dtype: paddle.dtype) -> Any:
    """Make a tensor that an operation is about to fill."""
    trace = active_trace()
    return empty_on_cpu(shape, dtype) if trace is None else trace.allocate(shape, dtype)


def execute(operation: Callable[..., Any], *arguments: paddle.Tensor | None) -> None:
    """Call an operation with the addresses of its arguments; None is left out."""
    trace, given = active_trace(), [each for each in arguments if each is not None]
    if trace is None:
        operation(*(each.data_ptr() for each in given))
    else:
        trace.note(operation, given)


def apply(function: type[PyLayer], *arguments: Any) -> Any:
    """Call a differentiable function, and its forward pass alone where no gradient is wanted."""
    if not wants_gradient(*(each for each in arguments if isinstance(each, paddle.Tensor | PlannedTensor))):
        return function.forward(SimpleNamespace(), *arguments)
    trace = active_trace()
    return function.apply(*arguments) if trace is None else trace.apply(function, *arguments)


def zeros(shape: Sequence[int], dtype: paddle.dtype) -> Any:
    """Make a tensor of zeros."""
    result, size = allocate(shape, dtype), math.prod(shape) * BYTES[dtype]
    execute(lambda address: ctypes.memset(address, 0, size), result)
    return result


def require_float32(*parameters: paddle.Tensor | None) -> None:
    """Raise `TypeError` for a parameter of another type, whose memory oneDNN would read as float32."""
    for parameter in parameters:
        if parameter is not None and parameter.dtype != paddle.float32:
            raise TypeError(f"these oneDNN layers take float32 parameters, and {parameter.name} is {parameter.dtype}")


class Kept:
    """Tensors kept from the forward pass for the backward pass, detached from the graph that made them."""

    def __init__(self, *tensors: paddle.Tensor | None) -> None:
        traced = active_trace() is not None  # and so without a graph
        self._tensors = tensors if traced else tuple(None if each is None else each.detach() for each in tensors)
        self._versions = self._count_changes()

    def _count_changes(self) -> list[int]:
        return [tensor.inplace_version for tensor in self._tensors if tensor is not None]

    def unchanged(self) -> tuple[Any, ...]:
        """Return the tensors; raise `RuntimeError` if one was changed in place, so that the gradient would be wrong."""
        if self._versions != self._count_changes():
            raise RuntimeError("a tensor that the backward pass needs was changed in place after the forward pass")
        return self._tensors


def recall(ctx: Any) -> tuple[Any, ...]:
    """Return the tensors that the forward pass left in ``ctx.kept``.

    Raises:
        RuntimeError: the backward pass is itself to be differentiated, or a tensor was changed in place.
    """
    if paddle.is_grad_enabled():
        raise RuntimeError(
            "these oneDNN layers have no second derivative (create_graph=True): use the native layers for it"
        )
    kept: Kept = ctx.kept
    return kept.unchanged()


def as_contiguous(x: paddle.Tensor) -> paddle.Tensor:
    """Return `x` with its elements in order in memory. No gradient passes through, so call it within a `PyLayer`."""
    return x if x.is_contiguous() else x.contiguous()


def channels_last_copy(context: Context, image: Image) -> Primitive:
    """A copy of float32 ``[N, C, H, W]`` as ``[N, H, W, C]`` of the image's type (arguments: source, destination)."""
    batch, channels, height, width, _ = image
    return copy(context, contiguous(batch, channels, height, width), channels_last(image))


def as_channels_last(x: paddle.Tensor, dtype: paddle.dtype) -> paddle.Tensor:
    """Copy float32 ``[N, C, H, W]`` to ``[N, H, W, C]`` of `dtype`; no gradient passes through.

    One pass on all threads; Paddle's `transpose` and `cast` are two on one thread.
    """
    batch, channels, height, width = x.shape
    x = as_contiguous(x)
    result = allocate([batch, height, width, channels], dtype)
    execute(thread_context().cached(channels_last_copy, image_of(result)), x, result)
    return result


def wanted(*tensors: paddle.Tensor | None) -> tuple[bool, ...]:
    """Return for each tensor (None left out) whether its gradient is wanted."""
    return tuple(not tensor.stop_gradient for tensor in tensors if tensor is not None)


def wants_gradient(*tensors: paddle.Tensor | None) -> bool:
    """Return whether a backward pass may follow for any of the tensors."""
    return (paddle.is_grad_enabled() or active_trace() is not None) and any(wanted(*tensors))


def select(wanted: tuple[bool, ...], *gradients: paddle.Tensor | None) -> tuple[paddle.Tensor | None, ...]:
    """Keep the gradients that are wanted, one for each tensor argument, as `PyLayer` expects them."""
    return tuple(gradient if want else None for want, gradient in zip(wanted, gradients, strict=False))


def image_of(x: paddle.Tensor) -> Image:
    """Return the shape and type of an ``[N, H, W, C]`` tensor."""
    batch, height, width, channels = x.shape
    return Image(batch, channels, height, width, data_type_of(x))


def data_type_of(x: paddle.Tensor) -> DataType:
    """Return the tensor's type; raise `TypeError` if it is neither float32 nor bfloat16."""
    found = DATA_TYPES.get(x.dtype)
    if found is None:
        raise TypeError(f"oneDNN layers work on float32 and bfloat16, not {x.dtype}")
    return found


def workspace(size: int) -> paddle.Tensor | None:
    """Allocate the workspace that a forward primitive fills for its backward primitive; None if it needs none."""
    return allocate([size], paddle.uint8) if size else None
