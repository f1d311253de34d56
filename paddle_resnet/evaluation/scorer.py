"""From raw pixels to class probabilities, which may be averages over several views of an image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
import paddle
from paddle import nn

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


SINGLE_VIEW = Views()  # the image alone


class Scorer(Protocol):
    """What `measure` takes: a network with its normalisation, or an exported model."""

    def scores(self, batch: np.ndarray) -> np.ndarray:
        """Map uint8 images `[N, S, S, 3]` to class probabilities, float32 `[N, classes]`."""
        ...


class NetworkScorer:
    """A `Scorer` of a network in the dynamic graph, in evaluation mode: means over `views` of the probabilities."""

    single_view: np.ndarray  # probabilities of the last batch without averaging, float32 `[N, classes]`

    def __init__(self, network: nn.Layer, normalize: nn.Layer, views: Views = SINGLE_VIEW) -> None:
        self.network = network
        self.normalize = normalize
        self.views = views

    def scores(self, batch: np.ndarray) -> np.ndarray:
        was_training = self.network.training
        self.network.eval()
        try:
            with paddle.no_grad():
                probabilities = [self._probabilities(images) for images in self.views.of(batch)]
        finally:
            if was_training:
                self.network.train()
        self.single_view = probabilities[0]
        return np.sum([share * each for share, each in zip(self.views.shares, probabilities, strict=True)], axis=0)

    def _probabilities(self, images: np.ndarray) -> np.ndarray:
        logits = self.network(self.normalize(paddle.to_tensor(np.ascontiguousarray(images))))
        return nn.functional.softmax(logits, axis=-1).numpy()
