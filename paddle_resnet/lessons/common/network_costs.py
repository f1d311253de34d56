"""What each part of a network costs: parameters, multiply-adds and numbers kept, by stage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import paddle

from paddle_resnet.models import create_model
from paddle_resnet.models.stems import Stem
from paddle_resnet.models.summary import LayerSummary, ModelSummary, summarize

PARTS = ("stem", "layer1", "layer2", "layer3", "layer4", "head")
IN_WORDS = {"stem": "stem", "head": "head"} | {f"layer{number}": f"stage {number}" for number in range(1, 5)}


@dataclass(frozen=True)
class PartCost:
    """What one part of a network takes.

    Attributes:
        name: of `PARTS`.
        parameters: trainable ones.
        macs: multiply-adds for one image.
        activations: numbers in the outputs of its convolutions and its linear layer, for one image.
        shape: of its output, without the batch.
    """

    name: str
    parameters: int
    macs: int
    activations: int
    shape: tuple[int, ...]


def follow(
    name: str, size: int, *, classes: int = 10, in_channels: int | None = None, stem: Stem | None = None
) -> ModelSummary:
    """Follow one image of `size` pixels a side through a network whose weights are never made."""
    with paddle.LazyGuard():
        network = create_model(name, classes, in_channels=in_channels, stem=stem)
    return summarize(network, (1, network.in_channels, size, size))


def costs_by_part(summary: ModelSummary) -> list[PartCost]:
    """Add up the layers of each part of a ResNet with four stages."""
    rows = {part: [row for row in summary.leaves() if part_of(row.name) == part] for part in PARTS}
    return [_sum(part, rows[part], summary) for part in PARTS]


def part_of(layer_name: str) -> str:
    """The part of the network that a layer belongs to, by its name in the state dict."""
    first = layer_name.split(".", maxsplit=1)[0]
    if first in PARTS:
        return first
    return "stem" if first in ("conv1", "bn1", "relu", "maxpool") else "head"


def convolutions(summary: ModelSummary) -> list[LayerSummary]:
    """The calls of convolutions, in their order."""
    return [row for row in summary.leaves() if row.kind.startswith("Conv2D")]


def by_shape(shape: Sequence[int]) -> str:
    """A shape as the page shows it: ``64 x 56 x 56``."""
    return " x ".join(map(str, shape))


def _sum(part: str, rows: Sequence[LayerSummary], summary: ModelSummary) -> PartCost:
    # A stage's last leaf may be the shortcut of a block; the stage itself ends in what its last block answers.
    ends = [row for row in summary.layers if part_of(row.name) == part]
    return PartCost(
        name=part,
        parameters=sum(row.parameters for row in rows),
        macs=sum(row.macs for row in rows),
        activations=sum(math.prod(row.output_shape) for row in rows if row.macs),
        shape=ends[-1].output_shape[1:],
    )
