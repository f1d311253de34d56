"""Batch normalisation, with or without the ReLU after it, as oneDNN primitives. Arguments are addresses."""

from __future__ import annotations

from typing import NamedTuple

from paddle_resnet.onednn.bindings import Argument, Normalization, Propagation
from paddle_resnet.onednn.ops.geometry import Image
from paddle_resnet.onednn.ops.primitives import Context, Handle, Primitive, channels_last, contiguous


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
        flags = Normalization.USE_SCALE | Normalization.USE_SHIFT
        if self.relu:
            flags |= Normalization.FUSE_RELU
        if self.given_statistics:
            flags |= Normalization.USE_GLOBAL_STATISTICS
        return int(flags)


IMAGES = (Argument.SOURCE, Argument.DESTINATION, Argument.DIFF_SOURCE, Argument.DIFF_DESTINATION)
"""The arguments that are images; all others are vectors with a number for each channel."""


def normalization_forward(context: Context, geometry: NormalizationGeometry) -> Primitive:
    """``destination = (source - mean) / sqrt(variance + epsilon) * scale + shift``, then the ReLU.

    Arguments: source, scale, shift, mean, variance, destination, workspace if any.
    """
    return _primitive(
        context,
        _describe_normalization(context, geometry),
        geometry,
        *(Argument.SOURCE, Argument.SCALE, Argument.SHIFT, Argument.MEAN, Argument.VARIANCE, Argument.DESTINATION),
    )


def normalization_backward(context: Context, geometry: NormalizationGeometry) -> Primitive:
    """The gradients of source, scale and shift.

    Arguments: source, scale, mean, variance, gradients of destination, source, scale, shift, workspace if any.
    """
    image = channels_last(geometry.source)
    description = context.describe(
        "batch_normalization_backward",
        *(Propagation.BACKWARD, image, image, image, geometry.epsilon, geometry.flags),
        _describe_normalization(context, geometry),
    )
    return _primitive(
        context,
        description,
        geometry,
        *(Argument.SOURCE, Argument.SCALE, Argument.MEAN, Argument.VARIANCE),
        *(Argument.DIFF_DESTINATION, Argument.DIFF_SOURCE, Argument.DIFF_SCALE, Argument.DIFF_SHIFT),
    )


def _primitive(context: Context, description: Handle, geometry: NormalizationGeometry, *roles: Argument) -> Primitive:
    image, channels = channels_last(geometry.source), contiguous(geometry.source.channels)
    return Primitive(context, description, [(role, image if role in IMAGES else channels) for role in roles])


def _describe_normalization(context: Context, geometry: NormalizationGeometry) -> Handle:
    image = channels_last(geometry.source)
    # With FORWARD_INFERENCE and statistics of the batch, oneDNN would not write the statistics.
    inference = geometry.given_statistics and not geometry.for_backward
    propagation = Propagation.FORWARD_INFERENCE if inference else Propagation.FORWARD_TRAINING
    arguments = propagation, image, image, geometry.epsilon, geometry.flags
    return context.describe("batch_normalization_forward", *arguments)
