"""Mixup and cutmix: each training image becomes a mixture of two, and so does its class."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import paddle
from numpy.typing import NDArray

from paddle_resnet.config import AugmentConfig


class Mixture(NamedTuple):
    """What was drawn for a batch of n images."""

    partners: NDArray[np.int64]
    """Each image's partner, a place in the batch, ``[n]``."""
    share: float
    """The share of each image's own class; the rest is its partner's."""
    box: tuple[int, int, int, int] | None
    """Cutmix: top, left, bottom and right of what shows the partner. None: mixup, every pixel is blended."""

    def of(self, images: NDArray[np.int64]) -> tuple[NDArray[np.int64], Mixture]:
        """Tell what some of the batch's images need: themselves and, behind them, partners that are not among them.

        Returns:
            The places of all those in the batch, and the mixture of these alone, in which the others stay unmixed.
        """
        partners = self.partners[images]
        needed = np.concatenate([images, np.setdiff1d(partners, images)])
        place_of = {image: place for place, image in enumerate(needed)}
        own = np.array([place_of[partner] for partner in partners], dtype=np.int64)
        others = np.arange(len(images), len(needed))
        return needed, self._replace(partners=np.concatenate([own, others]))


def draw_mixture(count: int, size: int, config: AugmentConfig, generator: np.random.Generator) -> Mixture:
    """Draw the mixture of a batch of `count` images of `size` pixels a side.

    The share is one number a batch, as in both papers' code: Beta(alpha, alpha) of mixup (Zhang et al. 2018,
    arXiv:1710.09412) or cutmix (Yun et al. 2019, arXiv:1905.04899, algorithm 1). With both asked for, a batch gets
    either by the toss of a coin.
    """
    partners = generator.permutation(count)
    if generator.random() >= config.mix_probability:
        return Mixture(np.arange(count), 1.0, None)
    cut = config.cutmix > 0 and (config.mixup == 0 or generator.random() < 0.5)
    if not cut:
        return Mixture(partners, generator.beta(config.mixup, config.mixup), None)
    side = size * np.sqrt(1 - generator.beta(config.cutmix, config.cutmix))
    row, column = generator.integers(0, size, 2)
    top, left, bottom, right = (
        int(np.clip(round(edge), 0, size))
        for edge in (row - side / 2, column - side / 2, row + side / 2, column + side / 2)
    )
    # The share is that of the pixels that are left: the box may lie partly outside.
    return Mixture(partners, 1 - (bottom - top) * (right - left) / size**2, (top, left, bottom, right))


def mix_images(images: paddle.Tensor, mixture: Mixture) -> paddle.Tensor:
    """Mix float32 images ``[n, 3, S, S]``, normalised or not: the mixture is linear."""
    if mixture.share == 1:
        return images
    partners = paddle.gather(images, paddle.to_tensor(mixture.partners))
    if mixture.box is None:
        return images * mixture.share + partners * (1 - mixture.share)
    top, left, bottom, right = mixture.box
    inside = np.zeros((1, 1, *images.shape[2:]), dtype=bool)
    inside[:, :, top:bottom, left:right] = True
    return paddle.where(paddle.to_tensor(inside), partners, images)


def mix_labels(labels: NDArray[np.int64], mixture: Mixture) -> list[paddle.Tensor]:
    """Return what the loss takes: labels and partners' labels, int64 ``[n, 1]``, and shares, float32 ``[n, 1]``."""
    column = labels[:, np.newaxis]
    shares = np.full(column.shape, mixture.share, np.float32)
    return [paddle.to_tensor(each) for each in (column, column[mixture.partners], shares)]
