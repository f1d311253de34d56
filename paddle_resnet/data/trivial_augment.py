"""TrivialAugment: one operation an image, at a random strength (Müller and Hutter 2021, arXiv:2103.10158).

The operations and their "wide" ranges are the paper's table 1, as torchvision's ``TrivialAugmentWide`` has them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from paddle_resnet.data.splits import Indices, Pixels

STRENGTHS = 31
"""Strengths 0 to 30, of which 30 is the range's end."""

WIDEST_SHIFT = 32
"""Pixels: a whole image of CIFAR, for which the paper gives it. A smaller image is never shifted further than whole."""


class Distortions(NamedTuple):
    """What was drawn for the images of a batch."""

    operations: NDArray[np.int64]
    """A place in `OPERATIONS` for each image, ``[n]``."""
    amounts: NDArray[np.float64]
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
    for image, operation, amount in zip(images, distortions.operations, distortions.amounts, strict=True):
        change = OPERATIONS[operation]
        if change is not _identity:
            image[:] = np.asarray(change(Image.fromarray(image), amount))


def _identity(image: Image.Image, amount: float) -> Image.Image:
    return image


def _affine(image: Image.Image, *coefficients: float) -> Image.Image:
    """Let the pixel at (x, y) be that at (a x + b y + c, d x + e y + f), the nearest one."""
    return image.transform(image.size, Image.Transform.AFFINE, coefficients)


def _shear_x(image: Image.Image, amount: float) -> Image.Image:
    return _affine(image, 1, 0.99 * amount, 0, 0, 1, 0)


def _shear_y(image: Image.Image, amount: float) -> Image.Image:
    return _affine(image, 1, 0, 0, 0.99 * amount, 1, 0)


def _translate_x(image: Image.Image, amount: float) -> Image.Image:
    return _affine(image, 1, 0, int(min(WIDEST_SHIFT, image.width) * amount), 0, 1, 0)


def _translate_y(image: Image.Image, amount: float) -> Image.Image:
    return _affine(image, 1, 0, 0, 0, 1, int(min(WIDEST_SHIFT, image.height) * amount))


def _rotate(image: Image.Image, amount: float) -> Image.Image:
    return image.rotate(135 * amount)


def _brightness(image: Image.Image, amount: float) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(1 + 0.99 * amount)


def _colour(image: Image.Image, amount: float) -> Image.Image:
    return ImageEnhance.Color(image).enhance(1 + 0.99 * amount)


def _contrast(image: Image.Image, amount: float) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(1 + 0.99 * amount)


def _sharpness(image: Image.Image, amount: float) -> Image.Image:
    return ImageEnhance.Sharpness(image).enhance(1 + 0.99 * amount)


def _posterize(image: Image.Image, amount: float) -> Image.Image:
    return ImageOps.posterize(image, 8 - round(6 * abs(amount)))


def _solarize(image: Image.Image, amount: float) -> Image.Image:
    return ImageOps.solarize(image, round(255 * (1 - abs(amount))))


def _autocontrast(image: Image.Image, amount: float) -> Image.Image:
    return ImageOps.autocontrast(image)


def _equalize(image: Image.Image, amount: float) -> Image.Image:
    return ImageOps.equalize(image)


OPERATIONS: tuple[Callable[[Image.Image, float], Image.Image], ...] = (
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
