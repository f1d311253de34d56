"""Weights made from their names: a fixture of another project then stores only names, shapes and logits."""

from __future__ import annotations

import math
import zlib

import numpy as np


def seeded_tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Make a tensor of a state dict, by any project's name: float32, a counter int64.

    Every channel of every layer differs from its neighbours, so that no two orders of channels give the same logits.
    """
    random = np.random.default_rng(zlib.crc32(name.encode()))
    if not shape:
        return np.array(7)
    if len(shape) > 1:
        inputs = math.prod(shape[1:]) if len(shape) == 4 else max(shape) * 20  # a head, in either layout
        return (random.standard_normal(shape, np.float32) * inputs**-0.5).astype(np.float32)
    if name.endswith(("running_var", "_variance")):
        return random.uniform(0.7, 1.5, shape).astype(np.float32)
    shift = 1.0 if name.endswith("weight") else 0.0
    return (shift + 0.3 * random.uniform(-1, 1, shape)).astype(np.float32)


def seeded_images(size: tuple[int, int]) -> np.ndarray:
    """Make two images, float32 ``[2, 3, height, width]``."""
    return np.random.default_rng(0).normal(size=(2, 3, *size)).astype(np.float32)
