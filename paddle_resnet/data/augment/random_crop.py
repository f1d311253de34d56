"""Random-resized crops, drawn before the sizes of the images are known."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paddle_resnet.images import Indices, Mask

BOX_ATTEMPTS = 10
MAX_ASPECT_RATIO = 4 / 3
"""Width by height, and height by width."""

Draws = NDArray[np.float64]


class CropDraws(NamedTuple):
    """Random-resized crops of n images (Szegedy et al. 2015, arXiv:1409.4842)."""

    areas: Draws
    """Shares of the image's area, of ten attempts, ``[n, 10]``."""
    ratios: Draws
    """Width by height of the attempts, ``[n, 10]``."""
    places: Draws
    """Where the box lies: 0 is the first row or column that is possible, 1 the last; ``[n, 2]``."""

    def select(self, images: Indices | slice) -> CropDraws:
        """Return the crops of some of the images."""
        return CropDraws(self.areas[images], self.ratios[images], self.places[images])

    def boxes(self, height: int, width: int) -> Indices:
        """Return the boxes in images of this size as torchvision's ``RandomResizedCrop.get_params`` does.

        The first attempt that fits is taken; else the largest box in the middle whose aspect ratio is allowed.

        Returns:
            int64 ``[4, n]``: top, left, height and width of each box.
        """
        box_height, box_width, fits = fitting_sides(self.areas, self.ratios, height, width)
        box_height = np.where(fits, box_height, min(height, round(width * MAX_ASPECT_RATIO)))
        box_width = np.where(fits, box_width, min(width, round(height * MAX_ASPECT_RATIO)))
        top, left = (
            np.where(fits, np.floor(place * (size - box + 1)), (size - box) // 2).astype(np.int64)
            for place, size, box in zip(self.places.T, (height, width), (box_height, box_width), strict=True)
        )
        return np.stack([top, left, box_height, box_width])


def draw_crops(count: int, scale: tuple[float, float], generator: np.random.Generator) -> CropDraws:
    """Draw crops: uniform shares `scale` of the image's area, and uniform logarithms of the aspect ratio."""
    limit = math.log(MAX_ASPECT_RATIO)
    areas = generator.uniform(*scale, (count, BOX_ATTEMPTS))
    ratios = np.exp(generator.uniform(-limit, limit, (count, BOX_ATTEMPTS)))
    return CropDraws(areas, ratios, generator.random((count, 2)))


def fitting_sides(areas: Draws, ratios: Draws, height: int, width: int) -> tuple[Indices, Indices, Mask]:
    """Return height and width of each image's first attempt that fits into it, and whether one fits."""
    pixels = height * width * areas
    widths = np.rint(np.sqrt(pixels * ratios)).astype(np.int64)
    heights = np.rint(np.sqrt(pixels / ratios)).astype(np.int64)
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    image, first = np.arange(len(areas)), fits.argmax(axis=1)
    return heights[image, first], widths[image, first], fits[image, first]
