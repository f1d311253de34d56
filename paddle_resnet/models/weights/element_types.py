"""Number types that numpy does not have, and how many numbers a file may ask for."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from paddle_resnet.errors import UsageError, shown

# Tensors may share their numbers (tied weights), so together they may need more bytes than the file has, within reason.
_SHARING_LIMIT = 4


def limit_sharing(needed: int, path: Path) -> None:
    """Refuse tensors that repeat few numbers endlessly, before any of them is copied.

    Raises:
        UsageError: they need several times the file's size.
    """
    size = path.stat().st_size
    if needed > _SHARING_LIMIT * size:
        raise UsageError(
            f"{path}: its tensors need {shown(f'{needed:,}')} bytes, but the file has {size:,}; "
            "it is damaged or made to harm"
        )


def widened_bfloat16(bits: np.ndarray) -> np.ndarray:
    """Turn bfloat16 numbers, given as uint16, into float32, exactly: they are the upper halves of float32 numbers."""
    return np.asarray(np.left_shift(bits, 16, dtype=np.uint32)).view(np.float32)
