"""Crop, flip and resize a whole batch with Paddle, on the device that holds it.

Resizing is separable and linear: each row of the result is a weighted mean of rows of the image, and so for columns.
With Pillow's triangle filter as weights (``Resample.c``: its support grows with the reduction, which is the antialias),
the result is Pillow's to within one level of 255, for images of any size and for a different box in each image.
"""

from __future__ import annotations

import numpy as np
import paddle
from numpy.typing import NDArray

from paddle_resnet.data.augment.params import AugmentParams
from paddle_resnet.data.augment.random_crop import CropDraws
from paddle_resnet.images import Indices, Mask

Weights = NDArray[np.float32]


def augment(images: paddle.Tensor, params: AugmentParams) -> paddle.Tensor:
    """Augment ``[n, h, w, 3]`` on its device: float32 levels 0..255, ``[n, S, S, 3]``."""
    if isinstance(params.crops, CropDraws):
        boxes = params.crops.boxes(*images.shape[1:3])
        levels = resized_crop(images, boxes, params.size, params.flipped)
    else:
        top, left = params.crops
        levels = crop(resize_batch(images, params.resize), top, left, params.size, params.flipped)
    if params.cutout_mask is not None:
        levels = fill(levels, params.cutout_mask, params.cutout_level)
    if params.erasing is not None:
        noise = np.zeros((*params.erasing.mask.shape, 3))
        noise[params.erasing.mask] = params.erasing.noise
        levels = fill(levels, params.erasing.mask, noise)
    return levels


def crop(images: paddle.Tensor, top: Indices, left: Indices, size: int, flipped: Mask) -> paddle.Tensor:
    """Cut a square out of each image, at its own position; pixels outside the image are zero (black).

    Args:
        images: float32 ``[n, h, w, 3]``. (Not uint8: Paddle 2.6 has no uint8 gather on a GPU.)
        top: first row of each square, ``[n]``, negative above the image.
        left: first column, ``[n]``.
        size: pixels a side, S.
        flipped: which squares are flipped left to right, ``[n]``.

    Returns:
        ``[n, S, S, 3]``.
    """
    count, height, width, channels = images.shape
    steps = np.arange(size)
    rows = top[:, np.newaxis] + steps
    columns = left[:, np.newaxis] + np.where(flipped[:, np.newaxis], steps[::-1], steps)
    # One flat index a pixel, made with numpy: Paddle's broadcast addition takes twice as long as all the rest.
    index = (np.arange(count)[:, np.newaxis] * height + rows)[:, :, np.newaxis] * width + columns[:, np.newaxis, :]
    inside_rows, inside_columns = (rows >= 0) & (rows < height), (columns >= 0) & (columns < width)
    black = count * height * width
    index[~(inside_rows[:, :, np.newaxis] & inside_columns[:, np.newaxis, :])] = black
    pixels = paddle.concat([images.reshape([-1, channels]), paddle.zeros([1, channels], images.dtype)])
    flat = paddle.to_tensor(index.astype(np.int32).reshape(-1))
    return paddle.gather(pixels, flat).reshape([count, size, size, channels])


def resized_crop(images: paddle.Tensor, boxes: Indices, size: int, flipped: Mask) -> paddle.Tensor:
    """Resize each image's own box (`CropDraws.boxes`) to ``[n, size, size, 3]`` as Pillow resizes the crop."""
    top, left, box_height, box_width = boxes
    _, height, width, _ = images.shape
    rows = triangle_weights(top, box_height, height, size)
    columns = triangle_weights(left, box_width, width, size, flipped)
    return resample(images, rows, columns)


def resize_batch(images: paddle.Tensor, size: int) -> paddle.Tensor:
    """Resize square images ``[n, h, h, 3]`` to float32 ``[n, size, size, 3]`` of whole levels 0..255."""
    _, height, width, _ = images.shape
    if (height, width) == (size, size):
        return images.astype("float32")
    rows, columns = (triangle_weights(np.array([0]), np.array([side]), side, size)[0] for side in (height, width))
    return resample(images, rows, columns)


def fill(images: paddle.Tensor, mask: Mask, colours: NDArray[np.float64]) -> paddle.Tensor:
    """Give the masked pixels ``[n, h, w]`` of float32 images ``[n, h, w, 3]`` one colour ``[3]``, or each its own."""
    kept = paddle.to_tensor((~mask[..., np.newaxis]).astype(np.float32))
    return images * kept + (1 - kept) * paddle.to_tensor(colours.astype(np.float32))


def triangle_weights(
    start: Indices, length: Indices, size_in: int, size_out: int, flipped: Mask | None = None
) -> Weights:
    """Return the weights that resize the pixels ``start .. start + length`` of a line to `size_out` pixels.

    Args:
        start: the first pixel of each image's section, ``[n]``.
        length: its number of pixels, ``[n]``; pixels outside the section have no weight.
        size_in: pixels of the whole line.
        size_out: pixels of the result.
        flipped: which results run backwards, ``[n]``.

    Returns:
        float32 ``[n, size_out, size_in]``, each row summing to 1.
    """
    scale = (length / size_out)[:, np.newaxis]
    centre = start[:, np.newaxis] + (np.arange(size_out) + 0.5) * scale
    if flipped is not None:
        centre = np.where(flipped[:, np.newaxis], centre[:, ::-1], centre)
    pixel = np.arange(size_in, dtype=np.float32)
    distance = np.abs(pixel + np.float32(0.5) - centre[..., np.newaxis].astype(np.float32))
    support = np.maximum(scale, 1).astype(np.float32)[..., np.newaxis]
    weights = np.maximum(1 - distance / support, 0)
    first, last = start[:, np.newaxis, np.newaxis], (start + length)[:, np.newaxis, np.newaxis]
    weights *= (pixel >= first) & (pixel < last)
    return weights / weights.sum(axis=-1, keepdims=True)


def resample(images: paddle.Tensor, rows: Weights, columns: Weights) -> paddle.Tensor:
    """Resize with one pair of weights for all images, or one for each.

    Args:
        images: ``[n, h, w, 3]``.
        rows: ``[S, h]`` or ``[n, S, h]``.
        columns: ``[S, w]`` or ``[n, S, w]``.

    Returns:
        float32 ``[n, S, S, 3]``, rounded to whole levels like a stored image.
    """
    count, height, width, channels = images.shape
    size = columns.shape[-2]
    planar = images.astype("float32").transpose([0, 1, 3, 2]).reshape([count, height * channels, width])
    across = paddle.matmul(planar, paddle.to_tensor(columns), transpose_y=True)
    down = paddle.matmul(paddle.to_tensor(rows), across.reshape([count, height, channels * size]))
    return down.reshape([count, rows.shape[-2], channels, size]).transpose([0, 1, 3, 2]).round()
