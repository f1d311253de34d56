"""Random-resized crops, drawn before the sizes of the images are known."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paddle_resnet.images import Box, Indices

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
