"""TrivialAugment: one operation an image, at a random strength (Müller and Hutter 2021, arXiv:2103.10158).

Operations and "wide" ranges are those of the paper's table 1 and of torchvision's ``TrivialAugmentWide``. The images of
a batch that share an operation are changed together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paddle_resnet.data.augment.pillow_ops import (
    Magnitudes,
    affine,
    apply_lookup_tables,
    autocontrast_tables,
    blend,
    equalize_tables,
    smooth,
    to_grey,
)
from paddle_resnet.images import Indices, Pixels

LEVELS = np.arange(256, dtype=np.uint8)
"""The identity lookup table."""

STRENGTHS = 31
"""Strengths 0 to 30; 30 is the end of the range."""

MAX_SHIFT = 32
"""Pixels, as in the paper for CIFAR: a whole image. Smaller images are shifted by their own size at most."""

CHUNK_PIXELS = 1 << 16
"""Pixels of the images that are changed at once, so that intermediate arrays fit a core's cache."""


class TrivialAugmentParams(NamedTuple):
    """TrivialAugment of a batch."""

    operations: NDArray[np.int64]
    """An index of `OPERATIONS` for each image, ``[n]``."""
    magnitudes: Magnitudes
    """Shares of the operation's range, -1 to 1, ``[n]``; the sign is the direction, if the operation has one."""

    def select(self, images: Indices) -> TrivialAugmentParams:
        """Return the parameters of some of the batch's images."""
        return TrivialAugmentParams(self.operations[images], self.magnitudes[images])


def draw_trivial_augment(count: int, generator: np.random.Generator) -> TrivialAugmentParams:
    """Draw an operation, a strength and a direction for each of `count` images."""
    operations = generator.integers(0, len(OPERATIONS), count)
    strengths = generator.integers(0, STRENGTHS, count) / (STRENGTHS - 1)
    return TrivialAugmentParams(operations, np.where(generator.random(count) < 0.5, -strengths, strengths))


def apply_trivial_augment(images: Pixels, params: TrivialAugmentParams) -> None:
    """Change uint8 images ``[n, S, S, 3]`` in place; pixels from outside the image are black."""
    chunk = max(1, CHUNK_PIXELS // (images.shape[1] * images.shape[2]))
    for number, operation in enumerate(OPERATIONS):
        indices = np.flatnonzero(params.operations == number)
        for start in range(0, len(indices) if operation is not _identity else 0, chunk):
            some = indices[start : start + chunk]
            images[some] = operation(images[some], params.magnitudes[some])


def _identity(images: Pixels, magnitudes: Magnitudes) -> Pixels:
    return images


def _shear_x(images: Pixels, magnitudes: Magnitudes) -> Pixels:
    return affine(images, (1, 0.99 * magnitudes, 0), (0, 1, 0))


def _shear_y(images: Pixels, magnitudes: Magnitudes) -> Pixels:
    return affine(images, (1, 0, 0), (0.99 * magnitudes, 1, 0))


def _translate_x(images: Pixels, magnitudes: Magnitudes) -> Pixels:
    return affine(images, (1, 0, np.trunc(min(MAX_SHIFT, images.shape[2]) * magnitudes)), (0, 1, 0))


def _translate_y(images: Pixels, magnitudes: Magnitudes) -> Pixels:
    return affine(images, (1, 0, 0), (0, 1, np.trunc(min(MAX_SHIFT, images.shape[1]) * magnitudes)))


def _rotate(images: Pixels, magnitudes: Magnitudes) -> Pixels:
    """Rotate counterclockwise about the centre."""
    angles = np.radians(135 * magnitudes)
    cos, sin = np.cos(angles), np.sin(angles)
    middle_y, middle_x = images.shape[1] / 2, images.shape[2] / 2
    x = (cos, -sin, middle_x - cos * middle_x + sin * middle_y)
    y = (sin, cos, middle_y - sin * middle_x - cos * middle_y)
    return affine(images, x, y)


def _brightness(images: Pixels, magnitudes: Magnitudes) -> Pixels:
    return apply_lookup_tables(images, _blended_levels(np.zeros_like(magnitudes), magnitudes))


def _colour(images: Pixels, magnitudes: Magnitudes) -> Pixels:
    return blend(to_grey(images)[..., np.newaxis], images, 1 + 0.99 * magnitudes)


def _contrast(images: Pixels, magnitudes: Magnitudes) -> Pixels:
    means = np.floor(to_grey(images).mean(axis=(1, 2)) + 0.5)
    return apply_lookup_tables(images, _blended_levels(means, magnitudes))


def _blended_levels(start: Magnitudes, magnitudes: Magnitudes) -> Pixels:
    """Return each image's lookup table ``[n, 256]``: the levels blended with one level."""
    levels = np.broadcast_to(LEVELS, (len(magnitudes), len(LEVELS)))
    return blend(start[:, np.newaxis], levels, 1 + 0.99 * magnitudes)


def _sharpness(images: Pixels, magnitudes: Magnitudes) -> Pixels:
    return blend(smooth(images), images, 1 + 0.99 * magnitudes)


def _posterize(images: Pixels, magnitudes: Magnitudes) -> Pixels:
    lost = np.rint(6 * np.abs(magnitudes)).astype(np.uint8)[:, np.newaxis]
    return apply_lookup_tables(images, LEVELS >> lost << lost)


def _solarize(images: Pixels, magnitudes: Magnitudes) -> Pixels:
    threshold = np.rint(255 * (1 - np.abs(magnitudes)))[:, np.newaxis]
    return apply_lookup_tables(images, np.where(threshold > LEVELS, LEVELS, 255 - LEVELS))


def _autocontrast(images: Pixels, magnitudes: Magnitudes) -> Pixels:
    return apply_lookup_tables(images, autocontrast_tables(images))


def _equalize(images: Pixels, magnitudes: Magnitudes) -> Pixels:
    return apply_lookup_tables(images, equalize_tables(images))


OPERATIONS: tuple[Callable[[Pixels, Magnitudes], Pixels], ...] = (
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
