"""Convolution of images ``[N, H, W, C]``: the function and its gradient, and their oneDNN primitives.

Tensors keep Paddle's layouts. Where a primitive needs another layout, its data are reordered through the thread's
scratch memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import paddle
from paddle.autograd import PyLayer

from paddle_resnet.onednn import tensors
from paddle_resnet.onednn.bindings import Algorithm, Argument, Propagation, Query
from paddle_resnet.onednn.convolution_layout import ConvolutionGeometry, View, best_view
from paddle_resnet.onednn.geometry import Window, overruns_its_scratch
from paddle_resnet.onednn.primitives import (
    Context,
    Handle,
    Primitive,
    any_layout,
    contiguous,
    layout_of,
    reorder,
    size_of,
    thread_context,
)
from paddle_resnet.onednn.residual import zero_pad_shortcut


class ReorderedPrimitive:
    """A primitive of two inputs and an output, which are reordered where their tensors have another layout.

    It is a list of primitives on numbered buffers: first the tensors of a call, then the reordered ones.
    """

    def __init__(
        self,
        context: Context,
        view: View,
        description: Handle,
        roles: tuple[Argument, Argument, Argument],
        vectors: Sequence[tuple[Argument, Handle]] = (),
    ) -> None:
        """`roles` are those of the inputs and of the output; `vectors` are further arguments, never reordered."""
        self._scratch = context.scratch
        self._reordered: list[tuple[str, int]] = []  # names and sizes
        arguments: list[tuple[Argument, Any]] = []
        numbers = list(range(len(roles) + len(vectors)))
        before: list[tuple[Primitive, list[int]]] = []
        after: list[tuple[Primitive, list[int]]] = []
        for number, role in enumerate(roles):
            tensor = role.name.removeprefix("DIFF_")
            if tensor == "WEIGHTS":
                stored, needed = contiguous(*view.weights_shape), layout_of(description, Query[role.name])
            else:
                stored, needed = view.source if tensor == "SOURCE" else view.destination
            arguments.append((role, needed))
            is_output = role is roles[-1]
            copy = reorder(context, needed, stored) if is_output else reorder(context, stored, needed)
            if copy is not None:
                numbers[number] = reordered = len(roles) + len(vectors) + len(self._reordered)
                self._reordered.append((tensor, size_of(needed)))
                if is_output:
                    after.append((copy, [reordered, number]))
                else:
                    before.append((copy, [number, reordered]))
        self._steps = [*before, (Primitive(context, description, [*arguments, *vectors]), numbers), *after]

    def __call__(self, *tensors: int) -> None:
        """Execute on the tensors at these addresses: the inputs, the output, the vectors."""
        buffers = [*tensors, *(self._scratch.address(*each) for each in self._reordered)]
        for primitive, numbers in self._steps:
            primitive(*(buffers[number] for number in numbers))

    def parts(self, numbers: Sequence[int], allocate: Callable[[int], int]) -> list[tuple[Primitive, list[int]]]:
        """Return the primitives in order with the numbers of their buffers; ``allocate(size)`` gives further ones."""
        buffers = [*numbers, *(allocate(size) for _, size in self._reordered)]
        return [
            part
            for primitive, own in self._steps
            for part in primitive.parts([buffers[number] for number in own], allocate)
        ]


def convolution_forward(context: Context, geometry: ConvolutionGeometry) -> ReorderedPrimitive:
    """``destination = source * weights (+ bias)`` (arguments: source, weights, destination, bias if any)."""
    view = best_view(geometry)
    roles = Argument.SOURCE, Argument.WEIGHTS, Argument.DESTINATION
    return ReorderedPrimitive(context, view, _forward(context, geometry, view), roles, _bias(geometry, Argument.BIAS))


def convolution_backward_data(context: Context, geometry: ConvolutionGeometry) -> ReorderedPrimitive:
    """The gradient of the source (arguments: gradient of the destination, weights, gradient of the source)."""
    view = best_view(geometry)
    description = context.describe(
        "convolution_backward_data",
        *(Algorithm.CONVOLUTION_DIRECT, view.source.needed, _weights(geometry, view), view.destination.needed),
        *(*view.window, _forward(context, geometry, view)),
    )
    roles = Argument.DIFF_DESTINATION, Argument.WEIGHTS, Argument.DIFF_SOURCE
    return ReorderedPrimitive(context, view, description, roles)


def convolution_backward_weights(context: Context, geometry: ConvolutionGeometry) -> ReorderedPrimitive:
    """The gradients of weights and bias (arguments: source, gradients of destination, weights, bias if any)."""
    view = best_view(geometry, for_weights=True)
    bias = _bias(geometry, Argument.DIFF_BIAS)
    gradients = any_layout(*view.weights_shape), bias[0][1] if bias else None  # both float32
    description = context.describe(
        "convolution_backward_weights",
        *(Algorithm.CONVOLUTION_DIRECT, view.source.needed, *gradients, view.destination.needed),
        *(*view.window, _forward(context, geometry, view)),
    )
    roles = Argument.SOURCE, Argument.DIFF_DESTINATION, Argument.DIFF_WEIGHTS
    return ReorderedPrimitive(context, view, description, roles, bias)


def _bias(geometry: ConvolutionGeometry, role: Argument) -> list[tuple[Argument, Handle]]:
    return [(role, contiguous(geometry.out_channels))] if geometry.bias else []


def _weights(geometry: ConvolutionGeometry, view: View) -> Handle:
    """Describe weights of the images' type, in the layout that the primitive chooses."""
    return any_layout(*view.weights_shape, data_type=geometry.source.data_type)


def _forward(context: Context, geometry: ConvolutionGeometry, view: View) -> Handle:
    """Describe the forward pass, which the backward passes refer to."""
    bias = contiguous(geometry.out_channels) if geometry.bias else None
    return context.describe(
        "convolution_forward",
        *(Propagation.FORWARD_TRAINING, Algorithm.CONVOLUTION_DIRECT),
        *(view.source.needed, _weights(geometry, view), bias, view.destination.needed, *view.window),
    )


def conv2d(
    x: paddle.Tensor, weight: paddle.Tensor, bias: paddle.Tensor | None, window: Window, groups: int = 1
) -> paddle.Tensor:
    """Convolve, as ``paddle.nn.functional.conv2d``.

    Args:
        x: ``[N, H, W, C]``.
        weight: ``[out, C / groups, kernel height, kernel width]``.
        bias: ``[out]``, or None.
        window: size, stride, padding and dilation; its size is the weight's.
        groups: how many groups the channels are divided into.

    Returns:
        ``[N, H', W', out]``.

    Raises:
        TypeError: weight or bias are not float32.
        ValueError: the images have another number of channels, so that oneDNN would read outside the weight.
    """
    tensors.require_float32(weight, bias)
    if weight.shape[1] * groups != x.shape[-1]:
        raise ValueError(
            f"a convolution of {weight.shape[1] * groups} channels on images of {x.shape[-1]}: expected [N, C, H, W]"
        )
    if overruns_its_scratch(window, weight.shape[1]):
        down, across = window.stride
        x = zero_pad_shortcut(x, down, 0) if down == across else x[:, ::down, ::across, :]
        window = Window((1, 1))
    geometry = ConvolutionGeometry(tensors.image_of(x), weight.shape[0], window, groups, bias is not None)
    return tensors.apply(_Convolution, x, weight, bias, geometry)


class _Convolution(PyLayer):
    @staticmethod
    def forward(
        ctx: Any, x: paddle.Tensor, weight: paddle.Tensor, bias: paddle.Tensor | None, geometry: ConvolutionGeometry
    ) -> paddle.Tensor:
        ctx.geometry = geometry
        ctx.wanted = tensors.wanted(x, weight, bias)
        x, weight = tensors.as_contiguous(x), tensors.as_contiguous(weight)
        ctx.kept = tensors.Kept(x, weight)
        result = tensors.allocate(geometry.destination.shape, x.dtype)
        tensors.execute(thread_context().cached(convolution_forward, geometry), x, weight, result, bias)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> tuple[paddle.Tensor | None, ...]:
        x, weight = tensors.recall(ctx)
        gradient = tensors.as_contiguous(gradient)
        geometry: ConvolutionGeometry = ctx.geometry
        x_wanted, weight_wanted, *bias_wanted = ctx.wanted
        x_gradient = weight_gradient = bias_gradient = None
        if x_wanted:
            x_gradient = tensors.allocate(x.shape, x.dtype)
            backward_data = thread_context().cached(convolution_backward_data, geometry)
            tensors.execute(backward_data, gradient, weight, x_gradient)
        if weight_wanted or any(bias_wanted):
            if geometry.overruns_in_bfloat16:
                x, gradient, geometry = x.astype("float32"), gradient.astype("float32"), geometry.in_float32
            weight_gradient = tensors.allocate(weight.shape, paddle.float32)
            bias_gradient = tensors.allocate([geometry.out_channels], paddle.float32) if geometry.bias else None
            backward_weights = thread_context().cached(convolution_backward_weights, geometry)
            tensors.execute(backward_weights, x, gradient, weight_gradient, bias_gradient)
        return tensors.select(ctx.wanted, x_gradient, weight_gradient, bias_gradient)
