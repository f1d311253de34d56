"""The table of networks that `create_model` makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from paddle_resnet.errors import UsageError, did_you_mean
from paddle_resnet.models.blocks import BasicBlock, Block, Bottleneck, Shortcut, ZeroPadShortcut, projection_shortcut
from paddle_resnet.models.resnet import ResNet


@dataclass(frozen=True)
class ModelEntry:
    """One member of the family: `ResNet`'s arguments, and what the network was designed for.

    Attributes:
        num_classes: the classes it has unless others are asked for.
        native_size: pixels a side of the images it was designed for; it takes other sizes too.
    """

    block: Block
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    stem: Literal["imagenet", "cifar"]
    shortcut: Shortcut
    num_classes: int
    native_size: int

    def build(self, num_classes: int, in_channels: int) -> ResNet:
        """Make the network, with new weights."""
        return ResNet(
            self.block,
            self.depths,
            widths=self.widths,
            num_classes=num_classes,
            in_channels=in_channels,
            stem=self.stem,
            shortcut=self.shortcut,
        )


def list_models() -> list[str]:
    """The names that `create_model` knows."""
    return list(_ENTRIES)


def model_entry(name: str) -> ModelEntry:
    """Look a network up.

    Raises:
        UsageError: there is none of this name.
    """
    if name not in _ENTRIES:
        known = list_models()
        suggestion = did_you_mean(name, known)
        raise UsageError(f'no model "{name}"{suggestion}; list_models() has {", ".join(known)}')
    return _ENTRIES[name]


def _imagenet(block: Block, *depths: int) -> ModelEntry:
    """Make an entry of table 1."""
    return ModelEntry(
        block, depths, (64, 128, 256, 512), "imagenet", projection_shortcut, num_classes=1000, native_size=224
    )


def _cifar(n: int) -> ModelEntry:
    """Make an entry of section 4.2: 6n + 2 layers."""
    return ModelEntry(BasicBlock, (n, n, n), (16, 32, 64), "cifar", ZeroPadShortcut, num_classes=10, native_size=32)


_ENTRIES = {
    "resnet18": _imagenet(BasicBlock, 2, 2, 2, 2),
    "resnet34": _imagenet(BasicBlock, 3, 4, 6, 3),
    "resnet50": _imagenet(Bottleneck, 3, 4, 6, 3),
    "resnet101": _imagenet(Bottleneck, 3, 4, 23, 3),
    "resnet152": _imagenet(Bottleneck, 3, 8, 36, 3),
    "resnet8": _cifar(1),
    "resnet14": _cifar(2),
    "resnet20": _cifar(3),
    "resnet32": _cifar(5),
    "resnet44": _cifar(7),
    "resnet56": _cifar(9),
    "resnet110": _cifar(18),
}
