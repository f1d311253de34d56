"""Boxes in images: of random-resized crops, and of what cutout and random erasing take away."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import paddle
from numpy.typing import NDArray

from paddle_resnet.images import Indices, Pixels

LOG_ASPECT_RATIO = (math.log(3 / 4), math.log(4 / 3))
BOX_ATTEMPTS = 10

Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]


def random_boxes(shape: Sequence[int], scale: tuple[float, float], generator: np.random.Generator) -> Integers:
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
    box_height, box_width, fits = random_sides(shape, scale, LOG_ASPECT_RATIO, generator)
    return placed(shape, np.where(fits, box_height, height), np.where(fits, box_width, width), generator)


def random_sides(
    shape: Sequence[int],
    scale: tuple[float, float],
    log_aspect_ratio: tuple[float, float],
    generator: np.random.Generator,
) -> tuple[Integers, Integers, Booleans]:
    """Draw height and width of a box for each image of ``[n, h, w, ...]``, and whether one of ten attempts fits."""
    count, height, width = shape[:3]
    area = height * width * generator.uniform(*scale, (count, BOX_ATTEMPTS))
    ratio = np.exp(generator.uniform(*log_aspect_ratio, (count, BOX_ATTEMPTS)))
    widths = np.rint(np.sqrt(area * ratio)).astype(np.int64)
    heights = np.rint(np.sqrt(area / ratio)).astype(np.int64)
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    image, first = np.arange(count), fits.argmax(axis=1)
    return heights[image, first], widths[image, first], fits[image, first]


def placed(shape: Sequence[int], box_height: Integers, box_width: Integers, generator: np.random.Generator) -> Integers:
    """Place boxes ``[n]`` that fit anywhere in images ``[n, h, w, ...]``: int64 ``[4, n]``, as `random_boxes`."""
    top = generator.integers(0, shape[1] - box_height, endpoint=True)
    left = generator.integers(0, shape[2] - box_width, endpoint=True)
    return np.stack([top, left, box_height, box_width])


def stretch(first: Integers, length: int | Integers, size: int) -> Booleans:
    """Which pixels of a line of `size` lie in the stretch of `length` from each of `first` on: ``[n, size]``."""
    pixel, first = np.arange(size), first[:, np.newaxis]
    return (pixel >= first) & (pixel < first + np.reshape(length, (-1, 1)))


def random_square(shape: Sequence[int], side: int, generator: np.random.Generator) -> Booleans:
    """Draw a square of `side` pixels for each image of ``shape [n, h, w, ...]``; True where it lies, ``[n, h, w]``.

    Its centre is anywhere in the image, so a square at the edge shows only in part, as in the paper.
    """
    count, height, width = shape[:3]
    rows = stretch(generator.integers(0, height, count) - side // 2, side, height)
    columns = stretch(generator.integers(0, width, count) - side // 2, side, width)
    return rows[:, :, np.newaxis] & columns[:, np.newaxis, :]


def fill(images: paddle.Tensor, hidden: Booleans, colours: NDArray[np.float64]) -> paddle.Tensor:
    """Give the hidden pixels ``[n, h, w]`` of float32 images ``[n, h, w, 3]`` one colour ``[3]``, or each its own."""
    shown = paddle.to_tensor((~hidden[..., np.newaxis]).astype(np.float32))
    return images * shown + (1 - shown) * paddle.to_tensor(colours.astype(np.float32))


AREA = (0.02, 0.4)
"""Least and largest share of the image, as in the paper (section 4.1)."""

ERASED_LOG_ASPECT_RATIO = (math.log(0.3), math.log(1 / 0.3))
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
    height, width, fits = random_sides(shape, AREA, ERASED_LOG_ASPECT_RATIO, generator)
    erased = fits & (generator.random(shape[0]) < probability)
    top, left, height, width = placed(shape, np.where(erased, height, 0), np.where(erased, width, 0), generator)
    rows = stretch(top, height, shape[1])
    columns = stretch(left, width, shape[2])
    where = rows[:, :, np.newaxis] & columns[:, np.newaxis, :]
    return Erasure(where, generator.integers(0, 256, (np.count_nonzero(where), 3), dtype=np.uint8))
