"""Boxes in images: of random-resized crops, and of what cutout and random erasing take away."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LOG_ASPECT_RATIO = (math.log(3 / 4), math.log(4 / 3))
BOX_ATTEMPTS = 10

Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]


def random_boxes(shape: Sequence[int], scale: tuple[float, float], generator: np.random.Generator) -> Integers:
    """Draw a box for each image as torchvision's ``RandomResizedCrop.get_params`` does.

    The area is a uniform share of the image's, the logarithm of the aspect ratio (width / height) uniform between those
    of 3/4 and 4/3; the first of ten attempts that fits is taken, else the whole image.

    Args:
        shape: of the batch, ``[n, h, w, 3]``.
        scale: least and largest share of the area.
        generator: the source of random numbers.

    Returns:
        int64 ``[4, n]``: top, left, height and width of each box.
    """
    _, height, width, _ = shape
    box_height, box_width, fits = random_sides(shape, scale, LOG_ASPECT_RATIO, generator)
    return placed(shape, np.where(fits, box_height, height), np.where(fits, box_width, width), generator)


def random_sides(
    shape: Sequence[int],
    scale: tuple[float, float],
    log_aspect_ratio: tuple[float, float],
    generator: np.random.Generator,
) -> tuple[Integers, Integers, Booleans]:
    """Draw height and width of a box for each image of ``[n, h, w, ...]``, and whether one of ten attempts fits."""
    count, height, width = shape[:3]
    area = height * width * generator.uniform(*scale, (count, BOX_ATTEMPTS))
    ratio = np.exp(generator.uniform(*log_aspect_ratio, (count, BOX_ATTEMPTS)))
    widths = np.rint(np.sqrt(area * ratio)).astype(np.int64)
    heights = np.rint(np.sqrt(area / ratio)).astype(np.int64)
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    image, first = np.arange(count), fits.argmax(axis=1)
    return heights[image, first], widths[image, first], fits[image, first]


def placed(shape: Sequence[int], box_height: Integers, box_width: Integers, generator: np.random.Generator) -> Integers:
    """Place boxes ``[n]`` that fit anywhere in images ``[n, h, w, ...]``: int64 ``[4, n]``, as `random_boxes`."""
    top = generator.integers(0, shape[1] - box_height, endpoint=True)
    left = generator.integers(0, shape[2] - box_width, endpoint=True)
    return np.stack([top, left, box_height, box_width])


def stretch(first: Integers, length: int | Integers, size: int) -> Booleans:
    """Which pixels of a line of `size` lie in the stretch of `length` from each of `first` on: ``[n, size]``."""
    pixel, first = np.arange(size), first[:, np.newaxis]
    return (pixel >= first) & (pixel < first + np.reshape(length, (-1, 1)))
