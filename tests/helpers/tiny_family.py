"""A network of each kind of block, small enough to check every gradient of."""

from __future__ import annotations

from functools import partial

import numpy as np
import paddle

from paddle_resnet.models.blocks import (
    BasicBlock,
    BlockOptions,
    Bottleneck,
    ConvPoolBlock,
    PlainBlock,
    ZeroPadShortcut,
    average_pool_shortcut,
    pointwise_shortcut,
    projection_shortcut,
)
from paddle_resnet.models.preact import PreActBasicBlock, PreActBottleneck
from paddle_resnet.models.registry import ResNetEntry


def _entry(block, shortcut, stem="cifar", stem_channels=None, **options):
    return ResNetEntry(
        block=block,
        depths=(2, 1),
        widths=(4, 8),
        stem=stem,
        stem_channels=stem_channels,
        shortcut=shortcut,
        block_options=BlockOptions(**options),
        num_classes=3,
        input_size=16,
    )


FAMILY = {
    "basic, option A": _entry(BasicBlock, ZeroPadShortcut),
    "basic, option B": _entry(BasicBlock, projection_shortcut),
    "bottleneck": _entry(Bottleneck, projection_shortcut, "imagenet"),
    "resnext": _entry(Bottleneck, projection_shortcut, groups=2, group_width=32),
    "wide bottleneck": _entry(Bottleneck, projection_shortcut, group_width=128),
    "resnet-d": _entry(BasicBlock, average_pool_shortcut, "deep"),
    "preact basic": _entry(PreActBasicBlock, pointwise_shortcut),
    "preact bottleneck": _entry(PreActBottleneck, pointwise_shortcut, "imagenet"),
    "wide": _entry(PreActBasicBlock, pointwise_shortcut, stem_channels=2),
    "plain": _entry(PlainBlock, projection_shortcut),
    "conv_pool": _entry(ConvPoolBlock, projection_shortcut, "whitening"),
    "d2l": _entry(BasicBlock, partial(pointwise_shortcut, bias=True), "imagenet", bias=True),
}


def tiny_network(kind, seed=0, **options):
    """Make it, with no parameter and no running statistic at its initial 0 or 1."""
    paddle.seed(seed)
    network = FAMILY[kind].make(num_classes=3, in_channels=3, **options)
    generator = np.random.default_rng(seed)
    for parameter in network.parameters():
        if parameter.ndim == 1:
            shift = generator.uniform(0.1, 0.5, parameter.shape).astype(np.float32)
            parameter.set_value(parameter.numpy() + shift)
    return network


def images(size=16, seed=1):
    """Three pictures of noise, float32 ``[3, 3, size, size]``."""
    return paddle.to_tensor(np.random.default_rng(seed).normal(size=(3, 3, size, size)).astype(np.float32))
