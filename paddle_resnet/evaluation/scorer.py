"""Models from raw pixels to class probabilities, for evaluation and export."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import paddle
from paddle import nn

from paddle_resnet.evaluation.views import SINGLE_VIEW, Views


class Scorer(Protocol):
    """What `measure` takes: a network with its normalisation, or an exported model."""

    def scores(self, batch: np.ndarray) -> np.ndarray:
        """Map uint8 images `[N, S, S, 3]` to class probabilities, float32 `[N, classes]`."""
        ...


class NetworkScorer:
    """A `Scorer` of a network in the dynamic graph, in evaluation mode: means over `views` of the probabilities.

    Attributes:
        single_view: probabilities of the last batch without averaging, float32 `[N, classes]`.
    """

    single_view: np.ndarray

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
