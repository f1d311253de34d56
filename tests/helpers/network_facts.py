"""A network's arrays and depth."""

from __future__ import annotations

import numpy as np
from paddle import nn


def arrays(network: nn.Layer) -> dict[str, np.ndarray]:
    """Return copies of the state dict's tensors."""
    return {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}


def papers_depth(network: nn.Layer) -> int:
    """Count convolutions and linear layers outside of shortcuts, as the papers count depth."""
    return sum(
        isinstance(layer, nn.Conv2D | nn.Linear) and "downsample" not in name
        for name, layer in network.named_sublayers()
    )
