"""Random boxes: for random-resized crops, cutout and random erasing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from paddle_resnet.images import Indices, Mask, Pixels

BOX_ATTEMPTS = 10
CROP_LOG_ASPECT_RATIO = (math.log(3 / 4), math.log(4 / 3))
ERASED_AREA = (0.02, 0.4)
"""Least and largest share of the image (Zhong et al. 2017, arXiv:1708.04896, section 4.1)."""
ERASED_LOG_ASPECT_RATIO = (math.log(0.3), math.log(1 / 0.3))
"""The paper's range; its logarithm is uniform, as in torchvision's ``RandomErasing``: wide as often as tall."""


def random_boxes(shape: Sequence[int], scale: tuple[float, float], generator: np.random.Generator) -> Indices:
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
    box_height, box_width, fits = random_sides(shape, scale, CROP_LOG_ASPECT_RATIO, generator)
    return place_boxes(shape, np.where(fits, box_height, height), np.where(fits, box_width, width), generator)


def random_sides(
    shape: Sequence[int],
    scale: tuple[float, float],
    log_aspect_ratio: tuple[float, float],
    generator: np.random.Generator,
) -> tuple[Indices, Indices, Mask]:
    """Draw height and width of a box for each image of ``[n, h, w, ...]``, and whether one of ten attempts fits."""
    count, height, width = shape[:3]
    area = height * width * generator.uniform(*scale, (count, BOX_ATTEMPTS))
    ratio = np.exp(generator.uniform(*log_aspect_ratio, (count, BOX_ATTEMPTS)))
    widths = np.rint(np.sqrt(area * ratio)).astype(np.int64)
    heights = np.rint(np.sqrt(area / ratio)).astype(np.int64)
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    image, first = np.arange(count), fits.argmax(axis=1)
    return heights[image, first], widths[image, first], fits[image, first]


def place_boxes(
    shape: Sequence[int], box_height: Indices, box_width: Indices, generator: np.random.Generator
) -> Indices:
    """Draw positions for boxes ``[n]`` inside images ``[n, h, w, ...]``: int64 ``[4, n]`` as of `random_boxes`."""
    top = generator.integers(0, shape[1] - box_height, endpoint=True)
    left = generator.integers(0, shape[2] - box_width, endpoint=True)
    return np.stack([top, left, box_height, box_width])


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

    mask: Mask
    """The erased pixels, ``[n, S, S]``."""
    noise: Pixels
    """Their new values, uint8 ``[erased pixels, 3]``: the paper's RE-R, the best of its four."""

    def select(self, images: Indices) -> ErasingParams:
        """Return the parameters of some of the batch's images."""
        ends = np.cumsum(np.count_nonzero(self.mask, axis=(1, 2)))
        noise = np.split(self.noise, ends[:-1])
        return ErasingParams(self.mask[images], np.concatenate([noise[image] for image in images]))


def draw_erasing(shape: Sequence[int], probability: float, generator: np.random.Generator) -> ErasingParams:
    """Draw a rectangle, wholly inside, for a share `probability` of the images ``[n, h, w, 3]``."""
    height, width, fits = random_sides(shape, ERASED_AREA, ERASED_LOG_ASPECT_RATIO, generator)
    erased = fits & (generator.random(shape[0]) < probability)
    boxes = place_boxes(shape, np.where(erased, height, 0), np.where(erased, width, 0), generator)
    mask = box_mask(shape, *boxes)
    return ErasingParams(mask, generator.integers(0, 256, (np.count_nonzero(mask), 3), dtype=np.uint8))
