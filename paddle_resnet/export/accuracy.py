"""How good an exported precision is: its top-1, and how often it says what the trained network says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from paddle_resnet.data import Split, uint8_batches
from paddle_resnet.evaluation import Scorer
from paddle_resnet.images.decode import resize_and_crop_batch
from paddle_resnet.inference.inference_config import PrecisionMetrics

if TYPE_CHECKING:
    from paddle_resnet.training.run_folder import RunFolder


Key = TypeVar("Key")


def compare(
    trained: Scorer,
    exported: Mapping[Key, Scorer],
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    progress: Callable[[int], None] | None = None,
) -> dict[Key, PrecisionMetrics]:
    """Score the images of `batches` by all; each batch is read once.

    Args:
        trained: the trained network.
        exported: what is measured.
        batches: pairs of uint8 images `[n, S, S, 3]` and labels `[n]`; at least one image.
        progress: called after each batch with the number of images so far.
    """
    right = dict.fromkeys(exported, 0)
    agreeing = dict.fromkeys(exported, 0)
    images = 0
    for pixels, labels in batches:
        expected = trained.scores(pixels).argmax(axis=1)
        for key, scorer in exported.items():
            answers = scorer.scores(pixels).argmax(axis=1)
            right[key] += int((answers == labels).sum())
            agreeing[key] += int((answers == expected).sum())
        images += len(pixels)
        if progress is not None:
            progress(images)
    return {
        key: PrecisionMetrics(top1=right[key] / images, agreement=agreeing[key] / images, images=images)
        for key in exported
    }


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
        yield resize_and_crop_batch(splits.validation.batch(indices), splits.resize, size)


def _test_split(run: RunFolder) -> Split:
    splits = run.splits()
    return splits.test if len(splits.test) else splits.validation
