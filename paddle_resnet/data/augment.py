"""Random changes to a whole batch of training images at once, on the device."""

from __future__ import annotations

import math

import numpy as np
import paddle
from numpy.typing import NDArray

from paddle_resnet.config import AugmentConfig
from paddle_resnet.data.decode import centre_offset
from paddle_resnet.data.resample import resample, resize_batch, triangle_weights

LOG_ASPECT_RATIO = (math.log(3 / 4), math.log(4 / 3))
BOX_ATTEMPTS = 10

Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]


def centre_view(images: paddle.Tensor, resize: int, image_size: int) -> paddle.Tensor:
    """What evaluation sees: ``[n, h, w, 3]`` resized, then its centre, as float32 levels ``[n, S, S, 3]``."""
    resized = resize_batch(images, resize)
    start = centre_offset(resize, image_size)
    return resized[:, start : start + image_size, start : start + image_size]


class Augment:
    """Crop and flip at random; the geometry is evaluation's unless `scale` asks for random-resized crops."""

    def __init__(self, config: AugmentConfig, resize: int, image_size: int) -> None:
        """Take the random changes, and the geometry of evaluation: `resize`, then a crop of `image_size`."""
        self._config = config
        self._resize = resize
        self._image_size = image_size

    def __call__(self, images: paddle.Tensor, generator: np.random.Generator) -> paddle.Tensor:
        """Change pixels ``[n, h, w, 3]`` to float32 levels 0..255, ``[n, S, S, 3]``.

        With `scale`, a box of a random share of the stored picture is resized (Szegedy et al. 2015, arXiv:1409.4842;
        torchvision's RandomResizedCrop). Otherwise the picture is resized as for evaluation, zero-padded and cropped at
        random (Krizhevsky 2012; He et al. 2015, section 4.2).
        """
        count, size = len(images), self._image_size
        mirrored = generator.random(count) < 0.5 if self._config.flip else np.zeros(count, dtype=bool)
        if self._config.scale is not None:
            return resized_crop(images, random_boxes(images.shape, self._config.scale, generator), size, mirrored)
        images = resize_batch(images, self._resize)
        pad = self._config.pad
        corners = generator.integers(0, self._resize + 2 * pad - size, (2, count), endpoint=True) - pad
        return crop(images, corners[0], corners[1], size, mirrored)


def crop(images: paddle.Tensor, top: Integers, left: Integers, size: int, mirrored: Booleans) -> paddle.Tensor:
    """Cut a square out of each image, at its own place, some mirrored; outside the image is zero (black).

    Args:
        images: float32 ``[n, h, w, 3]``. (Not uint8: Paddle 2.6 has no uint8 gather on a GPU.)
        top: first row of each square, ``[n]``, negative above the image.
        left: first column, ``[n]``.
        size: pixels a side, S.
        mirrored: which squares are flipped left to right, ``[n]``.

    Returns:
        ``[n, S, S, 3]``.
    """
    count, height, width, channels = images.shape
    steps = np.arange(size)
    rows = top[:, np.newaxis] + steps
    columns = left[:, np.newaxis] + np.where(mirrored[:, np.newaxis], steps[::-1], steps)
    # One flat index a pixel, made with numpy: Paddle's broadcast addition takes twice as long as all the rest.
    index = (np.arange(count)[:, np.newaxis] * height + rows)[:, :, np.newaxis] * width + columns[:, np.newaxis, :]
    inside_rows, inside_columns = (rows >= 0) & (rows < height), (columns >= 0) & (columns < width)
    black = count * height * width
    index[~(inside_rows[:, :, np.newaxis] & inside_columns[:, np.newaxis, :])] = black
    pixels = paddle.concat([images.reshape([-1, channels]), paddle.zeros([1, channels], images.dtype)])
    flat = paddle.to_tensor(index.astype(np.int32).reshape(-1))
    return paddle.gather(pixels, flat).reshape([count, size, size, channels])


def random_boxes(shape: list[int], scale: tuple[float, float], generator: np.random.Generator) -> Integers:
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
    count, height, width, _ = shape
    area = height * width * generator.uniform(*scale, (count, BOX_ATTEMPTS))
    ratio = np.exp(generator.uniform(*LOG_ASPECT_RATIO, (count, BOX_ATTEMPTS)))
    widths = np.rint(np.sqrt(area * ratio)).astype(np.int64)
    heights = np.rint(np.sqrt(area / ratio)).astype(np.int64)
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    image, first = np.arange(count), fits.argmax(axis=1)
    found = fits[image, first]
    box_height = np.where(found, heights[image, first], height)
    box_width = np.where(found, widths[image, first], width)
    top = generator.integers(0, height - box_height, endpoint=True)
    left = generator.integers(0, width - box_width, endpoint=True)
    return np.stack([top, left, box_height, box_width])


def resized_crop(images: paddle.Tensor, boxes: Integers, size: int, mirrored: Booleans) -> paddle.Tensor:
    """Resize each image's own box (`random_boxes`) to ``[n, size, size, 3]`` as Pillow resizes the crop."""
    top, left, box_height, box_width = boxes
    _, height, width, _ = images.shape
    rows = triangle_weights(top, box_height, height, size)
    columns = triangle_weights(left, box_width, width, size, mirrored)
    return resample(images, rows, columns)
