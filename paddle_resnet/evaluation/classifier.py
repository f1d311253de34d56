"""A trained network as it answers: raw pixels in, probabilities out. What is measured here is what is exported."""

from __future__ import annotations

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
