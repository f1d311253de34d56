"""Cutout: a square of each training image is hidden (DeVries and Taylor 2017, arXiv:1708.04552)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import paddle
from numpy.typing import NDArray

from paddle_resnet.data.boxes import Booleans, stretch


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
