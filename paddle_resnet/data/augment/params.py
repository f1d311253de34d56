"""The random parameters of a batch's augmentation: drawn in the training's process, applied in any."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

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
