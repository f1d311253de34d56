"""The numbers that the lesson on batch normalisation computes with."""

from __future__ import annotations

import numpy as np
import paddle

# Three samples of five features, each feature with a centre and a spread of its own.
FEATURES = np.array(
    [[1.0, 10.0, -3.0, 0.2, 50.0], [2.0, 14.0, -1.0, 0.8, 20.0], [6.0, 12.0, -8.0, 0.5, 80.0]], np.float32
)
# Three images of three channels, 1 x 2 pixels.
IMAGES = np.array(
    [
        [[[1.0, 3.0]], [[10.0, 14.0]], [[-2.0, 2.0]]],
        [[[2.0, 6.0]], [[11.0, 19.0]], [[-1.0, 4.0]]],
        [[[4.0, 8.0]], [[12.0, 18.0]], [[0.0, 9.0]]],
    ],
    np.float32,
)
EPSILON = 1e-5
"""Paddle's, unless asked for another."""


def largest(values: np.ndarray | paddle.Tensor) -> float:
    """The largest absolute value."""
    return float(np.abs(np.asarray(values)).max())
