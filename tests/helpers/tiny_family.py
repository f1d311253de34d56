"""Networks small enough to train a step: one of each kind of block, and one of each design in the table of names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import paddle

from paddle_resnet.models.factory import make_network
from paddle_resnet.zoo.registry import ModelEntry, ResNetEntry, list_models, model_entry


def _small(entry: ModelEntry) -> ModelEntry:
    """A quarter of the width, two blocks a stage at most: all that networks of one design have in common."""
    if not isinstance(entry, ResNetEntry):
        return entry
    depths, widths = (min(depth, 2) for depth in entry.depths), (width // 4 for width in entry.widths)
    return replace(entry, depths=tuple(depths), widths=tuple(widths))


DESIGNS = {name: entry for entry, name in {_small(model_entry(name)): name for name in list_models()[::-1]}.items()}
"""Small networks by the first name that has their design: block, stem, shortcut, stages, groups and options."""


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
