"""Mixup and cutmix: each training image becomes a mixture of two, and so does its label."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import paddle

from paddle_resnet.config import AugmentConfig
from paddle_resnet.images import Indices


class MixParams(NamedTuple):
    """Mixup or cutmix of a batch of n images."""

    permutation: Indices  # the position in the batch of each image's partner, ``[n]``
    lam: float  # the weight of each image's own label; the partner's has ``1 - lam``
    box: tuple[int, int, int, int] | None
    """Cutmix: top, left, bottom and right of the partner's part. None: mixup, every pixel is blended."""

    def select(self, images: Indices) -> tuple[Indices, MixParams]:
        """Return what some of the batch's images need: themselves, then partners that are not among them.

        Returns:
            The positions of all these in the batch, and the parameters for them alone; the added partners stay unmixed.
        """
        partners = self.permutation[images]
        needed = np.concatenate([images, np.setdiff1d(partners, images)])
        position = {image: index for index, image in enumerate(needed)}
        own = np.array([position[partner] for partner in partners], dtype=np.int64)
        others = np.arange(len(images), len(needed))
        return needed, self._replace(permutation=np.concatenate([own, others]))


def draw_mix_params(count: int, size: int, config: AugmentConfig, generator: np.random.Generator) -> MixParams:
    """Draw mixup or cutmix for a batch of `count` images of `size` pixels a side.

    `lam` is one number a batch, as in both papers' code: from Beta(alpha, alpha) of mixup (Zhang et al. 2018,
    arXiv:1710.09412) or cutmix (Yun et al. 2019, arXiv:1905.04899, algorithm 1). With both configured, a batch gets
    either with probability 1/2.
    """
    permutation = generator.permutation(count)
    if generator.random() >= config.mix_probability:
        return MixParams(np.arange(count), 1.0, None)
    cut = config.cutmix > 0 and (config.mixup == 0 or generator.random() < 0.5)
    if not cut:
        return MixParams(permutation, generator.beta(config.mixup, config.mixup), None)
    side = size * np.sqrt(1 - generator.beta(config.cutmix, config.cutmix))
    row, column = generator.integers(0, size, 2)
    top, left, bottom, right = (
        int(np.clip(round(edge), 0, size))
        for edge in (row - side / 2, column - side / 2, row + side / 2, column + side / 2)
    )
    # lam from the clipped box, which may be smaller than the one drawn.
    return MixParams(permutation, 1 - (bottom - top) * (right - left) / size**2, (top, left, bottom, right))


def mix_images(images: paddle.Tensor, params: MixParams) -> paddle.Tensor:
    """Mix float32 images ``[n, 3, S, S]``, normalised or not: mixing is linear."""
    if params.lam == 1:
        return images
    partners = paddle.gather(images, paddle.to_tensor(params.permutation))
    if params.box is None:
        return images * params.lam + partners * (1 - params.lam)
    top, left, bottom, right = params.box
    inside = np.zeros((1, 1, *images.shape[2:]), dtype=bool)
    inside[:, :, top:bottom, left:right] = True
    return paddle.where(paddle.to_tensor(inside), partners, images)


def mix_labels(labels: Indices, params: MixParams) -> list[paddle.Tensor]:
    """Return what the loss takes: labels and partners' labels, int64 ``[n, 1]``, and lam, float32 ``[n, 1]``."""
    column = labels[:, np.newaxis]
    lam = np.full(column.shape, params.lam, np.float32)
    return [paddle.to_tensor(each) for each in (column, column[params.permutation], lam)]
