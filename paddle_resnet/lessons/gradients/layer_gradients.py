"""The networks of the lesson on gradients, and the norm of the loss's gradient in each of their convolutions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional

from paddle_resnet.config import Config
from paddle_resnet.data import TrainLoader, open_splits
from paddle_resnet.lessons.common.training_loop import make_train_loader
from paddle_resnet.lessons.framework.effort import Effort
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.lessons.framework.texts import Text
from paddle_resnet.models import ImageClassifier, create_model


@dataclass(frozen=True)
class LayerGradients:
    """The gradient of one batch's loss, by convolution from the input on.

    Attributes:
        names: of the convolutions, as in the state dict.
        norms: ``norm(dL/dW)`` of each, float64.
        weight_norms: ``norm(W)`` of each, float64.
        loss: of the batch, in nats.
    """

    names: tuple[str, ...]
    norms: np.ndarray
    weight_norms: np.ndarray
    loss: float

    @property
    def relative(self) -> np.ndarray:
        """Relative change of each convolution by an SGD step of learning rate 1: ``norm(dL/dW) / norm(W)``."""
        return self.norms / self.weight_norms

    @property
    def scale_free(self) -> np.ndarray:
        """``norm(dL/dW) norm(W)``, which scaling the weights before a BatchNorm does not change."""
        return self.norms * self.weight_norms

    @property
    def first_to_last(self) -> float:
        return float(self.relative[0] / self.relative[-1])

    @property
    def growth(self) -> float:
        """Factor per layer towards the input, from a straight line through the logarithms.

        Below 1 the gradient vanishes on its way back, above 1 it explodes. NaN if a gradient is zero or not finite.
        """
        if not (np.isfinite(self.relative).all() and self.relative.all()):
            return math.nan
        slope, _ = np.polyfit(np.arange(len(self.relative)), np.log(self.relative), 1)
        return float(np.exp(-slope))


def measure_gradients(network: nn.Layer, images: paddle.Tensor, labels: paddle.Tensor) -> LayerGradients:
    """Compute the gradient of one batch in training mode. It updates running statistics and clears the gradients.

    Args:
        network: its convolutions form one sequence, as in networks of `PlainBlock`, or of `BasicBlock` with shortcuts
            of option A.
        images: float32 ``[N, 3, S, S]``.
        labels: int64 ``[N, 1]``.
    """
    network.train()
    network.clear_gradients()
    loss = functional.cross_entropy(network(images), labels)
    loss.backward()
    weights = {name: layer.weight for name, layer in network.named_sublayers() if isinstance(layer, nn.Conv2D)}
    norms = np.array([_norm(weight.grad) for weight in weights.values()])
    weight_norms = np.array([_norm(weight) for weight in weights.values()])
    network.clear_gradients()
    return LayerGradients(tuple(weights), norms, weight_norms, float(loss.item()))


def without_batch_norm(network: nn.Layer) -> nn.Layer:
    """Replace every BatchNorm by an identity, in place; return the network."""
    for layer in network.sublayers(include_self=True):
        for name, child in list(layer.named_children()):
            if isinstance(child, nn.BatchNorm2D):
                setattr(layer, name, nn.Identity())
    return network


def _norm(tensor: paddle.Tensor) -> float:
    # In float64, because the square of an exploding gradient overflows float32.
    return float(np.linalg.norm(tensor.numpy().astype(np.float64)))


KINDS = ("plain", "resnet")
BATCH_SIZE = 32
IMAGE_SIZE = 32
SEED = 0

NetworkKey: TypeAlias = tuple[str, int]
"""Kind and depth of a network."""


def image_loader(effort: Effort) -> TrainLoader:
    """Load batches of the digits, or of CIFAR-10 in the full form, in a fixed random order.

    Raises:
        UsageError: CIFAR-10 is missing and cannot be downloaded.
    """
    data = {"source": "cifar10" if effort.full else "digits", "image_size": IMAGE_SIZE}
    config = Config.from_values({"data": data}, effort.overrides).data
    return make_train_loader(open_splits(config), BATCH_SIZE, config.image_size, SEED)


def make_network(key: NetworkKey, *, batch_norm: bool = True) -> ImageClassifier:
    """Make a network with the initial weights of a fixed seed; without `batch_norm`, each BatchNorm is an identity."""
    kind, depth = key
    paddle.seed(SEED)
    network = create_model(f"{kind}{depth}")
    return network if batch_norm else without_batch_norm(network)


def format_factor(value: float) -> str:
    """Format a factor with three digits, or as a power of ten from 1000 on."""
    return f"{value:.3g}" if value < 1000 else f"{value:.1e}"


def join_names(page: Page, names: Sequence[str]) -> Sequence[str] | Text:
    """Return the names, or "none of them" for an empty list."""
    return names or page.text("none_of_them")


def record_gradients(page: Page, name: str, gradients: LayerGradients) -> None:
    """Record the gradients of one network under names that begin with `name`."""
    for attribute in ("norms", "relative", "first_to_last", "growth", "loss"):
        page.record(**{f"{name}_{attribute}": getattr(gradients, attribute)})
