"""Parameters, multiply-adds and activations of each part of a network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import paddle

from paddle_resnet.models import create_model
from paddle_resnet.models.summary import LayerSummary, ModelSummary, summarize
from paddle_resnet.zoo.registry import Stem

PARTS = ("stem", "layer1", "layer2", "layer3", "layer4", "head")
PART_LABELS = {"stem": "stem", "head": "head"} | {f"layer{number}": f"stage {number}" for number in range(1, 5)}


@dataclass(frozen=True)
class PartCost:
    """The cost of one of `PARTS`, for one image.

    Attributes:
        name: of the part.
        parameters: number of trainable parameters.
        macs: multiply-adds.
        activations: number of values in the outputs of its convolutions and linear layer.
        shape: of its output, without the batch.
    """

    name: str
    parameters: int
    macs: int
    activations: int
    shape: tuple[int, ...]


def model_summary(
    name: str, size: int, *, classes: int = 10, in_channels: int | None = None, stem: Stem | None = None
) -> ModelSummary:
    """Summarise a network for one image of `size` pixels a side, without creating its weights."""
    with paddle.LazyGuard():
        network = create_model(name, classes, in_channels=in_channels, stem=stem)
    return summarize(network, (1, network.in_channels, size, size))


def costs_by_part(summary: ModelSummary) -> list[PartCost]:
    """Sum the layers of each part of a ResNet with four stages."""
    return [_part_cost(part, summary) for part in PARTS]


def part_of(layer_name: str) -> str:
    """Return the part that a layer belongs to, by its name in the state dict."""
    first = layer_name.split(".", maxsplit=1)[0]
    if first in PARTS:
        return first
    return "stem" if first in ("conv1", "bn1", "relu", "maxpool") else "head"


def convolutions(summary: ModelSummary) -> list[LayerSummary]:
    """Return the rows of the convolutions, in order of execution."""
    return [row for row in summary.leaves() if row.kind.startswith("Conv2D")]


def format_shape(shape: Sequence[int], separator: str = " x ") -> str:
    """Format a shape as ``64 x 56 x 56``."""
    return separator.join(map(str, shape))


def _part_cost(part: str, summary: ModelSummary) -> PartCost:
    rows = [row for row in summary.leaves() if part_of(row.name) == part]
    # Not of the leaves: the last leaf of a stage may be the shortcut of a block.
    ends = [row for row in summary.layers if part_of(row.name) == part]
    return PartCost(
        name=part,
        parameters=sum(row.parameters for row in rows),
        macs=sum(row.macs for row in rows),
        activations=sum(math.prod(row.output_shape) for row in rows if row.macs),
        shape=ends[-1].output_shape[1:],
    )
