"""Random boxes of images: of random-resized crops, and those that cutout and random erasing hide.

Crops are drawn before the sizes of the images are known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paddle_resnet.images import Box, Indices, Mask, Pixels

BOX_ATTEMPTS = 10
MAX_ASPECT_RATIO = 4 / 3  # width by height, and height by width
Draws = NDArray[np.float64]


class CropDraws(NamedTuple):
    """Random-resized crops of n images (Szegedy et al. 2015, arXiv:1409.4842)."""

    areas: Draws  # shares of the image's area, of ten attempts, ``[n, 10]``
    ratios: Draws  # width by height of the attempts, ``[n, 10]``
    places: Draws  # where the box lies: 0 is the first row or column that is possible, 1 the last; ``[n, 2]``

    def box(self, image: int, height: int, width: int) -> Box:
        """Return the box in an image of this size as torchvision's ``RandomResizedCrop.get_params`` does.

        The first attempt that fits is taken; else the largest box in the middle whose aspect ratio is allowed.

        Returns:
            Top, left, height and width.
        """
        for area, ratio in zip(self.areas[image].tolist(), self.ratios[image].tolist(), strict=True):
            pixels = height * width * area
            box_height, box_width = round(math.sqrt(pixels / ratio)), round(math.sqrt(pixels * ratio))
            if 0 < box_height <= height and 0 < box_width <= width:
                down, right = self.places[image].tolist()
                top, left = int(down * (height - box_height + 1)), int(right * (width - box_width + 1))
                return top, left, box_height, box_width
        box_height = min(height, round(width * MAX_ASPECT_RATIO))
        box_width = min(width, round(height * MAX_ASPECT_RATIO))
        return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width

    def boxes(self, height: int, width: int) -> Indices:
        """Return the box of each of n images of one size, int64 ``[4, n]``."""
        return np.array([self.box(image, height, width) for image in range(len(self.areas))], np.int64).T


def draw_crops(count: int, scale: tuple[float, float], generator: np.random.Generator) -> CropDraws:
    """Draw crops: uniform shares `scale` of the image's area, and uniform logarithms of the aspect ratio."""
    limit = math.log(MAX_ASPECT_RATIO)
    areas = generator.uniform(*scale, (count, BOX_ATTEMPTS))
    ratios = np.exp(generator.uniform(-limit, limit, (count, BOX_ATTEMPTS)))
    return CropDraws(areas, ratios, generator.random((count, 2)))


ERASED_AREA = (0.02, 0.4)  # least and largest share of the image (Zhong et al. 2017, arXiv:1708.04896, section 4.1)
ERASED_LOG_ASPECT_RATIO = (math.log(0.3), math.log(1 / 0.3))
"""The paper's range; its logarithm is uniform, as in torchvision's ``RandomErasing``: wide as often as tall."""


def box_mask(shape: Sequence[int], top: Indices, left: Indices, height: int | Indices, width: int | Indices) -> Mask:
    """Return which pixels of ``shape [n, h, w, ...]`` lie in each image's box: ``[n, h, w]``."""
    rows = _span(top, height, shape[1])
    columns = _span(left, width, shape[2])
    return rows[:, :, np.newaxis] & columns[:, np.newaxis, :]


def _span(first: Indices, length: int | Indices, size: int) -> Mask:
    pixel, first = np.arange(size), first[:, np.newaxis]
    return (pixel >= first) & (pixel < first + np.reshape(length, (-1, 1)))


def draw_cutout_mask(shape: Sequence[int], side: int, generator: np.random.Generator) -> Mask:
    """Draw a square of `side` pixels for each image of ``shape [n, h, w, ...]``: ``[n, h, w]``.

    Its centre is anywhere in the image, so a square at the edge shows only in part (DeVries and Taylor 2017,
    arXiv:1708.04552).
    """
    count, height, width = shape[:3]
    top = generator.integers(0, height, count) - side // 2
    left = generator.integers(0, width, count) - side // 2
    return box_mask(shape, top, left, side, side)


class ErasingParams(NamedTuple):
    """Random erasing of a batch."""

    mask: Mask  # the erased pixels, ``[n, S, S]``
    noise: list[Pixels]
    """Of each image the new values, uint8 ``[erased pixels, 3]``: the paper's RE-R, the best of its four."""


def draw_erasing(shape: Sequence[int], probability: float, generator: np.random.Generator) -> ErasingParams:
    """Draw a rectangle, wholly inside, for a share `probability` of the images ``[n, h, w, 3]``."""
    count, *size = shape[:3]
    areas = generator.uniform(*ERASED_AREA, (count, BOX_ATTEMPTS))
    ratios = np.exp(generator.uniform(*ERASED_LOG_ASPECT_RATIO, (count, BOX_ATTEMPTS)))
    pixels = size[0] * size[1] * areas
    heights, widths = (np.rint(np.sqrt(each)).astype(np.int64) for each in (pixels / ratios, pixels * ratios))
    fits = (widths > 0) & (widths <= size[1]) & (heights > 0) & (heights <= size[0])
    image, first = np.arange(count), fits.argmax(axis=1)
    erased = fits[image, first] & (generator.random(count) < probability)
    height, width = (np.where(erased, sides[image, first], 0) for sides in (heights, widths))
    top = generator.integers(0, size[0] - height, endpoint=True)
    left = generator.integers(0, size[1] - width, endpoint=True)
    mask = box_mask(shape, top, left, height, width)
    noise = generator.integers(0, 256, (np.count_nonzero(mask), 3), dtype=np.uint8)
    return ErasingParams(mask, np.split(noise, np.cumsum(np.count_nonzero(mask, axis=(1, 2)))[:-1]))
