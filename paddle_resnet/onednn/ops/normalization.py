"""Batch normalisation, with or without the ReLU after it, as oneDNN primitives. Buffers are addresses here."""

from __future__ import annotations

from typing import NamedTuple

from paddle_resnet.onednn.bindings import Argument, Normalization, Propagation, Query, functions
from paddle_resnet.onednn.ops.geometry import Image
from paddle_resnet.onednn.ops.primitives import (
    Context,
    Handle,
    Primitive,
    channels_last,
    contiguous,
    describe,
    layout_of,
    size_of,
)


class NormalizationGeometry(NamedTuple):
    """A batch normalisation over N, H and W."""

    source: Image
    epsilon: float
    relu: bool
    given_statistics: bool
    """Mean and variance are given (evaluation) instead of computed from the batch."""
    for_backward: bool
    """A backward pass will follow; a fused ReLU then leaves its mask in a workspace."""

    @property
    def flags(self) -> int:
        """The flags of `Normalization`."""
        flags = Normalization.USE_SCALE | Normalization.USE_SHIFT
        if self.relu:
            flags |= Normalization.FUSE_RELU
        if self.given_statistics:
            flags |= Normalization.USE_GLOBAL_STATISTICS
        return int(flags)


class NormalizationForward:
    """``destination = (source - mean) / sqrt(variance + epsilon) * scale + shift``, then maybe ReLU."""

    def __init__(self, context: Context, geometry: NormalizationGeometry) -> None:
        description = _describe_normalization(context, geometry)
        image, channels = channels_last(geometry.source), contiguous(geometry.source.channels)
        arguments = [
            (Argument.SOURCE, image),
            (Argument.SCALE, channels),
            (Argument.SHIFT, channels),
            (Argument.MEAN, channels),
            (Argument.VARIANCE, channels),
            (Argument.DESTINATION, image),
        ]
        workspace = layout_of(description, Query.WORKSPACE)
        self.workspace_size = size_of(workspace)
        if self.workspace_size:
            arguments.append((Argument.WORKSPACE, workspace))
        self.run = Primitive(context, description, arguments)


class NormalizationBackward:
    """The gradients of source, scale and shift."""

    def __init__(self, context: Context, geometry: NormalizationGeometry) -> None:
        image, channels = channels_last(geometry.source), contiguous(geometry.source.channels)
        forward = _describe_normalization(context, geometry)
        description = describe(
            functions().batch_normalization_backward_primitive_desc_create,
            context.engine,
            Propagation.BACKWARD,
            image,
            image,
            image,
            geometry.epsilon,
            geometry.flags,
            forward,
            context.attributes,
        )
        arguments = [
            (Argument.SOURCE, image),
            (Argument.SCALE, channels),
            (Argument.MEAN, channels),
            (Argument.VARIANCE, channels),
            (Argument.DIFF_DESTINATION, image),
            (Argument.DIFF_SOURCE, image),
            (Argument.DIFF_SCALE, channels),
            (Argument.DIFF_SHIFT, channels),
        ]
        workspace = layout_of(forward, Query.WORKSPACE)
        if size_of(workspace):
            arguments.append((Argument.WORKSPACE, workspace))
        self.run = Primitive(context, description, arguments)


def _describe_normalization(context: Context, geometry: NormalizationGeometry) -> Handle:
    image = channels_last(geometry.source)
    propagation = Propagation.FORWARD_TRAINING if geometry.for_backward else Propagation.FORWARD_INFERENCE
    return describe(
        functions().batch_normalization_forward_primitive_desc_create,
        context.engine,
        # With FORWARD_INFERENCE and statistics of the batch, oneDNN would not write them out.
        propagation if geometry.given_statistics else Propagation.FORWARD_TRAINING,
        image,
        image,
        geometry.epsilon,
        geometry.flags,
        context.attributes,
    )
