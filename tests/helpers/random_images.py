"""Random images."""

from __future__ import annotations

import numpy as np


def noise(count: int, side: int, seed: int = 0) -> np.ndarray:
    """Uniform noise, uint8 ``[count, side, side, 3]``."""
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
