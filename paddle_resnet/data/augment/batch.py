"""Augment whole batches of training images: first draw the parameters, then apply them on the host or on the device."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import paddle

from paddle_resnet.config import AugmentConfig
from paddle_resnet.data.augment import device, host
from paddle_resnet.data.augment.erasing import ErasingParams, draw_cutout_mask, draw_erasing, random_boxes
from paddle_resnet.data.augment.mixing import MixParams, draw_mix_params
from paddle_resnet.data.augment.trivial_augment import (
    TrivialAugmentParams,
    apply_trivial_augment,
    draw_trivial_augment,
)
from paddle_resnet.images import Indices, Mask, Pixels


class AugmentParams(NamedTuple):
    """Random parameters of a batch of n images, which become ``[n, size, size, 3]``."""

    size: int
    """Pixels a side, S."""
    flipped: Mask
    """Which images are flipped left to right, ``[n]``."""
    crops: Indices
    """The crops' top and left, ``[2, n]``; of random-resized crops the boxes, ``[4, n]``."""
    trivial_augment: TrivialAugmentParams | None
    cutout_mask: Mask | None
    """The pixels that cutout hides, ``[n, S, S]``."""
    erasing: ErasingParams | None
    mix: MixParams | None
    """Mixup and cutmix, which the loader applies, as it has the labels."""

    def select(self, images: Indices) -> AugmentParams:
        """Return the parameters of some of the batch's images, without `mix`, which belongs to the whole batch."""
        return AugmentParams(
            size=self.size,
            flipped=self.flipped[images],
            crops=self.crops[:, images],
            trivial_augment=None if self.trivial_augment is None else self.trivial_augment.select(images),
            cutout_mask=None if self.cutout_mask is None else self.cutout_mask[images],
            erasing=None if self.erasing is None else self.erasing.select(images),
            mix=None,
        )


class Augment:
    """Crop, flip, distort and hide parts at random; the geometry is evaluation's unless `scale` is set.

    With `scale`, a box of a random share of the stored image is resized (Szegedy et al. 2015, arXiv:1409.4842;
    torchvision's RandomResizedCrop). Otherwise the image is resized as for evaluation, zero-padded and cropped at
    random (Krizhevsky 2012; He et al. 2015, section 4.2).

    Args:
        config: which augmentations, and how strong.
        resize: pixels a side before the crop, as in evaluation.
        image_size: pixels a side of the crop, as in evaluation.
        mean: the colour that cutout fills in, in 0..1.

    Attributes:
        needs_host: only `apply_on_host` can make these changes.
    """

    def __init__(
        self, config: AugmentConfig, resize: int, image_size: int, mean: Sequence[float] = (0.0, 0.0, 0.0)
    ) -> None:
        self._config = config
        self._resize = resize
        self._image_size = image_size
        self._mean_level = np.array([255 * value for value in mean])
        self.needs_host = config.trivial_augment

    def __call__(self, images: paddle.Tensor, generator: np.random.Generator, size: int | None = None) -> paddle.Tensor:
        """Draw parameters and apply them, except mixup and cutmix.

        Returns:
            float32 levels 0..255 on the device, ``[n, S, S, 3]``, of ``[n, h, w, 3]``.
        """
        params = self.draw(images.shape, generator, size)
        if self.needs_host:
            return paddle.to_tensor(self.apply_on_host(images.numpy(), params)).astype("float32")
        return self.apply_on_device(images, params)

    def draw(self, shape: Sequence[int], generator: np.random.Generator, size: int | None = None) -> AugmentParams:
        """Draw the parameters of a batch of `shape`, ``[n, h, w, 3]``, that becomes ``[n, size, size, 3]``.

        With a `size` other than `image_size` (progressive resizing), resize and padding shrink with it.
        """
        config, count, size = self._config, shape[0], size or self._image_size
        flipped = generator.random(count) < 0.5 if config.flip else np.zeros(count, dtype=bool)
        if config.scale is not None:
            crops = random_boxes(shape, config.scale, generator)
        else:
            pad = self._scaled(config.pad, size)
            largest = self._scaled(self._resize, size) + 2 * pad - size
            crops = generator.integers(0, largest, (2, count), endpoint=True) - pad
        cropped, cutout_side = (count, size, size, 3), self._scaled(config.cutout, size)
        return AugmentParams(
            size=size,
            flipped=flipped,
            crops=crops,
            trivial_augment=draw_trivial_augment(count, generator) if config.trivial_augment else None,
            cutout_mask=draw_cutout_mask(cropped, cutout_side, generator) if cutout_side else None,
            erasing=draw_erasing(cropped, config.erase, generator) if config.erase else None,
            mix=draw_mix_params(count, size, config, generator) if config.mixup or config.cutmix else None,
        )

    def apply_on_device(self, images: paddle.Tensor, params: AugmentParams) -> paddle.Tensor:
        """Augment ``[n, h, w, 3]`` on its device: float32 levels 0..255, ``[n, S, S, 3]``."""
        levels: paddle.Tensor = self._crop(device, images, params)
        if params.cutout_mask is not None:
            levels = device.fill(levels, params.cutout_mask, self._mean_level)
        if params.erasing is not None:
            noise = np.zeros((*params.erasing.mask.shape, 3))
            noise[params.erasing.mask] = params.erasing.noise
            levels = device.fill(levels, params.erasing.mask, noise)
        return levels

    def apply_on_host(self, images: Pixels, params: AugmentParams) -> Pixels:
        """Augment uint8 ``[n, h, w, 3]`` on the host: uint8 ``[n, S, S, 3]``."""
        levels: Pixels = self._crop(host, images, params)
        if params.trivial_augment is not None:
            apply_trivial_augment(levels, params.trivial_augment)
        if params.cutout_mask is not None:
            levels[params.cutout_mask] = np.rint(self._mean_level)
        if params.erasing is not None:
            levels[params.erasing.mask] = params.erasing.noise
        return levels

    def _crop(self, backend: ModuleType, images: Any, params: AugmentParams) -> Any:
        if self._config.scale is not None:
            return backend.resized_crop(images, params.crops, params.size, params.flipped)
        resized = backend.resize_batch(images, self._scaled(self._resize, params.size))
        top, left = params.crops
        return backend.crop(resized, top, left, params.size, params.flipped)

    def _scaled(self, pixels: int, size: int) -> int:
        """Convert pixels of images of `image_size` to pixels of images of `size`."""
        return round(pixels * size / self._image_size)
