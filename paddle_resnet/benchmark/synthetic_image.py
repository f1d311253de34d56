"""Made-up images whose JPEGs cost about as much to decode as photographs."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image

from paddle_resnet.files import scratch_folder

QUALITY = 90
PIXELS_PER_COLOUR = 30
MIN_COLOURS = 6


def synthetic_image(generator: np.random.Generator, size: tuple[int, int], kind: str = "JPEG") -> bytes:
    """Encode coarse random colours with a little noise, of `size` (width, height) pixels."""
    width, height = size
    colours = (*(max(MIN_COLOURS, side // PIXELS_PER_COLOUR) for side in (height, width)), 3)
    coarse = Image.fromarray(generator.integers(0, 256, colours, dtype=np.uint8)).resize(size)
    noise = generator.normal(0, 8, (height, width, 3))
    file = io.BytesIO()
    pixels = np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(file, kind, quality=QUALITY)
    return file.getvalue()


@contextmanager
def synthetic_files(number: int, size: tuple[int, int], kind: str = "JPEG") -> Iterator[list[str]]:
    """Write different images to a temporary folder; yield the names of the files."""
    generator = np.random.default_rng(0)
    with scratch_folder() as folder:
        paths = [folder / f"{index:04d}.{kind.lower()}" for index in range(number)]
        for path in paths:
            path.write_bytes(synthetic_image(generator, size, kind))
        yield [str(path) for path in paths]
