"""A picture that costs about as much to decode as a photograph."""

from __future__ import annotations

import numpy as np
from PIL import Image

QUALITY = 90
"""That JPEGs of it are written with."""
PIXELS_A_COLOUR = 30
LEAST_COLOURS = 6


def draw_picture(generator: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Draw coarse random colours with a little noise, `size` (width, height) pixels large."""
    width, height = size
    colours = (*(max(LEAST_COLOURS, side // PIXELS_A_COLOUR) for side in (height, width)), 3)
    coarse = Image.fromarray(generator.integers(0, 256, colours, dtype=np.uint8)).resize(size)
    noise = generator.normal(0, 8, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8))
