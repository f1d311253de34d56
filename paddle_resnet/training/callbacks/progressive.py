"""Progressive resizing: the first epochs see small images, which cost less (Tan and Le 2021, section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paddle.callbacks import Callback

from paddle_resnet.data import TrainLoader

STEP = 4
"""Pixels: sizes that halve twice without a remainder."""

GROWTH = 0.75
"""The share of the epochs in which the crops grow; the rest has the size that is evaluated."""


def crop_sizes(first: int, last: int, epochs: int) -> list[int]:
    """The crops' pixels a side in each epoch: from `first` in a line of steps of 4; `last` for the last quarter."""
    growing = min(GROWTH * epochs, epochs - 1)
    steps = (last - first) / STEP
    return [first + int(steps * epoch / growing) * STEP if epoch < growing else last for epoch in range(epochs)]


class GrowingCrops(Callback):
    """Sets the size of the loader's crops before each epoch."""

    def __init__(self, loader: TrainLoader, sizes: Sequence[int]) -> None:
        super().__init__()
        self._loader = loader
        self._sizes = sizes

    def on_epoch_begin(self, epoch: int | None = None, logs: dict[str, Any] | None = None) -> None:
        """Take this epoch's size."""
        self._loader.crop_size = self._sizes[epoch or 0]
