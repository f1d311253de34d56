"""Pooling as oneDNN primitives. Buffers are addresses here."""

from __future__ import annotations

from typing import NamedTuple

from paddle_resnet.onednn.bindings import Algorithm, Argument, Propagation, Query, functions
from paddle_resnet.onednn.ops.geometry import Image, Window
from paddle_resnet.onednn.ops.primitives import Context, Handle, Primitive, channels_last, describe, layout_of, size_of


class PoolingGeometry(NamedTuple):
    """The maximum or the mean of each window."""

    source: Image
    window: Window
    algorithm: Algorithm
    for_backward: bool
    """A backward pass will follow; max-pooling then leaves the places of the maxima in a workspace."""

    @property
    def destination(self) -> Image:
        """The result's shape."""
        positions = self.window.positions(self.source.height, self.source.width)
        return Image(self.source.batch, self.source.channels, *positions, self.source.data_type)


class PoolingForward:
    """``destination = max or mean of each window of source`` (arguments: source, destination, workspace if any)."""

    def __init__(self, context: Context, geometry: PoolingGeometry) -> None:
        description = _describe_pooling(context, geometry)
        arguments = [
            (Argument.SOURCE, channels_last(geometry.source)),
            (Argument.DESTINATION, channels_last(geometry.destination)),
        ]
        workspace = layout_of(description, Query.WORKSPACE)
        self.workspace_size = size_of(workspace)
        if self.workspace_size:
            arguments.append((Argument.WORKSPACE, workspace))
        self.run = Primitive(context, description, arguments)


class PoolingBackward:
    """The gradient of the source (arguments: gradient of the destination, of the source, workspace if any)."""

    def __init__(self, context: Context, geometry: PoolingGeometry) -> None:
        forward = _describe_pooling(context, geometry)
        source, destination = channels_last(geometry.source), channels_last(geometry.destination)
        description = describe(
            functions().pooling_backward_primitive_desc_create,
            context.engine,
            geometry.algorithm,
            source,
            destination,
            *geometry.window.as_arguments(with_size=True),
            forward,
            context.attributes,
        )
        arguments = [(Argument.DIFF_DESTINATION, destination), (Argument.DIFF_SOURCE, source)]
        workspace = layout_of(forward, Query.WORKSPACE)
        if size_of(workspace):
            arguments.append((Argument.WORKSPACE, workspace))
        self.run = Primitive(context, description, arguments)


def _describe_pooling(context: Context, geometry: PoolingGeometry) -> Handle:
    return describe(
        functions().pooling_forward_primitive_desc_create,
        context.engine,
        Propagation.FORWARD_TRAINING if geometry.for_backward else Propagation.FORWARD_INFERENCE,
        geometry.algorithm,
        channels_last(geometry.source),
        channels_last(geometry.destination),
        *geometry.window.as_arguments(with_size=True),
        context.attributes,
    )
