"""The table of networks that `create_model` makes.

Names are torchvision's and paddle.vision's where they have the network. ``_d`` is ResNet-D, ``_b`` a CIFAR network with
projection shortcuts (option B), ``_d2l`` the book's "Dive into Deep Learning".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from paddle_resnet.errors import UsageError, did_you_mean
from paddle_resnet.models.blocks import (
    DEFAULT_OPTIONS,
    BasicBlock,
    Block,
    BlockOptions,
    Bottleneck,
    ConvPoolBlock,
    PlainBlock,
    Shortcut,
    ZeroPadShortcut,
    average_pool_shortcut,
    pointwise_shortcut,
    projection_shortcut,
)
from paddle_resnet.models.classifier import ImageClassifier
from paddle_resnet.models.lenet import LeNet
from paddle_resnet.models.preact import PreActBasicBlock, PreActBottleneck
from paddle_resnet.models.resnet import ResNet
from paddle_resnet.models.stems import Stem


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """How to make a network, and its defaults."""

    num_classes: int  # default
    input_size: int  # pixels a side of the images it was designed for; it takes other sizes too
    in_channels: int = 3  # default
    unsupported_options: tuple[str, ...] = ()  # options of `create_model` that it does not have

    def make(self, **options: Any) -> ImageClassifier:
        """Make the network; `options` are the checked arguments of `create_model` that it supports."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class ResNetEntry(ModelEntry):
    """The arguments of `ResNet`, by the same names."""

    block: Block
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    stem: Stem
    shortcut: Shortcut
    stem_channels: int | None = None
    block_options: BlockOptions = DEFAULT_OPTIONS
    dropout_in_blocks: bool = False

    def make(self, **options: Any) -> ResNet:
        """Make the network; `options` may name another stem."""
        return ResNet(
            self.block,
            self.depths,
            widths=self.widths,
            shortcut=self.shortcut,
            stem_channels=self.stem_channels,
            block_options=self.block_options,
            dropout_in_blocks=self.dropout_in_blocks,
            **{"stem": self.stem, **options},
        )


@dataclass(frozen=True, kw_only=True)
class LeNetEntry(ModelEntry):
    """The only network of the table that is not a `ResNet`."""

    def make(self, **options: Any) -> LeNet:
        return LeNet(**options)


def list_models() -> list[str]:
    """Return the names that `create_model` knows."""
    return list(_ENTRIES)


def model_entry(name: str) -> ModelEntry:
    """Return the entry of a network.

    Raises:
        UsageError: there is none of this name.
    """
    if name not in _ENTRIES:
        known = list_models()
        suggestion = did_you_mean(name, known)
        raise UsageError(f'no model "{name}"{suggestion}; list_models() has {", ".join(known)}')
    return _ENTRIES[name]


_BRANCH_OPTIONS = ("zero_init_residual", "stochastic_depth")
_DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def _imagenet(
    layers: int,
    block: Block,
    *,
    groups: int = 1,
    group_width: int = 64,
    shortcut: Shortcut = projection_shortcut,
    stem: Stem = "imagenet",
) -> ResNetEntry:
    """Make an entry of table 1 (He et al. 2015)."""
    return ResNetEntry(
        block=block,
        depths=_DEPTHS[layers],
        widths=(64, 128, 256, 512),
        stem=stem,
        shortcut=shortcut,
        block_options=BlockOptions(groups=groups, group_width=group_width),
        num_classes=1000,
        input_size=224,
        unsupported_options=_BRANCH_OPTIONS if block is PlainBlock else (),
    )


def _d2l() -> ResNetEntry:
    """Make the ResNet-18 of d2l.ai, section "ResNet": every convolution biased, 1x1 shortcuts without BatchNorm."""
    return replace(
        _imagenet(18, BasicBlock, shortcut=partial(pointwise_shortcut, bias=True)),
        block_options=BlockOptions(bias=True),
        num_classes=10,
        in_channels=1,
    )


def _cifar(n: int, block: Block = BasicBlock, shortcut: Shortcut = ZeroPadShortcut) -> ResNetEntry:
    """Make an entry of section 4.2 (He et al. 2015): 6n + 2 layers, or 9n + 2 of bottlenecks."""
    return ResNetEntry(
        block=block,
        depths=(n, n, n),
        widths=(16, 32, 64),
        stem="cifar",
        shortcut=shortcut,
        num_classes=10,
        input_size=32,
        unsupported_options=_BRANCH_OPTIONS if block is PlainBlock else (),
    )


def _wide(layers: int, widen_factor: int) -> ResNetEntry:
    """Make an entry of table 1 (Zagoruyko and Komodakis 2016): 6n + 4 layers, with the 3 shortcut convolutions."""
    return replace(
        _cifar((layers - 4) // 6, PreActBasicBlock, pointwise_shortcut),
        widths=(16 * widen_factor, 32 * widen_factor, 64 * widen_factor),
        stem_channels=16,
        dropout_in_blocks=True,
    )


def _fast(widths: tuple[int, int, int]) -> ResNetEntry:
    """Make an entry for minutes of training on a CPU: 8 layers, wide on few pixels, with a whitening stem.

    Wide layers on few pixels learn most for their time (Page 2018). The widths follow Jordan (2024, section 3.1).
    """
    return ResNetEntry(
        block=ConvPoolBlock,
        depths=(1, 1, 1),
        widths=widths,
        stem="whitening",
        shortcut=projection_shortcut,
        num_classes=10,
        input_size=32,
        unsupported_options=("stochastic_depth",),
    )


_ENTRIES: dict[str, ModelEntry] = {
    "resnet18": _imagenet(18, BasicBlock),
    "resnet34": _imagenet(34, BasicBlock),
    "resnet50": _imagenet(50, Bottleneck),
    "resnet101": _imagenet(101, Bottleneck),
    "resnet152": _imagenet(152, Bottleneck),
    "resnext50_32x4d": _imagenet(50, Bottleneck, groups=32, group_width=4),
    "resnext50_64x4d": _imagenet(50, Bottleneck, groups=64, group_width=4),
    "resnext101_32x4d": _imagenet(101, Bottleneck, groups=32, group_width=4),
    "resnext101_32x8d": _imagenet(101, Bottleneck, groups=32, group_width=8),
    "resnext101_64x4d": _imagenet(101, Bottleneck, groups=64, group_width=4),
    "resnext152_32x4d": _imagenet(152, Bottleneck, groups=32, group_width=4),
    "resnext152_64x4d": _imagenet(152, Bottleneck, groups=64, group_width=4),
    "wide_resnet50_2": _imagenet(50, Bottleneck, group_width=128),
    "wide_resnet101_2": _imagenet(101, Bottleneck, group_width=128),
    "resnet18_d": _imagenet(18, BasicBlock, stem="deep", shortcut=average_pool_shortcut),
    "resnet50_d": _imagenet(50, Bottleneck, stem="deep", shortcut=average_pool_shortcut),
    "preact_resnet18": _imagenet(18, PreActBasicBlock, shortcut=pointwise_shortcut),
    "preact_resnet34": _imagenet(34, PreActBasicBlock, shortcut=pointwise_shortcut),
    "preact_resnet50": _imagenet(50, PreActBottleneck, shortcut=pointwise_shortcut),
    "preact_resnet101": _imagenet(101, PreActBottleneck, shortcut=pointwise_shortcut),
    "preact_resnet152": _imagenet(152, PreActBottleneck, shortcut=pointwise_shortcut),
    "plain18": _imagenet(18, PlainBlock),
    "plain34": _imagenet(34, PlainBlock),
    "resnet18_d2l": _d2l(),
    "resnet8": _cifar(1),
    "resnet14": _cifar(2),
    "resnet20": _cifar(3),
    "resnet32": _cifar(5),
    "resnet44": _cifar(7),
    "resnet56": _cifar(9),
    "resnet110": _cifar(18),
    "resnet1202": _cifar(200),
    "resnet20_b": _cifar(3, shortcut=projection_shortcut),
    "resnet32_b": _cifar(5, shortcut=projection_shortcut),
    "resnet44_b": _cifar(7, shortcut=projection_shortcut),
    "resnet56_b": _cifar(9, shortcut=projection_shortcut),
    "resnet110_b": _cifar(18, shortcut=projection_shortcut),
    "preact_resnet20": _cifar(3, PreActBasicBlock, pointwise_shortcut),
    "preact_resnet56": _cifar(9, PreActBasicBlock, pointwise_shortcut),
    "preact_resnet110": _cifar(18, PreActBasicBlock, pointwise_shortcut),
    "preact_resnet164": _cifar(18, PreActBottleneck, pointwise_shortcut),
    "wrn_10_4": _wide(10, 4),
    "wrn_16_2": _wide(16, 2),
    "wrn_16_4": _wide(16, 4),
    "wrn_28_10": _wide(28, 10),
    "fast_resnet8": _fast((64, 256, 256)),
    "plain20": _cifar(3, PlainBlock),
    "plain32": _cifar(5, PlainBlock),
    "plain44": _cifar(7, PlainBlock),
    "plain56": _cifar(9, PlainBlock),
    "plain110": _cifar(18, PlainBlock),
    "lenet": LeNetEntry(num_classes=10, input_size=32, unsupported_options=("stem", *_BRANCH_OPTIONS)),
}
