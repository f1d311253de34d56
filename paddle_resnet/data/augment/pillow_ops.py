"""Pillow's geometric and colour operations in numpy, bit-exact, for groups of images with a magnitude each.

On small images, Pillow spends as long on starting an operation as on the operation, and makes lookup tables in Python
loops.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from paddle_resnet.images import Pixels

Magnitudes = NDArray[np.float64]
Coefficients = tuple[float | Magnitudes, float | Magnitudes, float | Magnitudes]

FIXED = 1 << 16
"""Coordinates are multiples of 1 / 65536 of a pixel, as in Pillow."""


def affine(images: Pixels, x: Coefficients, y: Coefficients) -> Pixels:
    """Transform each image affinely with nearest-neighbour sampling; pixels from outside are black.

    Args:
        images: uint8 ``[n, h, w, 3]``.
        x: three coefficients, each one number or ``[n]``: the pixel at (column, row) comes from the column nearest to
            ``x[0] * column + x[1] * row + x[2]``, with coordinates at the pixels' centres.
        y: the same for the row.

    Returns:
        ``[n, h, w, 3]``.
    """
    count, height, width, channels = images.shape
    columns, rows = _nearest(x, count, height, width), _nearest(y, count, height, width)
    # As unsigned numbers, negative coordinates are beyond the other side.
    outside = (columns.view(np.uint32) >= width) | (rows.view(np.uint32) >= height)
    rows += np.arange(0, count * height, height, dtype=np.int32)[:, np.newaxis, np.newaxis]
    rows *= width
    rows += columns
    np.putmask(rows, outside, count * height * width)
    pixels = np.concatenate([images.reshape(-1, channels), np.zeros((1, channels), np.uint8)])
    return pixels.take(rows, axis=0)


def _nearest(line: Coefficients, count: int, height: int, width: int) -> NDArray[np.int32]:
    """Return the source column (or row) of each pixel, ``[n, h, w]``."""
    by_column, by_row, shift = (np.broadcast_to(np.asarray(each, np.float64), count) for each in line)
    start = _fixed(shift + 0.5 * by_column + 0.5 * by_row)
    along = _fixed(by_column)[:, np.newaxis] * np.arange(width, dtype=np.int32)
    down = _fixed(by_row)[:, np.newaxis] * np.arange(height, dtype=np.int32) + start[:, np.newaxis]
    return np.right_shift(along[:, np.newaxis, :] + down[:, :, np.newaxis], 16)


def _fixed(values: Magnitudes) -> NDArray[np.int32]:
    return np.floor(values * FIXED + 0.5).astype(np.int32)


def apply_lookup_tables(images: Pixels, tables: Pixels) -> Pixels:
    """Map uint8 ``[n, h, w, 3]`` through each image's lookup table ``[n, 256]``, or one a channel ``[n, 3, 256]``."""
    result = np.empty_like(images)
    for image, target, table in zip(images, result, tables, strict=True):
        if table.ndim == 1:
            target[:] = _lookup(image, table)
        else:
            for channel, own in enumerate(table):
                target[..., channel] = _lookup(image[..., channel], own)
    return result


def _lookup(levels: Pixels, table: Pixels) -> Pixels:
    """Return ``table[levels]`` in half the time: numpy would index with eight bytes for each level."""
    return np.frombuffer(levels.tobytes().translate(table.tobytes()), np.uint8).reshape(levels.shape)


def blend(others: NDArray[np.generic], images: NDArray[np.generic], factors: Magnitudes) -> Pixels:
    """Interpolate from `others` (factor 0) to `images` (1) and beyond; shapes ``[n, ...]``, factors ``[n]``."""
    start = others.astype(np.float32)
    by = factors.astype(np.float32).reshape(-1, *[1] * (images.ndim - 1))
    levels = images.astype(np.float32)
    levels -= start
    levels *= by
    levels += start
    return np.clip(levels, 0, 255, out=levels).astype(np.uint8)


def to_grey(images: Pixels) -> Pixels:
    """Return the luma of ITU-R 601, uint8 ``[n, h, w]``."""
    red, green, blue = (images[..., channel].astype(np.int32) for channel in range(3))
    return ((red * 19595 + green * 38470 + blue * 7471 + FIXED // 2) >> 16).astype(np.uint8)


def smooth(images: Pixels) -> Pixels:
    """Average each pixel (weight 5/13) with its eight neighbours; the outermost pixels stay unchanged."""
    levels = images.astype(np.uint16)
    columns = levels[:, :-2] + levels[:, 1:-1] + levels[:, 2:]
    sums = columns[:, :, :-2] + columns[:, :, 1:-1] + columns[:, :, 2:] + 4 * levels[:, 1:-1, 1:-1]
    result = images.copy()
    result[:, 1:-1, 1:-1] = (2 * sums + 13) // 26
    return result


def autocontrast_tables(images: Pixels) -> Pixels:
    """Return tables that stretch each channel to 0..255, ``[n, 3, 256]``; a channel of one level stays."""
    # Row by row first, which is ten times as fast as both axes at once.
    least, most = (bound.astype(np.float64)[..., np.newaxis] for bound in (images.min(1).min(1), images.max(1).max(1)))
    levels = np.arange(256)
    scale = 255 / np.maximum(most - least, 1)
    return np.where(most > least, np.clip(levels * scale - least * scale, 0, 255), levels).astype(np.uint8)


def equalize_tables(images: Pixels) -> Pixels:
    """Return tables that make each channel's levels about equally frequent, ``[n, 3, 256]``."""
    counts = _histograms(images)
    levels = np.arange(256)
    greatest = 255 - (counts[..., ::-1] > 0).argmax(axis=-1)[..., np.newaxis]
    total = counts.sum(axis=-1, keepdims=True)
    step = (total - np.take_along_axis(counts, greatest, axis=-1)) // 255
    below = counts.cumsum(axis=-1) - counts
    tables = np.minimum((step // 2 + below) // np.maximum(step, 1), 255)
    return np.where(step > 0, tables, levels).astype(np.uint8)


def _histograms(images: Pixels) -> NDArray[np.int64]:
    """Count the levels of each channel, ``[n, 3, 256]``."""
    count, _, _, channels = images.shape
    begin = np.arange(0, count * channels * 256, 256).reshape(count, 1, 1, channels)
    return np.bincount((images + begin).ravel(), minlength=count * channels * 256).reshape(count, channels, 256)
