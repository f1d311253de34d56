"""The real images that an export is checked, measured and calibrated with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from paddle_resnet.data import Split, uint8_batches
from paddle_resnet.images.resize import centre_view

if TYPE_CHECKING:
    from paddle_resnet.training.run_folder import RunFolder

CALIBRATION_IMAGES = 256


def measured_images(run: RunFolder, images: int | None = None) -> int:
    """How many images of the test split are measured if `images` are wanted; None: all."""
    available = len(_test_split(run))
    return available if images is None else min(images, available)


def measured_batches(run: RunFolder, batch: int, images: int | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The first `images` of the test split, or all, as pixels uint8 `[n, S, S, 3]` and labels int64 `[n]`."""
    remaining = measured_images(run, images)
    for pixels, labels in uint8_batches(_test_split(run), batch, run.splits().resize, run.config.data.image_size):
        yield pixels[:remaining], labels[:remaining]
        remaining -= len(pixels)
        if remaining <= 0:
            return


def calibration_batches(run: RunFolder, batch: int) -> Iterator[np.ndarray]:
    """About 256 images of the validation split, uint8 `[batch, S, S, 3]` each: the test split is for measuring only.

    They are spread evenly over the split, as it may be in the order of its classes.
    """
    splits, size = run.splits(), run.config.data.image_size
    number = max(1, CALIBRATION_IMAGES // batch)
    spread = np.linspace(0, len(splits.validation) - 1, number * batch).astype(np.int64)
    for indices in spread.reshape(number, batch):
        yield centre_view(splits.validation.batch(indices), splits.resize, size)


def _test_split(run: RunFolder) -> Split:
    splits = run.splits()
    return splits.test if len(splits.test) else splits.validation
