"""Resizing a whole batch on the device, as two matrix products.

Resizing is separable and linear: every row of the result is a weighted mean of rows of the picture, and so for columns.
With Pillow's triangle filter as weights (``Resample.c``: its support grows with the reduction, which is the antialias),
the result is Pillow's to within one level of 255, for pictures of any size and for a different box in each picture.
"""

from __future__ import annotations

import numpy as np
import paddle
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def triangle_weights(
    start: NDArray[np.int64],
    length: NDArray[np.int64],
    size_in: int,
    size_out: int,
    mirrored: NDArray[np.bool_] | None = None,
) -> Floats:
    """Weights that resize the pixels ``start .. start + length`` of a line to `size_out` pixels.

    Args:
        start: the first pixel of each image's stretch, ``[n]``.
        length: its number of pixels, ``[n]``; pixels outside the stretch have no weight.
        size_in: pixels of the whole line.
        size_out: pixels of the result.
        mirrored: which results run backwards, ``[n]``.

    Returns:
        float32 ``[n, size_out, size_in]``, each row summing to 1.
    """
    scale = (length / size_out)[:, np.newaxis]
    centre = start[:, np.newaxis] + (np.arange(size_out) + 0.5) * scale
    if mirrored is not None:
        centre = np.where(mirrored[:, np.newaxis], centre[:, ::-1], centre)
    pixel = np.arange(size_in, dtype=np.float32)
    distance = np.abs(pixel + np.float32(0.5) - centre[..., np.newaxis].astype(np.float32))
    support = np.maximum(scale, 1).astype(np.float32)[..., np.newaxis]
    weights = np.maximum(1 - distance / support, 0)
    first, last = start[:, np.newaxis, np.newaxis], (start + length)[:, np.newaxis, np.newaxis]
    weights *= (pixel >= first) & (pixel < last)
    return weights / weights.sum(axis=-1, keepdims=True)


def resample(images: paddle.Tensor, rows: Floats, columns: Floats) -> paddle.Tensor:
    """Resize with one pair of weights for all images, or one for each.

    Args:
        images: ``[n, h, w, 3]``.
        rows: ``[S, h]`` or ``[n, S, h]``.
        columns: ``[S, w]`` or ``[n, S, w]``.

    Returns:
        float32 ``[n, S, S, 3]``, rounded to whole levels as a stored picture would be.
    """
    count, height, width, channels = images.shape
    size = columns.shape[-2]
    planar = images.astype("float32").transpose([0, 1, 3, 2]).reshape([count, height * channels, width])
    across = paddle.matmul(planar, paddle.to_tensor(columns), transpose_y=True)
    down = paddle.matmul(paddle.to_tensor(rows), across.reshape([count, height, channels * size]))
    return down.reshape([count, rows.shape[-2], channels, size]).transpose([0, 1, 3, 2]).round()


def resize_batch(images: paddle.Tensor, size: int) -> paddle.Tensor:
    """Resize square pictures ``[n, h, h, 3]`` to float32 ``[n, size, size, 3]`` of whole levels 0..255."""
    _, height, width, _ = images.shape
    if (height, width) == (size, size):
        return images.astype("float32")
    return resample(images, _whole_line(height, size), _whole_line(width, size))


def _whole_line(size_in: int, size_out: int) -> Floats:
    return triangle_weights(np.array([0]), np.array([size_in]), size_in, size_out)[0]
