"""The table of networks that `create_model` makes, as data: importing it needs no Paddle.

Names are torchvision's and paddle.vision's where they have the network. ``_d`` is ResNet-D, ``_b`` a CIFAR network with
projection shortcuts (option B), ``_vb`` and ``_vd`` PaddleClas's ResNet and ResNet-D, ``_pc`` a network of
kuangliu/pytorch-cifar, ``_d2l`` the book's "Dive into Deep Learning".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeAlias

from paddle_resnet.errors import UsageError, command, did_you_mean, shown

BlockName: TypeAlias = Literal["basic", "bottleneck", "plain", "preact_basic", "preact_bottleneck", "conv_pool"]
ShortcutName: TypeAlias = Literal["zero_pad", "projection", "pointwise", "average_pool"]
Stem: TypeAlias = Literal["imagenet", "cifar", "cifar_pool", "deep", "whitening"]


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """How to make a network, and its defaults; only LeNet is no more than this, all others are a `ResNetEntry`."""

    num_classes: int  # default
    input_size: int  # pixels a side of the images it was designed for; it takes other sizes too
    in_channels: int = 3  # default
    unsupported_options: tuple[str, ...] = ()  # options of `create_model` that it does not have


@dataclass(frozen=True, kw_only=True)
class ResNetEntry(ModelEntry):
    """The arguments of `ResNet`, by the same names; `groups`, `group_width` and `bias` are those of `BlockOptions`."""

    block: BlockName
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    stem: Stem
    shortcut: ShortcutName
    stem_channels: int | None = None
    groups: int = 1
    group_width: int = 64
    bias: bool = False
    first_projection: bool = False
    outer_activations: bool = True
    dropout_in_blocks: bool = False


def list_models() -> list[str]:
    """Return the names that `create_model` knows, without the second names in `ALIASES`."""
    return list(_ENTRIES)


def canonical_name(name: str) -> str:
    """Return a network's name in `list_models()`, given that or one of `ALIASES`.

    Raises:
        UsageError: there is none of this name.
    """
    first = ALIASES.get(str(name), str(name))
    if first not in _ENTRIES:
        suggestion = did_you_mean(str(name), [*_ENTRIES, *ALIASES])
        raise UsageError(f'no model "{shown(name)}"{suggestion}; {command("models")} lists all')
    return first


def model_entry(name: str) -> ModelEntry:
    """Return the entry of a network.

    Raises:
        UsageError: there is none of this name.
    """
    return _ENTRIES[canonical_name(name)]


ALIASES = {f"resnet{layers}_vd": f"resnet{layers}_d" for layers in (50, 101, 152)}
"""PaddleClas's names of networks that are in the table under another one."""

_BRANCH_OPTIONS = ("zero_init_residual", "stochastic_depth")
_DEPTHS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),  # He et al. 2016, table 6
}


def _imagenet(
    layers: int,
    block: BlockName | None = None,
    *,
    groups: int = 1,
    group_width: int = 64,
    shortcut: ShortcutName = "projection",
    stem: Stem = "imagenet",
    first_projection: bool = False,
) -> ResNetEntry:
    """Make an entry of table 1 (He et al. 2015), which has bottlenecks from 50 layers on."""
    block = block or ("basic" if layers < 50 else "bottleneck")
    return ResNetEntry(
        block=block,
        depths=_DEPTHS[layers],
        widths=(64, 128, 256, 512),
        stem=stem,
        shortcut=shortcut,
        groups=groups,
        group_width=group_width,
        first_projection=first_projection,
        num_classes=1000,
        input_size=224,
        unsupported_options=_BRANCH_OPTIONS if block == "plain" else (),
    )


_resnet_d = partial(_imagenet, shortcut="average_pool", stem="deep")  # He T. et al. 2018


def _preact(layers: int) -> BlockName:
    return "preact_basic" if layers < 50 else "preact_bottleneck"


def _preact_pc(layers: int) -> ResNetEntry:
    """Make an entry of kuangliu/pytorch-cifar's preact_resnet.py: no activation after the stem and the last stage."""
    entry = _imagenet(layers, _preact(layers), shortcut="pointwise", stem="cifar")
    return replace(entry, outer_activations=False, num_classes=10, input_size=32)


def _cifar(n: int, block: BlockName = "basic", shortcut: ShortcutName = "zero_pad") -> ResNetEntry:
    """Make an entry of section 4.2 (He et al. 2015): 6n + 2 layers, or 9n + 2 of bottlenecks."""
    return ResNetEntry(
        block=block,
        depths=(n, n, n),
        widths=(16, 32, 64),
        stem="cifar",
        shortcut=shortcut,
        num_classes=10,
        input_size=32,
        unsupported_options=_BRANCH_OPTIONS if block == "plain" else (),
    )


def _wide(layers: int, widen_factor: int) -> ResNetEntry:
    """Make an entry of table 1 (Zagoruyko and Komodakis 2016): 6n + 4 layers, with the 3 shortcut convolutions."""
    return replace(
        _cifar((layers - 4) // 6, "preact_basic", "pointwise"),
        widths=(16 * widen_factor, 32 * widen_factor, 64 * widen_factor),
        stem_channels=16,
        dropout_in_blocks=True,
    )


def _fast(depth: int) -> ResNetEntry:
    """Make an entry for minutes of training on a CPU: 5 + 3 `depth` layers, wide on few pixels, with a whitening stem.

    Wide layers on few pixels learn most for their time (Page 2018). The widths follow Jordan (2024, section 3.1).
    """
    return ResNetEntry(
        block="conv_pool",
        depths=(depth, depth, depth),
        widths=(64, 256, 256),
        stem="whitening",
        shortcut="projection",
        num_classes=10,
        input_size=32,
        unsupported_options=("stochastic_depth",),
    )


_ENTRIES: dict[str, ModelEntry] = {
    **{f"resnet{n}": _imagenet(n) for n in (18, 34, 50, 101, 152)},
    "resnext50_32x4d": _imagenet(50, groups=32, group_width=4),
    "resnext50_64x4d": _imagenet(50, groups=64, group_width=4),
    "resnext101_32x4d": _imagenet(101, groups=32, group_width=4),
    "resnext101_32x8d": _imagenet(101, groups=32, group_width=8),
    "resnext101_64x4d": _imagenet(101, groups=64, group_width=4),
    "resnext152_32x4d": _imagenet(152, groups=32, group_width=4),
    "resnext152_64x4d": _imagenet(152, groups=64, group_width=4),
    "wide_resnet50_2": _imagenet(50, group_width=128),
    "wide_resnet101_2": _imagenet(101, group_width=128),
    **{f"resnet{n}_d": _resnet_d(n) for n in (18, 34, 50, 101, 152, 200)},
    **{f"resnet{n}_vb": _imagenet(n, first_projection=True) for n in (18, 34)},
    **{f"resnet{n}_vd": _resnet_d(n, first_projection=True) for n in (18, 34)},
    "resnet200_vd": replace(_resnet_d(200), depths=(3, 12, 48, 3)),
    **{f"preact_resnet{n}": _imagenet(n, _preact(n), shortcut="pointwise") for n in (18, 34, 50, 101, 152)},
    **{f"preact_resnet{n}_pc": _preact_pc(n) for n in (18, 34, 50, 101, 152)},
    "plain18": _imagenet(18, "plain"),
    "plain34": _imagenet(34, "plain"),
    # d2l.ai, section "ResNet": every convolution biased, 1x1 shortcuts without BatchNorm
    "resnet18_d2l": replace(_imagenet(18, shortcut="pointwise"), bias=True, num_classes=10, in_channels=1),
    **{f"resnet{layers}": _cifar((layers - 2) // 6) for layers in (8, 14, 20, 32, 44, 56, 110, 1202)},
    **{f"resnet{layers}_b": _cifar((layers - 2) // 6, shortcut="projection") for layers in (20, 32, 44, 56, 110)},
    **{f"preact_resnet{n}": _cifar((n - 2) // 6, "preact_basic", "pointwise") for n in (20, 56, 110)},
    "preact_resnet164": _cifar(18, "preact_bottleneck", "pointwise"),
    **{f"wrn_{layers}_{factor}": _wide(layers, factor) for layers, factor in ((10, 4), (16, 2), (16, 4), (28, 10))},
    "fast_resnet8": _fast(1),
    "fast_resnet11": _fast(2),
    **{f"plain{layers}": _cifar((layers - 2) // 6, "plain") for layers in (20, 32, 44, 56, 110)},
    "lenet": ModelEntry(num_classes=10, input_size=32, unsupported_options=("stem", *_BRANCH_OPTIONS)),
}
