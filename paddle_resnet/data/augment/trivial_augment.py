"""TrivialAugment: one operation an image, at a random strength (Müller and Hutter 2021, arXiv:2103.10158).

Operations and "wide" ranges are those of the paper's table 1 and of torchvision's ``TrivialAugmentWide``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from paddle_resnet.images import Indices, Pixels

STRENGTHS = 31
"""Strengths 0 to 30; 30 is the end of the range."""

MAX_SHIFT = 32
"""Pixels, as in the paper for CIFAR: a whole image. Smaller images are shifted by their own size at most."""


class TrivialAugmentParams(NamedTuple):
    """TrivialAugment of a batch."""

    operations: NDArray[np.int64]
    """An index of `OPERATIONS` for each image, ``[n]``."""
    magnitudes: NDArray[np.float64]
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
    for pixels, number, magnitude in zip(images, params.operations, params.magnitudes.tolist(), strict=True):
        operation = OPERATIONS[number]
        if operation is not _identity:
            pixels[:] = operation(Image.fromarray(pixels), magnitude)


def _identity(image: Image.Image, magnitude: float) -> Image.Image:
    return image


def _affine(image: Image.Image, *coefficients: float) -> Image.Image:
    """Take the pixel at (column, row) from ``(a * column + b * row + c, d * column + e * row + f)``, or the nearest."""
    return image.transform(image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.NEAREST)


def _shear_x(image: Image.Image, magnitude: float) -> Image.Image:
    return _affine(image, 1, 0.99 * magnitude, 0, 0, 1, 0)


def _shear_y(image: Image.Image, magnitude: float) -> Image.Image:
    return _affine(image, 1, 0, 0, 0.99 * magnitude, 1, 0)


def _translate_x(image: Image.Image, magnitude: float) -> Image.Image:
    return _affine(image, 1, 0, math.trunc(min(MAX_SHIFT, image.width) * magnitude), 0, 1, 0)


def _translate_y(image: Image.Image, magnitude: float) -> Image.Image:
    return _affine(image, 1, 0, 0, 0, 1, math.trunc(min(MAX_SHIFT, image.height) * magnitude))


def _rotate(image: Image.Image, magnitude: float) -> Image.Image:
    """Rotate counterclockwise about the centre."""
    angle = math.radians(135 * magnitude)
    cos, sin = math.cos(angle), math.sin(angle)
    x, y = image.width / 2, image.height / 2
    return _affine(image, cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y)


def _brightness(image: Image.Image, magnitude: float) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(1 + 0.99 * magnitude)


def _color(image: Image.Image, magnitude: float) -> Image.Image:
    return ImageEnhance.Color(image).enhance(1 + 0.99 * magnitude)


def _contrast(image: Image.Image, magnitude: float) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(1 + 0.99 * magnitude)


def _sharpness(image: Image.Image, magnitude: float) -> Image.Image:
    return ImageEnhance.Sharpness(image).enhance(1 + 0.99 * magnitude)


def _posterize(image: Image.Image, magnitude: float) -> Image.Image:
    return ImageOps.posterize(image, 8 - round(6 * abs(magnitude)))


def _solarize(image: Image.Image, magnitude: float) -> Image.Image:
    return ImageOps.solarize(image, round(255 * (1 - abs(magnitude))))


def _autocontrast(image: Image.Image, magnitude: float) -> Image.Image:
    return ImageOps.autocontrast(image)


def _equalize(image: Image.Image, magnitude: float) -> Image.Image:
    return ImageOps.equalize(image)


OPERATIONS: tuple[Callable[[Image.Image, float], Image.Image], ...] = (
    _identity,
    _shear_x,
    _shear_y,
    _translate_x,
    _translate_y,
    _rotate,
    _brightness,
    _color,
    _contrast,
    _sharpness,
    _posterize,
    _solarize,
    _autocontrast,
    _equalize,
)
