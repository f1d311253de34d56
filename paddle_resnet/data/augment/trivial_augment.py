"""TrivialAugment: one operation an image, at a random strength (Müller and Hutter 2021, arXiv:2103.10158).

The operations and their "wide" ranges are the paper's table 1, as torchvision's ``TrivialAugmentWide`` has them. The
images of a batch that share an operation are changed together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paddle_resnet.data.augment.image_ops import (
    Amounts,
    affine,
    blend,
    by_tables,
    equalizing_tables,
    grey,
    smooth,
    stretching_tables,
)
from paddle_resnet.images import Indices, Pixels

LEVELS = np.arange(256, dtype=np.uint8)
"""A table that changes nothing."""

STRENGTHS = 31
"""Strengths 0 to 30, of which 30 is the range's end."""

WIDEST_SHIFT = 32
"""Pixels: a whole image of CIFAR, for which the paper gives it. A smaller image is never shifted further than whole."""

PIXELS_TOGETHER = 1 << 16
"""Pixels of the images that are changed at once: what is computed of them on the way fits a core's cache."""


class Distortions(NamedTuple):
    """What was drawn for the images of a batch."""

    operations: NDArray[np.int64]
    """A place in `OPERATIONS` for each image, ``[n]``."""
    amounts: Amounts
    """Shares of the operation's range, -1 to 1, ``[n]``; the sign is the direction, where there is one."""

    def of(self, images: Indices) -> Distortions:
        """What was drawn for some of the batch's images."""
        return Distortions(self.operations[images], self.amounts[images])


def draw_distortions(count: int, generator: np.random.Generator) -> Distortions:
    """Draw an operation, a strength and a direction for each of `count` images."""
    operations = generator.integers(0, len(OPERATIONS), count)
    strengths = generator.integers(0, STRENGTHS, count) / (STRENGTHS - 1)
    return Distortions(operations, np.where(generator.random(count) < 0.5, -strengths, strengths))


def distort(images: Pixels, distortions: Distortions) -> None:
    """Change uint8 images ``[n, S, S, 3]`` in place; what moves in from outside the image is black."""
    together = max(1, PIXELS_TOGETHER // (images.shape[1] * images.shape[2]))
    for number, change in enumerate(OPERATIONS):
        places = np.flatnonzero(distortions.operations == number)
        for start in range(0, len(places) if change is not _identity else 0, together):
            some = places[start : start + together]
            images[some] = change(images[some], distortions.amounts[some])


def _identity(images: Pixels, amounts: Amounts) -> Pixels:
    return images


def _shear_x(images: Pixels, amounts: Amounts) -> Pixels:
    none, one = _none_and_one(amounts)
    return affine(images, (one, 0.99 * amounts, none), (none, one, none))


def _shear_y(images: Pixels, amounts: Amounts) -> Pixels:
    none, one = _none_and_one(amounts)
    return affine(images, (one, none, none), (0.99 * amounts, one, none))


def _translate_x(images: Pixels, amounts: Amounts) -> Pixels:
    none, one = _none_and_one(amounts)
    shift = np.trunc(min(WIDEST_SHIFT, images.shape[2]) * amounts)
    return affine(images, (one, none, shift), (none, one, none))


def _translate_y(images: Pixels, amounts: Amounts) -> Pixels:
    none, one = _none_and_one(amounts)
    shift = np.trunc(min(WIDEST_SHIFT, images.shape[1]) * amounts)
    return affine(images, (one, none, none), (none, one, shift))


def _rotate(images: Pixels, amounts: Amounts) -> Pixels:
    """Turn counterclockwise about the middle."""
    angles = np.radians(135 * amounts)
    cos, sin = np.cos(angles), np.sin(angles)
    middle_y, middle_x = images.shape[1] / 2, images.shape[2] / 2
    x = (cos, -sin, middle_x - cos * middle_x + sin * middle_y)
    y = (sin, cos, middle_y - sin * middle_x - cos * middle_y)
    return affine(images, x, y)


def _none_and_one(amounts: Amounts) -> tuple[Amounts, Amounts]:
    return np.zeros_like(amounts), np.ones_like(amounts)


def _brightness(images: Pixels, amounts: Amounts) -> Pixels:
    return by_tables(images, _blended_levels(np.zeros_like(amounts), amounts))


def _colour(images: Pixels, amounts: Amounts) -> Pixels:
    return blend(grey(images)[..., np.newaxis], images, 1 + 0.99 * amounts)


def _contrast(images: Pixels, amounts: Amounts) -> Pixels:
    means = np.floor(grey(images).mean(axis=(1, 2)) + 0.5)
    return by_tables(images, _blended_levels(means, amounts))


def _blended_levels(start: Amounts, amounts: Amounts) -> Pixels:
    """Each image's table of levels ``[n, 256]``, blended with one level."""
    levels = np.broadcast_to(LEVELS, (len(amounts), len(LEVELS)))
    return blend(start[:, np.newaxis], levels, 1 + 0.99 * amounts)


def _sharpness(images: Pixels, amounts: Amounts) -> Pixels:
    return blend(smooth(images), images, 1 + 0.99 * amounts)


def _posterize(images: Pixels, amounts: Amounts) -> Pixels:
    lost = np.rint(6 * np.abs(amounts)).astype(np.uint8)[:, np.newaxis]
    return by_tables(images, LEVELS >> lost << lost)


def _solarize(images: Pixels, amounts: Amounts) -> Pixels:
    threshold = np.rint(255 * (1 - np.abs(amounts)))[:, np.newaxis]
    return by_tables(images, np.where(threshold > LEVELS, LEVELS, 255 - LEVELS))


def _autocontrast(images: Pixels, amounts: Amounts) -> Pixels:
    return by_tables(images, stretching_tables(images))


def _equalize(images: Pixels, amounts: Amounts) -> Pixels:
    return by_tables(images, equalizing_tables(images))


OPERATIONS: tuple[Callable[[Pixels, Amounts], Pixels], ...] = (
    _identity,
    _shear_x,
    _shear_y,
    _translate_x,
    _translate_y,
    _rotate,
    _brightness,
    _colour,
    _contrast,
    _sharpness,
    _posterize,
    _solarize,
    _autocontrast,
    _equalize,
)
