"""How large a loss's gradient is in each convolution of a network."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional


@dataclass(frozen=True)
class LayerGradients:
    """The gradient of one batch's loss, layer by layer from the images on.

    Attributes:
        names: of the convolutions, as in the state dict.
        norms: ``norm(dL/dW)`` of each, float64.
        lengths: ``norm(W)`` of each, float64.
        loss: of the batch, in nats.
    """

    names: tuple[str, ...]
    norms: np.ndarray
    lengths: np.ndarray
    loss: float

    @property
    def relative(self) -> np.ndarray:
        """By what share a step of learning rate 1 would change each convolution: ``norm(dL/dW) / norm(W)``."""
        return self.norms / self.lengths

    @property
    def scale_free(self) -> np.ndarray:
        """``norm(dL/dW) norm(W)``: before BatchNorm, weights a times as long have 1/a of the gradient, and so the same.

        What this leaves is how much of the gradient has come back to a layer, however long its weights have grown.
        """
        return self.norms * self.lengths

    @property
    def first_to_last(self) -> float:
        """How many times as large it is in the first convolution as in the last."""
        return float(self.relative[0] / self.relative[-1])

    @property
    def growth(self) -> float:
        """The factor for each layer nearer to the images: of the straight line that fits the logarithms best.

        Below 1 the gradient vanishes on its way back, above 1 it explodes. NaN where one is zero or no number.
        """
        if not (np.isfinite(self.relative).all() and self.relative.all()):
            return math.nan
        slope, _ = np.polyfit(np.arange(len(self.relative)), np.log(self.relative), 1)
        return float(np.exp(-slope))


def measure_gradients(network: nn.Layer, images: paddle.Tensor, labels: paddle.Tensor) -> LayerGradients:
    """Take the gradient of one batch in training mode: weights stay, running statistics move, no gradient is left.

    Args:
        network: whose convolutions all lie on one way from the images to the answer, as in `PlainBlock`'s and, with
            shortcuts of option A, in `BasicBlock`'s networks.
        images: float32 ``[N, 3, S, S]``.
        labels: int64 ``[N, 1]``.
    """
    network.train()
    network.clear_gradients()
    loss = functional.cross_entropy(network(images), labels)
    loss.backward()
    weights = {name: layer.weight for name, layer in network.named_sublayers() if isinstance(layer, nn.Conv2D)}
    norms = np.array([_norm(weight.grad) for weight in weights.values()])
    lengths = np.array([_norm(weight) for weight in weights.values()])
    network.clear_gradients()
    return LayerGradients(tuple(weights), norms, lengths, float(loss.item()))


def without_batch_norm(network: nn.Layer) -> nn.Layer:
    """Put the identity in the place of every BatchNorm, in place; return the network."""
    for layer in network.sublayers(include_self=True):
        for name, child in list(layer.named_children()):
            if isinstance(child, nn.BatchNorm2D):
                setattr(layer, name, nn.Identity())
    return network


def _norm(tensor: paddle.Tensor) -> float:
    # In float64: the square of a gradient that explodes has no place in float32.
    return float(np.linalg.norm(tensor.numpy().astype(np.float64)))
