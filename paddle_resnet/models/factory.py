"""`create_model`: make a network by name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any, get_args

import paddle

from paddle_resnet.config import ModelConfig
from paddle_resnet.errors import UsageError, require_count, require_one_of, shown
from paddle_resnet.models import blocks, preact
from paddle_resnet.models.classifier import ImageClassifier
from paddle_resnet.models.lenet import LeNet
from paddle_resnet.models.resnet import ResNet
from paddle_resnet.models.weights.loading import load_weights
from paddle_resnet.zoo import registry

IMAGE_CHANNELS = 3  # of every data source; grey images are replicated

_BLOCKS: Mapping[registry.BlockName, blocks.Block] = {
    "basic": blocks.BasicBlock,
    "bottleneck": blocks.Bottleneck,
    "plain": blocks.PlainBlock,
    "preact_basic": preact.PreActBasicBlock,
    "preact_bottleneck": preact.PreActBottleneck,
    "conv_pool": blocks.ConvPoolBlock,
}
_SHORTCUTS: Mapping[registry.ShortcutName, blocks.Shortcut] = {
    "zero_pad": blocks.ZeroPadShortcut,
    "projection": blocks.projection_shortcut,
    "pointwise": blocks.pointwise_shortcut,
    "average_pool": blocks.average_pool_shortcut,
}


def make_network(entry: registry.ModelEntry, **options: Any) -> ImageClassifier:
    """Make the network of an entry; `options` are arguments of its class, and override the entry's."""
    if not isinstance(entry, registry.ResNetEntry):
        return LeNet(**options)
    return ResNet(
        _BLOCKS[entry.block],
        entry.depths,
        widths=entry.widths,
        shortcut=partial(blocks.pointwise_shortcut, bias=True) if entry.bias else _SHORTCUTS[entry.shortcut],
        stem_channels=entry.stem_channels,
        block_options=blocks.BlockOptions(groups=entry.groups, group_width=entry.group_width, bias=entry.bias),
        first_projection=entry.first_projection,
        outer_activations=entry.outer_activations,
        dropout_in_blocks=entry.dropout_in_blocks,
        **{"stem": entry.stem, **options},
    )


def create_model(
    name: str,
    num_classes: int | None = None,
    *,
    in_channels: int | None = None,
    pretrained: str | Path | None = None,
    stem: registry.Stem | None = None,
    zero_init_residual: bool = False,
    dropout: float = 0.0,
    stochastic_depth: float = 0.0,
    include_top: bool = True,
) -> ImageClassifier:
    """Make a network of `list_models()`.

    Two networks of one name have the same parameter names, so that an optimizer's saved state fits both. Do not give
    two of them to one optimizer.

        >>> import paddle_resnet
        >>> network = paddle_resnet.create_model("resnet20", pretrained="cifar10")
        >>> import paddle
        >>> tuple(network(paddle.zeros([2, 3, 32, 32])).shape)
        (2, 10)
        >>> grey = paddle_resnet.create_model("resnet8", num_classes=5, in_channels=1)
        >>> tuple(grey(paddle.zeros([2, 1, 32, 32])).shape)
        (2, 5)

    Args:
        name: the network's name, for example ``"resnet20"``.
        num_classes: outputs of the head; None: the model's default (1,000 for ImageNet's, 10 for CIFAR's).
        in_channels: channels of the images; None: the model's default (3, but 1 for ``"resnet18_d2l"``).
        pretrained: None for new weights, ``"imagenet"`` or another key of `zoo.imagenet_weights.SOURCES` for official
            ones, ``"cifar10"`` for those in the package, or the path of a weights file, see `load_weights`. If
            `num_classes` differs from theirs, the head stays new.
        stem: ``"imagenet"``, ``"cifar"``, ``"cifar_pool"``, ``"deep"`` or ``"whitening"``, see `ResNet`; None: the
            model's default.
        zero_init_residual: every residual block starts as its shortcut.
        dropout: dropout probability before the last layer, or in the blocks of a wide ResNet (``"wrn_..."``).
        stochastic_depth: probability that the last block's residual branch is dropped in training, growing linearly
            from the first block; see `StochasticDepth`.
        include_top: False: no head; the network returns features ``[N, channels, H', W']``.

    Raises:
        UsageError: an unknown name, an impossible value, an option that the network does not have, or weights that are
            missing, damaged, of another architecture or, without `num_classes`, of another number of classes.
    """
    entry = registry.model_entry(name)
    keep_head = num_classes is None
    num_classes = entry.num_classes if num_classes is None else num_classes
    in_channels = entry.in_channels if in_channels is None else in_channels
    require_count("num_classes", num_classes)
    require_count("in_channels", in_channels)
    for argument, probability in (("dropout", dropout), ("stochastic_depth", stochastic_depth)):
        if not isinstance(probability, Real) or not 0.0 <= probability < 1.0:
            raise UsageError(
                f"{argument}: expected a probability of at least 0 and below 1, got {shown(repr(probability))}"
            )
    options = {"stem": stem, "zero_init_residual": zero_init_residual, "stochastic_depth": stochastic_depth}
    chosen = {option: value for option, value in options.items() if value}
    if "stem" in chosen:
        require_one_of("stem", stem, get_args(registry.Stem))
    for option in chosen:
        if option in entry.unsupported_options:
            raise UsageError(f"{option}: {name} has no such option; leave it out, or take another network")
    # Paddle numbers parameters across the process and keys an optimizer's state by these names.
    with paddle.utils.unique_name.guard():
        network = make_network(entry, num_classes=num_classes, in_channels=in_channels, dropout=dropout, **chosen)
    network.model_name = registry.canonical_name(name)
    if pretrained is not None:
        report = load_weights(network, pretrained)
        if report.skipped_head and include_top and keep_head:
            raise UsageError(f"{report.summary()}: give num_classes to train a new last layer")
    if not include_top:
        network.remove_classifier()
    return network


def create_configured_model(config: ModelConfig, num_classes: int) -> ImageClassifier:
    """Make the network of a run's config for RGB images, with new weights; errors are those of `create_model`."""
    return create_model(
        config.name,
        num_classes,
        in_channels=IMAGE_CHANNELS,
        stem=config.stem,
        zero_init_residual=config.zero_init_residual,
        dropout=config.dropout,
        stochastic_depth=config.stochastic_depth,
    )
