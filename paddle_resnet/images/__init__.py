"""Image files: find them in folders and decode them. Needs no paddle."""

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # images ``[N, H, W, 3]`` or one image ``[H, W, 3]``, RGB
Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]
Box = tuple[int, int, int, int]  # top, left, height and width
