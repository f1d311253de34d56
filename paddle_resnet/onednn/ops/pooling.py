"""Pooling as oneDNN primitives. Arguments are addresses."""

from __future__ import annotations

from typing import NamedTuple

from paddle_resnet.onednn.bindings import Algorithm, Argument, Propagation
from paddle_resnet.onednn.ops.geometry import Image, Window
from paddle_resnet.onednn.ops.primitives import Context, Handle, Primitive, channels_last


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
    window = geometry.window.as_arguments(with_size=True)
    forward = _describe_pooling(context, geometry)
    description = context.describe("pooling_backward", geometry.algorithm, source, destination, *window, forward)
    return Primitive(context, description, [(Argument.DIFF_DESTINATION, destination), (Argument.DIFF_SOURCE, source)])


def _describe_pooling(context: Context, geometry: PoolingGeometry) -> Handle:
    propagation = Propagation.FORWARD_TRAINING if geometry.for_backward else Propagation.FORWARD_INFERENCE
    images = channels_last(geometry.source), channels_last(geometry.destination)
    window = geometry.window.as_arguments(with_size=True)
    return context.describe("pooling_forward", propagation, geometry.algorithm, *images, *window)
