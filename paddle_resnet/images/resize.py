"""Cropping and resizing a batch on the host, image by image: numpy's slices and Pillow.

On a CPU this takes a fraction of the time of the whole-batch operations that a GPU is given (`augment`, `resample`): a
slice copies its rows, and Pillow resizes in whole numbers and reads only the box, while other Python threads run. The
pictures are the same to within one level of 255.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from paddle_resnet.images import Indices, Pixels
from paddle_resnet.images.decode import centre_offset, resized_centre

Booleans = NDArray[np.bool_]


def centre_view(images: Pixels, resize_to: int, image_size: int) -> Pixels:
    """What evaluation sees, as `decode_image` makes it: ``[n, h, h, 3]`` resized, then its centre, ``[n, S, S, 3]``."""
    if images.shape[1:3] != (resize_to, resize_to):
        return np.stack([np.asarray(resized_centre(Image.fromarray(each), resize_to, image_size)) for each in images])
    start = centre_offset(resize_to, image_size)
    return images[:, start : start + image_size, start : start + image_size]


def crop(images: Pixels, top: Indices, left: Indices, size: int, mirrored: Booleans) -> Pixels:
    """`augment.crop` on the host: squares ``[n, size, size, 3]`` out of ``[n, h, w, 3]``, zero outside the image."""
    count, height, width, channels = images.shape
    squares = np.zeros((count, size, size, channels), np.uint8)
    for square, image, row, column, mirror in zip(squares, images, top, left, mirrored, strict=True):
        source_rows, target_rows = _overlap(row, height, size)
        source_columns, target_columns = _overlap(column, width, size)
        target = square[:, ::-1] if mirror else square
        target[target_rows, target_columns] = image[source_rows, source_columns]
    return squares


def _overlap(start: int, length: int, size: int) -> tuple[slice, slice]:
    """Where ``start .. start + size`` lies within a line of `length`: as places of the line, and of the cut."""
    first = max(start, 0)
    last = max(min(start + size, length), first)
    return slice(first, last), slice(first - start, last - start)


def resized_crop(images: Pixels, boxes: Indices, size: int, mirrored: Booleans) -> Pixels:
    """Cut each image's own box out (``[4, n]``: top, left, height, width), then resize it to ``[n, size, size, 3]``."""
    resized = np.empty((len(images), size, size, images.shape[3]), np.uint8)
    for target, image, (top, left, height, width), mirror in zip(resized, images, boxes.T, mirrored, strict=True):
        pixels = _resize(image[top : top + height, left : left + width], size)
        target[:] = pixels[:, ::-1] if mirror else pixels
    return resized


def resize(images: Pixels, size: int) -> Pixels:
    """Resize square pictures ``[n, h, h, 3]`` to ``[n, size, size, 3]``."""
    if images.shape[1:3] == (size, size):
        return images
    return np.stack([_resize(image, size) for image in images])


def _resize(image: Pixels, size: int) -> Pixels:
    """Pillow's bilinear filter averages when shrinking (antialias) and interpolates when enlarging."""
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
