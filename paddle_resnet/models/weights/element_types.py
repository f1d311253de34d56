"""Number types that numpy does not have."""

from __future__ import annotations

import numpy as np


def widened_bfloat16(bits: np.ndarray) -> np.ndarray:
    """Turn bfloat16 numbers, given as uint16, into float32, exactly: they are the upper halves of float32 numbers."""
    return np.asarray(np.left_shift(bits, 16, dtype=np.uint32)).view(np.float32)
