"""A network's arrays and depth."""

from __future__ import annotations

import numpy as np
from paddle import nn


def arrays(network: nn.Layer) -> dict[str, np.ndarray]:
    """Return copies of the state dict's tensors."""
    return {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}


def assert_same(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Check that two state dicts have the same names in the same order, and equal arrays."""
    assert list(got) == list(expected), (list(got), list(expected))
    for key in expected:
        np.testing.assert_array_equal(got[key], expected[key])


def papers_depth(network: nn.Layer) -> int:
    """Count convolutions and linear layers outside of shortcuts, as the papers count depth."""
    return sum(
        isinstance(layer, nn.Conv2D | nn.Linear) and "downsample" not in name
        for name, layer in network.named_sublayers()
    )
