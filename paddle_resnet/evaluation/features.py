"""What a network makes of images before its last layer."""

from __future__ import annotations

import numpy as np
import paddle
from paddle import nn

from paddle_resnet.models import ImageClassifier


def features_of(network: ImageClassifier, normalize: nn.Layer, images: np.ndarray) -> np.ndarray:
    """Uint8 images `[N, S, S, 3]` to what `fc` takes, float32 `[N, num_features]`; the network is in eval mode."""
    seen: list[np.ndarray] = []
    hook = network.fc.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].numpy()))
    try:
        with paddle.no_grad():
            network(normalize(paddle.to_tensor(images)))
    finally:
        hook.remove()
    return seen[0]
