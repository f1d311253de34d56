"""Whatever answers raw pixels with class probabilities, to be measured and exported."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import paddle
from paddle import nn


class Classifier(nn.Layer):
    """Uint8 `[N, S, S, 3]` to probabilities `[N, classes]`: normalise, forward, softmax.

    With `flip`, the mean of an image's probabilities and of its mirror image's (Krizhevsky 2012, section 4.1); both
    pass through the network in one batch of 2N.
    """

    def __init__(self, normalize: nn.Layer, network: nn.Layer, *, flip: bool = False) -> None:
        super().__init__()
        self.normalize = normalize
        self.network = network
        self.flip = flip

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        """Return the class probabilities of raw pixels."""
        inputs = self.normalize(images)
        if not self.flip:
            return nn.functional.softmax(self.network(inputs), axis=-1)
        both = paddle.concat([inputs, inputs.flip(axis=[3])])
        as_is, mirrored = nn.functional.softmax(self.network(both), axis=-1).chunk(2)
        return (as_is + mirrored) / 2


class Scorer(Protocol):
    """What can be measured: a network with its normalisation, or an exported model."""

    def scores(self, batch: np.ndarray) -> np.ndarray:
        """Answer uint8 images `[N, S, S, 3]` with class probabilities, float32 `[N, classes]`."""
        ...


class NetworkScorer:
    """A network of the dynamic graph as a `Scorer`; `Classifier` says what it computes."""

    def __init__(self, network: nn.Layer, normalize: nn.Layer, *, flip: bool = False) -> None:
        self.classifier = Classifier(normalize, network, flip=flip)

    def scores(self, batch: np.ndarray) -> np.ndarray:
        """Answer uint8 images `[N, S, S, 3]` with class probabilities, float32 `[N, classes]`."""
        network = self.classifier.network
        was_training = network.training
        network.eval()
        try:
            with paddle.no_grad():
                return self.classifier(paddle.to_tensor(batch)).numpy()
        finally:
            if was_training:
                network.train()
