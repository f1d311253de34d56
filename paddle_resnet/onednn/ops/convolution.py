"""Convolution as oneDNN primitives. Arguments are addresses.

Tensors keep Paddle's layouts. Where a primitive needs another layout, its data are reordered through the thread's
scratch memory.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from paddle_resnet.onednn.bindings import Algorithm, Argument, Propagation, Query, functions
from paddle_resnet.onednn.ops.convolution_layout import ConvolutionGeometry, View, best_view
from paddle_resnet.onednn.ops.geometry import Window
from paddle_resnet.onednn.ops.primitives import (
    Context,
    Handle,
    Primitive,
    contiguous,
    describe,
    layout_of,
    reorder,
    size_of,
)

WIDEST_VECTOR = 16
"""float32 values in an AVX-512 register."""


def overruns_its_scratch(window: Window, inputs: int) -> bool:
    """Return whether oneDNN's threads would write into one another's memory, and sometimes give a wrong gradient.

    Its strided 1x1 convolution packs the pixels it needs first. With `inputs` channels (of a group) that do not fill
    whole vectors, the last vector of one thread runs into the memory of the next: seen in 3.2.1 and 3.6.2 with AVX2.
    """
    strided_points = window.size == (1, 1) and window.stride != (1, 1)
    unpadded = window.padding_before == window.padding_after == (0, 0)
    return strided_points and unpadded and inputs % WIDEST_VECTOR != 0


class Buffer(NamedTuple):
    """An argument of a primitive, in the layout of its tensor (`stored`) and in that of the primitive (`needed`)."""

    role: Argument
    scratch_name: str
    stored: Any
    needed: Any


class ReorderedPrimitive:
    """A primitive of two inputs and an output, which are reordered where `stored` and `needed` differ."""

    def __init__(
        self,
        context: Context,
        description: Handle,
        inputs: tuple[Buffer, Buffer],
        output: Buffer,
        *vectors: tuple[Argument, Handle],
    ) -> None:
        """`vectors` are further arguments, which are never reordered."""
        self._scratch = context.scratch
        self._inputs = [
            (each.scratch_name, size_of(each.needed), reorder(context, each.stored, each.needed)) for each in inputs
        ]
        self._output = output.scratch_name, size_of(output.needed), reorder(context, output.needed, output.stored)
        arguments = [(each.role, each.needed) for each in (*inputs, output)]
        self._primitive = Primitive(context, description, [*arguments, *vectors])

    def __call__(self, first: int, second: int, result: int, *vectors: int) -> None:
        """Execute on the buffers at these addresses."""
        read = []
        for address, (name, size, copy) in zip((first, second), self._inputs, strict=True):
            read.append(address if copy is None else self._scratch.address(name, size))
            if copy is not None:
                copy(address, read[-1])
        name, size, copy = self._output
        written = result if copy is None else self._scratch.address(name, size)
        self._primitive(*read, written, *vectors)
        if copy is not None:
            copy(written, result)


def convolution_forward(context: Context, geometry: ConvolutionGeometry) -> ReorderedPrimitive:
    """``destination = source * weights (+ bias)`` (arguments: source, weights, destination, bias if any)."""
    view = best_view(geometry)
    description = _describe_convolution(context, geometry, view)
    weights = layout_of(description, Query.WEIGHTS)
    return ReorderedPrimitive(
        context,
        description,
        (
            Buffer(Argument.SOURCE, "source", *view.layouts(geometry.source)),
            Buffer(Argument.WEIGHTS, "weights", view.stored_weights(), weights),
        ),
        Buffer(Argument.DESTINATION, "destination", *view.layouts(geometry.destination)),
        *_bias(geometry, Argument.BIAS),
    )


def convolution_backward_data(context: Context, geometry: ConvolutionGeometry) -> ReorderedPrimitive:
    """The gradient of the source (arguments: gradient of the destination, weights, gradient of the source)."""
    view = best_view(geometry)
    source, destination = view.layouts(geometry.source), view.layouts(geometry.destination)
    description = describe(
        functions().convolution_backward_data_primitive_desc_create,
        *(context.engine, Algorithm.CONVOLUTION_DIRECT),
        *(source.needed, view.needed_weights(), destination.needed),
        *view.window_arguments(),
        *(_describe_convolution(context, geometry, view), context.attributes),
    )
    weights = layout_of(description, Query.WEIGHTS)
    return ReorderedPrimitive(
        context,
        description,
        (
            Buffer(Argument.DIFF_DESTINATION, "source", *destination),
            Buffer(Argument.WEIGHTS, "weights", view.stored_weights(), weights),
        ),
        Buffer(Argument.DIFF_SOURCE, "destination", *source),
    )


def convolution_backward_weights(context: Context, geometry: ConvolutionGeometry) -> ReorderedPrimitive:
    """The gradients of weights and bias (arguments: source, gradients of destination, weights, bias if any)."""
    view = best_view(geometry, for_weights=True)
    source, destination = view.layouts(geometry.source), view.layouts(geometry.destination)
    bias = _bias(geometry, Argument.DIFF_BIAS)
    description = describe(
        functions().convolution_backward_weights_primitive_desc_create,
        *(context.engine, Algorithm.CONVOLUTION_DIRECT),
        *(source.needed, view.needed_weight_gradient(), bias[0][1] if bias else None, destination.needed),
        *view.window_arguments(),
        *(_describe_convolution(context, geometry, view), context.attributes),
    )
    weights = layout_of(description, Query.DIFF_WEIGHTS)
    return ReorderedPrimitive(
        context,
        description,
        (Buffer(Argument.SOURCE, "source", *source), Buffer(Argument.DIFF_DESTINATION, "destination", *destination)),
        Buffer(Argument.DIFF_WEIGHTS, "weights", view.stored_weights(), weights),
        *bias,
    )


def _bias(geometry: ConvolutionGeometry, role: Argument) -> list[tuple[Argument, Handle]]:
    return [(role, contiguous(geometry.out_channels))] if geometry.bias else []


def _describe_convolution(context: Context, geometry: ConvolutionGeometry, view: View) -> Handle:
    source, destination = view.layouts(geometry.source), view.layouts(geometry.destination)
    bias = contiguous(geometry.out_channels) if geometry.bias else None
    return describe(
        functions().convolution_forward_primitive_desc_create,
        *(context.engine, Propagation.FORWARD_TRAINING, Algorithm.CONVOLUTION_DIRECT),
        *(source.needed, view.needed_weights(), bias, destination.needed),
        *view.window_arguments(),
        context.attributes,
    )
