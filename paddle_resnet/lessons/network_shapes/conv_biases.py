"""The effect of biases in convolutions with and without a BatchNorm behind them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import paddle
from paddle import nn

from paddle_resnet.lessons.common.small_cnn import ignore_batch_norm_warning
from paddle_resnet.models import ImageClassifier

IMAGES = 8


@dataclass(frozen=True)
class BiasEffects:
    """Root mean square change of the scores by random biases, relative to the scores' standard deviation."""

    before_norm: float
    on_shortcuts: float


def conv_biases(network: ImageClassifier) -> dict[str, int]:
    """Return the sizes of the convolutions' biases by name."""
    return {
        f"{name}.bias": layer.bias.size
        for name, layer in network.named_sublayers()
        if isinstance(layer, nn.Conv2D) and layer.bias is not None
    }


def is_on_shortcut(name: str) -> bool:
    """Return whether a parameter belongs to a shortcut, by its name."""
    return "downsample" in name


def bias_effects(network: ImageClassifier, size: int, seed: int = 0) -> BiasEffects:
    """Measure the effect of random biases of deviation 1 in training mode, on random images of `size` pixels a side.

    In `network`, a BatchNorm follows every convolution except those of the shortcuts. Its biases are changed.
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
@ignore_batch_norm_warning()
def _scores(network: ImageClassifier, images: np.ndarray) -> np.ndarray:
    return network(paddle.to_tensor(images)).numpy()
