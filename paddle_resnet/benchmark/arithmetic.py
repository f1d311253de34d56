"""How much a network computes."""

from __future__ import annotations

from paddle import nn

from paddle_resnet.models.summary import summarize

TRAINING_PASSES = 3
"""The forward product, and in the backward pass one for the images' gradient and one for the weights'."""


def multiply_accumulates(network: nn.Layer, size: int) -> int:
    """Count those of the convolutions and the linear layers for one image ``[3, size, size]``, forward."""
    return summarize(network, (1, 3, size, size)).macs


def training_operations(network: nn.Layer, size: int) -> int:
    """Floating-point operations of one image in training: a multiply-accumulate is two, and there are three passes."""
    return 2 * TRAINING_PASSES * multiply_accumulates(network, size)
