"""Augment image by image, with numpy's slices and Pillow, also for a GPU. Needs no paddle, so that workers start fast.

The random parameters are drawn in the training's process, and applied in any. A slice copies rows; Pillow resizes in
whole numbers, reads only the box, and releases the GIL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from paddle_resnet.data.augment.boxes import CropDraws, ErasingParams
from paddle_resnet.data.augment.custom import CustomParams, apply_custom
from paddle_resnet.data.augment.pictures import PictureParams, change_pictures
from paddle_resnet.data.augment.trivial_augment import TrivialAugmentParams, apply_trivial_augment
from paddle_resnet.images import Box, Indices, Mask, Pixels

if TYPE_CHECKING:
    from paddle_resnet.data.augment.mixing import MixParams  # needs paddle


class AugmentParams(NamedTuple):
    """Random parameters of n images, which become ``[n, size, size, 3]``."""

    size: int  # pixels a side, S
    resize: int  # pixels a side of the images before a crop that is not resized
    flipped: Mask  # which images are flipped left to right, ``[n]``
    crops: Indices | CropDraws  # the crops' top and left, ``[n, 2]``; or random-resized crops
    pictures: PictureParams | None
    trivial_augment: TrivialAugmentParams | None
    custom: CustomParams | None
    cutout_mask: Mask | None  # the pixels that cutout hides, ``[n, S, S]``
    cutout_level: tuple[float, ...]  # the colour that hides them, 0..255
    erasing: ErasingParams | None
    mix: MixParams | None  # mixup and cutmix, which the loader applies, as it has the labels

    def select(self, images: Indices) -> AugmentParams:
        """Return the parameters of some of the batch's images, without `mix`, which belongs to the whole batch."""
        chosen: AugmentParams = _select(self._replace(mix=None), images)
        return chosen


def _select(params: Any, images: Indices) -> Any:
    """Return what belongs to some of the images, of each array and list that has an element for every image."""
    if isinstance(params, np.ndarray):
        return params[images]
    if isinstance(params, list):
        return [params[image] for image in images]
    return params._make(_select(each, images) for each in params) if hasattr(params, "_make") else params


def augment(images: Pixels, params: AugmentParams) -> Pixels:
    """Augment uint8 ``[n, h, w, 3]`` on the host: uint8 ``[n, S, S, 3]``."""
    if isinstance(params.crops, CropDraws):
        boxes = params.crops.boxes(*images.shape[1:3])
        return distort(resized_crop(images, boxes, params.size, params.flipped), params)
    top, left = params.crops.T
    return distort(crop(resize_batch(images, params.resize), top, left, params.size, params.flipped), params)


def distort(crops: Pixels, params: AugmentParams) -> Pixels:
    """Change crops uint8 ``[n, S, S, 3]`` in place, and return them."""
    if params.pictures is not None:
        change_pictures(crops, params.pictures)
    if params.trivial_augment is not None:
        apply_trivial_augment(crops, params.trivial_augment)
    if params.custom is not None:
        apply_custom(crops, params.custom)
    if params.cutout_mask is not None:
        crops[params.cutout_mask] = np.rint(params.cutout_level)
    if params.erasing is not None:
        crops[params.erasing.mask] = np.concatenate(params.erasing.noise)
    return crops


def crop(images: Pixels, top: Indices, left: Indices, size: int, flipped: Mask) -> Pixels:
    """Cut squares ``[n, size, size, 3]`` out of ``[n, h, w, 3]``; pixels outside the image are black.

    `top` and `left` are the first row and column of each square, ``[n]``, negative above and left of the image.
    """
    count, height, width, channels = images.shape
    squares = np.zeros((count, size, size, channels), np.uint8)
    for square, image, row, column, flip in zip(squares, images, top, left, flipped, strict=True):
        source_rows, target_rows = _overlap(row, height, size)
        source_columns, target_columns = _overlap(column, width, size)
        target = square[:, ::-1] if flip else square
        target[target_rows, target_columns] = image[source_rows, source_columns]
    return squares


def resized_crop(images: Pixels, boxes: Indices, size: int, flipped: Mask) -> Pixels:
    """Cut each image's own box out (``[4, n]``: top, left, height, width), then resize it to ``[n, size, size, 3]``."""
    resized = np.empty((len(images), size, size, images.shape[3]), np.uint8)
    for target, image, box, flip in zip(resized, images, boxes.T, flipped, strict=True):
        target[:] = resize_box(image, tuple(box), size, flip)
    return resized


def resize_box(image: Pixels, box: Box, size: int, flipped: bool) -> Pixels:
    """Cut a box out of one image ``[h, w, 3]``, and resize it to ``[size, size, 3]``."""
    top, left, height, width = box
    pixels = _resize(image[top : top + height, left : left + width], size)
    return pixels[:, ::-1] if flipped else pixels


def resize_batch(images: Pixels, size: int) -> Pixels:
    """Resize square images ``[n, h, h, 3]`` to ``[n, size, size, 3]``."""
    if images.shape[1:3] == (size, size):
        return images
    return np.stack([_resize(image, size) for image in images])


def _resize(image: Pixels, size: int) -> Pixels:
    """Pillow's bilinear filter averages when shrinking (antialias) and interpolates when enlarging."""
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def _overlap(start: int, length: int, size: int) -> tuple[slice, slice]:
    """Intersect ``start .. start + size`` with a line of `length`: the slice of the line, and of the crop."""
    first = max(start, 0)
    last = max(min(start + size, length), first)
    return slice(first, last), slice(first - start, last - start)
