"""Convolution as oneDNN primitives. Buffers are addresses here; `functions` knows tensors.

Tensors keep Paddle's layouts; where a primitive wants another, they are laid out anew in the thread's scratch memory.
"""

from __future__ import annotations

from paddle_resnet.onednn.bindings import Algorithm, Argument, Propagation, Query, functions
from paddle_resnet.onednn.ops.convolution_layout import ConvolutionGeometry, View, best_view
from paddle_resnet.onednn.ops.geometry import Window
from paddle_resnet.onednn.ops.primitives import Context, Handle, Primitive, contiguous, describe, layout_of
from paddle_resnet.onednn.ops.reordered import ArrangedInput, ArrangedOutput

WIDEST_VECTOR = 16
"""float32 values in an AVX-512 register."""


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
        view = best_view(geometry)
        source, destination = view.wanted(geometry.source), view.wanted(geometry.destination)
        description = _describe_convolution(context, geometry, view)
        weights = layout_of(description, Query.WEIGHTS)
        self._source = ArrangedInput(context, "source", view.given(geometry.source), source)
        self._weights = ArrangedInput(context, "weights", view.given_weights(), weights)
        self._destination = ArrangedOutput(context, "destination", destination, view.given(geometry.destination))
        arguments = [(Argument.SOURCE, source), (Argument.WEIGHTS, weights), (Argument.DESTINATION, destination)]
        if geometry.bias:
            arguments.append((Argument.BIAS, contiguous(geometry.out_channels)))
        self._convolve = Primitive(context, description, arguments)

    def __call__(self, source: int, weights: int, destination: int, *bias: int) -> None:
        """Execute; `bias` is one address if the geometry has a bias."""
        place = self._destination.place(destination)
        self._convolve(self._source(source), self._weights(weights), place, *bias)
        self._destination.deliver(place, destination)


class ConvolutionBackwardData:
    """The gradient of the source."""

    def __init__(self, context: Context, geometry: ConvolutionGeometry) -> None:
        view = best_view(geometry)
        source, destination = view.wanted(geometry.source), view.wanted(geometry.destination)
        description = describe(
            functions().convolution_backward_data_primitive_desc_create,
            context.engine,
            Algorithm.CONVOLUTION_DIRECT,
            source,
            view.wanted_weights(),
            destination,
            *view.window_arguments(),
            _describe_convolution(context, geometry, view),
            context.attributes,
        )
        weights = layout_of(description, Query.WEIGHTS)
        self._diff_destination = ArrangedInput(context, "source", view.given(geometry.destination), destination)
        self._weights = ArrangedInput(context, "weights", view.given_weights(), weights)
        self._diff_source = ArrangedOutput(context, "destination", source, view.given(geometry.source))
        self._convolve = Primitive(
            context,
            description,
            [(Argument.DIFF_DESTINATION, destination), (Argument.WEIGHTS, weights), (Argument.DIFF_SOURCE, source)],
        )

    def __call__(self, diff_destination: int, weights: int, diff_source: int) -> None:
        """Execute."""
        place = self._diff_source.place(diff_source)
        self._convolve(self._diff_destination(diff_destination), self._weights(weights), place)
        self._diff_source.deliver(place, diff_source)


class ConvolutionBackwardWeights:
    """The gradients of the weights and of the bias."""

    def __init__(self, context: Context, geometry: ConvolutionGeometry) -> None:
        view = best_view(geometry, for_weights=True)
        source, destination = view.wanted(geometry.source), view.wanted(geometry.destination)
        bias = contiguous(geometry.out_channels) if geometry.bias else None
        description = describe(
            functions().convolution_backward_weights_primitive_desc_create,
            context.engine,
            Algorithm.CONVOLUTION_DIRECT,
            source,
            view.wanted_weight_gradient(),
            bias,
            destination,
            *view.window_arguments(),
            _describe_convolution(context, geometry, view),
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
        self._source = ArrangedInput(context, "source", view.given(geometry.source), source)
        self._diff_destination = ArrangedInput(context, "destination", view.given(geometry.destination), destination)
        self._diff_weights = ArrangedOutput(context, "weights", weights, view.given_weights())
        self._convolve = Primitive(context, description, arguments)

    def __call__(self, source: int, diff_destination: int, diff_weights: int, *diff_bias: int) -> None:
        """Execute; `diff_bias` is one address if the geometry has a bias."""
        place = self._diff_weights.place(diff_weights)
        self._convolve(self._source(source), self._diff_destination(diff_destination), place, *diff_bias)
        self._diff_weights.deliver(place, diff_weights)


def _describe_convolution(context: Context, geometry: ConvolutionGeometry, view: View) -> Handle:
    return describe(
        functions().convolution_forward_primitive_desc_create,
        context.engine,
        Propagation.FORWARD_TRAINING,
        Algorithm.CONVOLUTION_DIRECT,
        view.wanted(geometry.source),
        view.wanted_weights(),
        contiguous(geometry.out_channels) if geometry.bias else None,
        view.wanted(geometry.destination),
        *view.window_arguments(),
        context.attributes,
    )
