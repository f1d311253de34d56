"""Some picture files decoded into one array."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from paddle_resnet.errors import UsageError
from paddle_resnet.images import Pixels
from paddle_resnet.images.decode import decode_image


@dataclass(frozen=True)
class DecodedBatch:
    """Some files, what they hold, and why others hold nothing.

    Attributes:
        files: as they were given.
        pixels: of the readable files, in order: uint8 ``[n, S, S, 3]``.
        failures: the reason, a line that names the file, by position in `files`.
    """

    files: Sequence[Path]
    pixels: Pixels
    failures: dict[int, str]


def decode_batch(files: Sequence[Path], resize: int, image_size: int) -> DecodedBatch:
    """Decode files as `decode_image` does; those that cannot be read are told, with the reason."""
    pixels = np.empty((len(files), image_size, image_size, 3), np.uint8)
    failures: dict[int, str] = {}
    for position, file in enumerate(files):
        try:
            pixels[position - len(failures)] = decode_image(file, resize, image_size)
        except UsageError as error:
            failures[position] = str(error)
    return DecodedBatch(files, pixels[: len(files) - len(failures)], failures)


def make_decoder(resize: int, image_size: int) -> Callable[[Sequence[Path]], DecodedBatch]:
    """What a worker process makes of its arguments."""
    return partial(decode_batch, resize=resize, image_size=image_size)
