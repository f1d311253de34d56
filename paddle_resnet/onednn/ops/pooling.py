"""Pooling as oneDNN primitives. Arguments are addresses."""

from __future__ import annotations

from typing import NamedTuple

from paddle_resnet.onednn.bindings import Algorithm, Argument, Propagation, functions
from paddle_resnet.onednn.ops.geometry import Image, Window
from paddle_resnet.onednn.ops.primitives import Context, Handle, Primitive, channels_last, describe


class PoolingGeometry(NamedTuple):
    """The maximum or the mean of each window."""

    source: Image
    window: Window
    algorithm: Algorithm
    for_backward: bool
    """A backward pass will follow; max-pooling then leaves the positions of the maxima in a workspace."""

    @property
    def destination(self) -> Image:
        positions = self.window.positions(self.source.height, self.source.width)
        return Image(self.source.batch, self.source.channels, *positions, self.source.data_type)


def pooling_forward(context: Context, geometry: PoolingGeometry) -> Primitive:
    """``destination = max or mean of each window of source`` (arguments: source, destination, workspace if any)."""
    source, destination = channels_last(geometry.source), channels_last(geometry.destination)
    arguments = [(Argument.SOURCE, source), (Argument.DESTINATION, destination)]
    return Primitive(context, _describe_pooling(context, geometry), arguments)


def pooling_backward(context: Context, geometry: PoolingGeometry) -> Primitive:
    """The gradient of the source (arguments: gradient of the destination, of the source, workspace if any)."""
    source, destination = channels_last(geometry.source), channels_last(geometry.destination)
    description = describe(
        functions().pooling_backward_primitive_desc_create,
        *(context.engine, geometry.algorithm, source, destination),
        *geometry.window.as_arguments(with_size=True),
        *(_describe_pooling(context, geometry), context.attributes),
    )
    return Primitive(context, description, [(Argument.DIFF_DESTINATION, destination), (Argument.DIFF_SOURCE, source)])


def _describe_pooling(context: Context, geometry: PoolingGeometry) -> Handle:
    propagation = Propagation.FORWARD_TRAINING if geometry.for_backward else Propagation.FORWARD_INFERENCE
    return describe(
        functions().pooling_forward_primitive_desc_create,
        *(context.engine, propagation, geometry.algorithm),
        *(channels_last(geometry.source), channels_last(geometry.destination)),
        *geometry.window.as_arguments(with_size=True),
        context.attributes,
    )
