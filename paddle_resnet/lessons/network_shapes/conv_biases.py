"""What the biases of convolutions do where a BatchNorm follows, and where none does."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import paddle
from paddle import nn

from paddle_resnet.models import ImageClassifier

IMAGES = 8


@dataclass(frozen=True)
class BiasEffects:
    """Root mean square change of the scores by random biases, in parts of the scores' own spread."""

    before_norm: float
    on_shortcuts: float


def conv_biases(network: ImageClassifier) -> dict[str, int]:
    """The biases of convolutions by name, with their size."""
    return {
        f"{name}.bias": layer.bias.size
        for name, layer in network.named_sublayers()
        if isinstance(layer, nn.Conv2D) and layer.bias is not None
    }


def is_on_shortcut(name: str) -> bool:
    """Whether a parameter belongs to a shortcut, by its name."""
    return "downsample" in name


def bias_effects(network: ImageClassifier, size: int, seed: int = 0) -> BiasEffects:
    """Measure in training mode what random biases of deviation 1 change, on random images of `size` pixels a side.

    The network is the book's: a BatchNorm follows every convolution but those of the shortcuts. It is changed.
    """
    generator = np.random.default_rng(seed)
    network.train()
    images = generator.normal(size=(IMAGES, network.in_channels, size, size)).astype(np.float32)
    names = list(conv_biases(network))

    def effect(chosen: Iterable[str]) -> float:
        before = _scores(network, images)
        state = network.state_dict()
        for name in chosen:
            state[name].set_value(generator.normal(size=state[name].shape).astype(np.float32))
        return float(np.sqrt(np.mean((_scores(network, images) - before) ** 2)) / before.std())

    before_norm = effect(name for name in names if not is_on_shortcut(name))
    return BiasEffects(before_norm, on_shortcuts=effect(name for name in names if is_on_shortcut(name)))


@paddle.no_grad()
def _scores(network: ImageClassifier, images: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():
        # Paddle says so whenever BatchNorm goes from evaluation to training.
        warnings.filterwarnings("ignore", "When training, we now always track", UserWarning)
        return network(paddle.to_tensor(images)).numpy()
