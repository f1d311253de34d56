"""Models from raw pixels to class probabilities, for evaluation and export."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import paddle
from paddle import nn


class Classifier(nn.Layer):
    """Normalisation, network and softmax: uint8 `[N, S, S, 3]` to probabilities `[N, classes]`.

    With `flip`, the probabilities are means over the image and its mirror image (Krizhevsky 2012, section 4.1); both
    pass through the network in one batch of 2N.
    """

    def __init__(self, normalize: nn.Layer, network: nn.Layer, *, flip: bool = False) -> None:
        super().__init__()
        self.normalize = normalize
        self.network = network
        self.flip = flip

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        inputs = self.normalize(images)
        if not self.flip:
            return nn.functional.softmax(self.network(inputs), axis=-1)
        both = paddle.concat([inputs, inputs.flip(axis=[3])])
        plain, flipped = nn.functional.softmax(self.network(both), axis=-1).chunk(2)
        return (plain + flipped) / 2


class Scorer(Protocol):
    """What `measure` takes: a network with its normalisation, or an exported model."""

    def scores(self, batch: np.ndarray) -> np.ndarray:
        """Map uint8 images `[N, S, S, 3]` to class probabilities, float32 `[N, classes]`."""
        ...


class NetworkScorer:
    """A `Scorer` of a network in the dynamic graph, see `Classifier`. It runs in evaluation mode."""

    def __init__(self, network: nn.Layer, normalize: nn.Layer, *, flip: bool = False) -> None:
        self.classifier = Classifier(normalize, network, flip=flip)

    def scores(self, batch: np.ndarray) -> np.ndarray:
        network = self.classifier.network
        was_training = network.training
        network.eval()
        try:
            with paddle.no_grad():
                return self.classifier(paddle.to_tensor(batch)).numpy()
        finally:
            if was_training:
                network.train()
