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

from paddle_resnet.images import Pixels

STRENGTHS = 31  # strengths 0 to 30; 30 is the end of the range
MAX_SHIFT = 32  # pixels, as in the paper for CIFAR: a whole image. Smaller images are shifted by their own size at most


class TrivialAugmentParams(NamedTuple):
    """TrivialAugment of a batch."""

    operations: NDArray[np.int64]  # a position in `OPERATIONS` for each image, ``[n]``
    magnitudes: NDArray[np.float64]
    """Shares of the operation's range, -1 to 1, ``[n]``; the sign is the direction, if the operation has one."""


def draw_trivial_augment(count: int, generator: np.random.Generator) -> TrivialAugmentParams:
    """Draw an operation, a strength and a direction for each of `count` images."""
    operations = generator.integers(0, len(OPERATIONS), count)
    strengths = generator.integers(0, STRENGTHS, count) / (STRENGTHS - 1)
    return TrivialAugmentParams(operations, np.where(generator.random(count) < 0.5, -strengths, strengths))


def apply_trivial_augment(images: Pixels, params: TrivialAugmentParams) -> None:
    """Change uint8 images ``[n, S, S, 3]`` in place; pixels from outside the image are black."""
    for pixels, number, magnitude in zip(images, params.operations, params.magnitudes.tolist(), strict=True):
        if NAMES[number] != "identity":
            pixels[:] = OPERATIONS[NAMES[number]](Image.fromarray(pixels), magnitude)


def _affine(image: Image.Image, *coefficients: float) -> Image.Image:
    """Take the pixel at (column, row) from ``(a * column + b * row + c, d * column + e * row + f)``, or the nearest."""
    return image.transform(image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.NEAREST)


def _rotate(image: Image.Image, magnitude: float) -> Image.Image:
    """Rotate counterclockwise about the centre."""
    angle = math.radians(135 * magnitude)
    cos, sin = math.cos(angle), math.sin(angle)
    x, y = image.width / 2, image.height / 2
    return _affine(image, cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y)


def _shift(side: int, magnitude: float) -> int:
    return math.trunc(min(MAX_SHIFT, side) * magnitude)


def _factor(magnitude: float) -> float:
    return 1 + 0.99 * magnitude


OPERATIONS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "identity": lambda image, magnitude: image,
    "shear_x": lambda image, magnitude: _affine(image, 1, 0.99 * magnitude, 0, 0, 1, 0),
    "shear_y": lambda image, magnitude: _affine(image, 1, 0, 0, 0.99 * magnitude, 1, 0),
    "translate_x": lambda image, magnitude: _affine(image, 1, 0, _shift(image.width, magnitude), 0, 1, 0),
    "translate_y": lambda image, magnitude: _affine(image, 1, 0, 0, 0, 1, _shift(image.height, magnitude)),
    "rotate": _rotate,
    "brightness": lambda image, magnitude: ImageEnhance.Brightness(image).enhance(_factor(magnitude)),
    "color": lambda image, magnitude: ImageEnhance.Color(image).enhance(_factor(magnitude)),
    "contrast": lambda image, magnitude: ImageEnhance.Contrast(image).enhance(_factor(magnitude)),
    "sharpness": lambda image, magnitude: ImageEnhance.Sharpness(image).enhance(_factor(magnitude)),
    "posterize": lambda image, magnitude: ImageOps.posterize(image, 8 - round(6 * abs(magnitude))),
    "solarize": lambda image, magnitude: ImageOps.solarize(image, round(255 * (1 - abs(magnitude)))),
    "autocontrast": lambda image, magnitude: ImageOps.autocontrast(image),
    "equalize": lambda image, magnitude: ImageOps.equalize(image),
}
NAMES = tuple(OPERATIONS)
