"""Warnings about data with which a training of hours is likely to be lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from paddle_resnet.console import logger
from paddle_resnet.data.normalize import Normalize
from paddle_resnet.data.splits import Split, Splits
from paddle_resnet.errors import counted, shown
from paddle_resnet.images import Indices, Pixels

FEW_VALIDATION_IMAGES = 50
SAMPLED_IMAGES = 64
LARGEST_SHIFT = 1.5  # of the normalised images' mean from 0
LARGEST_SCALE = 3.0  # of the normalised images' standard deviation, or of 1 by it
NAMES_SHOWN = 5
THINNED_SIDE = 64


def warn_of_data(splits: Splits, images_per_step: int, normalize: Normalize) -> None:
    """Log a warning for each property of the data that makes a good result unlikely."""
    if images_per_step > len(splits.train):
        _warn(
            f"{counted(len(splits.train), 'training image')}, fewer than the {images_per_step} of a step "
            "(train.batch_size): each step has all of them, and an epoch is one step"
        )
    _warn_of_small_classes(splits)
    spellings = Counter(map(str.casefold, splits.classes))
    if alike := [name for name in splits.classes if spellings[name.casefold()] > 1]:
        _warn(f"the classes {', '.join(map(shown, alike[:NAMES_SHOWN]))} differ by capital letters only: are they one?")
    if 0 < (count := len(splits.validation)) < FEW_VALIDATION_IMAGES:
        _warn(
            f"{counted(count, 'validation image')}, fewer than {FEW_VALIDATION_IMAGES}: which epoch is "
            "the best is little more than chance; hold out a larger share (data.validation_fraction)"
        )
    _warn_of_pixels(splits.train, normalize)


def _warn_of_small_classes(splits: Splits) -> None:
    parts = {splits.train: "training", splits.validation: "validation"}
    parts.setdefault(splits.test, "test")
    for part, kind in parts.items():
        counts = np.bincount(part.labels, minlength=len(splits.classes))
        if len(part) and counts.min() == 0:
            _warn(f"no {kind} image of {_classes_with(0, counts, splits.classes)}")
        if part is splits.train and 1 in counts:
            _warn(f"a single training image of {_classes_with(1, counts, splits.classes)}")


def _classes_with(count: int, counts: Indices, classes: Sequence[str]) -> str:
    """Return the names of the classes with so many images, the first ones of many."""
    found = [name for name, images in zip(classes, counts, strict=True) if images == count]
    more = f" and {len(found) - NAMES_SHOWN} more" if len(found) > NAMES_SHOWN else ""
    return f"{', '.join(map(shown, found[:NAMES_SHOWN]))}{more}"


def _warn_of_pixels(split: Split, normalize: Normalize) -> None:
    """Look at a few images spread over the training split: are they equal, and do mean and deviation fit them?"""
    chosen = np.unique(np.linspace(0, len(split) - 1, SAMPLED_IMAGES).astype(np.int64))
    images = np.concatenate([_thinned(split.batch([index])) for index in chosen])
    looked_at = f"of {len(images)} training images that were looked at, "
    if len(images) > 1 and np.ptp(images, axis=0).max() == 0:
        _warn(f"{looked_at}all are equal: nothing can be learned from them")
    elif np.ptp(images, axis=(1, 2)).max() == 0:
        _warn(f"{looked_at}each has a single colour: are the files what they should be?")
    else:
        values = images.reshape(-1, 3) / 255
        shift = np.abs(values.mean(axis=0) - normalize.mean) / normalize.std
        scale = values.std(axis=0) / normalize.std
        if shift.max() > LARGEST_SHIFT or scale.max() > LARGEST_SCALE or scale.min() < 1 / LARGEST_SCALE:
            found = [np.round(each, 3).tolist() for each in (values.mean(axis=0), values.std(axis=0))]
            _warn(
                f"mean {list(normalize.mean)} and std {list(normalize.std)} are far from the images' {found[0]} and "
                f"{found[1]} (in 0..1): are data.mean and data.std right?"
            )


def _thinned(images: Pixels) -> Pixels:
    """Return every n-th row and column, so that large images take little memory."""
    step = max(1, images.shape[1] // THINNED_SIDE)
    return images[:, ::step, ::step].copy()


def _warn(text: str) -> None:
    logger.warning("warning: %s", text)
