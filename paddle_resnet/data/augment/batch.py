"""Random changes to a whole batch of training images: drawn first, then made on the host or on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import paddle

from paddle_resnet.config import AugmentConfig
from paddle_resnet.data.augment import erasing
from paddle_resnet.data.augment.erasing import Booleans, Erasure, Integers, draw_erasure, random_boxes
from paddle_resnet.data.augment.mixing import Mixture, draw_mixture
from paddle_resnet.data.augment.resample import resample, resize_batch, triangle_weights
from paddle_resnet.data.augment.trivial_augment import Distortions, distort, draw_distortions
from paddle_resnet.images import Indices, Pixels, resize


class Changes(NamedTuple):
    """What was drawn for the images of a batch, which become ``[n, size, size, 3]``."""

    size: int
    """Pixels a side, S."""
    mirrored: Booleans
    """Which are flipped left to right, ``[n]``."""
    places: Integers
    """Where they are cut: ``[2, n]``, the crop's top and left, or of random-resized crops the boxes, ``[4, n]``."""
    distortions: Distortions | None
    """TrivialAugment's; None without it."""
    hidden: Booleans | None
    """The pixels that cutout hides, ``[n, S, S]``; None without cutout."""
    erasure: Erasure | None
    """What random erasing takes away; None without it."""
    mixture: Mixture | None
    """How images and classes are mixed in the end, by whoever has the classes; None without mixup and cutmix."""

    def of(self, images: Indices) -> Changes:
        """What was drawn for some of the batch's images, but for the mixture, which is of the whole batch."""
        return Changes(
            size=self.size,
            mirrored=self.mirrored[images],
            places=self.places[:, images],
            distortions=None if self.distortions is None else self.distortions.of(images),
            hidden=None if self.hidden is None else self.hidden[images],
            erasure=None if self.erasure is None else self.erasure.of(images),
            mixture=None,
        )


class Augment:
    """Crop, flip, distort and hide parts at random; the geometry is evaluation's unless `scale` asks for another.

    With `scale`, a box of a random share of the stored picture is resized (Szegedy et al. 2015, arXiv:1409.4842;
    torchvision's RandomResizedCrop). Otherwise the picture is resized as for evaluation, zero-padded and cropped at
    random (Krizhevsky 2012; He et al. 2015, section 4.2).
    """

    def __init__(
        self, config: AugmentConfig, resize: int, image_size: int, mean: Sequence[float] = (0.0, 0.0, 0.0)
    ) -> None:
        """Take the random changes, the geometry of evaluation (`resize`, then a crop of `image_size`), the mean colour.

        `mean` is in 0..1; it hides what `cutout` takes away.
        """
        self._config = config
        self._resize = resize
        self._image_size = image_size
        self._mean_level = [255 * value for value in mean]
        self.needs_host = config.trivial_augment
        """Whether `on_host` alone can make the changes."""

    def __call__(self, images: paddle.Tensor, generator: np.random.Generator, size: int | None = None) -> paddle.Tensor:
        """Draw changes and make them: ``[n, h, w, 3]`` to float32 levels 0..255 on the device, ``[n, S, S, 3]``.

        All but the mixture, which is for whoever has the classes.
        """
        changes = self.draw(images.shape, generator, size)
        if self.needs_host:
            return paddle.to_tensor(self.on_host(images.numpy(), changes)).astype("float32")
        return self.on_device(images, changes)

    def draw(self, shape: Sequence[int], generator: np.random.Generator, size: int | None = None) -> Changes:
        """Draw the changes to a batch of `shape`, ``[n, h, w, 3]``, that becomes ``[n, size, size, 3]``.

        With a `size` other than `image_size` (progressive resizing), resize and padding shrink with it.
        """
        count, size = shape[0], size or self._image_size
        mirrored = generator.random(count) < 0.5 if self._config.flip else np.zeros(count, dtype=bool)
        if self._config.scale is not None:
            places = random_boxes(shape, self._config.scale, generator)
        else:
            pad = self._scaled(self._config.pad, size)
            largest = self._scaled(self._resize, size) + 2 * pad - size
            places = generator.integers(0, largest, (2, count), endpoint=True) - pad
        config, seen, side = self._config, (count, size, size, 3), self._scaled(self._config.cutout, size)
        return Changes(
            size=size,
            mirrored=mirrored,
            places=places,
            distortions=draw_distortions(count, generator) if config.trivial_augment else None,
            hidden=erasing.random_square(seen, side, generator) if side else None,
            erasure=draw_erasure(seen, config.erase, generator) if config.erase else None,
            mixture=draw_mixture(count, size, config, generator) if config.mixup or config.cutmix else None,
        )

    def on_device(self, images: paddle.Tensor, changes: Changes) -> paddle.Tensor:
        """Make the changes to ``[n, h, w, 3]`` on its device: float32 levels 0..255, ``[n, S, S, 3]``."""
        if self._config.scale is not None:
            levels = resized_crop(images, changes.places, changes.size, changes.mirrored)
        else:
            resized = resize_batch(images, self._scaled(self._resize, changes.size))
            top, left = changes.places
            levels = crop(resized, top, left, changes.size, changes.mirrored)
        if changes.hidden is not None:
            levels = erasing.fill(levels, changes.hidden, np.array(self._mean_level))
        if changes.erasure is not None:
            noise = np.zeros((*changes.erasure.where.shape, 3))
            noise[changes.erasure.where] = changes.erasure.noise
            levels = erasing.fill(levels, changes.erasure.where, noise)
        return levels

    def on_host(self, images: Pixels, changes: Changes) -> Pixels:
        """Make the changes to uint8 ``[n, h, w, 3]`` on the host: uint8 ``[n, S, S, 3]``."""
        if self._config.scale is not None:
            levels = resize.resized_crop(images, changes.places, changes.size, changes.mirrored)
        else:
            resized = resize.resize(images, self._scaled(self._resize, changes.size))
            top, left = changes.places
            levels = resize.crop(resized, top, left, changes.size, changes.mirrored)
        if changes.distortions is not None:
            distort(levels, changes.distortions)
        if changes.hidden is not None:
            levels[changes.hidden] = np.rint(self._mean_level)
        if changes.erasure is not None:
            levels[changes.erasure.where] = changes.erasure.noise
        return levels

    def _scaled(self, pixels: int, size: int) -> int:
        """So many pixels of pictures of `image_size`, in pictures of `size`."""
        return round(pixels * size / self._image_size)


def crop(images: paddle.Tensor, top: Integers, left: Integers, size: int, mirrored: Booleans) -> paddle.Tensor:
    """Cut a square out of each image, at its own place, some mirrored; outside the image is zero (black).

    Args:
        images: float32 ``[n, h, w, 3]``. (Not uint8: Paddle 2.6 has no uint8 gather on a GPU.)
        top: first row of each square, ``[n]``, negative above the image.
        left: first column, ``[n]``.
        size: pixels a side, S.
        mirrored: which squares are flipped left to right, ``[n]``.

    Returns:
        ``[n, S, S, 3]``.
    """
    count, height, width, channels = images.shape
    steps = np.arange(size)
    rows = top[:, np.newaxis] + steps
    columns = left[:, np.newaxis] + np.where(mirrored[:, np.newaxis], steps[::-1], steps)
    # One flat index a pixel, made with numpy: Paddle's broadcast addition takes twice as long as all the rest.
    index = (np.arange(count)[:, np.newaxis] * height + rows)[:, :, np.newaxis] * width + columns[:, np.newaxis, :]
    inside_rows, inside_columns = (rows >= 0) & (rows < height), (columns >= 0) & (columns < width)
    black = count * height * width
    index[~(inside_rows[:, :, np.newaxis] & inside_columns[:, np.newaxis, :])] = black
    pixels = paddle.concat([images.reshape([-1, channels]), paddle.zeros([1, channels], images.dtype)])
    flat = paddle.to_tensor(index.astype(np.int32).reshape(-1))
    return paddle.gather(pixels, flat).reshape([count, size, size, channels])


def resized_crop(images: paddle.Tensor, boxes: Integers, size: int, mirrored: Booleans) -> paddle.Tensor:
    """Resize each image's own box (`random_boxes`) to ``[n, size, size, 3]`` as Pillow resizes the crop."""
    top, left, box_height, box_width = boxes
    _, height, width, _ = images.shape
    rows = triangle_weights(top, box_height, height, size)
    columns = triangle_weights(left, box_width, width, size, mirrored)
    return resample(images, rows, columns)
