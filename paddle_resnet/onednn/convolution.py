"""Convolution as oneDNN primitives. Buffers are addresses here; `functions` knows tensors.

The weights keep Paddle's layout; where a primitive wants another, they are reordered in the thread's scratch memory.
"""

from __future__ import annotations

from typing import NamedTuple

from paddle_resnet.onednn.bindings import Algorithm, Argument, Propagation, Query, functions
from paddle_resnet.onednn.geometry import Image, Window
from paddle_resnet.onednn.primitives import (
    Context,
    Handle,
    Primitive,
    any_layout,
    channels_last,
    contiguous,
    describe,
    layout_of,
    reorder,
    size_of,
)

WIDEST_VECTOR = 16
"""float32 values in an AVX-512 register."""


class ConvolutionGeometry(NamedTuple):
    """A convolution; weights are ``[out, in / groups, kernel height, kernel width]`` as Paddle keeps them."""

    source: Image
    out_channels: int
    window: Window
    groups: int
    bias: bool

    @property
    def destination(self) -> Image:
        """The result's shape."""
        return Image(
            self.source.batch, self.out_channels, *self.window.positions(self.source.height, self.source.width)
        )

    @property
    def weights_shape(self) -> tuple[int, ...]:
        """The weights' shape for oneDNN: with groups, they are its first dimension."""
        inputs = self.source.channels // self.groups
        if self.groups == 1:
            return (self.out_channels, inputs, *self.window.size)
        return (self.groups, self.out_channels // self.groups, inputs, *self.window.size)


def overruns_its_scratch(window: Window, inputs: int) -> bool:
    """Whether oneDNN's threads would write into one another's memory, and now and then give a wrong gradient.

    Its strided 1x1 convolution packs the pixels it needs first. With `inputs` channels (of a group) that do not fill
    whole vectors, the last vector of one thread runs into the memory of the next: seen in 3.2.1 and 3.6.2 with AVX2.
    """
    strided_points = window.size == (1, 1) and window.stride != (1, 1)
    unpadded = window.padding_before == window.padding_after == (0, 0)
    return strided_points and unpadded and inputs % WIDEST_VECTOR != 0


class ConvolutionForward:
    """``destination = source * weights (+ bias)``."""

    def __init__(self, context: Context, geometry: ConvolutionGeometry) -> None:
        description = _describe_convolution(context, geometry)
        weights = layout_of(description, Query.WEIGHTS)
        arguments = [
            (Argument.SOURCE, channels_last(*geometry.source)),
            (Argument.WEIGHTS, weights),
            (Argument.DESTINATION, channels_last(*geometry.destination)),
        ]
        if geometry.bias:
            arguments.append((Argument.BIAS, contiguous(geometry.out_channels)))
        self._scratch = context.scratch
        self._weights_size = size_of(weights)
        self._arrange_weights = reorder(context, contiguous(*geometry.weights_shape), weights)
        self._convolve = Primitive(context, description, arguments)

    def __call__(self, source: int, weights: int, destination: int, *bias: int) -> None:
        """Execute; `bias` is one address if the geometry has a bias."""
        if self._arrange_weights is not None:
            arranged = self._scratch.address("weights", self._weights_size)
            self._arrange_weights(weights, arranged)
            weights = arranged
        self._convolve(source, weights, destination, *bias)


class ConvolutionBackwardData:
    """The gradient of the source."""

    def __init__(self, context: Context, geometry: ConvolutionGeometry) -> None:
        source, destination = channels_last(*geometry.source), channels_last(*geometry.destination)
        description = describe(
            functions().convolution_backward_data_primitive_desc_create,
            context.engine,
            Algorithm.CONVOLUTION_DIRECT,
            source,
            any_layout(*geometry.weights_shape),
            destination,
            *geometry.window.as_arguments(with_size=False),
            _describe_convolution(context, geometry),
            context.attributes,
        )
        weights = layout_of(description, Query.WEIGHTS)
        self._scratch = context.scratch
        self._weights_size = size_of(weights)
        self._arrange_weights = reorder(context, contiguous(*geometry.weights_shape), weights)
        self._convolve = Primitive(
            context,
            description,
            [(Argument.DIFF_DESTINATION, destination), (Argument.WEIGHTS, weights), (Argument.DIFF_SOURCE, source)],
        )

    def __call__(self, diff_destination: int, weights: int, diff_source: int) -> None:
        """Execute."""
        if self._arrange_weights is not None:
            arranged = self._scratch.address("weights", self._weights_size)
            self._arrange_weights(weights, arranged)
            weights = arranged
        self._convolve(diff_destination, weights, diff_source)


class ConvolutionBackwardWeights:
    """The gradients of the weights and of the bias."""

    def __init__(self, context: Context, geometry: ConvolutionGeometry) -> None:
        source, destination = channels_last(*geometry.source), channels_last(*geometry.destination)
        bias = contiguous(geometry.out_channels) if geometry.bias else None
        description = describe(
            functions().convolution_backward_weights_primitive_desc_create,
            context.engine,
            Algorithm.CONVOLUTION_DIRECT,
            source,
            any_layout(*geometry.weights_shape),
            bias,
            destination,
            *geometry.window.as_arguments(with_size=False),
            _describe_convolution(context, geometry),
            context.attributes,
        )
        weights = layout_of(description, Query.DIFF_WEIGHTS)
        arguments = [
            (Argument.SOURCE, source),
            (Argument.DIFF_DESTINATION, destination),
            (Argument.DIFF_WEIGHTS, weights),
        ]
        if bias is not None:
            arguments.append((Argument.DIFF_BIAS, bias))
        self._scratch = context.scratch
        self._weights_size = size_of(weights)
        self._restore_weights = reorder(context, weights, contiguous(*geometry.weights_shape))
        self._convolve = Primitive(context, description, arguments)

    def __call__(self, source: int, diff_destination: int, diff_weights: int, *diff_bias: int) -> None:
        """Execute; `diff_bias` is one address if the geometry has a bias."""
        if self._restore_weights is None:
            self._convolve(source, diff_destination, diff_weights, *diff_bias)
            return
        arranged = self._scratch.address("weights", self._weights_size)
        self._convolve(source, diff_destination, arranged, *diff_bias)
        self._restore_weights(arranged, diff_weights)


def _describe_convolution(context: Context, geometry: ConvolutionGeometry) -> Handle:
    return describe(
        functions().convolution_forward_primitive_desc_create,
        context.engine,
        Propagation.FORWARD_TRAINING,
        Algorithm.CONVOLUTION_DIRECT,
        channels_last(*geometry.source),
        any_layout(*geometry.weights_shape),
        contiguous(geometry.out_channels) if geometry.bias else None,
        channels_last(*geometry.destination),
        *geometry.window.as_arguments(with_size=False),
        context.attributes,
    )
