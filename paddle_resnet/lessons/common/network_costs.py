"""What a network costs: parameters, multiply-adds and activations of each part, and time."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import paddle

from paddle_resnet import runtime
from paddle_resnet.lessons.framework.texts import LessonTexts, Text
from paddle_resnet.models import create_model
from paddle_resnet.models.summary import LayerSummary, ModelSummary, summarize
from paddle_resnet.system import machine
from paddle_resnet.timing import interleave, seconds
from paddle_resnet.zoo.registry import Stem

STAGES = {f"layer{number}": f"stage {number}" for number in range(1, 5)}

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class PartCost:
    """The cost of the stem, a stage or the head, for one image."""

    label: str
    parameters: int  # trainable ones
    macs: int
    activations: int  # values in the outputs of its convolutions and linear layer


def model_summary(
    name: str, size: int, *, classes: int = 10, in_channels: int | None = None, stem: Stem | None = None
) -> ModelSummary:
    """Summarise a network for one image of `size` pixels a side, without creating its weights."""
    with paddle.LazyGuard():
        network = create_model(name, classes, in_channels=in_channels, stem=stem)
    return summarize(network, (1, network.in_channels, size, size))


def costs_by_part(summary: ModelSummary) -> list[PartCost]:
    """Sum the layers of stem, stages and head of a ResNet with four stages."""
    rows: dict[str, list[LayerSummary]] = {part: [] for part in ("stem", *STAGES.values(), "head")}
    for row in summary.leaves():
        first = row.name.split(".", maxsplit=1)[0]
        outside = "stem" if first in ("conv1", "bn1", "relu", "maxpool") else "head"
        rows[STAGES.get(first, outside)].append(row)
    return [
        PartCost(
            part,
            parameters=sum(row.parameters for row in of_part),
            macs=sum(row.macs for row in of_part),
            activations=sum(math.prod(row.output_shape) for row in of_part if row.macs),
        )
        for part, of_part in rows.items()
    ]


def convolutions(summary: ModelSummary) -> list[LayerSummary]:
    """Return the rows of the convolutions, in order of execution."""
    return [row for row in summary.leaves() if row.kind.startswith("Conv2D")]


def format_shape(shape: Sequence[int], separator: str = " x ") -> str:
    """Format a shape as ``64 x 56 x 56``."""
    return separator.join(map(str, shape))


def describe_machine() -> Text:
    """Name processor, cores, threads and Paddle's version in a sentence."""
    processor = machine.processor().model or "an unknown processor"
    cores = machine.physical_cores()
    threads = runtime.thread_count(runtime.prepare_process().threads) or cores
    values = {"processor": processor, "cores": cores, "threads": threads, "paddle": paddle.__version__}
    return LessonTexts("common").fill("measured_on", values)


def time_interleaved(calls: Mapping[Name, Callable[[], object]], rounds: int) -> dict[Name, np.ndarray]:
    """Run A, B, ..., A, B, ... and return the seconds of each call, ``[rounds]``; see `timing.interleave`.

    On a GPU a call must end with its result in host memory.
    """
    timed = {name: partial(seconds, call) for name, call in calls.items()}
    return {name: np.array(taken) for name, taken in interleave(timed, rounds).items()}
