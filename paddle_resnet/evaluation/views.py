"""Averaging at test time: over an image, its mirror image and shifted copies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from paddle_resnet.config import EvaluationConfig


class Views(NamedTuple):
    """Which copies of an image are classified; the result is the weighted mean of their probabilities.

    Attributes:
        flip: each copy's mirror image is one too (Krizhevsky 2012, section 4.1).
        shift: besides the image, copies moved by this many pixels up and left, and down and right, which together count
            as much as the image. What moves in is black, as in training with `augment.pad`. (Jordan 2024,
            https://arxiv.org/abs/2404.00498, section 3.5, averages logits, and continues the border.)
    """

    flip: bool = False
    shift: int = 0

    @classmethod
    def of_config(cls, config: EvaluationConfig) -> Views:
        return cls(config.flip, config.shift)

    @property
    def starts(self) -> list[int]:
        """First row and column of each copy, its mirror image aside, in the image padded by `shift`."""
        return [self.shift, 2 * self.shift, 0] if self.shift else [0]

    @property
    def shares(self) -> list[float]:
        """The share of each view in the mean, in the order of `of`."""
        shares = [0.5, 0.25, 0.25] if self.shift else [1.0]
        return [share / 2 for share in shares for _ in range(2)] if self.flip else shares

    def of(self, images: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the views of pixels ``[N, S, S, 3]``, the image first; a mirror image follows its copy."""
        border, size = (self.shift, self.shift), images.shape[1]
        padded = np.pad(images, ((0, 0), border, border, (0, 0)))
        for start in self.starts:
            copy = padded[:, start : start + size, start : start + size]
            yield copy
            if self.flip:
                yield copy[:, :, ::-1]


SINGLE_VIEW = Views()
"""The image alone."""
