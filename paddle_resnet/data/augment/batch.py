"""Draw the parameters of a batch's augmentation, which `host` applies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paddle_resnet.config import AugmentConfig
from paddle_resnet.data.augment.boxes import CropDraws, draw_crops, draw_cutout_mask, draw_erasing
from paddle_resnet.data.augment.custom import draw_custom, find_transform
from paddle_resnet.data.augment.host import AugmentParams
from paddle_resnet.data.augment.mixing import draw_mix_params
from paddle_resnet.data.augment.pictures import draw_pictures
from paddle_resnet.data.augment.trivial_augment import draw_trivial_augment
from paddle_resnet.images import Indices


@dataclass(frozen=True)
class Augment:
    """Crop, flip, distort and hide parts at random; the geometry is evaluation's unless `scale` is set.

    With `scale`, a box of a random share of the whole picture is resized (`CropDraws`). Otherwise the image is resized
    as for evaluation, zero-padded and cropped at random (Krizhevsky 2012; He et al. 2015, section 4.2).

    Raises:
        UsageError: `custom` names no function.
    """

    config: AugmentConfig  # which augmentations, and how strong
    resize: int  # pixels a side before the crop, as in evaluation
    image_size: int  # pixels a side of the crop, as in evaluation
    mean: Sequence[float] = (0.0, 0.0, 0.0)  # the colour that cutout fills in, in 0..1

    def __post_init__(self) -> None:
        if self.config.custom is not None:
            find_transform(self.config.custom)

    def draw(
        self, count: int, generator: np.random.Generator, size: int | None = None, mixes: bool = True
    ) -> AugmentParams:
        """Draw the parameters of `count` images that become ``[count, size, size, 3]``.

        With a `size` other than `image_size` (progressive resizing), resize and padding shrink with it. Without
        `mixes`, mixup and cutmix are left out.
        """
        config, size = self.config, size or self.image_size
        resize = self._scaled(self.resize, size)
        flipped = generator.random(count) < 0.5 if config.flip else np.zeros(count, dtype=bool)
        if config.scale is not None:
            crops: Indices | CropDraws = draw_crops(count, config.scale, generator)
        else:
            pad = self._scaled(config.pad, size)
            largest = resize + 2 * pad - size
            crops = generator.integers(0, largest, (2, count), endpoint=True).T - pad
        cropped, cutout_side = (count, size, size, 3), self._scaled(config.cutout, size)
        return AugmentParams(
            size=size,
            resize=resize,
            flipped=flipped,
            crops=crops,
            pictures=draw_pictures(count, config, generator),
            trivial_augment=draw_trivial_augment(count, generator) if config.trivial_augment else None,
            custom=draw_custom(count, config.custom, generator) if config.custom is not None else None,
            cutout_mask=draw_cutout_mask(cropped, cutout_side, generator) if cutout_side else None,
            cutout_level=tuple(255 * value for value in self.mean),
            erasing=draw_erasing(cropped, config.erase, generator) if config.erase else None,
            mix=draw_mix_params(count, size, config, generator) if mixes and (config.mixup or config.cutmix) else None,
        )

    def _scaled(self, pixels: int, size: int) -> int:
        """Convert pixels of images of `image_size` to pixels of images of `size`."""
        return round(pixels * size / self.image_size)
