"""The 1,797 handwritten digits that ship inside scikit-learn (UCI, Alpaydin and Kaynak 1998)."""

from __future__ import annotations

import numpy as np

from paddle_resnet.images import Indices, Pixels

CLASSES = tuple(str(digit) for digit in range(10))


def load_digits() -> tuple[Pixels, Indices]:
    """Images uint8 ``[1797, 8, 8, 3]``, the 17 grey levels spread over 0..255, and labels int64 ``[1797]``."""
    from sklearn import datasets  # takes a second to import: only where it is used

    digits = datasets.load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    return np.repeat(grey[..., np.newaxis], 3, axis=-1), digits.target.astype(np.int64)
