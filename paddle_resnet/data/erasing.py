"""Random erasing: a rectangle of some training images becomes noise (Zhong et al. 2020, arXiv:1708.04896)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from paddle_resnet.data.boxes import Booleans, placed, random_sides, stretch
from paddle_resnet.data.splits import Indices, Pixels

AREA = (0.02, 0.4)
"""Least and largest share of the image, as in the paper (section 4.1)."""

LOG_ASPECT_RATIO = (math.log(0.3), math.log(1 / 0.3))
"""The paper's range; its logarithm is uniform, as in torchvision's ``RandomErasing``: wide as often as tall."""


class Erasure(NamedTuple):
    """What was drawn for the images of a batch."""

    where: Booleans
    """The erased pixels, ``[n, S, S]``."""
    noise: Pixels
    """What they become, uint8 ``[erased pixels, 3]``: the paper's RE-R, the best of its four."""

    def of(self, images: Indices) -> Erasure:
        """What was drawn for some of the batch's images."""
        ends = np.cumsum(np.count_nonzero(self.where, axis=(1, 2)))
        noise = np.split(self.noise, ends[:-1])
        return Erasure(self.where[images], np.concatenate([noise[image] for image in images]))


def draw_erasure(shape: Sequence[int], probability: float, generator: np.random.Generator) -> Erasure:
    """Draw a rectangle, wholly inside, for a share `probability` of the images ``[n, h, w, 3]``."""
    height, width, fits = random_sides(shape, AREA, LOG_ASPECT_RATIO, generator)
    erased = fits & (generator.random(shape[0]) < probability)
    top, left, height, width = placed(shape, np.where(erased, height, 0), np.where(erased, width, 0), generator)
    rows = stretch(top, height, shape[1])
    columns = stretch(left, width, shape[2])
    where = rows[:, :, np.newaxis] & columns[:, np.newaxis, :]
    return Erasure(where, generator.integers(0, 256, (np.count_nonzero(where), 3), dtype=np.uint8))
