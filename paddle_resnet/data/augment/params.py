"""The random parameters of a batch's augmentation: drawn in the training's process, applied in any."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from paddle_resnet.data.augment.custom import CustomParams
from paddle_resnet.data.augment.erasing import ErasingParams
from paddle_resnet.data.augment.pictures import PictureParams
from paddle_resnet.data.augment.random_crop import CropDraws
from paddle_resnet.data.augment.trivial_augment import TrivialAugmentParams
from paddle_resnet.images import Indices, Mask

if TYPE_CHECKING:
    from paddle_resnet.data.augment.mixing import MixParams  # needs paddle


class AugmentParams(NamedTuple):
    """Random parameters of n images, which become ``[n, size, size, 3]``."""

    size: int
    """Pixels a side, S."""
    resize: int
    """Pixels a side of the images before a crop that is not resized."""
    flipped: Mask
    """Which images are flipped left to right, ``[n]``."""
    crops: Indices | CropDraws
    """The crops' top and left, ``[2, n]``; or random-resized crops."""
    pictures: PictureParams | None
    trivial_augment: TrivialAugmentParams | None
    custom: CustomParams | None
    cutout_mask: Mask | None
    """The pixels that cutout hides, ``[n, S, S]``."""
    cutout_level: NDArray[np.float64]
    """The colour that hides them, 0..255, ``[3]``."""
    erasing: ErasingParams | None
    mix: MixParams | None
    """Mixup and cutmix, which the loader applies, as it has the labels."""

    def select(self, images: Indices) -> AugmentParams:
        """Return the parameters of some of the batch's images, without `mix`, which belongs to the whole batch."""
        return self._replace(
            flipped=self.flipped[images],
            crops=self.crops[:, images] if isinstance(self.crops, np.ndarray) else self.crops.select(images),
            pictures=None if self.pictures is None else self.pictures.select(images),
            trivial_augment=None if self.trivial_augment is None else self.trivial_augment.select(images),
            custom=None if self.custom is None else self.custom.select(images),
            cutout_mask=None if self.cutout_mask is None else self.cutout_mask[images],
            erasing=None if self.erasing is None else self.erasing.select(images),
            mix=None,
        )
