"""A network of each kind of block, small enough to check every gradient of."""

from __future__ import annotations

import numpy as np
import paddle

from paddle_resnet.models.factory import make_network
from paddle_resnet.zoo.registry import ResNetEntry


def _entry(block, shortcut, stem="cifar", **options):
    return ResNetEntry(
        block=block, depths=(2, 1), widths=(4, 8), stem=stem, shortcut=shortcut, num_classes=3, input_size=16, **options
    )


FAMILY = {
    "basic, option A": _entry("basic", "zero_pad"),
    "basic, option B": _entry("basic", "projection"),
    "bottleneck": _entry("bottleneck", "projection", "imagenet"),
    "resnext": _entry("bottleneck", "projection", groups=2, group_width=32),
    "wide bottleneck": _entry("bottleneck", "projection", group_width=128),
    "resnet-d": _entry("basic", "average_pool", "deep"),
    "resnet-vd": _entry("basic", "average_pool", "deep", first_projection=True),
    "preact basic": _entry("preact_basic", "pointwise"),
    "preact bottleneck": _entry("preact_bottleneck", "pointwise", "imagenet"),
    "preact pytorch-cifar": _entry("preact_basic", "pointwise", outer_activations=False),
    "wide": _entry("preact_basic", "pointwise", stem_channels=2),
    "plain": _entry("plain", "projection"),
    "conv_pool": _entry("conv_pool", "projection", "whitening"),
    "d2l": _entry("basic", "pointwise", "imagenet", bias=True),
}


def tiny_network(kind, seed=0, **options):
    """Make it, with no parameter and no running statistic at its initial 0 or 1."""
    paddle.seed(seed)
    network = make_network(FAMILY[kind], num_classes=3, in_channels=3, **options)
    generator = np.random.default_rng(seed)
    for parameter in network.parameters():
        if parameter.ndim == 1:
            shift = generator.uniform(0.1, 0.5, parameter.shape).astype(np.float32)
            parameter.set_value(parameter.numpy() + shift)
    return network


def images(size=16, seed=1):
    """Three pictures of noise, float32 ``[3, 3, size, size]``."""
    return paddle.to_tensor(np.random.default_rng(seed).normal(size=(3, 3, size, size)).astype(np.float32))
