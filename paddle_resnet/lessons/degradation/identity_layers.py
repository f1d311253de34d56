"""A deeper network that computes what a shallower one does: the layers it has more are the identity."""

from __future__ import annotations

import numpy as np
import paddle
from paddle import nn

from paddle_resnet import paddle_compat
from paddle_resnet.models import create_model
from paddle_resnet.models.blocks import PlainBlock
from paddle_resnet.models.resnet import ResNet


def deepen(shallow: ResNet, name: str) -> ResNet:
    """Make the network `name`, deeper than `shallow` and of the same kind, which answers as it does in eval mode.

    Its first blocks in each stage are copies. The others give what they are given, as the activated output of a block
    is nowhere negative, so that their ReLU does nothing.
    """
    deep = create_model(name, shallow.num_classes)
    state = deep.state_dict()
    for key, value in shallow.state_dict().items():
        state[key].set_value(value)
    for stage in deep.stage_names:
        blocks = list(getattr(deep, stage))
        for block in blocks[len(getattr(shallow, stage)) :]:
            if isinstance(block, PlainBlock):
                _become_identity(block)
            else:
                block.zero_init_last()
    deep.eval()
    return deep


def identity_kernel(channels: int) -> np.ndarray:
    """The 3x3 convolution that changes nothing, ``[C, C, 3, 3]``: 1 in the middle of each channel's own kernel."""
    kernel = np.zeros((channels, channels, 3, 3), np.float32)
    kernel[np.arange(channels), np.arange(channels), 1, 1] = 1.0
    return kernel


def _become_identity(block: PlainBlock) -> None:
    for convolution, norm in ((block.conv1, block.bn1), (block.conv2, block.bn2)):
        convolution.weight.set_value(identity_kernel(convolution.weight.shape[0]))
        _pass_through(norm)


def _pass_through(norm: nn.BatchNorm2D) -> None:
    """Let the running statistics be those that change nothing: BatchNorm divides by sqrt(variance + epsilon)."""
    epsilon = paddle_compat.batch_norm_settings(norm).epsilon
    norm._variance.set_value(paddle.full_like(norm._variance, 1.0 - epsilon))
