"""A made-up image whose JPEG costs about as much to decode as a photograph's."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

QUALITY = 90
PIXELS_PER_COLOUR = 30
MIN_COLOURS = 6


def synthetic_jpeg(generator: np.random.Generator, size: tuple[int, int]) -> bytes:
    """Make a JPEG of coarse random colours with a little noise, of `size` (width, height) pixels."""
    width, height = size
    colours = (*(max(MIN_COLOURS, side // PIXELS_PER_COLOUR) for side in (height, width)), 3)
    coarse = Image.fromarray(generator.integers(0, 256, colours, dtype=np.uint8)).resize(size)
    noise = generator.normal(0, 8, (height, width, 3))
    file = io.BytesIO()
    pixels = np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()
